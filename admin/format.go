package admin

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// unknown stands where there is no figure.
const unknown = "–"

// mostText is how many characters of a peer's text a page shows.
const mostText = 96

// clean makes a text of the peer's fit for a page and a terminal: what is not printed, such as
// escape sequences and characters that turn the direction of writing, is shown as an escape.
func clean(s string) string { return cleanTo(s, mostText) }

// cleanTo is clean for a text of any length.
func cleanTo(s string, most int) string {
	var b strings.Builder
	n := 0
	for i, r := range s {
		if n++; n > most {
			b.WriteString("…")
			break
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			_, size := utf8.DecodeRuneInString(s[i:])
			q := strconv.Quote(s[i : i+size])
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// count writes a number with its thousands apart.
func count[T int | int64 | uint64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// short writes a number in four or five characters, with a prefix: 12, 4.57 k, 1.2 M.
func short(v float64, prefixes string, base float64) string {
	i := 0
	for v >= 999.5 && i < len(prefixes)-1 {
		v /= base
		i++
	}
	digits := 0
	if i > 0 || v != math.Trunc(v) {
		digits = max(0, 2-int(math.Log10(max(v, 1))))
	}
	s := strconv.FormatFloat(v, 'f', digits, 64)
	return strings.TrimSpace(s + " " + strings.TrimSpace(prefixes[i:i+1]))
}

// rate writes a number a second; below 0 it is not known.
func rate(v float64) string {
	switch {
	case v < 0:
		return unknown
	case v < 10:
		return strconv.FormatFloat(v, 'f', min(1, len(strconv.FormatFloat(v, 'f', -1, 64))-1), 64)
	}
	return short(v, " kMGT", 1000)
}

// size writes bytes.
func size(v float64) string {
	if v < 0 {
		return unknown
	}
	s := short(math.Trunc(v), " KMGT", 1024)
	if last := s[len(s)-1]; last > '9' {
		return s + "iB"
	}
	return s + " B"
}

// duration writes a time in its two largest units.
func duration(d time.Duration) string {
	neg := ""
	if d < 0 {
		neg, d = "-", -d
	}
	switch {
	case d == 0:
		return "0 s"
	case d < time.Microsecond:
		return neg + strconv.Itoa(int(d)) + " ns"
	case d < time.Millisecond:
		return neg + strconv.Itoa(int(d/time.Microsecond)) + " µs"
	case d < time.Second:
		return neg + strconv.Itoa(int(d/time.Millisecond)) + " ms"
	case d < 10*time.Second:
		return neg + strconv.FormatFloat(math.Trunc(d.Seconds()*10)/10, 'f', 1, 64) + " s"
	case d < time.Minute:
		return neg + strconv.Itoa(int(d/time.Second)) + " s"
	case d < time.Hour:
		return neg + two(int(d/time.Minute), "m", int(d/time.Second)%60, "s")
	case d < 24*time.Hour:
		return neg + two(int(d/time.Hour), "h", int(d/time.Minute)%60, "m")
	}
	return neg + two(int(d/(24*time.Hour)), "d", int(d/time.Hour)%24, "h")
}

// two writes a time with digits that stay where they are.
func two(a int, unit string, b int, below string) string {
	s := strconv.Itoa(a) + unit + " "
	if b < 10 {
		s += "0"
	}
	return s + strconv.Itoa(b) + below
}

// clock writes when something was, with the day unless that is today's.
func clock(at, now time.Time) string {
	if at.YearDay() == now.YearDay() && at.Year() == now.Year() {
		return at.Format("15:04:05")
	}
	return at.Format("Jan 2 15:04")
}

// yes writes a truth.
func yes(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

// plural writes a number of things.
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + one + "s"
}
