package actor

import (
	"context"
	"errors"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/pool"
)

// TrySend sends m if there is credit for it now. On an error the caller still owns m.
func (s *Stream) TrySend(m pool.Message) error {
	pool.MustLive(m)
	s.mu.Lock()
	if s.packs(m) {
		return s.trySendPacked(m)
	}
	err := s.trySend(m)
	s.unlock()
	return err
}

// trySendPacked is TrySend for a message that is to be compressed. It frees the lock.
func (s *Stream) trySendPacked(m pool.Message) error {
	defer s.unlock()
	if !s.sendable(m) || !s.hasCredit() {
		return s.unready(m)
	}
	p, err := s.pack(m)
	if err == nil {
		err = s.trySend(p)
	}
	return sent(m, p, err)
}

func (s *Stream) trySend(m pool.Message) error {
	if !s.sendable(m) || !s.hasCredit() {
		return s.unready(m)
	}
	s.accept(m)
	return nil
}

// unready returns why m can't be accepted now.
func (s *Stream) unready(m pool.Message) error {
	switch {
	case !s.sendable(m):
		return s.check(m)
	case s.sendsHeld:
		return ErrNotAccepted
	case s.post.room, s.cred.left() > 0 && s.backlogged():
		return ErrNoRoom
	}
	return ErrWouldBlock
}

// Send sends m. It waits for credit until ctx ends. On an error the caller still owns m.
func (s *Stream) Send(ctx context.Context, m pool.Message) error {
	pool.MustLive(m)
	s.mu.Lock()
	if s.packs(m) {
		return s.sendPacked(ctx, m)
	}
	if err := s.trySend(m); err != nil {
		return s.sendLater(ctx, m, err)
	}
	s.unlock()
	return nil
}

// sendPacked is Send for a message that is to be compressed. It frees the lock.
func (s *Stream) sendPacked(ctx context.Context, m pool.Message) error {
	packed := false
	defer func() {
		if !packed {
			s.mu.Unlock()
		}
	}()
	p, err := s.pack(m)
	packed = true
	if err == nil {
		err = s.trySend(p)
	}
	if err != nil {
		return sent(m, p, s.sendLater(ctx, p, err))
	}
	s.unlock()
	return sent(m, p, nil)
}

// sendLater waits until m is accepted, if err, of an attempt to send it, says that there is
// no credit. It frees the lock.
func (s *Stream) sendLater(ctx context.Context, m pool.Message, err error) error {
	if !errors.Is(err, ErrWouldBlock) {
		s.unlock()
		return err
	}
	if s.needNotWait() {
		s.accept(m)
		s.unlock()
		return nil
	}
	ch := s.makeChannels()
	w := ch.waiters.get()
	w.m = m
	ch.waiters.push(w)
	s.tellHeld()
	s.unlock()
	return s.await(ctx, ch, w)
}

// await waits until w is served, or ctx ends.
func (s *Stream) await(ctx context.Context, ch *channels, w *waiter) error {
	var err error
	select {
	case err = <-w.ready:
	case <-ctx.Done():
		if s.cancelWait(ch, w) {
			err = errtext.Errorf("sluice: send on stream %d: %w", s.link.ID(), context.Cause(ctx))
		} else {
			err = <-w.ready
		}
	}
	s.mu.Lock()
	ch.waiters.put(w)
	s.mu.Unlock()
	return err
}

// cancelWait ends the wait of w. It reports false if w has just been served, and
// w.ready has the result.
func (s *Stream) cancelWait(ch *channels, w *waiter) bool {
	s.mu.Lock()
	defer s.unlock()
	removed := ch.waiters.remove(w)
	s.tellHeld()
	s.admitWaiting()
	return removed
}

// Writable offers a slot whenever there is credit and the last slot has been used. It
// is closed when the sending half ends.
func (s *Stream) Writable() <-chan Slot {
	s.mu.Lock()
	defer s.unlock()
	ch := s.makeChannels()
	if ch.slots == nil {
		ch.slots = make(chan Slot, 1)
		if s.sendErr() != nil {
			ch.closeSlots()
		}
	}
	s.offerSlot(ch)
	return ch.slots
}

// Send sends m. On an error the caller still owns m; the slot is used up all the same.
func (t Slot) Send(m pool.Message) error {
	s := t.s
	if s == nil {
		return ErrSlotUsed
	}
	pool.MustLive(m)
	s.mu.Lock()
	defer s.unlock()
	p, err := m, error(nil)
	if s.packs(m) {
		p, err = s.pack(m)
	}
	if !s.ch.returnSlot(t) {
		return sent(m, p, ErrSlotUsed)
	}
	if err == nil {
		err = s.check(p)
	}
	if err == nil {
		s.accept(p)
	}
	s.offerSlot(s.ch)
	return sent(m, p, err)
}

// Cancel returns the slot unused. After Send it does nothing, so that it can be
// deferred.
func (t Slot) Cancel() {
	s := t.s
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.unlock()
	if s.ch.returnSlot(t) {
		s.admitWaiting()
	}
}
