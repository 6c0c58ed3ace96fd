package programs

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Whatever a program does with our client, on whatever wire: our server does not end its
// connections, nothing is lost that was said to be sent, nothing comes twice or out of order,
// no failure looks like an end in order, whoever waits is told, and in the end nothing is left.
// It runs for 10 s; -for says how long, -seed which program. A program's random numbers follow
// from its seed, the order of what its goroutines do does not: -count repeats it.
func TestRandomProgramsTripNoServer(t *testing.T) {
	share := *runFor / time.Duration(2*len(wires))
	for i := range wires {
		w := &wires[i]
		t.Run(w.name, func(t *testing.T) {
			t.Run("memory", func(t *testing.T) {
				each(t, share, func(t *testing.T, seed uint64) {
					synctest.Test(t, func(t *testing.T) { program(t, w, seed, true) })
				})
			})
			t.Run("sockets", func(t *testing.T) {
				each(t, share, func(t *testing.T, seed uint64) { program(t, w, seed, false) })
			})
		})
	}
}

// each runs one program after another until the time is over or three have failed.
func each(t *testing.T, d time.Duration, f func(t *testing.T, seed uint64)) {
	n, failed := uint64(0), 0
	for begun := time.Now(); n == 0 || time.Since(begun) < d && *seed == 0; {
		s := *seed
		if s == 0 {
			s = *from + n
		}
		n++
		if !t.Run(fmt.Sprint(s), func(t *testing.T) { f(t, s) }) {
			t.Logf("once more: go test ./internal/programs -run %s -seed %d", t.Name(), s)
			if failed++; failed == 3 {
				return
			}
		}
	}
	t.Logf("%d programs", n)
}
