package actor

import (
	"context"
	"fmt"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// faces are the channels of a stream, each made when it is first asked for. The
// stream owns the sending end of all but out.
type channels struct {
	in      inBuffer          // stream -> user
	batches chan *Batch       // stream -> user
	out     chan pool.Message // user -> stream; never closed by the stream
	slots   chan Slot         // stream -> user

	sendDone chan struct{}
	done     chan struct{}
	ctxDone  chan struct{}
	answered chan struct{}
	feedStop     chan struct{} // ends the goroutine that feeds in or batches
	receiverWake  chan struct{} // wakes a Receive; holds one word

	inbound                           receiveChannel
	slotWatched                      bool    // RoomGone will be called
	rest                           *batchRest   // of batches that Receive took; nil: none ever
	pump                           *func() // feeds in or batches
	inboundClosed, slotsClosed, ctxOver bool
	outRuns, endAsked              bool // the goroutine of out; CloseSend while it runs
	sendOver                       bool
	feedStopped                        bool // this side reads no more
	slotOut                        bool // a slot is in slots, or somebody has it
	slotGen                        uint32
	receivers                      int32
	feeders                       int32 // who have asked for GivenUp, and feed a channel

	waitHead, waitTail *waiter
	spare              *waiter // to wait with again
	idle               *idler
}

// closed is what an asker gets where the event has passed.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// newWaiter returns a waiter to be used once. A stream keeps one: a pool for all
// would carry its channel from one synctest bubble into another.
func (ch *channels) newWaiter() *waiter {
	if w := ch.spare; w != nil {
		ch.spare = nil
		return w
	}
	return &waiter{ready: make(chan error, 1)}
}

func (ch *channels) pushWaiter(w *waiter) {
	w.next = nil
	if ch.waitTail == nil {
		ch.waitHead = w
	} else {
		ch.waitTail.next = w
	}
	ch.waitTail = w
}

func (ch *channels) popWaiter() *waiter {
	w := ch.waitHead
	if w == nil {
		return nil
	}
	if ch.waitHead = w.next; ch.waitHead == nil {
		ch.waitTail = nil
	}
	w.next = nil
	return w
}

func (ch *channels) removeWaiter(w *waiter) bool {
	var prev *waiter
	for x := ch.waitHead; x != nil; prev, x = x, x.next {
		if x != w {
			continue
		}
		if prev == nil {
			ch.waitHead = w.next
		} else {
			prev.next = w.next
		}
		if ch.waitTail == w {
			ch.waitTail = prev
		}
		return true
	}
	return false
}

func (ch *channels) wakeReceiver() {
	if ch.receivers == 0 {
		return
	}
	select {
	case ch.receiverWake <- struct{}{}:
	default:
	}
}

// closeSend tells everyone that the sending half is over.
func (ch *channels) closeSend() {
	if ch.sendOver {
		return
	}
	ch.sendOver = true
	if ch.sendDone != nil {
		close(ch.sendDone)
	}
	ch.closeSlots()
}

// SendDone is closed when the stream will take no further message.
func (s *Stream) SendDone() <-chan struct{} {
	s.mu.Lock()
	defer s.unlock()
	ch := s.makeChannels()
	if ch.sendDone == nil {
		if s.sendErr() != nil {
			ch.sendOver, ch.sendDone = true, closed
			return closed
		}
		ch.sendDone = make(chan struct{})
	}
	return ch.sendDone
}

// Done is closed when both halves have ended and nothing will change again.
func (s *Stream) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.unlock()
	return s.doneLocked()
}

func (s *Stream) doneLocked() <-chan struct{} {
	ch := s.makeChannels()
	if ch.done == nil {
		if s.st.done {
			return closed
		}
		ch.done = make(chan struct{})
	}
	return ch.done
}

// ContextDone is the Done channel of the stream's context: closed when the
// stream has ended, or EndContext was called.
func (s *Stream) ContextDone() <-chan struct{} {
	s.mu.Lock()
	defer s.unlock()
	ch := s.makeChannels()
	if ch.ctxDone == nil {
		ch.ctxDone = make(chan struct{})
		if ch.ctxOver || s.st.done {
			ch.ctxOver = true
			close(ch.ctxDone)
		}
	}
	return ch.ctxDone
}

// EndContext ends the stream's context: the handler has returned.
func (s *Stream) EndContext() {
	s.mu.Lock()
	defer s.unlock()
	ch := s.makeChannels()
	if ch.ctxDone != nil && !ch.ctxOver {
		close(ch.ctxDone)
	}
	ch.ctxOver = true
}

// ContextOver tells whether the stream's context has ended, and the stream's
// failure if that was why.
func (s *Stream) ContextOver() (bool, error) {
	s.mu.Lock()
	defer s.unlock()
	return s.st.done || s.ch != nil && s.ch.ctxOver, s.errLocked()
}

// Answer waits until the peer has accepted the stream.
func (s *Stream) Answer(ctx context.Context) (pool.Message, frame.Metadata, error) {
	s.mu.Lock()
	if !s.answered {
		ch := s.makeChannels()
		if ch.answered == nil {
			ch.answered = make(chan struct{})
		}
		c := ch.answered
		s.unlock()
		select {
		case <-c:
		case <-ctx.Done():
			return pool.Message{}, nil, fmt.Errorf("sluice: stream %d (%s): waiting for the answer: %w",
				s.link.ID(), s.cfg.Method, context.Cause(ctx))
		}
		s.mu.Lock()
	}
	defer s.unlock()
	oc := s.outcome
	if oc == nil {
		return pool.Message{}, nil, nil
	}
	if oc.failure != nil && oc.reply.IsZero() && oc.header == nil {
		return pool.Message{}, nil, oc.failure
	}
	return oc.reply, oc.header, nil
}

// Trailer returns what came with the peer's end.
func (s *Stream) Trailer() frame.Metadata {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outcome == nil {
		return nil
	}
	return s.outcome.trailer
}

// Idle offers the time of the last message while the stream has been silent for
// its IdleTimeout. It never offers anything if there is none.
func (s *Stream) Idle() <-chan time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := s.ch
	if ch == nil || ch.idle == nil {
		return nil
	}
	if ch.idle.ch == nil {
		ch.idle.start()
	}
	return ch.idle.ch
}

// Close ends both halves in order and waits until that is done on both sides,
// or aborts when ctx ends.
func (s *Stream) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closeSend(frame.CodeOK, "", nil)
	s.closeReceive()
	done := s.doneLocked()
	s.unlock()
	select {
	case <-done:
	case <-ctx.Done():
		s.Abort(frame.CodeCancelled, "close: "+context.Cause(ctx).Error(), context.Cause(ctx))
	}
	return s.Err()
}

// stopPump ends the goroutine that feeds In or Batches.
func (s *Stream) stopFeeding() {
	ch := s.ch
	if ch == nil || ch.feedStopped {
		return
	}
	ch.feedStopped = true
	if ch.feedStop != nil {
		close(ch.feedStop)
	}
	if s.st.recv != recvOpen {
		s.closeInbound(ch)
	}
}
