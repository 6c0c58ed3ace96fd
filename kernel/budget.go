package kernel

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/pool"
)

const (
	// budgetLook is how often the memory is measured,
	budgetLook = 100 * time.Millisecond
	// waitLook while handlers wait for it, or what little else is in fills it,
	waitLook = 20 * time.Millisecond
	// and leastLook is how soon it is measured again where it grows fast.
	leastLook = 5 * time.Millisecond
	// lookSlice is how long it evicts at a time: others wait for that, and for the handlers that
	// it wakes. restLook later it goes on.
	lookSlice = 500 * time.Microsecond
	restLook  = time.Millisecond
	// growthLooks is how much has to come for that: one part in so many of Limits.Memory.
	growthLooks = 50
	// patience is for how long more than stopWaiting may be held.
	patience = time.Second
	// mostCompacted is of how many streams messages are copied at a time.
	mostCompacted = 1000
	// leastHeld is what a connection holds at least that something is evicted of, bytes.
	leastHeld = 1 << 10
)

// budget measures how much memory a server's connections take, and what they hold. As that
// comes near Limits.Memory, streams and connections that hold much are ended: see
// docs/operations.md.
type budget struct {
	s        *Server
	timer    timers.Timer
	above    time.Time  // since when there is more than stopWaiting; zero: there is not
	rest     bool       // more is to be evicted
	compacts bool       // messages are copied
	arena    pool.Arena // of those
}

// init is called before there is a connection.
func (b *budget) init(s *Server) {
	if b.s = s; s.limits.Memory != Unlimited {
		s.growth = conn.NewGrowth(b.hurry)
		s.process.init(int64(s.limits.Memory))
	}
}

// watch starts the measuring, if there is a limit.
func (b *budget) watch() {
	if b.s.growth != nil {
		b.s.left.Store(int64(b.s.limits.Memory))
		b.s.timers.Set(&b.timer, b, time.Now().Add(budgetLook))
		b.s.growth.Reset(int64(b.s.limits.Memory) / growthLooks)
	}
}

// hurry has the next look come soon.
func (b *budget) hurry() { b.s.timers.Hasten(&b.timer, time.Now().Add(leastLook)) }

// Expire implements timers.Owner.
func (b *budget) Expire(_ *timers.Timer, now time.Time) {
	s, memory := b.s, int64(b.s.limits.Memory)
	b.s.growth.Reset(memory / growthLooks)
	n := b.look(now)
	s.left.Store(memory - n)
	s.pressure.Store(n * 100 / memory)
	if s.isOver() {
		return
	}
	if s.starts.busy() { // handlers may wait for memory
		s.starts.sweep()
		s.starts.next()
	}
	pause := budgetLook
	if s.starts.busy() || b.compacts {
		pause = waitLook
	}
	s.timers.Set(&b.timer, b, now.Add(pause))
	switch {
	case b.rest:
		s.timers.Hasten(&b.timer, time.Now().Add(restLook))
	case b.s.growth.Due(): // meanwhile, when the timer was not set
		b.hurry()
	}
}

// look returns how much memory is in use. It evicts until that is below stopHolding or, where
// it has been above stopWaiting for a while, below that.
func (b *budget) look(now time.Time) int64 {
	percent := int64(b.s.limits.Memory) / 100
	uses, total := b.s.uses()
	b.compact(uses)
	if total < percent*stopWaiting {
		b.above = time.Time{}
		return total
	}
	most := percent * stopHolding
	switch {
	case b.above.IsZero():
		b.above = now
	case now.Sub(b.above) >= patience:
		most = percent * stopWaiting
	}
	evicts := total >= most
	b.rest = false
	for begun := time.Now(); total >= most; {
		if time.Since(begun) >= lookSlice {
			b.rest = true
			return total
		}
		freed, ok := b.evict(uses, total-most+1)
		if total -= freed; !ok {
			break
		}
	}
	if evicts && most < percent*stopHolding {
		b.above = now // what comes in its place has as long
	}
	if total >= percent*stopHolding {
		total -= b.endUnused(uses, total-percent*stopHolding+1)
	}
	return total
}

// compact has streams copy messages out of memory that little else is in: those of some
// connections, in no order. Only so what messages hold is what is counted for them.
func (b *budget) compact(uses []connUse) {
	if b.compacts = b.s.process.isFilling(); !b.compacts {
		return
	}
	streams := 0
	for i := range uses {
		c := uses[i].c
		if uses[i].held < leastHeld && c.ownStreams() == 0 { // what is in the buffers of In may not be counted yet
			continue
		}
		if streams += c.c.Compact(&b.arena) + c.retired.compact(&b.arena); streams >= mostCompacted {
			return
		}
	}
}

// evict evicts something of the connection that holds the most, about excess bytes and no more
// than makes others hold more, or an eighth of it. It returns what that has freed, and false
// if nobody holds anything.
func (b *budget) evict(uses []connUse, excess int64) (freed int64, ok bool) {
	for {
		slices.SortFunc(uses, func(x, y connUse) int { return cmp.Compare(y.held, x.held) })
		if len(uses) == 0 || uses[0].held < leastHeld {
			return 0, false
		}
		u := &uses[0]
		if len(uses) > 1 {
			excess = min(excess, max(u.held-uses[1].held, u.held/8))
		}
		n := u.c.evict(int(excess))
		b.s.evicted.Add(uint64(n))
		before := u.held + u.own
		u.measure()
		if freed = before - u.held - u.own; freed > 0 || n > 0 {
			return freed, true
		}
		u.held = 0 // of many streams that hold little each
	}
}

// endUnused ends connections without streams, those that were not used for the longest first.
// It returns how many bytes those take.
func (b *budget) endUnused(uses []connUse, excess int64) (freed int64) {
	for _, u := range uses {
		if freed >= excess {
			break
		}
		if u.c.c.EndUnused() {
			b.s.evicted.Add(1)
			freed += u.own
		}
	}
	return freed
}

// A connUse is the memory of a connection.
type connUse struct {
	c         *Conn
	held, own int64 // of messages, opens and ends, which can be evicted, and of itself; bytes
}

func (u *connUse) measure() {
	held, beside, own := u.c.memory()
	u.held, u.own = int64(held+beside), int64(own)
	if u.c.c.Err() != nil { // it is about to give up all
		u.held, u.own = 0, 0
	}
	u.c.used.Store(max(u.held+u.own-int64(u.c.c.Size()), 0))
}

// uses returns the memory of all connections, and its sum.
func (s *Server) uses() (uses []connUse, total int64) {
	s.connMu.Lock()
	uses = make([]connUse, 0, len(s.conns))
	for c := range s.conns {
		uses = append(uses, connUse{c: c})
	}
	total = int64(len(s.handshakes)) * handshakeSize
	s.connMu.Unlock()
	s.stacks.measure(s.handling.Load())
	for i := range uses {
		u := &uses[i]
		u.measure()
		total += u.held + u.own
	}
	return uses, total
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
