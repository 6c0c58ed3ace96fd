package actor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/errtext"
)

// Sentinel errors. Test for them with errors.Is: what is returned may say more.
var (
	// ErrClosed: this side has ended the stream, or this half of it.
	ErrClosed = errtext.Errorf("sluice: %w", net.ErrClosed)
	// ErrSendClosed: CloseSend or Close has ended the sending half.
	ErrSendClosed = fmt.Errorf("%w: sending half", ErrClosed)
	// ErrStopped: the peer reads no more; nothing failed.
	ErrStopped = errors.New("sluice: peer stopped reading")
	// ErrWouldBlock: the stream or its connection has no credit, or the connection's
	// queue is full.
	ErrWouldBlock = errors.New("sluice: operation would block: no send credit")
	// ErrNoRoom: the stream has credit, but its connection has none, or the connection's
	// queue is full. It is ErrWouldBlock too.
	ErrNoRoom = fmt.Errorf("%w: the connection is busy", ErrWouldBlock)
	// ErrNotReadable: the peer opened the stream as write-only.
	ErrNotReadable = errors.New("sluice: peer does not receive on this stream")
	// ErrNotAccepted: the stream is of an offer that was not accepted yet.
	ErrNotAccepted = errors.New("sluice: offer not accepted yet")
	// ErrRefused: the peer refused the stream; the StreamError says why.
	ErrRefused = errors.New("sluice: stream refused")
	// ErrChannelInUse: a stream is read by In or by Batches, not by both.
	ErrChannelInUse = errors.New("sluice: the other receive channel of this stream is in use")
	// ErrSlotUsed: a slot can be used or cancelled once.
	ErrSlotUsed = errors.New("sluice: slot already used or cancelled")
	// ErrTooLarge: the message is longer than the peer accepts.
	ErrTooLarge = errors.New("sluice: message too large")
	// ErrMetadataTooLarge: the metadata is larger than the peer accepts.
	ErrMetadataTooLarge = errors.New("sluice: metadata too large")
	// ErrNotSupported: the connection's protocol can't do this.
	ErrNotSupported = errors.New("sluice: not supported by the connection's protocol")
)

// NoEnd returns err, but hides io.EOF from errors.Is: a failure must not look like the end
// of a stream in order.
func NoEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, err) //nolint:errorlint // hidden on purpose
	}
	return err
}

// A StreamError says why a stream did not end in order. Its connection stays open, unless
// the code is ConnectionLost.
type StreamError struct {
	Stream       uint64         // the number on the wire; 0 if it never had one
	Method       string         // what was opened
	Code         frame.Code     // why
	Remote       bool           // the peer has ended it, not this side
	Refused      bool           // the peer refused the open
	NotProcessed bool           // no handler saw it: it is safe to try again
	Reason       string         // for people; programs must not compare it
	Details      frame.Metadata // the trailer that the peer's handler has set, if it ended the stream
	Cause        error          // what ended the connection, or the cause of the context that ended the stream
}

func (e *StreamError) Error() string {
	who := "failed"
	switch {
	case e.Refused:
		who = "refused"
	case e.Code == frame.CodeConnectionLost && e.Cause != nil:
		return fmt.Sprintf("sluice: stream %d (%s): connection lost: %s", e.Stream, errtext.Quote(e.Method), errtext.Of(e.Cause))
	case e.Remote:
		who = "ended by peer"
	}
	if e.NotProcessed {
		who += " (not processed)"
	}
	s := fmt.Sprintf("sluice: stream %d (%s): %s: %s", e.Stream, errtext.Quote(e.Method), who, e.Code)
	if e.Reason != "" {
		s += ": " + errtext.Quote(errtext.Trim(e.Reason))
	}
	return s
}

// Is makes errors.Is find a code by &StreamError{Code: c}, any refusal by ErrRefused, and
// the codes for an exceeded deadline and for a cancellation by context.DeadlineExceeded
// and context.Canceled, whichever side has ended the stream.
func (e *StreamError) Is(target error) bool {
	switch target {
	case ErrRefused:
		return e.Refused
	case context.DeadlineExceeded:
		return e.Code == frame.CodeDeadlineExceeded
	case context.Canceled:
		return e.Code == frame.CodeCancelled
	}
	t, ok := target.(*StreamError)
	return ok && t.Code == e.Code && (t.Stream == 0 || t.Stream == e.Stream)
}

// Unwrap returns Cause.
func (e *StreamError) Unwrap() error { return e.Cause }
