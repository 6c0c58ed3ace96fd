package actor

import (
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Fragment takes a piece of a message, a Data frame, and copies its payload. Only the
// connection's reader calls it. An error is a *frame.Violation, or frame.ErrFault if the
// stream was reset.
func (s *Stream) Fragment(f *frame.Frame, now time.Time) error {
	s.mu.Lock()
	defer s.unlock()
	s.bytesReceived += uint64(len(f.Payload))
	s.heardAt = stampOf(now)
	kept, err := s.keepPiece(f)
	switch {
	case f.Last && kept:
		s.complete(s.asm, now)
	case f.Last:
		s.countDroppedIn(1)
	}
	return err
}

// keepPiece adds a piece to the message that is arriving. It reports false if the piece is
// dropped.
func (s *Stream) keepPiece(f *frame.Frame) (bool, error) {
	p, cost := f.Payload, f.Cost
	keep, err := s.checkArrival(cost, len(p), 0)
	if err == nil && keep {
		keep, err = s.checkPiece(f)
	}
	if !keep || err != nil {
		s.discard(cost, len(p))
		return false, err
	}
	a := s.asm
	if !a.accepts(len(p), f.Last) {
		return false, violation(status.Protocol, "fragments of %d bytes and more, announced %d", a.got+len(p), a.total)
	}
	if a.total == frame.UnknownTotal && a.got+len(p) > s.cfg.MaxReceive {
		s.discard(cost, len(p))
		s.resetTooLarge(a.got + len(p))
		return false, frame.ErrFault
	}
	if !s.fit(a, len(p)) {
		s.discard(cost, len(p))
		return false, frame.ErrFault
	}
	a.got += copy(a.m.Bytes()[a.got:], p)
	a.whole += cost
	if a.paying {
		s.returnCredit(cost, len(p))
	} else {
		a.cost += cost
	}
	return true, nil
}

// checkPiece checks that a piece may follow what came before. A first piece starts a
// message of total bytes.
func (s *Stream) checkPiece(f *frame.Frame) (bool, error) {
	first, total := f.First, f.Total
	a := s.asm
	active := a != nil && a.active
	if first == active {
		return false, violation(status.Protocol, "fragments of two messages are mixed")
	}
	if active {
		return true, nil
	}
	if s.requests == requestHere {
		s.resetSecond()
		return false, frame.ErrFault
	}
	if total > s.cfg.MaxReceive {
		s.resetTooLarge(total)
		return false, frame.ErrFault
	}
	if a == nil {
		a = &assembly{}
		s.asm = a
	}
	a.active, a.packed, a.total = true, f.Packed, total
	a.got, a.cost, a.whole = 0, 0, 0
	a.paying = a.paid.IsZero() && s.cfg.Caps.Pacing != frame.Reported
	a.m = pool.Message{}
	return true, nil
}

// fit makes room for n more bytes. It resets the stream if the budget is used up.
func (s *Stream) fit(a *assembly, n int) bool {
	need := a.got + n
	if need <= a.m.Len() && !a.m.IsZero() {
		return true
	}
	size := a.size(need, s.cfg)
	if !s.link.Assemble(size - a.m.Len()) {
		s.abort(s.fail(status.ResourceExhausted, "the memory for messages in fragments is used up", false))
		return false
	}
	a.reserve += size - a.m.Len()
	m := pool.New(size)
	if !a.m.IsZero() {
		copy(m.Bytes(), a.m.Bytes()[:a.got])
		a.m.Release()
	}
	a.m = m
	return true
}

// complete moves an assembled message to the mailbox.
func (s *Stream) complete(a *assembly, now time.Time) {
	m, full := a.m, a.m.Len()
	if full > a.got { // the length was not known
		m.Truncate(a.got)
	}
	pool.SetCost(m, a.whole)
	if a.packed {
		pool.MarkPacked(m)
	}
	a.active, a.m = false, pool.Message{}
	if a.paying {
		a.paid, a.owed = m, a.whole
	} else { // the window bounds it, like any other message
		s.link.Assemble(-full)
		a.reserve -= full
		if a.paid.IsZero() {
			s.asm = nil
		}
	}
	var run pool.Queue
	run.Push(m)
	s.enqueue(&run, now)
}
