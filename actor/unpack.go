package actor

import (
	"errors"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A message that came compressed stays so in the mailbox, where it counts as what the
// wire has counted. It is unpacked by who takes it: a Receive, or the goroutine that feeds
// a channel, and never on the connection's reader. That it may hold more than MaxReceive
// is found out there too.

// unpack returns what m holds, and takes m over, which has been accounted for. If it holds
// nothing that can be read, the stream has been reset, and the error is the stream's.
func (s *Stream) unpack(m pool.Message) (pool.Message, error) {
	if !pool.IsPacked(m) {
		return m, nil
	}
	u, err := s.link.Unpack(m, s.cfg.MaxReceive)
	if err == nil {
		return u, nil
	}
	s.mu.Lock()
	defer s.unlock()
	return pool.Message{}, s.spoil(err)
}

// spoil resets the stream because of a message that can't be unpacked. What came behind it
// is dropped: a message is missing before it. The lock is held.
func (s *Stream) spoil(cause error) error {
	code := status.DataLoss
	if errors.Is(cause, frame.ErrUnpacked) {
		code = status.TooLarge
	}
	e := s.fail(code, cause.Error(), false)
	e.Cause = NoEnd(cause)
	if oc := s.makeOutcome(); oc.recvErr == nil {
		oc.recvErr = e
	}
	s.abort(e)
	s.dropIn()
	s.stopFeeding()
	s.dropUnread = true
	return s.outcome.recvErr
}
