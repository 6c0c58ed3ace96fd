package actor

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// A waiter is a sender that waits for credit.
type waiter struct {
	next  *waiter
	m     pool.Message
	token bool // wants to know of credit, has no message yet
	ready chan error
}

// TrySend hands m over if there is credit for it now. On an error m still
// belongs to the caller.
func (s *Stream) TrySend(m pool.Message) error {
	s.mu.Lock()
	err := s.trySend(m)
	s.unlock()
	return err
}

func (s *Stream) trySend(m pool.Message) error {
	if err := s.check(m); err != nil {
		return err
	}
	if !s.hasCredit() {
		if s.post.room {
			return ErrNoRoom
		}
		return ErrWouldBlock
	}
	s.accept(m)
	return nil
}

// Push takes m over whatever the credit: the request or reply that its stream
// starts with.
func (s *Stream) Push(m pool.Message) error {
	s.mu.Lock()
	defer s.unlock()
	err := s.check(m)
	if err == nil {
		s.lead = !s.cfg.granted() || s.unanswered()
		s.accept(m)
	}
	return err
}

// check tells why m can't be sent on this stream at all, or nil.
func (s *Stream) check(m pool.Message) error {
	if m.Len() > s.cfg.MaxSend {
		return fmt.Errorf("%w: %d bytes, the peer takes %d", ErrTooLarge, m.Len(), s.cfg.MaxSend)
	}
	return s.sendErr()
}

// hasCredit tells whether one more message may be accepted: credit of the
// stream, of the connection, and nobody waiting before it.
func (s *Stream) hasCredit() bool {
	if s.f != nil && s.f.waitHead != nil {
		return false
	}
	return s.canAccept()
}

func (s *Stream) canAccept() bool {
	if s.cred.left() <= 0 {
		return false
	}
	if !s.link.Room() {
		s.later().room = true
		return false
	}
	return true
}

// accept takes m over, in order.
func (s *Stream) accept(m pool.Message) {
	if m.Len() > s.cfg.Caps.MaxFragment {
		s.large++
	}
	if m.IsZero() {
		m = pool.MessageOf(nil) // which can have a cost
	}
	cost := s.cfg.Caps.Cost(m.Len())
	pool.SetCost(m, cost)
	s.out.Push(m)
	s.accepted++
	s.cred.admitted += uint64(cost)
	s.requeue()
	if s.f != nil {
		s.f.withdrawSlot(s)
	}
}

// Send hands m over, waiting for credit. On an error m still belongs to the
// caller.
func (s *Stream) Send(ctx context.Context, m pool.Message) error {
	s.mu.Lock()
	err := s.trySend(m)
	if err == nil {
		s.unlock()
		return nil
	}
	if !errors.Is(err, ErrWouldBlock) {
		s.unlock()
		return err
	}
	f := s.face()
	w := f.newWaiter()
	w.m = m
	f.pushWaiter(w)
	s.unlock()
	return s.await(ctx, f, w)
}

func (s *Stream) await(ctx context.Context, f *faces, w *waiter) error {
	var err error
	select {
	case err = <-w.ready:
	case <-ctx.Done():
		if err = s.giveUp(f, w); err == nil {
			err = fmt.Errorf("sluice: send on stream %d: %w", s.link.ID(), context.Cause(ctx))
		} else if err == errAccepted { //nolint:errorlint // our own value
			err = nil
		}
	}
	w.m, w.next, w.token = pool.Message{}, nil, false
	s.mu.Lock()
	f.spare = w
	s.mu.Unlock()
	return err
}

var errAccepted = fmt.Errorf("sluice: accepted")

// giveUp takes w out of the line. It returns nil if that worked, errAccepted or
// an error if the wait had just ended.
func (s *Stream) giveUp(f *faces, w *waiter) error {
	s.mu.Lock()
	removed := f.removeWaiter(w)
	s.admitWaiting()
	s.unlock()
	if removed {
		return nil
	}
	if err := <-w.ready; err != nil {
		return err
	}
	return errAccepted
}

// admitWaiting serves those who wait, in their order, as far as the credit goes,
// and then offers a slot.
func (s *Stream) admitWaiting() {
	f := s.f
	if f == nil {
		return
	}
	for f.waitHead != nil && s.st.canSend() && s.canAccept() {
		w := f.popWaiter()
		if !w.token {
			s.accept(w.m)
		}
		w.ready <- nil
	}
	f.offerSlot(s)
}

// RoomFree is called when the connection may have room again.
func (s *Stream) RoomFree() {
	s.mu.Lock()
	defer s.unlock()
	s.admitWaiting()
}

// sendOver: nothing more is accepted; everyone who waits is told.
func (s *Stream) sendOver() {
	f := s.f
	if f == nil {
		return
	}
	err := s.sendErr()
	for w := f.popWaiter(); w != nil; w = f.popWaiter() {
		w.ready <- err
	}
	f.closeSend()
}

// SetFirst gives the frame that opens, accepts or refuses the stream; it is
// written before anything else.
func (s *Stream) SetFirst(f *frame.Frame) {
	s.mu.Lock()
	defer s.unlock()
	if s.st.done {
		return
	}
	s.first = f
	if f.Kind == frame.Accept {
		s.answered = true
	}
	s.ask(wantOpen)
}
