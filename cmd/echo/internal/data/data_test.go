package data

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
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
					if from != at || size < 1 || size > MaxMixed {
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

func TestWhatComesBackIsChecked(t *testing.T) {
	part := Repeated(2, 100, 3)[1]
	n := 0
	for m := range part.Messages() {
		p := make([]byte, m.Size)
		if err := m.Read(p); err != nil {
			t.Fatal(err)
		}
		if err := m.Check(p); err != nil {
			t.Errorf("message %d as it was sent: %v", n, err)
		}
		for name, got := range map[string][]byte{
			"shorter": p[:99], "longer": append(bytes.Clone(p), 0), "empty": nil, "another": generated(9).bytes(100),
		} {
			if err := m.Check(got); err == nil || !strings.Contains(err.Error(), "other bytes came back") {
				t.Errorf("message %d, %s: %v", n, name, err)
			}
		}
		if m.Number != n {
			t.Errorf("message %d has the number %d", n, m.Number)
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d messages, want 3", n)
	}
}

func TestATruncatedFileIsNoticed(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, generated(1).bytes(5000), 0o600); err != nil {
		t.Fatal(err)
	}
	f, size, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(name, 2500); err != nil {
		t.Fatal(err)
	}
	good, bad := 0, 0
	for m := range Even(f, size, 1, 1000)[0].Messages() {
		err := m.Read(make([]byte, m.Size))
		switch {
		case err == nil:
			good++
		case strings.Contains(err.Error(), "shorter"):
			bad++
		default:
			t.Error(err)
		}
	}
	if good != 2 || bad != 3 {
		t.Errorf("%d messages are there and %d are not, want 2 and 3", good, bad)
	}
}

func TestOpenTakesFilesOnly(t *testing.T) {
	if _, _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a file with a length") {
		t.Errorf("a directory: %v", err)
	}
}
