package actor

import (
	"context"

	"github.com/sluicerpc/sluice/frame"
)

// GivenUp is closed when this side reads no more: after CloseReceive, Close or
// Abort here, the handler's end, or GiveUp. A stream that the peer has ended is read
// on. Who asks feeds a channel, and calls Watched when that is over.
func (s *Stream) BeginFeed() <-chan struct{} {
	s.mu.Lock()
	defer s.unlock()
	ch := s.makeChannels()
	ch.feeders++
	s.feedingChanged()
	if ch.feedStopped {
		return closed
	}
	if ch.feedStop == nil {
		ch.feedStop = make(chan struct{})
	}
	return ch.feedStop
}

// Watched says that who asked for GivenUp has no more use for it.
func (s *Stream) EndFeed() {
	s.mu.Lock()
	defer s.unlock()
	s.ch.feeders--
	s.feedingChanged()
}

// Feeding tells whether a goroutine feeds In or Batches, or a channel above them: it
// waits for a reader, also when the stream is over.
func (s *Stream) Feeding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.feeding()
}

func (s *Stream) feeding() bool { return s.pumping || s.ch != nil && s.ch.feeders > 0 }

// fed tells the connection, after one of those goroutines has begun or ended.
func (s *Stream) feedingChanged() {
	if s.st.retired {
		s.later().feeding = true
	}
}

// Unanswered tells whether this side gave the stream up before the peer's answer.
func (s *Stream) AbortedUnanswered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outcome != nil && s.outcome.abortedUnanswered
}

// finished tells whether this side has nothing left to do: it was handed the peer's
// end, and all that it sent is written, or its end alone is not. What is missing is
// that the peer says the same.
func (s *Stream) finished() bool {
	ended := s.st.recv == recvEnded || s.st.recv == recvStopEnd
	return s.st.sawEnd && ended && (s.st.send == sendEnded || s.endDue())
}

// GiveUp says that this side reads no more on a channel. What was not handed over
// stays for Receive.
func (s *Stream) StopFeeding() {
	s.mu.Lock()
	defer s.unlock()
	s.stopFeeding()
}

// Orphan ends the stream because the context that bounds its life has ended, unless
// this side has nothing left to do: a caller's context mostly ends right behind its
// stream.
func (s *Stream) ParentEnded() {
	s.mu.Lock()
	defer s.unlock()
	if s.finished() {
		return
	}
	s.abort(s.parentFailure(s.link.ParentErr()))
	s.stopFeeding() // it may have ended before, and be read on
}

// orphaned is the error of a stream whose parent has ended.
func (s *Stream) parentFailure(cause error) *StreamError {
	code := frame.CodeCancelled
	if cause == context.DeadlineExceeded { //nolint:errorlint // the context's own value
		code = frame.CodeDeadlineExceeded
	}
	e := s.fail(code, cause.Error(), false)
	e.Cause = NoEnd(cause)
	return e
}
