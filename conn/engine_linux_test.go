package conn

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// The same on an event loop, which goes on for other connections.
func TestAPanicOnALoopIsReported(t *testing.T) {
	lc := &loopConn{}
	wantPanicTold(t, func(c *Conn, p []byte) bool {
		lc.c = c
		return lc.input(p)
	})
	if lc.input(nil) {
		t.Error("the loop goes on passing input to the connection")
	}
}

// A gathered write takes a part of what there is, cuts a piece where that part ends, and leaves
// the pieces as they were.
func TestGatheredWrites(t *testing.T) {
	for _, c := range []struct {
		name   string
		pieces []int
		first  int // bytes of the first write
	}{
		{"one piece", []int{100_000}, 100_000},
		{"short pieces", []int{9, 100, 9, 100}, 218},
		{"up to the limit", []int{9, maxWrite - 9, 9, 100}, maxWrite},
		{"cut", []int{9, 50_000, 9, 50_000}, maxWrite},
		{"cut at a boundary", []int{maxWrite, 9}, maxWrite},
		{"the first is too long", []int{100_000, 9}, maxWrite},
		{"empty pieces", []int{0, 9, 0, 10}, 19},
		{"many pieces", repeat(1, 2*maxIovs), maxIovs},
	} {
		t.Run(c.name, func(t *testing.T) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fds[0])
			defer unix.Close(fds[1])
			var v [][]byte
			var want []byte
			for _, n := range c.pieces {
				p := make([]byte, n)
				for i := range p {
					p[i] = byte(rand.Int())
				}
				v, want = append(v, p), append(want, p...)
			}
			var got []byte
			for first := true; len(v) > 0; first = false {
				n, err := writev(fds[0], v)
				if err != nil {
					t.Fatal(err)
				}
				if first && n != c.first {
					t.Errorf("%d bytes were written first, want %d", n, c.first)
				}
				v = consume(v, n)
				p := make([]byte, 200_000)
				if n, err = unix.Read(fds[1], p); err != nil {
					t.Fatal(err)
				}
				got = append(got, p[:n]...)
			}
			if !bytes.Equal(got, want) {
				t.Error("what came is not what was written")
			}
		})
	}
}

func repeat(n, times int) []int {
	ns := make([]int, times)
	for i := range ns {
		ns[i] = n
	}
	return ns
}
