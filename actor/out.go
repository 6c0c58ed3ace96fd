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
	ch := s.makeChannels()
	if ch.out != nil {
		return ch.out
	}
	ch.out = make(chan pool.Message)
	if s.sendErr() != nil {
		return ch.out
	}
	if ch.sendDone == nil {
		ch.sendDone = make(chan struct{})
	}
	ch.outRuns = true
	go s.pumpOut(ch.out, ch.sendDone)
	return ch.out
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
		s.makeOutcome().channelErr = err
	}
}

// outEnds ends the sending half if that was asked for while messages were on
// their way through Out.
func (s *Stream) outEnds() {
	s.mu.Lock()
	defer s.unlock()
	s.ch.outRuns = false
	if s.ch.endAsked {
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
	ch := s.makeChannels()
	w := ch.newWaiter()
	w.creditOnly = true
	ch.pushWaiter(w)
	s.unlock()
	return s.await(context.Background(), ch, w)
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
	if !s.st.canSend() || s.peerNoReceive {
		m.Release()
		return
	}
	s.accept(m)
	// To write here would make this goroutine's stack grow, for as long as the
	// stream lives.
	s.post.soon = true
}
