package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/metadata"
)

// Of returns the code and reason that a stream ends with when its handler returns err:
//   - nil: OK;
//   - a HandlerError or StreamError: its code and reason;
//   - a ConnError: its code, and Unavailable if that is OK;
//   - context.DeadlineExceeded and context.Canceled, and what wraps them: DeadlineExceeded and
//     Cancelled;
//   - any other error: Unknown.
//
// The reason is the error's text where it has none of its own. A HandlerError or StreamError
// with the code OK, which is not the code of a failure, is Unknown.
func Of(err error) (Code, string) {
	var he *HandlerError
	var se *StreamError
	var ce *ConnError
	switch {
	case err == nil:
		return OK, ""
	case errors.As(err, &he):
		return cmp.Or(he.Code, Unknown), he.Reason
	case errors.As(err, &se):
		return cmp.Or(se.Code, Unknown), se.Reason
	case errors.As(err, &ce):
		return cmp.Or(ce.Code, Unavailable), err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded, err.Error()
	case errors.Is(err, context.Canceled):
		return Cancelled, err.Error()
	}
	return Unknown, err.Error()
}

// A HandlerError is returned by a handler to end its stream with a code of its choice. The
// peer finds Details in StreamError.Details, behind the metadata of Stream.SetTrailer, also
// if it refuses the stream. Details that can't be sent, because they are too large, have an
// illegal key, or the protocol carries none there, are logged and left out.
type HandlerError struct {
	Code    Code        // OK becomes Unknown
	Reason  string      // is sent to the peer
	Details metadata.MD // is sent to the peer
}

func (e *HandlerError) Error() string {
	return "sluice: " + e.Code.String() + ": " + errtext.Trim(e.Reason)
}

// ErrRefused is what errors.Is finds in a StreamError whose Refused is set.
var ErrRefused = errors.New("sluice: stream refused")

// ErrDisconnected is what errors.Is finds in a StreamError with the code ConnectionLost: the
// connection has ended and the stream with it, because the peer's process or the network is gone,
// or because the peer has closed the connection. syscall.EPIPE, a broken pipe, is found there too.
var ErrDisconnected = errors.New("sluice: peer disconnected")

// A StreamError says why a stream did not end in order. Its connection stays open, unless
// the code is ConnectionLost.
type StreamError struct {
	Stream       uint64      // the number on the wire; 0 if it never had one
	Method       string      // what was opened
	Code         Code        // why
	Remote       bool        // the peer has ended it, not this side
	Refused      bool        // the peer refused the open
	NotProcessed bool        // no handler saw the open: it is safe to try again
	Reason       string      // for people; programs must not compare it
	Details      metadata.MD // the trailer that the peer's handler has set, if it ended the stream; of a refusal its header before that
	Cause        error       // what ended the connection, or the cause of the context that ended the stream
}

func (e *StreamError) Error() string {
	who := "failed"
	switch {
	case e.Refused:
		who = "refused"
	case e.Code == ConnectionLost && e.Cause != nil:
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

// Is makes errors.Is find a code by &StreamError{Code: c}, any refusal by ErrRefused, a lost
// connection by ErrDisconnected and syscall.EPIPE, and the codes for an exceeded deadline and
// for a cancellation by context.DeadlineExceeded and context.Canceled, whichever side has ended
// the stream.
func (e *StreamError) Is(target error) bool {
	switch target {
	case ErrRefused:
		return e.Refused
	case ErrDisconnected, syscall.EPIPE:
		return e.Code == ConnectionLost
	case context.DeadlineExceeded:
		return e.Code == DeadlineExceeded
	case context.Canceled:
		return e.Code == Cancelled
	}
	t, ok := target.(*StreamError)
	return ok && t.Code == e.Code && (t.Stream == 0 || t.Stream == e.Stream)
}

// Unwrap returns Cause.
func (e *StreamError) Unwrap() error { return e.Cause }

// A ConnError says why a connection has ended, and all its streams with it, or why it could
// not be made. A server that refuses a client gives Unauthenticated or the code of its
// Authenticate.
type ConnError struct {
	Addr net.Addr // the peer's
	// Op is what failed: "listen", "accept", "dial", "handshake", "open", "read", "write",
	// "keepalive" or "close".
	Op     string
	Code   Code  // sent to the peer, or by it
	Remote bool  // the peer ended or refused the connection
	Err    error // the cause: the system's error, or a ProtocolError
}

func (e *ConnError) Error() string {
	s := fmt.Sprintf("sluice: %s %v: ", e.Op, e.Addr)
	if e.Remote {
		s += "by peer: "
	}
	if e.Err == nil {
		return s + e.Code.String()
	}
	return s + errtext.Of(e.Err)
}

// Is lets errors.Is(err, &ConnError{Code: c}) compare the code alone.
func (e *ConnError) Is(target error) bool {
	t, ok := target.(*ConnError)
	return ok && t.Code == e.Code
}

// Unwrap returns Err.
func (e *ConnError) Unwrap() error { return e.Err }

// A ProtocolError is the cause of a ConnError if the peer has broken the protocol's rules.
type ProtocolError struct {
	Proto  string // the protocol's name, such as "sluice"
	Code   Code
	Offset int64 // of the frame in question in what the connection has received
	Detail string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("%s protocol error at byte %d: %s: %s", e.Proto, e.Offset, e.Code, e.Detail)
}

// Is lets errors.Is(err, &ProtocolError{Code: c}) compare the code alone.
func (e *ProtocolError) Is(target error) bool {
	t, ok := target.(*ProtocolError)
	return ok && t.Code == e.Code
}
