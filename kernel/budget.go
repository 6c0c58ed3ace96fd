package kernel

import (
	"time"

	"github.com/sluicerpc/sluice/internal/timers"
)

// budgetLook is how often the memory is measured.
const budgetLook = 100 * time.Millisecond

// budget measures how much memory a server's connections hold. As that comes near
// Limits.Memory, the server first accepts no more connections, then refuses streams, and
// then resets those that hold the most.
type budget struct {
	s     *Server
	timer timers.Timer
}

// watch starts the measuring, if there is a limit.
func (b *budget) watch(s *Server) {
	if b.s = s; s.limits.Memory != Unlimited {
		s.timers.Set(&b.timer, b, time.Now().Add(budgetLook))
	}
}

// Expire implements timers.Owner.
func (b *budget) Expire(_ *timers.Timer, now time.Time) {
	s := b.s
	s.pressure.Store(b.measure())
	if !s.isOver() {
		s.timers.Set(&b.timer, b, now.Add(budgetLook))
	}
}

// measure returns the memory held in percent of the limit. It evicts until that is below
// stopHolding.
func (b *budget) measure() int64 {
	for {
		held, worst := b.s.held()
		percent := held * 100 / int64(b.s.limits.Memory)
		if percent < stopHolding || worst == nil || !worst.retired.evictLargest() && !worst.c.EvictLargest() {
			return percent
		}
		b.s.evicted.Add(1)
	}
}

// held returns what all connections hold, and the connection that holds the most.
func (s *Server) held() (total int64, worst *Conn) {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	most := -1
	for c := range s.conns {
		n := c.c.MemoryUse() + int(c.retired.bytes.Load())
		total += int64(n)
		if n > most {
			worst, most = c, n
		}
	}
	return total, worst
}

// isOver reports whether the server has shut down.
func (s *Server) isOver() bool {
	select {
	case <-s.empty:
		return true
	default:
		return false
	}
}
