package actor

import (
	"context"

	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Out returns a channel of messages to send. The first call starts a goroutine that
// receives from it until the sending half ends.
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

// pumpOut sends the messages that it receives from out, while there is credit. It
// returns when the sending half is over. Closing out ends the half.
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

// closeOut ends the sending half after Out was closed. If the protocol can't end one half
// alone, the stream gets that error.
func (s *Stream) closeOut() {
	if err := s.CloseSend(status.OK, "", nil); err != nil {
		s.mu.Lock()
		defer s.unlock()
		s.makeOutcome().channelErr = err
	}
}

// outEnds ends the sending half if the application has asked for that while pumpOut ran:
// messages received from Out come before the end.
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
	if err := s.sendErr(); err != nil || s.needNotWait() {
		s.unlock()
		return err
	}
	ch := s.makeChannels()
	w := ch.waiters.get()
	w.creditOnly = true
	ch.waiters.push(w)
	s.unlock()
	return s.await(context.Background(), ch, w)
}

// acceptOut accepts a message received from Out. There was credit before it was received;
// if other senders have used that up since, the message exceeds the credit.
func (s *Stream) acceptOut(m pool.Message) {
	s.mu.Lock()
	defer s.unlock()
	if !pool.IsLive(m) {
		s.abort(s.fail(status.Internal, releasedText, false))
		return
	}
	if m.Len() > s.cfg.MaxSend {
		m.Release()
		s.abort(s.fail(status.TooLarge, "message sent on Out is larger than the limit", false))
		return
	}
	if s.packs(m) {
		p, err := s.packChecked(m) // it was received before an end that was asked for meanwhile
		if err != nil {
			m.Release()
			s.abort(s.fail(status.Unimplemented, err.Error(), false))
			return
		}
		_ = sent(m, p, nil)
		m = p
	}
	if !s.st.canSend() || s.peerNoReceive {
		m.Release()
		return
	}
	s.accept(m)
	// Writing here would grow this goroutine's stack for as long as the stream lives.
	s.post.soon = true
}
