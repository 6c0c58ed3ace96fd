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
			case m, ok := <-s.ch.in.c:
				if ok {
					return m, nil
				}
			case <-ctx.Done():
				return m, s.receiveCancelled(ctx, next)
			}
		case nextBatch:
			select {
			case b, ok := <-s.ch.batches:
				if ok {
					return s.unpack(b), nil
				}
			case <-s.ch.rest.more:
			case <-ctx.Done():
				return m, s.receiveCancelled(ctx, next)
			}
		case nextWait:
			select {
			case <-s.ch.receiverWake:
			case <-ctx.Done():
				return m, s.receiveCancelled(ctx, next)
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
	ch := s.ch
	ch.endWait(waited)
	if ch != nil && ch.inbound != channelNone {
		ch.passOn()
		if ch.rest != nil && ch.rest.msgs.Len() > 0 {
			return ch.rest.take(), nextMessage, nil
		}
		if ch.inbound == channelIn && (!ch.inboundClosed || len(ch.in.c) > 0) {
			return pool.Message{}, nextIn, nil
		}
		if ch.inbound == channelBatches && !ch.inboundClosed {
			ch.awaitBatch()
			return pool.Message{}, nextBatch, nil
		}
	}
	if m, ok := s.in.Pop(); ok {
		s.accountOne(m)
		if s.in.Len() > 0 {
			ch.passOn()
		}
		return m, nextMessage, nil
	}
	if s.st.recv != recvOpen {
		err := s.endErr()
		s.apply(s.st.endSeen())
		ch.passOn()
		return pool.Message{}, nextEnd, err
	}
	ch = s.makeChannels()
	if ch.receiverWake == nil {
		ch.receiverWake = make(chan struct{}, 1)
	}
	ch.receivers++
	return pool.Message{}, nextWait, nil
}

// waited notes that a Receive waits no longer for what next told it to wait for.
func (ch *channels) endWait(what next) {
	switch what {
	case nextWait:
		ch.receivers--
	case nextBatch:
		ch.rest.waiting--
	}
}

// passOn wakes the next of several receivers: a word wakes one.
func (ch *channels) passOn() {
	if ch != nil && ch.receivers > 0 {
		ch.wakeReceiver()
	}
}

// gaveUp is the error of a Receive whose context ended: the stream's, if it has failed,
// for that ends the stream's own context too. A word that was meant for it goes to the
// next.
func (s *Stream) receiveCancelled(ctx context.Context, waited next) error {
	s.mu.Lock()
	s.ch.endWait(waited)
	if waited == nextWait && (s.in.Len() > 0 || s.st.recv != recvOpen) {
		s.ch.wakeReceiver()
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
type batchRest struct {
	msgs    pool.Queue
	waiting int           // Receives that wait for a batch
	more    chan struct{} // tells one of them of msgs; holds one word
}

// awaitBatch counts a Receive that is about to wait for a batch.
func (ch *channels) awaitBatch() {
	if ch.rest == nil {
		ch.rest = &batchRest{more: make(chan struct{}, 1)}
	}
	ch.rest.waiting++
}

// unpack returns a batch's first message and keeps the others for the next
// Receive; those of a batch before it go first.
func (s *Stream) unpack(b *Batch) pool.Message {
	s.mu.Lock()
	r := s.ch.rest
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
func (r *batchRest) take() pool.Message {
	m, _ := r.msgs.Pop()
	if r.msgs.Len() > 0 && r.waiting > 0 {
		select {
		case r.more <- struct{}{}:
		default:
		}
	}
	return m
}
