package actor

import (
	"fmt"

	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// sendable reports whether m can be sent on this stream once there is credit.
func (s *Stream) sendable(m pool.Message) bool { return m.Len() <= s.cfg.MaxSend && s.sends() }

// check returns why m is not sendable, or nil.
func (s *Stream) check(m pool.Message) error {
	if m.Len() > s.cfg.MaxSend {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, m.Len(), s.cfg.MaxSend)
	}
	return s.sendErr()
}

// releasedText is the reason of a stream whose program has sent what was not its own any
// more.
const releasedText = "a message was sent after its release, or twice"

// accept takes m over and queues it.
func (s *Stream) accept(m pool.Message) {
	if m.IsZero() {
		m = pool.MessageOf(nil) // which can have a cost
	}
	m, ok := pool.TakeOver(m)
	if !ok { // released since it was looked at
		s.abort(s.fail(status.Internal, releasedText, false))
		return
	}
	if m.Len() > s.cfg.Caps.MaxFragment {
		s.large++
	}
	cost := s.cfg.Caps.Cost(m.Len())
	pool.SetCost(m, cost)
	s.out.Push(m)
	s.requeueOne(cost)
	if s.ch != nil {
		s.withdrawSlot(s.ch)
	}
}

// Push queues m without looking at the credit. m is the request or reply that its
// stream starts with.
func (s *Stream) Push(m pool.Message) error {
	pool.MustLive(m)
	s.mu.Lock()
	defer s.unlock()
	p, err := m, error(nil)
	if s.packs(m) {
		p, err = s.pack(m)
	}
	if err == nil {
		err = s.check(p)
	}
	if err == nil {
		s.opensWith = !s.cfg.granted() || s.awaitsAnswer()
		s.accept(p)
		s.allowSends()
	}
	return sent(m, p, err)
}

// admitWaiting accepts messages of waiting senders, in their order, while there is
// credit. Then it offers a slot.
func (s *Stream) admitWaiting() {
	ch := s.ch
	if ch == nil {
		return
	}
	for !ch.waiters.empty() && s.st.canSend() && s.canAdmit() {
		w := ch.waiters.pop()
		s.tellHeld()
		if !w.creditOnly {
			s.accept(w.m)
		}
		w.ready <- nil
	}
	s.offerSlot(ch)
}

// RoomFree is called when the connection may have room again.
func (s *Stream) RoomFree() {
	s.mu.Lock()
	defer s.unlock()
	s.admitWaiting()
}
