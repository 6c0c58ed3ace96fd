package compress

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/pool"
)

func TestMain(m *testing.M) { leak.Main(m) }

var codecs = []pool.Compression{pool.Gzip, pool.Zstd}

func text(n int) []byte {
	return bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog; "), n/45+1)[:n]
}

func noise(n int) []byte {
	p := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(p)
	return p
}

// What is packed comes out as it was, behind its head.
func TestPackAndUnpack(t *testing.T) {
	for _, c := range codecs {
		for _, n := range []int{128, 1000, 4 << 10, 64 << 10, 300_000, 5 << 20} {
			p := text(n)
			m := Pack(c, []byte("head"), p)
			if m.IsZero() || m.Len() >= n {
				t.Errorf("%s of %d bytes: %d bytes", c, n, m.Len())
				continue
			}
			body, ok := bytes.CutPrefix(m.Bytes(), []byte("head"))
			u, err := Unpack(c, body, n)
			if !ok || err != nil || !bytes.Equal(u.Bytes(), p) {
				t.Errorf("%s of %d bytes: %v", c, n, err)
			}
			m.Release()
			u.Release()
		}
	}
}

// What would not become shorter is left alone.
func TestPackLeavesWhatDoesNotShrink(t *testing.T) {
	for _, c := range codecs {
		for _, p := range [][]byte{nil, []byte("a"), noise(100), noise(64 << 10), noise(1 << 20)} {
			if m := Pack(c, []byte("head"), p); !m.IsZero() {
				t.Errorf("%s of %d bytes: %d bytes", c, len(p), m.Len())
				m.Release()
			}
		}
	}
	if m := Pack(99, nil, text(1000)); !m.IsZero() {
		t.Errorf("an unknown compression: %d bytes", m.Len())
	}
}

// A length that is not that of the content, a damaged end and bytes behind it are errors.
func TestUnpackRefuses(t *testing.T) {
	for _, c := range codecs {
		m := Pack(c, nil, text(100_000))
		p := m.Bytes()
		for _, x := range []struct {
			name  string
			p     []byte
			total int
			want  error
		}{
			{"more than said", p, 99_999, nil},
			{"nothing said", p, 0, nil},
			{"less than said", p, 100_001, nil},
			{"far less than said", p[:8], 1 << 30, ErrLength},
			{"cut", p[:len(p)/2], 100_000, nil},
			{"bytes behind", append(bytes.Clone(p), "abc"...), 100_000, nil},
			{"noise", noise(len(p)), 100_000, nil},
			{"empty", nil, 1, nil},
		} {
			u, err := Unpack(c, x.p, x.total)
			if err == nil || x.want != nil && !errors.Is(err, x.want) || strings.Contains(err.Error(), "EOF") {
				t.Errorf("%s, %s: %d bytes, %v", c, x.name, u.Len(), err)
			}
			u.Release()
		}
		m.Release()
	}
	if _, err := Unpack(99, text(100), 100); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown compression: %v", err)
	}
}

// A message that holds far more than it says takes memory for what it says.
func TestUnpackBoundsMemory(t *testing.T) {
	for _, c := range codecs {
		bomb := Pack(c, nil, make([]byte, 256<<20))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Unpack(c, bomb.Bytes(), 1<<20)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", c)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
			t.Errorf("%s: %d bytes allocated for %d", c, n, 1<<20)
		}
		bomb.Release()
	}
}

// Programs test with several synctest bubbles, which can't share channels.
func TestBubblesShareCompressors(t *testing.T) {
	for range 3 {
		synctest.Test(t, func(t *testing.T) {
			for _, c := range codecs {
				m := Pack(c, nil, text(1000))
				u, err := Unpack(c, m.Bytes(), 1000)
				if err != nil {
					t.Error(err)
				}
				m.Release()
				u.Release()
			}
		})
	}
}

// FuzzUnpack: no input makes more than its length says, or panics.
func FuzzUnpack(f *testing.F) {
	for _, c := range codecs {
		m := Pack(c, nil, text(500))
		f.Add(byte(c), m.Bytes(), 500)
		f.Add(byte(c), m.Bytes()[:20], 500)
		f.Add(byte(c), append(bytes.Clone(m.Bytes()), m.Bytes()...), 1000)
	}
	f.Fuzz(func(t *testing.T, c byte, p []byte, total int) {
		if total < 0 || total > 1<<20 {
			return
		}
		m, err := Unpack(pool.Compression(c), p, total)
		if err == nil && m.Len() != total {
			t.Errorf("%d bytes, want %d", m.Len(), total)
		}
		m.Release()
	})
}

func BenchmarkPack(b *testing.B) {
	for _, c := range codecs {
		b.Run(c.String(), func(b *testing.B) {
			p := text(64 << 10)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				Pack(c, nil, p).Release()
			}
		})
	}
}

func BenchmarkUnpack(b *testing.B) {
	for _, c := range codecs {
		b.Run(c.String(), func(b *testing.B) {
			m := Pack(c, nil, text(64<<10))
			b.SetBytes(64 << 10)
			b.ReportAllocs()
			for b.Loop() {
				u, err := Unpack(c, m.Bytes(), 64<<10)
				if err != nil {
					b.Fatal(err)
				}
				u.Release()
			}
		})
	}
}
