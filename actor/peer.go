package actor

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

// PeerGrant takes the total of credit that the peer has granted, or of payload bytes that
// it has taken where the protocol reports those.
func (s *Stream) PeerGrant(total uint64) error {
	s.mu.Lock()
	defer s.unlock()
	if !s.cfg.granted() {
		if s.reported(total) {
			s.admitWaiting()
			s.requeue()
		}
		return nil
	}
	if total > s.cred.sent+maxAhead {
		return violation(status.FlowControl, "stream %d: credit %d is too far ahead", s.link.ID(), total)
	}
	s.grantSend(total)
	return nil
}

// PeerReady is called when the peer is ready for data that had to wait behind its answer.
func (s *Stream) PeerReady() {
	s.mu.Lock()
	defer s.unlock()
	if s.outcome != nil {
		s.outcome.notReady = false
	}
	s.requeue()
}

// maxAhead is by how many bytes a grant may exceed what was sent.
const maxAhead = 1 << 31

// grantSend uses a new total of credit.
func (s *Stream) grantSend(total uint64) {
	s.cred.grant(total)
	s.admitWaiting()
	s.requeue()
}

// AddCredit adds delta, which may be negative, to the credit granted: the peer has changed
// the initial credit of all streams.
func (s *Stream) AddCredit(delta int64) {
	s.mu.Lock()
	defer s.unlock()
	if !s.cfg.granted() {
		return
	}
	s.cred.granted += delta
	s.admitWaiting()
	s.requeue()
}

// PeerEnd takes the end of the peer's half. With status.OK it ended in order.
func (s *Stream) PeerEnd(code status.Code, reason string, trailer metadata.MD) error {
	s.mu.Lock()
	defer s.unlock()
	if a := s.asm; a != nil && a.active && s.st.recv == recvOpen {
		return violation(status.Protocol, "a stream's end inside a message")
	}
	fx, ok := s.st.peerEnded()
	if !ok && s.isEndedHere() {
		return nil
	}
	if !ok {
		s.abort(s.fail(status.StreamState, "a second end", false))
		return frame.ErrFault
	}
	if s.st.recv == recvDead { // sent before the peer knew: nothing changes any more
		return nil
	}
	if len(trailer) > 0 {
		s.makeOutcome().trailer = trailer
	}
	if n := trailer.Size() + len(reason); n > 0 {
		s.link.Charge(n)
	}
	if code != status.OK {
		e := s.fail(code, reason, true)
		e.Details = trailer
		s.makeOutcome().recvErr = e
	}
	s.apply(fx)
	if s.cfg.NoReceive {
		s.apply(s.st.endSeen())
	}
	s.handEnd()
	return nil
}

// EndedHere says that the end which PeerEnd takes next is none of the peer's: the session will
// hand on nothing more. What the peer had sent before it knew is dropped.
func (s *Stream) EndedHere() {
	s.mu.Lock()
	defer s.unlock()
	s.makeOutcome().endedHere = true
}

func (s *Stream) isEndedHere() bool { return s.outcome != nil && s.outcome.endedHere }

// handEnd has the peer told of its end where nothing else is to be read and this side's
// half has ended too. A program that is done with a stream need not ask for the end.
func (s *Stream) handEnd() {
	channel := s.ch != nil && s.ch.inbound != channelNone // its closing is the end
	if s.in.Len() == 0 && !channel && (s.outcome == nil || !s.outcome.stopped || s.outcome.finished) {
		s.apply(s.st.handEnd())
	}
}

// PeerEnded is called when the peer's application has seen our end, after it has taken
// that many messages.
func (s *Stream) PeerEnded(taken uint64) error {
	s.mu.Lock()
	defer s.unlock()
	if s.st.send == sendOpen || s.st.send == sendEnding {
		return violation(status.Protocol, "stream %d: the peer saw its end before it was sent", s.link.ID())
	}
	if accepted := s.messagesAccepted(); taken < accepted {
		s.makeOutcome().dropped = int(accepted - taken)
	}
	s.apply(s.st.peerSawEnd())
	return nil
}

// PeerStopped is called when the peer reads no more.
func (s *Stream) PeerStopped(status.Code) {
	s.mu.Lock()
	defer s.unlock()
	if s.st.send == sendOpen || s.st.send == sendEnding {
		oc := s.makeOutcome()
		oc.stopped, oc.finished = true, s.st.send == sendEnding
	}
	s.apply(s.st.peerStopped())
}

// PeerReset is called when the peer has ended both halves.
func (s *Stream) PeerReset(code status.Code, reason string) {
	s.mu.Lock()
	defer s.unlock()
	s.lose(s.fail(code, reason, true))
}

// Refused is called when the peer has not accepted our open.
// trailer is what the refusal carries.
func (s *Stream) Refused(code status.Code, reason string, notProcessed bool, trailer metadata.MD) {
	s.mu.Lock()
	defer s.unlock()
	e := s.fail(code, reason, true)
	e.Refused, e.NotProcessed, e.Details = true, notProcessed, trailer
	if len(trailer) > 0 && !s.st.done {
		s.makeOutcome().trailer = trailer
	}
	s.lose(e)
	s.dropIn()
}
