package kernel

import (
	"time"

	"github.com/sluicerpc/sluice/internal/timers"
)

// budget watches how much memory a server's connections hold, and takes steps
// as it comes near the limit: it accepts no more connections, refuses streams,
// resets the largest holders.
type budget struct {
	s     *Server
	timer timers.Timer
}

// watch begins, if there is a limit.
func (b *budget) watch(s *Server) {
	if b.s = s; s.limits.Memory != Unlimited {
		s.timers.Set(&b.timer, b, time.Now().Add(budgetLook))
	}
}

// Expire implements timers.Owner.
func (b *budget) Expire(_ *timers.Timer, now time.Time) {
	s := b.s
	s.pressure.Store(b.look())
	if !s.isOver() {
		s.timers.Set(&b.timer, b, now.Add(budgetLook))
	}
}

// look measures, and evicts until the measure is below the last step.
func (b *budget) look() int64 {
	for {
		held, worst := b.s.held()
		percent := held * 100 / int64(b.s.limits.Memory)
		if percent < stopHolding || worst == nil || !worst.retired.evictLargest() && !worst.c.EvictLargest() {
			return percent
		}
		b.s.evicted.Add(1)
	}
}

// held sums what the connections hold, and finds the one that holds the most.
func (s *Server) held() (total int64, worst *Conn) {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	most := -1
	for c := range s.conns {
		n := c.c.Held() + int(c.retired.bytes.Load())
		total += int64(n)
		if n > most {
			worst, most = c, n
		}
	}
	return total, worst
}

// isOver tells whether the server has shut down.
func (s *Server) isOver() bool {
	select {
	case <-s.empty:
		return true
	default:
		return false
	}
}
