package units

import "testing"

func TestByteCount(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "64": 64, "1K": 1024, "1KiB": 1024, "1500": 1500, "4M": 4 << 20, "2GB": 2 << 30, "12B": 12,
	} {
		var b Bytes
		if err := b.Set(text); err != nil || int64(b) != want {
			t.Errorf("%q is %d (%v), want %d", text, int64(b), err, want)
		}
		var again Bytes
		if err := again.Set(b.String()); err != nil || again != b {
			t.Errorf("%q prints as %q, which is %d (%v)", text, b.String(), again, err)
		}
	}
	for _, text := range []string{"", "K", "-1", "1.5M", "1X", "1Ki B", "9999999999G", "1MK"} {
		var b Bytes
		if err := b.Set(text); err == nil {
			t.Errorf("%q is taken for %d", text, b)
		}
	}
}

func TestNumbersAreFormatted(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := Grouped(n); got != want {
			t.Errorf("%d is written %s", n, got)
		}
	}
	for n, want := range map[int64]string{64: "64 B", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 5 << 29: "2.50 GiB"} {
		if got := InBytes(n); got != want {
			t.Errorf("%d bytes are written %s", n, got)
		}
	}
}
