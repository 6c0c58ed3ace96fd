package kernel

import (
	"cmp"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/internal/timers"
)

// crowd makes room where a server has as many streams as it may have, and a connection with
// few is refused one: those with the most lose some.
type crowd struct {
	s     *Server
	timer timers.Timer
	asked atomic.Bool // the timer is set
}

const (
	// crowdPause is between a refusal and what it causes, and between two of those.
	crowdPause = 5 * time.Millisecond
	// crowdMost is how many streams end for it at a time: others wait for their handlers.
	crowdMost = 64
	// fewStreams is how many a connection has at most that room is made for.
	fewStreams = 8
)

// refused is called when c was refused a stream.
func (d *crowd) refused(c *Conn) {
	if c.ownStreams() <= fewStreams && !d.asked.Swap(true) {
		d.s.timers.Set(&d.timer, d, time.Now().Add(crowdPause))
	}
}

// roomForFew is how many of most streams have to be left for mayOpen to let a connection open
// one that has fewStreams.
func roomForFew(most int) int {
	return min(int(math.Ceil(math.Sqrt(float64(fewStreams)*float64(most)))), max(most/2, 1))
}

// Expire implements timers.Owner.
func (d *crowd) Expire(*timers.Timer, time.Time) {
	d.asked.Store(false)
	s := d.s
	most := s.mostStreams()
	need := min(roomForFew(most)-s.streamsLeft(most), crowdMost)
	if need <= 0 {
		return
	}
	type has struct {
		c *Conn
		n int
	}
	var all []has
	for _, c := range s.Conns() {
		if n := c.c.KeptStreams(); n > 2*fewStreams {
			all = append(all, has{c, n})
		}
	}
	slices.SortFunc(all, func(x, y has) int { return cmp.Compare(y.n, x.n) })
	// level is how many each may keep: the first k give what they have beyond it.
	level, sum := 0, 0
	for k, h := range all {
		sum += h.n
		next := 2 * fewStreams
		if k+1 < len(all) {
			next = all[k+1].n
		}
		if level = max((sum-need)/(k+1), 2*fewStreams); level >= next {
			break
		}
	}
	for _, h := range all {
		if h.n <= level {
			break
		}
		s.evicted.Add(uint64(h.c.c.EvictNewest(h.n - level)))
	}
}
