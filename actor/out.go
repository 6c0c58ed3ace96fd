package actor

import (
	"context"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// Out returns the way to the peer. The first call starts the stream's goroutine
// that takes from it, which ends with the sending half.
func (s *Stream) Out() chan<- pool.Message {
	s.mu.Lock()
	defer s.unlock()
	f := s.face()
	if f.out != nil {
		return f.out
	}
	f.out = make(chan pool.Message)
	if s.sendErr() != nil {
		return f.out
	}
	if f.sendDone == nil {
		f.sendDone = make(chan struct{})
	}
	f.outRuns = true
	go s.pumpOut(f.out, f.sendDone)
	return f.out
}

// pumpOut takes messages from out while there is credit, until the sending half
// is over. Closing out ends the half.
func (s *Stream) pumpOut(out <-chan pool.Message, over <-chan struct{}) {
	defer s.outEnds()
	for s.awaitCredit() == nil {
		var m pool.Message
		var ok bool
		select {
		case m, ok = <-out:
		default:
			select {
			case m, ok = <-out:
			case <-over:
				return
			}
		}
		if !ok {
			s.closeOut()
			return
		}
		s.acceptOut(m)
	}
}

// closeOut ends the sending half because Out was closed. Where the protocol can't
// end one half, that is the stream's error.
func (s *Stream) closeOut() {
	if err := s.CloseSend(frame.CodeOK, "", nil); err != nil {
		s.mu.Lock()
		defer s.unlock()
		s.more().faceErr = err
	}
}

// outEnds ends the sending half if that was asked for while messages were on
// their way through Out.
func (s *Stream) outEnds() {
	s.mu.Lock()
	defer s.unlock()
	s.f.outRuns = false
	if s.f.endAsked {
		s.apply(s.st.closeSend())
	}
}

// awaitCredit waits until a message may be accepted, or the half is over.
func (s *Stream) awaitCredit() error {
	s.mu.Lock()
	if err := s.sendErr(); err != nil || s.hasCredit() {
		s.unlock()
		return err
	}
	f := s.face()
	w := f.newWaiter()
	w.token = true
	f.pushWaiter(w)
	s.unlock()
	return s.await(context.Background(), f, w)
}

// acceptOut accepts what was taken from Out. There was credit for it when it was
// taken; should others have used it meanwhile, it goes ahead of its credit.
func (s *Stream) acceptOut(m pool.Message) {
	s.mu.Lock()
	defer s.unlock()
	if m.Len() > s.cfg.MaxSend {
		m.Release()
		s.abort(s.fail(frame.CodeTooLarge, "message sent on Out is larger than the peer takes", false))
		return
	}
	if !s.st.canSend() || s.deaf {
		m.Release()
		return
	}
	s.accept(m)
	// To write here would make this goroutine's stack grow, for as long as the
	// stream lives.
	s.post.soon = true
}
