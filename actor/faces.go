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
type faces struct {
	in      inBuffer          // stream -> user
	batches chan *Batch       // stream -> user
	out     chan pool.Message // user -> stream; never closed by the stream
	slots   chan Slot         // stream -> user

	sendDone chan struct{}
	done     chan struct{}
	ctxDone  chan struct{}
	answered chan struct{}
	stop     chan struct{} // ends the goroutine that feeds in or batches
	receive  chan struct{} // wakes a Receive; holds one word

	face                           face
	slotKnown                      bool    // RoomGone will be called
	rest                           *rest   // of batches that Receive took; nil: none ever
	feed                           *func() // feeds in or batches
	inClosed, slotsClosed, ctxOver bool
	outRuns, endAsked              bool // the goroutine of out; CloseSend while it runs
	sendOver                       bool
	givenUp                        bool // this side reads no more
	slotOut                        bool // a slot is in slots, or somebody has it
	slotGen                        uint32
	receivers                      int32
	watchers                       int32 // who have asked for GivenUp, and feed a channel

	waitHead, waitTail *waiter
	spare              *waiter // to wait with again
	idle               *idler
}

// closed is what an asker gets where the event has passed.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// newWaiter returns a waiter to be used once. A stream keeps one: a pool for all
// would carry its channel from one synctest bubble into another.
func (f *faces) newWaiter() *waiter {
	if w := f.spare; w != nil {
		f.spare = nil
		return w
	}
	return &waiter{ready: make(chan error, 1)}
}

func (f *faces) pushWaiter(w *waiter) {
	w.next = nil
	if f.waitTail == nil {
		f.waitHead = w
	} else {
		f.waitTail.next = w
	}
	f.waitTail = w
}

func (f *faces) popWaiter() *waiter {
	w := f.waitHead
	if w == nil {
		return nil
	}
	if f.waitHead = w.next; f.waitHead == nil {
		f.waitTail = nil
	}
	w.next = nil
	return w
}

func (f *faces) removeWaiter(w *waiter) bool {
	var prev *waiter
	for x := f.waitHead; x != nil; prev, x = x, x.next {
		if x != w {
			continue
		}
		if prev == nil {
			f.waitHead = w.next
		} else {
			prev.next = w.next
		}
		if f.waitTail == w {
			f.waitTail = prev
		}
		return true
	}
	return false
}

func (f *faces) wakeReceiver() {
	if f.receivers == 0 {
		return
	}
	select {
	case f.receive <- struct{}{}:
	default:
	}
}

// closeSend tells everyone that the sending half is over.
func (f *faces) closeSend() {
	if f.sendOver {
		return
	}
	f.sendOver = true
	if f.sendDone != nil {
		close(f.sendDone)
	}
	f.closeSlots()
}

// SendDone is closed when the stream will take no further message.
func (s *Stream) SendDone() <-chan struct{} {
	s.mu.Lock()
	defer s.unlock()
	f := s.face()
	if f.sendDone == nil {
		if s.sendErr() != nil {
			f.sendOver, f.sendDone = true, closed
			return closed
		}
		f.sendDone = make(chan struct{})
	}
	return f.sendDone
}

// Done is closed when both halves have ended and nothing will change again.
func (s *Stream) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.unlock()
	return s.doneLocked()
}

func (s *Stream) doneLocked() <-chan struct{} {
	f := s.face()
	if f.done == nil {
		if s.st.done {
			return closed
		}
		f.done = make(chan struct{})
	}
	return f.done
}

// ContextDone is the Done channel of the stream's context: closed when the
// stream has ended, or EndContext was called.
func (s *Stream) ContextDone() <-chan struct{} {
	s.mu.Lock()
	defer s.unlock()
	f := s.face()
	if f.ctxDone == nil {
		f.ctxDone = make(chan struct{})
		if f.ctxOver || s.st.done {
			f.ctxOver = true
			close(f.ctxDone)
		}
	}
	return f.ctxDone
}

// EndContext ends the stream's context: the handler has returned.
func (s *Stream) EndContext() {
	s.mu.Lock()
	defer s.unlock()
	f := s.face()
	if f.ctxDone != nil && !f.ctxOver {
		close(f.ctxDone)
	}
	f.ctxOver = true
}

// ContextOver tells whether the stream's context has ended, and the stream's
// failure if that was why.
func (s *Stream) ContextOver() (bool, error) {
	s.mu.Lock()
	defer s.unlock()
	return s.st.done || s.f != nil && s.f.ctxOver, s.errLocked()
}

// Answer waits until the peer has accepted the stream.
func (s *Stream) Answer(ctx context.Context) (pool.Message, frame.Metadata, error) {
	s.mu.Lock()
	if !s.answered {
		f := s.face()
		if f.answered == nil {
			f.answered = make(chan struct{})
		}
		c := f.answered
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
	e := s.ends
	if e == nil {
		return pool.Message{}, nil, nil
	}
	if e.failure != nil && e.reply.IsZero() && e.header == nil {
		return pool.Message{}, nil, e.failure
	}
	return e.reply, e.header, nil
}

// Trailer returns what came with the peer's end.
func (s *Stream) Trailer() frame.Metadata {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends == nil {
		return nil
	}
	return s.ends.trailer
}

// Idle offers the time of the last message while the stream has been silent for
// its IdleTimeout. It never offers anything if there is none.
func (s *Stream) Idle() <-chan time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.f
	if f == nil || f.idle == nil {
		return nil
	}
	if f.idle.ch == nil {
		f.idle.start()
	}
	return f.idle.ch
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
func (s *Stream) stopPump() {
	f := s.f
	if f == nil || f.givenUp {
		return
	}
	f.givenUp = true
	if f.stop != nil {
		close(f.stop)
	}
	if s.st.recv != recvOpen {
		s.closeFaces(f)
	}
}
