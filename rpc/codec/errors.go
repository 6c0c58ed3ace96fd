package codec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime/debug"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/internal/layout"
)

// A DecodeError says that the bytes of a message are not a value of the expected type.
// Where that was a message of a stream, the stream has been reset with
// status.InvalidArgument: every value before it was delivered, and none after it is.
type DecodeError struct {
	Method  string // of the stream or call; "": the message belongs to none
	Message int    // its number on the stream, from 1; 0: it travelled with the call or its answer
	Offset  int    // of the byte where it is wrong; -1: the codec does not say
	Type    string // that was expected
	Err     error  // what is wrong
}

func (e *DecodeError) Error() string {
	at := "in the call"
	if e.Message > 0 {
		at = fmt.Sprintf("message %d", e.Message)
	}
	if e.Offset >= 0 {
		at += fmt.Sprintf(", byte %d", e.Offset)
	}
	if e.Method == "" {
		return fmt.Sprintf("sluice: cannot decode %s: %s", e.Type, errtext.Of(e.Err))
	}
	return fmt.Sprintf("sluice: %s: %s: cannot decode %s: %s", errtext.Quote(e.Method), at, e.Type, errtext.Of(e.Err))
}

// Unwrap returns what the codec said.
func (e *DecodeError) Unwrap() error { return e.Err }

// A PanicError says that a method of a codec has panicked or has called runtime.Goexit. A
// stream whose value it was is reset with status.InvalidArgument. Its text, which the peer is
// told, does not have Value.
type PanicError struct {
	Value any // of the panic; nil for runtime.Goexit
	Stack []byte
}

func (e *PanicError) Error() string {
	if e.Value == nil {
		return "the codec called runtime.Goexit"
	}
	return "the codec panicked"
}

// recovered makes *err of a codec's panic, r, if there is one. Nothing keeps a goroutine that
// has called runtime.Goexit from ending: what must not stay behind then is let go of by
// defers.
func recovered(err *error, r any) {
	if r != nil {
		*err = &PanicError{Value: r, Stack: debug.Stack()}
	}
}

// decodeError makes the error for a message that is not a T.
func decodeError[T any](err error) *DecodeError {
	e := &DecodeError{Offset: offsetOf(err), Type: reflect.TypeFor[T]().String(), Err: err}
	var inner *DecodeError
	if errors.As(err, &inner) {
		e.Offset, e.Err = inner.Offset, inner.Err
	}
	if errors.Is(e.Err, io.EOF) { // what has failed must not look like a stream's end in order
		e.Err = fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, e.Err) //nolint:errorlint // hidden on purpose
	}
	return e
}

func offsetOf(err error) int {
	var (
		fixed  *layout.Error
		syntax *json.SyntaxError
		kind   *json.UnmarshalTypeError
	)
	switch {
	case errors.As(err, &fixed):
		return fixed.Offset
	case errors.As(err, &syntax):
		return syntaxOffset(syntax)
	case errors.As(err, &kind):
		return int(kind.Offset)
	}
	return -1
}

// syntaxOffset is where the JSON is wrong. The error counts the bytes that were read,
// the wrong one among them, unless one is missing.
func syntaxOffset(e *json.SyntaxError) int {
	if e.Error() == "unexpected end of JSON input" {
		return int(e.Offset)
	}
	return max(int(e.Offset)-1, 0)
}
