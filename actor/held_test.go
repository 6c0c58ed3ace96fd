package actor

import (
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

func (l *fakeLink) beside() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// What a reader of In leaves in its buffer is held, and counted: several messages as they come, one
// when somebody looks. What was taken is counted until then.
func TestWhatIsInInsBufferIsCounted(t *testing.T) {
	for name, c := range map[string]struct {
		sizes []int
		told  bool // as they come
	}{
		"many":                     {[]int{1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000}, true},
		"one":                      {[]int{8000}, false},
		"a large one":              {[]int{100_000}, true},
		"a large one among others": {[]int{1000, 100_000, 1000}, true},
		"more than have room":      {[]int{8000, 8000, 8000, 8000}, true},
	} {
		bubble(t, name, func(t *testing.T) {
			x := newPaced(t, frame.Reported, func(c *Config) { c.Window, c.MaxReceive = 1<<20, 1<<20 })
			in := x.s.In()
			if err := x.arrive(c.sizes...); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			sum, buffered := 0, 0
			for _, n := range c.sizes {
				sum += n
			}
			if n := x.link.beside(); c.told && n < sum/2 || !c.told && n != 0 {
				t.Errorf("%d bytes of %d are counted as they come", n, sum)
			}
			var a pool.Arena
			x.s.Compact(&a)
			if n := x.link.beside(); n < 8000 || n > 2*sum+40_000 {
				t.Errorf("%d bytes of %d are counted when somebody looks", n, sum)
			}
			for range c.sizes {
				m := <-in
				buffered += m.Len()
				m.Release()
			}
			if buffered != sum {
				t.Errorf("%d bytes of %d have come", buffered, sum)
			}
			synctest.Wait()
			if n := x.s.Held(); n != 0 || x.link.beside() != 0 {
				t.Errorf("%d bytes are held, %d counted, when all is taken", n, x.link.beside())
			}
			x.end()
		})
	}
}
