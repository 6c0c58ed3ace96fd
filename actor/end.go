package actor

import (
	"context"
	"errors"
	"io"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

// CloseSend ends the sending half. What was accepted before is still sent.
func (s *Stream) CloseSend(code status.Code, reason string, trailer metadata.MD) error {
	cause := s.link.ParentErr() // which calls what is the program's
	s.mu.Lock()
	defer s.unlock()
	switch {
	case s.unaccepted():
		return ErrNotAccepted
	case !s.cfg.Caps.HalfClose && s.st.recv == recvOpen && !s.cfg.NoReceive:
		return ErrNotSupported
	}
	s.closeSend(cause, code, reason, trailer)
	return nil
}

// closeSend is CloseSend with the lock held. cause is why the parent context has ended, or nil.
func (s *Stream) closeSend(cause error, code status.Code, reason string, trailer metadata.MD) {
	if s.st.send != sendOpen || s.ch != nil && s.ch.endAsked {
		if s.outcome != nil && s.outcome.stopped {
			s.outcome.finished = true
			s.handEnd()
		}
		return
	}
	// The parent's end reaches the stream in another goroutine. An end in order must not
	// come first, or the peer would believe that it has all messages.
	if cause != nil {
		s.abort(s.parentFailure(cause))
		return
	}
	if code != status.OK || reason != "" || len(trailer) > 0 {
		s.makeOutcome().status = &frame.Frame{Code: code, Reason: reason, Metadata: trailer}
	}
	if s.ch != nil && s.ch.outRuns {
		// The goroutine that receives from Out may have a message, which comes before the
		// end. So it ends the half itself.
		s.ch.endAsked = true
		s.sendOver()
		return
	}
	s.apply(s.st.closeSend())
	s.handEnd()
}

// unaccepted reports whether the stream is an offer that was not accepted yet.
func (s *Stream) unaccepted() bool { return s.sendsHeld && s.st.canSend() }

// Finish ends both halves in order, the sending half with a status. It aborts an offer that
// was not accepted.
func (s *Stream) Finish(code status.Code, reason string, trailer metadata.MD) {
	cause := s.link.ParentErr()
	s.mu.Lock()
	defer s.unlock()
	if s.unaccepted() {
		if code == status.OK {
			code, reason = status.FailedPrecondition, "not accepted"
		}
		s.abort(s.fail(code, reason, false))
		return
	}
	s.closeSend(cause, code, reason, trailer)
	s.closeReceive()
}

// CloseReceive ends the receiving half. It drops what is unread and tells the peer to send
// no more.
func (s *Stream) CloseReceive(code status.Code) {
	s.mu.Lock()
	defer s.unlock()
	if s.st.recv == recvOpen {
		s.makeOutcome().stop = code
	}
	s.closeReceive()
}

// closeReceive ends the receiving half. It drops a request that nobody has taken and, if the
// stream has failed, what arrived before that.
func (s *Stream) closeReceive() {
	s.countInWork()
	s.dropRequest()
	if oc := s.outcome; oc != nil && oc.closedBehindEnd { // as if this had come first
		oc.failure, oc.closedBehindEnd = nil, false
		s.st.recv = recvStopEnd
		s.dropIn()
	}
	s.apply(s.st.closeReceive())
	s.renewDropped()
	if s.st.recv == recvDead {
		s.dropIn()
		s.dropUnread = true // also what the goroutine that feeds a channel has taken
	}
	s.stopFeeding()
}

// Close ends both halves in order and waits until both sides have done so. It aborts the
// stream if ctx ends first.
func (s *Stream) Close(ctx context.Context) error {
	done, err := s.closeHalves()
	if err != nil {
		return err
	}
	select {
	case <-done:
	case <-ctx.Done():
		reason, cause := "close: the context has ended", context.Cause(ctx)
		if cause != nil { // else it is one of the program's that has no error
			reason = "close: " + cause.Error()
		}
		s.Abort(status.Cancelled, reason, cause)
	}
	return s.Err()
}

// closeHalves ends both halves in order. It returns what is closed when both sides have.
func (s *Stream) closeHalves() (<-chan struct{}, error) {
	cause := s.link.ParentErr()
	s.mu.Lock()
	defer s.unlock()
	if s.unaccepted() {
		return nil, ErrNotAccepted
	}
	s.closeSend(cause, status.OK, "", nil)
	s.closeReceive()
	return s.doneLocked(), nil
}

// Abort ends both halves now and tells the peer why. The stream's error wraps cause, if
// that is not nil.
func (s *Stream) Abort(code status.Code, reason string, cause error) {
	s.mu.Lock()
	defer s.unlock()
	e := s.fail(code, reason, false)
	e.Cause = NoEnd(cause)
	if s.st.done && s.st.peerEnd == endHanded && s.errLocked() == nil {
		s.makeOutcome().failure = e // nobody has asked for the end: what came before it may be no good
	}
	s.abort(e)
}

func (s *Stream) abort(e *status.StreamError) {
	if s.st.done || s.st.send == sendDead {
		return
	}
	oc := s.makeOutcome()
	oc.failure, oc.resetErr = e, e
	oc.abortedUnanswered = !s.answered
	known := !s.link.Forsake()
	if !known {
		s.control = 0
		s.dropFirstFrame()
	}
	s.markAnswered()
	s.stopFeeding()
	s.apply(s.st.abort(known))
}

// Lost ends both halves because the connection has ended. e becomes the stream's error.
func (s *Stream) Lost(e *status.StreamError) {
	s.mu.Lock()
	defer s.unlock()
	e.Stream, e.Method = s.link.ID(), s.cfg.Method
	s.lose(e)
}

func (s *Stream) lose(e *status.StreamError) {
	if s.st.done {
		s.apply(s.st.lost())
		return
	}
	inOrder := s.closedInOrder(e)
	if !inOrder {
		oc := s.makeOutcome()
		oc.failure = e
		oc.closedBehindEnd = s.cfg.OwnConn && s.st.recv == recvOpen && s.closedBehindEnd(e)
	}
	s.markAnswered()
	if inOrder {
		s.apply(s.st.closedInOrder())
	} else {
		s.apply(s.st.lost())
	}
}

// closedInOrder reports whether the peer has closed a connection on which both halves had
// ended. Where the protocol has no ENDED that is no failure: nothing more was to come, and
// the peer need not wait for our application. If the connection is the stream's alone, its
// end is that of a half which nobody reads here: a peer without a sink writes no other.
func (s *Stream) closedInOrder(e *status.StreamError) bool {
	ended := s.st.recv == recvEnded || s.st.recv == recvStopEnd
	unread := s.st.recv == recvStopped || s.st.recv == recvOpen && s.cfg.NoReceive
	return (ended || unread && s.cfg.OwnConn) && s.closedBehindEnd(e)
}

// closedBehindEnd reports whether the peer has closed the connection behind our end, or need not
// wait for that because it has stopped reading: it may be gone before our end is written. If the
// connection is the stream's alone, and nobody has read the other half, CloseReceive still makes
// that an end in order: a call's result may come late that says that there is nothing to read.
func (s *Stream) closedBehindEnd(e *status.StreamError) bool {
	over := s.st.send == sendEnded || s.st.send == sendEnding && s.outcome != nil && s.outcome.stopped
	return s.st.noEnded && over && errors.Is(e.Cause, io.ErrUnexpectedEOF)
}

// ParentEnded aborts the stream because the context that bounds its life has ended. It
// does nothing if this side has finished: a caller's context often ends right after its
// stream.
func (s *Stream) ParentEnded() {
	cause := s.link.ParentErr()
	s.mu.Lock()
	defer s.unlock()
	if s.finished() {
		return
	}
	failure := s.parentFailure(cause)
	s.abort(failure)
	if s.ch != nil {
		s.ch.cut = failure
	}
	s.stopFeeding() // an ended stream is not aborted, but may still be read
}

// DeadlinePassed aborts the stream, unless this side has finished.
func (s *Stream) DeadlinePassed() {
	s.mu.Lock()
	defer s.unlock()
	if s.finished() {
		return
	}
	e := s.fail(status.DeadlineExceeded, "deadline exceeded", false)
	e.Cause = context.DeadlineExceeded
	s.abort(e)
}

// finished reports whether this side has nothing left to do: its application has seen the
// peer's end, and all its data is written. Its own end need not be.
func (s *Stream) finished() bool {
	ended := s.st.recv == recvEnded || s.st.recv == recvStopEnd
	return s.st.peerEnd == endSeen && ended && (s.st.send == sendEnded || s.endDue())
}

// parentFailure is the error of a stream whose parent context has ended.
func (s *Stream) parentFailure(cause error) *status.StreamError {
	code := status.Cancelled
	if cause == context.DeadlineExceeded { //nolint:errorlint // the context's own value
		code = status.DeadlineExceeded
	}
	e := s.fail(code, cause.Error(), false)
	e.Cause = NoEnd(cause)
	return e
}

// AbortedUnanswered reports whether this side aborted the stream before the peer answered.
func (s *Stream) AbortedUnanswered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outcome != nil && s.outcome.abortedUnanswered
}

// Evict resets the stream and drops what is unread, because memory is short.
func (s *Stream) Evict(reason string) {
	s.mu.Lock()
	defer s.unlock()
	e := s.fail(status.ResourceExhausted, reason, false)
	if s.st.recv == recvEnded && (s.in.Len() > 0 || s.pumping) && s.makeOutcome().recvErr == nil {
		s.makeOutcome().recvErr = e // not all that came before the peer's end can be read
	}
	s.abort(e)
	s.returnAllCredit()
	s.dropIn()
	if oc := s.outcome; oc != nil {
		oc.header, oc.trailer = nil, nil
	}
	s.stopFeeding()     // abort does not do it if the stream is over
	s.dropUnread = true // also what the goroutine that feeds a channel has taken
}
