package codec

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/internal/layout"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// A Marshaler turns values of one type into messages and back, by a codec. It is used
// by several goroutines at once.
type Marshaler[T any] struct {
	codec     Codec[T]
	size      sizer[T]         // nil: it does not know
	maker     maker[T]         // nil: it appends
	direct    direct[T]        // nil: it may panic
	fixed     *layout.Codec[T] // in codec, if it is that one: values need not be copied for it
	whole     bool             // T is pool.Message: there is nothing to do
	signature string
	refs      refs
}

// NewMarshaler returns a marshaler that uses c. It does not look for references in T.
func NewMarshaler[T any](c Codec[T]) *Marshaler[T] {
	m := &Marshaler[T]{codec: c}
	m.size, _ = c.(sizer[T])
	m.maker, _ = c.(maker[T])
	m.direct, _ = c.(direct[T])
	if f, ok := c.(fixedCodec[T]); ok {
		m.fixed = f.Codec
	}
	if s, ok := c.(signer); ok {
		m.signature = s.signature()
	}
	return m
}

// Signature is what both sides must agree on: the encoding's name and, behind a semicolon,
// what it says of the type. Fixed says a hash of what is in a value, without optional fields
// at the end; protobuf says the message's full name; JSON, and bytes that are sent as they
// are, say nothing more; an encoding of the program's own says the TypeName of its codec.
// The signature is empty, and agrees with any, for a pool.Message and for a codec whose
// encoding has no name.
func (m *Marshaler[T]) Signature() string { return m.signature }

// RefTypes returns the types of the references in T: see Ref.
func (m *Marshaler[T]) RefTypes() []reflect.Type { return m.refs.types }

// EachRef calls f with each reference in what v points to, with nil for one that is nil.
// It stops when f fails, and returns that error.
func (m *Marshaler[T]) EachRef(v *T, f func(ref any) error) error {
	if m.refs.find == nil {
		return nil
	}
	return m.refs.find(reflect.ValueOf(v).Elem(), f)
}

// Marshal makes a message of what v points to. Where T is pool.Message that is the
// message itself. Nobody may write to the bytes of the message, which may be a string's.
// Errors: the codec's, kernel.ErrTooLarge, ErrNotAppended, a *PanicError.
func (m *Marshaler[T]) Marshal(v *T) (pool.Message, error) {
	switch {
	case m.fixed != nil:
		return m.marshalFixed(v)
	case m.whole:
		return any(*v).(pool.Message), nil
	case m.direct != nil:
		return m.direct.message(*v)
	case m.maker != nil:
		msg, err := m.make(v)
		if err != nil {
			return pool.Message{}, cannotEncode(*v, err)
		}
		return msg, nil
	case m.size == nil:
		return m.marshalAside(v)
	}
	msg, err := m.marshalSized(v)
	switch {
	case err == errMissized:
		return m.marshalAside(v)
	case err != nil:
		return pool.Message{}, cannotEncode(*v, err)
	}
	return msg, nil
}

// errMissized says that a codec does not know the size of a value after all.
var errMissized = errors.New("another size")

// marshalSized encodes into a message of the size that the codec says. Each goroutine that
// sends small values does this for each: there is one defer for all.
func (m *Marshaler[T]) marshalSized(v *T) (msg pool.Message, err error) {
	full := false
	defer func() {
		if !full {
			msg.Release() // also if the codec calls runtime.Goexit
			recovered(&err, recover())
		}
	}()
	n := m.size.Size(*v)
	if n < 0 || n > pool.MaxLen {
		return msg, tooLong(*v, n)
	}
	msg = pool.New(n)
	into := msg.Bytes()
	b, err := m.codec.Append(into[:0], *v)
	if err == nil && (len(b) != n || n > 0 && &b[0] != &into[0]) {
		err = errMissized
	}
	full = err == nil
	return msg, err
}

func (m *Marshaler[T]) marshalFixed(v *T) (pool.Message, error) {
	n := m.fixed.SizeOf(v)
	if n > pool.MaxLen {
		return pool.Message{}, tooLong(*v, n)
	}
	msg := pool.New(n)
	if _, err := m.fixed.AppendOf(msg.Bytes()[:0], v); err != nil {
		msg.Release()
		return pool.Message{}, cannotEncode(*v, err)
	}
	return msg, nil
}

// mark is what a value is appended to, so that one that comes without it was not appended.
const mark = "\xc3sluice\x00"

// marshalAside encodes into a buffer that grows, and copies.
func (m *Marshaler[T]) marshalAside(v *T) (pool.Message, error) {
	s := scratches.Get().(*scratch)
	defer s.free()
	b, err := m.append(append(s.b[:0], mark...), v)
	if err == nil && !bytes.HasPrefix(b, []byte(mark)) {
		err = ErrNotAppended
	}
	if err != nil {
		return pool.Message{}, cannotEncode(*v, err)
	}
	s.grow(cap(b))
	if b = b[len(mark):]; len(b) > pool.MaxLen {
		return pool.Message{}, tooLong(*v, len(b))
	}
	return pool.Copy(b), nil
}

func (m *Marshaler[T]) append(b []byte, v *T) (_ []byte, err error) {
	defer func() { recovered(&err, recover()) }()
	return m.codec.Append(b, *v)
}

func (m *Marshaler[T]) make(v *T) (_ pool.Message, err error) {
	defer func() { recovered(&err, recover()) }()
	return m.maker.message(*v)
}

func (m *Marshaler[T]) decode(msg pool.Message) (_ T, err error) {
	defer func() {
		msg.Release() // also if the codec calls runtime.Goexit
		recovered(&err, recover())
	}()
	return m.codec.Decode(msg.Bytes())
}

// A scratch is a buffer to encode into. It is never one that a codec has returned: that
// may be memory which the codec, or the program, has other uses for.
type scratch struct{ b []byte }

var scratches = sync.Pool{New: func() any { return &scratch{make([]byte, 0, 64)} }}

// maxScratch is how long a buffer may be that is kept.
const maxScratch = 1 << 20

// grow makes room for n bytes, for the next value.
func (s *scratch) grow(n int) {
	if n > cap(s.b) && n <= maxScratch {
		s.b = make([]byte, 0, n)
	}
}

func (s *scratch) free() { scratches.Put(s) }

func tooLong(v any, n int) error {
	return fmt.Errorf("%w: a %T of %d bytes", kernel.ErrTooLarge, v, n)
}

func cannotEncode(v any, err error) error { return errtext.Errorf("sluice: encode %T: %w", v, err) }

// Discard releases a message made by Marshal that was not sent. One that was a value
// belongs to whoever has that.
func (m *Marshaler[T]) Discard(msg pool.Message) {
	if !m.whole {
		msg.Release()
	}
}

// Unmarshal reads msg into v, which points to a zero T, and takes msg over. An error is
// a *DecodeError without Method and Message, around a *PanicError if the codec has
// panicked; v may then hold a part of the value.
func (m *Marshaler[T]) Unmarshal(msg pool.Message, v *T) (err error) {
	switch {
	case m.fixed != nil:
		err = m.fixed.DecodeTo(msg.Bytes(), v)
		msg.Release()
	case m.whole:
		*v = any(msg).(T)
		return nil
	case m.direct != nil:
		*v = m.direct.value(msg.Bytes())
		msg.Release()
		return nil
	default:
		*v, err = m.decode(msg)
	}
	if err != nil {
		return decodeError[T](err)
	}
	return nil
}
