package main

import (
	"bytes"
	"testing"
)

func (d generated) bytes(n int) []byte {
	p := make([]byte, n)
	_, _ = d.ReadAt(p, 0)
	return p
}

func TestGeneratedBytesDependOnTheirOffsetOnly(t *testing.T) {
	whole := generated(5).bytes(1000)
	for off := range 40 {
		for n := range 40 {
			p := make([]byte, n)
			if _, err := generated(5).ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, whole[off:off+n]) {
				t.Fatalf("%d bytes from %d on differ from the same in one piece (%v)", n, off, err)
			}
		}
	}
	if bytes.Equal(whole, generated(6).bytes(1000)) {
		t.Error("another seed makes the same bytes")
	}
	if bytes.Equal(whole[:500], whole[500:]) {
		t.Error("it repeats itself")
	}
}

func TestCutsCoverTheirRangeTheSameWayEachTime(t *testing.T) {
	const total = 50_000_000
	for name, cut := range map[string]func(off, n int64) cuts{
		"mixed": func(off, n int64) cuts { return mixed(off, n, 42) },
		"even":  func(off, n int64) cuts { return even(off, n, 100_000) },
	} {
		t.Run(name, func(t *testing.T) {
			at := int64(0)
			for i := range 3 {
				off, n := share(total, i, 3)
				if off != at {
					t.Fatalf("share %d begins at %d, the one before ended at %d", i, off, at)
				}
				c := cut(off, n)
				var first []int
				for from, size := range c {
					if from != at || size < 1 || size > maxMixed {
						t.Fatalf("a message of %d bytes at %d, want it at %d", size, from, at)
					}
					at += int64(size)
					first = append(first, size)
				}
				for _, size := range c {
					if len(first) == 0 || size != first[0] {
						t.Fatal("the second walk cuts otherwise than the first")
					}
					first = first[1:]
				}
			}
			if at != total {
				t.Errorf("%d bytes of %d are covered", at, total)
			}
		})
	}
}

func TestMixedCutsAreMixed(t *testing.T) {
	small, large := 0, 0
	for _, size := range mixed(0, 256<<20, 1) {
		switch {
		case size < 1<<10:
			small++
		case size > 1<<18:
			large++
		}
	}
	if small < 1000 || large < 200 {
		t.Errorf("%d messages below 1 KiB, %d above 256 KiB", small, large)
	}
}

func TestShareOfLittle(t *testing.T) {
	sum := int64(0)
	for i := range 4 {
		off, n := share(2, i, 4)
		if off < 0 || n < 0 || off+n > 2 {
			t.Errorf("share %d is %d from %d on", i, n, off)
		}
		sum += n
	}
	if sum != 2 {
		t.Errorf("%d bytes are shared out, not 2", sum)
	}
}

func TestByteCount(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "64": 64, "1K": 1024, "1KiB": 1024, "1500": 1500, "4M": 4 << 20, "2GB": 2 << 30, "12B": 12,
	} {
		var b byteCount
		if err := b.Set(text); err != nil || int64(b) != want {
			t.Errorf("%q is %d (%v), want %d", text, int64(b), err, want)
		}
		var again byteCount
		if err := again.Set(b.String()); err != nil || again != b {
			t.Errorf("%q prints as %q, which is %d (%v)", text, b.String(), again, err)
		}
	}
	for _, text := range []string{"", "K", "-1", "1.5M", "1X", "1Ki B", "9999999999G", "1MK"} {
		var b byteCount
		if err := b.Set(text); err == nil {
			t.Errorf("%q is taken for %d", text, b)
		}
	}
}

func TestNumbersAreFormatted(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is written %s", n, got)
		}
	}
	for n, want := range map[int64]string{64: "64 B", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 5 << 29: "2.50 GiB"} {
		if got := inBytes(n); got != want {
			t.Errorf("%d bytes are written %s", n, got)
		}
	}
}
