package actor

import (
	"context"
	"errors"
	"io"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/pool"
)

// Receive returns the next message, and io.EOF after the last one. Once In or Batches
// is in use, Receive reads from that channel.
func (s *Stream) Receive(ctx context.Context) (pool.Message, error) {
	waited := nextMessage
	for {
		s.mu.Lock()
		m, next, err := s.next(waited)
		s.unlock()
		switch waited = next; next {
		case nextMessage:
			return s.unpack(m)
		case nextEnd:
			return m, err
		case nextIn:
			select {
			case m, ok := <-s.ch.in.c:
				if ok {
					return m, nil
				}
			case <-ctx.Done():
				if !s.endedWithMore(next) {
					return m, s.receiveCancelled(ctx, next)
				}
				if m, ok := <-s.ch.in.c; ok {
					return m, nil
				}
			}
		case nextBatch:
			select {
			case b, ok := <-s.ch.batches:
				if ok {
					return s.takeBatch(b), nil
				}
			case <-s.ch.rest.more:
			case <-ctx.Done():
				if !s.endedWithMore(next) {
					return m, s.receiveCancelled(ctx, next)
				}
				select {
				case b, ok := <-s.ch.batches:
					if ok {
						return s.takeBatch(b), nil
					}
				case <-s.ch.rest.more:
				}
			}
		case nextWait:
			select {
			case <-s.ch.receiverWake:
			case <-ctx.Done():
				if !s.endedWithMore(next) {
					return m, s.receiveCancelled(ctx, next)
				}
			}
		}
	}
}

// next is what a Receive does now.
type next uint8

const (
	nextMessage next = iota // returns a message
	nextEnd                 // returns an error
	nextIn                  // receives from In
	nextBatch               // receives from Batches
	nextWait                // waits for the next message, or the end
)

// endWait notes that a Receive no longer waits for what next told it to wait for.
func (ch *channels) endWait(what next) {
	switch what {
	case nextWait:
		ch.receivers--
	case nextBatch:
		ch.rest.waiting--
	}
}

// next finds what to do after waiting for waited. The lock is held.
func (s *Stream) next(waited next) (pool.Message, next, error) {
	ch := s.ch
	ch.endWait(waited)
	s.countInWork()
	if ch != nil && ch.inbound != channelNone {
		ch.wakeReceiver()
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
	if ch != nil && ch.lends {
		s.setLends(false)
	}
	m, ok := s.in.PopSingle()
	if !ok {
		m, ok = s.in.Pop()
	}
	if ok {
		s.handOver(m)
		s.messageTaken()
		return m, nextMessage, nil
	}
	what, err := s.noMessage()
	return pool.Message{}, what, err
}

// messageTaken is called when messages were taken out of the mailbox for who receives.
func (s *Stream) messageTaken() {
	if s.requests == oneRequest {
		s.requestTaken()
	}
	if s.in.Len() > 0 {
		s.ch.wakeReceiver()
	} else if s.st.recv == recvEnded {
		s.handEnd()
	}
}

// noMessage is what to do while the mailbox is empty.
func (s *Stream) noMessage() (next, error) {
	if s.st.recv != recvOpen {
		err := s.endErr()
		s.apply(s.st.endSeen())
		s.ch.wakeReceiver()
		return nextEnd, err
	}
	ch := s.makeChannels()
	if ch.receiverWake == nil {
		ch.receiverWake = make(chan struct{}, 1)
	}
	ch.receivers++
	return nextWait, nil
}

// handOver counts m as taken, now or when the next message is asked for.
func (s *Stream) handOver(m pool.Message) {
	if !s.cfg.CountLate {
		s.accountOne(m)
		return
	}
	s.makeOutcome().inWork.add(m.Len(), pool.Cost(m), s.isPaid(m))
}

// countInWork counts the message as taken that Receive has returned last, if that is still to
// be done.
func (s *Stream) countInWork() {
	if oc := s.outcome; oc != nil && oc.inWork.messages > 0 {
		s.account(&oc.inWork)
	}
}

// endedWithMore reports whether the stream's own context has ended with the stream, which has
// something left to receive. Both came while a Receive with that context waited for either.
// What is left of a half that has ended comes from In or Batches without a wait, and then they
// are closed.
func (s *Stream) endedWithMore(waited next) bool {
	s.mu.Lock()
	defer s.unlock()
	return s.contextOver && (s.st.recv != recvOpen || waited == nextWait && s.in.Len() > 0)
}

// receiveCancelled returns the error of a Receive whose context has ended. If the stream
// has failed, that is the stream's error: a failure ends the stream's own context too. A
// token that this Receive should have taken wakes the next one.
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
	if errors.Is(cause, io.EOF) { // it would look like the stream's end
		cause = ctx.Err()
	}
	return errtext.Errorf("sluice: receive on stream %d: %w", s.link.ID(), cause)
}

// unpack keeps the messages of b behind those of earlier batches, and returns the first.
func (s *Stream) takeBatch(b *Batch) pool.Message {
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
