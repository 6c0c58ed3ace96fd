package triple

import (
	"strconv"
	"time"
)

// parseTimeout parses a grpc-timeout: at most 8 digits, and a unit. Zero is 0; what is too
// short to be counted is a nanosecond.
func parseTimeout(v string) (time.Duration, bool) {
	if v == "" {
		return 0, true
	}
	n := len(v) - 1
	if n < 1 || n > 8 {
		return 0, false
	}
	u, err := strconv.ParseUint(v[:n], 10, 32)
	if err != nil || v[0] == '+' {
		return 0, false
	}
	unit := timeUnit(v[n])
	if unit == 0 {
		return 0, false
	}
	if u > uint64(longest/unit) {
		return longest, true
	}
	return max(time.Duration(u)*unit, 1), true
}

// longest is the longest time that is told apart: 10^8 hours are more than 63 bits hold.
const longest = time.Duration(1 << 62)

func timeUnit(c byte) time.Duration {
	switch c {
	case 'H':
		return time.Hour
	case 'M':
		return time.Minute
	case 'S':
		return time.Second
	case 'm':
		return time.Millisecond
	case 'u':
		return time.Microsecond
	case 'n':
		return time.Nanosecond
	}
	return 0
}

// appendTimeout appends d as a grpc-timeout, rounded up, in the smallest unit in which it
// has at most 8 digits.
func appendTimeout(b []byte, d time.Duration) []byte {
	const most = 99_999_999
	for _, c := range []byte("numSMH") {
		unit := timeUnit(c)
		n := int64((d + unit - 1) / unit)
		if d > longest {
			n = int64(d / unit)
		}
		if n <= most {
			return append(strconv.AppendInt(b, n, 10), c)
		}
	}
	return append(b, "99999999H"...)
}
