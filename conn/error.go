package conn

import (
	"errors"
	"fmt"
	"net"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/errtext"
)

// ErrGoingAway is the cause where a connection takes no new streams.
var ErrGoingAway = errors.New("sluice: connection is going away")

// ErrTooManyStreams: as many streams are open as the peer allows.
var ErrTooManyStreams = errors.New("sluice: too many streams on the connection")

// An Error ends a connection and every stream on it.
type Error struct {
	Addr   net.Addr   // the peer's
	Op     string     // "dial", "handshake", "read", "write", "keepalive", "close"
	Code   frame.Code // sent to the peer, or by it
	Remote bool       // the peer ended the connection
	Err    error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("sluice: %s %v: ", e.Op, e.Addr)
	if e.Remote {
		s += "by peer: "
	}
	if e.Err == nil {
		return s + e.Code.String()
	}
	return s + errtext.Of(e.Err)
}

// Is lets errors.Is(err, &Error{Code: c}) compare the code alone.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// A Refusal is why an Open is refused.
type Refusal struct {
	Code         frame.Code
	Reason       string
	NotProcessed bool // no handler saw the request
}

// goAwayError is the peer's GOAWAY that ends the connection.
type goAwayError struct {
	code   frame.Code
	reason string
}

func (e *goAwayError) Error() string {
	switch {
	case e.code == frame.CodeOK && e.reason == "":
		return "the connection was closed in order"
	case e.reason == "":
		return e.code.String()
	}
	return e.code.String() + ": " + errtext.Quote(e.reason)
}

func violation(c frame.Code, format string, args ...any) error {
	return &frame.Violation{Code: c, Detail: fmt.Sprintf(format, args...)}
}

// clip bounds a reason that the other side may write to a log.
func clip(s string) string { return errtext.Clip(s, 256) }
