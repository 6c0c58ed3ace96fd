package actor

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sluicerpc/sluice/pool"
)

// Receive returns the next message; io.EOF after the last. Once In or Batches is
// in use it reads through that channel.
func (s *Stream) Receive(ctx context.Context) (pool.Message, error) {
	waited := nextMessage
	for {
		m, next, err := s.next(waited)
		switch waited = next; next {
		case nextMessage, nextEnd:
			return m, err
		case nextIn:
			select {
			case m, ok := <-s.f.in.c:
				if ok {
					return m, nil
				}
			case <-ctx.Done():
				return m, s.gaveUp(ctx, next)
			}
		case nextBatch:
			select {
			case b, ok := <-s.f.batches:
				if ok {
					return s.unpack(b), nil
				}
			case <-s.f.rest.more:
			case <-ctx.Done():
				return m, s.gaveUp(ctx, next)
			}
		case nextWait:
			select {
			case <-s.f.receive:
			case <-ctx.Done():
				return m, s.gaveUp(ctx, next)
			}
		}
	}
}

// next says what a Receive has to do now.
type next uint8

const (
	nextMessage next = iota
	nextEnd
	nextIn
	nextBatch
	nextWait
)

func (s *Stream) next(waited next) (pool.Message, next, error) {
	s.mu.Lock()
	defer s.unlock()
	f := s.f
	f.waited(waited)
	if f != nil && f.face != faceNone {
		f.passOn()
		if f.rest != nil && f.rest.msgs.Len() > 0 {
			return f.rest.take(), nextMessage, nil
		}
		if f.face == faceIn && (!f.inClosed || len(f.in.c) > 0) {
			return pool.Message{}, nextIn, nil
		}
		if f.face == faceBatches && !f.inClosed {
			f.awaitBatch()
			return pool.Message{}, nextBatch, nil
		}
	}
	if m, ok := s.in.Pop(); ok {
		s.took(m)
		if s.in.Len() > 0 {
			f.passOn()
		}
		return m, nextMessage, nil
	}
	if s.st.recv != recvOpen {
		err := s.endErr()
		s.apply(s.st.endHanded())
		f.passOn()
		return pool.Message{}, nextEnd, err
	}
	f = s.face()
	if f.receive == nil {
		f.receive = make(chan struct{}, 1)
	}
	f.receivers++
	return pool.Message{}, nextWait, nil
}

// waited notes that a Receive waits no longer for what next told it to wait for.
func (f *faces) waited(what next) {
	switch what {
	case nextWait:
		f.receivers--
	case nextBatch:
		f.rest.waiting--
	}
}

// passOn wakes the next of several receivers: a word wakes one.
func (f *faces) passOn() {
	if f != nil && f.receivers > 0 {
		f.wakeReceiver()
	}
}

// gaveUp is the error of a Receive whose context ended: the stream's, if it has failed,
// for that ends the stream's own context too. A word that was meant for it goes to the
// next.
func (s *Stream) gaveUp(ctx context.Context, waited next) error {
	s.mu.Lock()
	s.f.waited(waited)
	if waited == nextWait && (s.in.Len() > 0 || s.st.recv != recvOpen) {
		s.f.wakeReceiver()
	}
	var failure error
	if s.st.recv == recvDead && s.in.Len() == 0 {
		failure = s.endErr()
	}
	s.unlock()
	if failure != nil {
		return failure
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, io.EOF) { // that would look like the stream's end
		cause = ctx.Err()
	}
	return fmt.Errorf("sluice: receive on stream %d: %w", s.link.ID(), cause)
}

// A rest is what Receive keeps of the batches that it took.
type rest struct {
	msgs    pool.Queue
	waiting int           // Receives that wait for a batch
	more    chan struct{} // tells one of them of msgs; holds one word
}

// awaitBatch counts a Receive that is about to wait for a batch.
func (f *faces) awaitBatch() {
	if f.rest == nil {
		f.rest = &rest{more: make(chan struct{}, 1)}
	}
	f.rest.waiting++
}

// unpack returns a batch's first message and keeps the others for the next
// Receive; those of a batch before it go first.
func (s *Stream) unpack(b *Batch) pool.Message {
	s.mu.Lock()
	r := s.f.rest
	r.waiting--
	for i := range b.Len() {
		r.msgs.Push(b.Keep(i))
	}
	m := r.take()
	s.mu.Unlock()
	b.Release()
	return m
}

// take returns the first message, and has one who waits for a batch take the next.
func (r *rest) take() pool.Message {
	m, _ := r.msgs.Pop()
	if r.msgs.Len() > 0 && r.waiting > 0 {
		select {
		case r.more <- struct{}{}:
		default:
		}
	}
	return m
}
