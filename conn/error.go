package conn

import (
	"errors"
	"fmt"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/status"
)

// ErrGoingAway is the cause where a connection takes no new streams.
var ErrGoingAway = errors.New("sluice: connection is going away")

// ErrTooManyStreams: as many streams are open as the peer allows.
var ErrTooManyStreams = errors.New("sluice: too many streams on the connection")

// A Refusal is why an Open is refused.
type Refusal struct {
	Code         status.Code
	Reason       string
	NotProcessed bool // no handler saw the request
}

// goAwayError is the peer's GOAWAY that ends the connection.
type goAwayError struct {
	code   status.Code
	reason string
}

func (e *goAwayError) Error() string {
	switch {
	case e.code == status.OK && e.reason == "":
		return "the connection was closed in order"
	case e.reason == "":
		return e.code.String()
	}
	return e.code.String() + ": " + errtext.Quote(e.reason)
}

func violation(c status.Code, format string, args ...any) error {
	return &frame.Violation{Code: c, Detail: fmt.Sprintf(format, args...)}
}

// clip bounds a reason that the other side may write to a log.
func clip(s string) string { return errtext.Clip(s, 256) }
