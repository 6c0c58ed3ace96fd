// Package units reads and writes numbers of bytes, and writes large numbers.
package units

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bytes is a flag for a number of bytes: 4096, 64K, 4M, 1G. A unit is 1,024 of the one
// before.
type Bytes int64

// String implements flag.Value.
func (b *Bytes) String() string {
	n, unit := int64(*b), ""
	for _, u := range []string{"K", "M", "G"} {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, u
	}
	return strconv.FormatInt(n, 10) + unit
}

var errBytes = errors.New("want a number of bytes such as 4096, 64K, 4M or 1G")

// Set implements flag.Value.
func (b *Bytes) Set(text string) error {
	digits := strings.TrimRight(text, "KMGiB")
	shift, ok := map[string]uint{
		"": 0, "B": 0, "K": 10, "KB": 10, "KiB": 10, "M": 20, "MB": 20, "MiB": 20, "G": 30, "GB": 30, "GiB": 30,
	}[text[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 0 || n > 1<<62>>shift {
		return errBytes
	}
	*b = Bytes(n << shift)
	return nil
}

// Grouped writes 1234567 as 1,234,567.
func Grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// InBytes writes a number of bytes with a unit: 64 B, 1.5 MiB.
func InBytes(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
}
