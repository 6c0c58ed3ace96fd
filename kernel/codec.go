package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/internal/layout"
	"github.com/sluicerpc/sluice/pool"
)

// A Codec turns values of one type into bytes and back. It is used by several
// goroutines at once. One that also has the method
//
//	Size(v T) int
//
// saying how many bytes Append will append, has its values encoded straight into
// the message that is sent. Decode reads straight from the message that came.
type Codec[T any] interface {
	// Append appends v's bytes to b, which it must not keep.
	Append(b []byte, v T) ([]byte, error)
	// Decode makes a value of p. The value must share no memory with p. An error
	// that says where p is wrong is a *DecodeError with an Offset.
	Decode(p []byte) (T, error)
}

type sizer[T any] interface{ Size(v T) int }

// ErrNoCodec: the encoding can't carry values of this type.
var ErrNoCodec = errors.New("sluice: no codec for the type")

// A DecodeError says that what arrived is no value of the type that is expected.
// Where that is a message of a stream, the stream has been reset with
// CodeInvalidArgument; every value before it was delivered, and none after it is.
type DecodeError struct {
	Method  string // of the stream or call
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
	return fmt.Sprintf("sluice: %s: %s: no %s: %v", e.Method, at, e.Type, e.Err)
}

// Unwrap returns what the codec said.
func (e *DecodeError) Unwrap() error { return e.Err }

// undecodable makes the error for message n of what method names.
func undecodable[T any](method string, n int, err error) *DecodeError {
	e := &DecodeError{Method: method, Message: n, Offset: offsetOf(err), Type: reflect.TypeFor[T]().String(), Err: err}
	var inner *DecodeError
	if errors.As(err, &inner) {
		e.Offset, e.Err = inner.Offset, inner.Err
	}
	e.Err = actor.NoEnd(e.Err)
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

// syntaxOffset is where JSON is none. Its error counts the bytes that were read: with
// the wrong one, unless it is one that is missing.
func syntaxOffset(e *json.SyntaxError) int {
	if e.Error() == "unexpected end of JSON input" {
		return int(e.Offset)
	}
	return max(int(e.Offset)-1, 0)
}

// A carrier is a codec at work: it turns values into messages and back.
type carrier[T any] struct {
	codec Codec[T]
	size  sizer[T]         // nil: it does not know
	fixed *layout.Codec[T] // codec, if it is that one: values need not be copied for it
	whole bool             // T is Message: there is nothing to do
}

func carrierOf[T any](c Codec[T]) carrier[T] {
	r := carrier[T]{codec: c}
	r.size, _ = c.(sizer[T])
	r.fixed, _ = c.(*layout.Codec[T])
	return r
}

// encode makes a message of what v points to.
func (c *carrier[T]) encode(v *T) (Message, error) {
	switch {
	case c.fixed != nil:
		return c.encodeFixed(v)
	case c.whole:
		return any(*v).(Message), nil
	case c.size == nil:
		return c.encodeAside(v)
	}
	n := c.size.Size(*v)
	if n < 0 || n > pool.MaxLen {
		return Message{}, tooLong(*v, n)
	}
	m := NewMessage(n)
	into := m.Bytes()
	b, err := c.codec.Append(into[:0], *v)
	switch {
	case err != nil:
		m.Release()
		return Message{}, cannotEncode(*v, err)
	case len(b) != n || n > 0 && &b[0] != &into[0]: // it did not know after all
		defer m.Release() // b may be a part of it
		return wrapCopy(b, *v)
	}
	return m, nil
}

func (c *carrier[T]) encodeFixed(v *T) (Message, error) {
	n := c.fixed.SizeOf(v)
	if n > pool.MaxLen {
		return Message{}, tooLong(*v, n)
	}
	m := NewMessage(n)
	if _, err := c.fixed.AppendOf(m.Bytes()[:0], v); err != nil {
		m.Release()
		return Message{}, cannotEncode(*v, err)
	}
	return m, nil
}

// encodeAside encodes into a buffer that grows, and copies.
func (c *carrier[T]) encodeAside(v *T) (Message, error) {
	s := pool.GetScratch()
	defer pool.PutScratch(s)
	b, err := c.codec.Append(s.B[:0], *v)
	if err != nil {
		return Message{}, cannotEncode(*v, err)
	}
	if cap(b) >= cap(s.B) {
		s.B = b[:0]
	}
	return wrapCopy(b, *v)
}

func wrapCopy(b []byte, v any) (Message, error) {
	if len(b) > pool.MaxLen {
		return Message{}, tooLong(v, len(b))
	}
	return CopyMessage(b), nil
}

func tooLong(v any, n int) error { return fmt.Errorf("%w: a %T of %d bytes", ErrTooLarge, v, n) }

func cannotEncode(v any, err error) error { return fmt.Errorf("sluice: encode %T: %w", v, err) }

// drop gives up a message made by encode that was not sent.
func (c *carrier[T]) drop(m Message) {
	if !c.whole {
		m.Release()
	}
}

// decode reads m into v, which points to a zero T, and takes m over. If it fails v may
// hold a part.
func (c *carrier[T]) decode(m Message, v *T) (err error) {
	switch {
	case c.fixed != nil:
		err = c.fixed.DecodeTo(m.Bytes(), v)
	case c.whole:
		*v = any(m).(T)
		return nil
	default:
		*v, err = c.codec.Decode(m.Bytes())
	}
	m.Release()
	return err
}

// jsonCodec is JSON's.
type jsonCodec[T any] struct{}

// Append implements Codec.
func (jsonCodec[T]) Append(b []byte, v T) ([]byte, error) {
	p, err := json.Marshal(v)
	return append(b, p...), err
}

// Decode implements Codec.
func (jsonCodec[T]) Decode(p []byte) (T, error) {
	var v T
	err := json.Unmarshal(p, &v)
	return v, err
}

// rawCodec carries bytes as they are.
type rawCodec[T ~[]byte | ~string] struct{}

// Size makes it a codec that knows.
func (rawCodec[T]) Size(v T) int { return len(v) }

// Append implements Codec.
func (rawCodec[T]) Append(b []byte, v T) ([]byte, error) { return append(b, v...), nil }

// Decode implements Codec.
func (rawCodec[T]) Decode(p []byte) (T, error) { return T(append([]byte{}, p...)), nil }

// anyCodec makes a codec of values in an interface one of values of their type.
type anyCodec[T any] struct{ c Codec[any] }

// Append implements Codec.
func (c anyCodec[T]) Append(b []byte, v T) ([]byte, error) { return c.c.Append(b, v) }

// Decode implements Codec.
func (c anyCodec[T]) Decode(p []byte) (T, error) {
	a, err := c.c.Decode(p)
	v, ok := a.(T)
	if err == nil && !ok {
		err = fmt.Errorf("the codec made a %T", a)
	}
	return v, err
}

// sizedAnyCodec is anyCodec for a codec that knows sizes.
type sizedAnyCodec[T any] struct {
	anyCodec[T]
	s sizer[any]
}

// Size makes it a codec that knows.
func (c sizedAnyCodec[T]) Size(v T) int { return c.s.Size(v) }
