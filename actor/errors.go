package actor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/sluicerpc/sluice/frame"
)

// Sentinels name a state that a caller can run into. Test for them with
// errors.Is; what is returned may say more.
var (
	// ErrClosed: the stream, or this half of it, was ended on this side.
	ErrClosed = fmt.Errorf("sluice: %w", net.ErrClosed)
	// ErrSendClosed: the sending half has ended by CloseSend or Close.
	ErrSendClosed = fmt.Errorf("%w: sending half", ErrClosed)
	// ErrStopped: the peer reads no more; nothing failed.
	ErrStopped = errors.New("sluice: peer stopped reading")
	// ErrWouldBlock: there is no credit, or no room in the connection's queue.
	ErrWouldBlock = errors.New("sluice: no credit")
	// ErrNoRoom: the stream has credit, but the connection has none, or its queue
	// is full. It is ErrWouldBlock too.
	ErrNoRoom = fmt.Errorf("%w: the connection is busy", ErrWouldBlock)
	// ErrNotReadable: the peer opened the stream as write-only.
	ErrNotReadable = errors.New("sluice: peer does not receive on this stream")
	// ErrRefused: the peer refused the stream; the StreamError says why.
	ErrRefused = errors.New("sluice: stream refused")
	// ErrFaceInUse: In and Batches exclude each other on one stream.
	ErrChannelInUse = errors.New("sluice: the other receive channel of this stream is in use")
	// ErrSlotUsed: a slot can be used or cancelled once.
	ErrSlotUsed = errors.New("sluice: slot already used or cancelled")
	// ErrTooLarge: the message is longer than the peer takes.
	ErrTooLarge = errors.New("sluice: message too large")
	// ErrMetadataTooLarge: the metadata is larger than the peer takes.
	ErrMetadataTooLarge = errors.New("sluice: metadata too large")
	// ErrNotSupported: the connection's protocol can't carry this.
	ErrNotSupported = errors.New("sluice: not supported by the connection's protocol")
)

// NoEnd is err, unless errors.Is would find io.EOF in it: what has failed must not
// look like a stream's end in order.
func NoEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, err) //nolint:errorlint // hidden on purpose
	}
	return err
}

// A StreamError says why one stream ended other than in order. Its connection
// lives on, unless the code is ConnectionLost.
type StreamError struct {
	Stream       uint64         // the number on the wire; 0 if it never got there
	Method       string         // what was opened
	Code         frame.Code     // why, in terms that every protocol here can carry
	Remote       bool           // the peer decided it, not we
	Refused      bool           // the answer to the open was no, perhaps a handler's
	NotProcessed bool           // no handler saw it: safe to try again
	Reason       string         // for people; never compare it
	Details      frame.Metadata // the trailer that the peer's handler set, if it gave the status
	Cause        error          // what ended the connection, or the context's cause, if that was it
}

func (e *StreamError) Error() string {
	who := "failed"
	switch {
	case e.Refused:
		who = "refused"
	case e.Code == frame.CodeConnectionLost && e.Cause != nil:
		return fmt.Sprintf("sluice: stream %d (%s): connection lost: %v", e.Stream, e.Method, e.Cause)
	case e.Remote:
		who = "ended by peer"
	}
	if e.NotProcessed {
		who += " (not processed)"
	}
	s := fmt.Sprintf("sluice: stream %d (%s): %s: %s", e.Stream, e.Method, who, e.Code)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// Is lets errors.Is(err, &StreamError{Code: c}) ask for a code alone,
// errors.Is(err, ErrRefused) for any refusal, and errors.Is(err,
// context.DeadlineExceeded) or context.Canceled for what has their meaning,
// whichever side was the first to find out.
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

// Unwrap returns what ended the connection, or the cause of the context that
// ended the stream, if it was that.
func (e *StreamError) Unwrap() error { return e.Cause }
