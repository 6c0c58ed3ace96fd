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
	waited := false
	for {
		m, next, err := s.next(waited)
		switch next {
		case nextMessage, nextEnd:
			return m, err
		case nextIn:
			select {
			case m, ok := <-s.f.in.c:
				if ok {
					return m, nil
				}
			case <-ctx.Done():
				return m, s.gaveUp(ctx, false)
			}
		case nextBatch:
			select {
			case b, ok := <-s.f.batches:
				if ok {
					return s.unpack(b), nil
				}
			case <-ctx.Done():
				return m, s.gaveUp(ctx, false)
			}
		case nextWait:
			select {
			case <-s.f.receive:
			case <-ctx.Done():
				return m, s.gaveUp(ctx, true)
			}
		}
		waited = next == nextWait
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

func (s *Stream) next(waited bool) (pool.Message, next, error) {
	s.mu.Lock()
	defer s.unlock()
	f := s.f
	if waited {
		f.receivers--
	}
	if f != nil && f.face != faceNone {
		f.passOn()
		if f.rest != nil && f.rest.Len() > 0 {
			m, _ := f.rest.Pop()
			return m, nextMessage, nil
		}
		if f.face == faceIn && (!f.inClosed || len(f.in.c) > 0) {
			return pool.Message{}, nextIn, nil
		}
		if f.face == faceBatches && !f.inClosed {
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

// passOn wakes the next of several receivers: a word wakes one.
func (f *faces) passOn() {
	if f != nil && f.receivers > 0 {
		f.wakeReceiver()
	}
}

// gaveUp is the error of a Receive whose context ended: the stream's, if it has failed,
// for that ends the stream's own context too. A word that was meant for it goes to the
// next.
func (s *Stream) gaveUp(ctx context.Context, waited bool) error {
	s.mu.Lock()
	if waited {
		s.f.receivers--
		if s.in.Len() > 0 || s.st.recv != recvOpen {
			s.f.wakeReceiver()
		}
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

// unpack returns a batch's first message and keeps the others for the next
// Receive.
func (s *Stream) unpack(b *Batch) pool.Message {
	m := b.Keep(0)
	s.mu.Lock()
	if s.f.rest == nil {
		s.f.rest = &pool.Queue{}
	}
	for i := 1; i < b.Len(); i++ {
		s.f.rest.Push(b.Keep(i))
	}
	s.mu.Unlock()
	b.Release()
	return m
}
