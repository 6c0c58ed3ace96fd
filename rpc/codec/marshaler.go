package codec

import (
	"fmt"
	"reflect"
	"sync"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/internal/layout"
	"github.com/sluicerpc/sluice/kernel"
)

// A Marshaler turns values of one type into messages and back, by a codec. It is used
// by several goroutines at once.
type Marshaler[T any] struct {
	codec Codec[T]
	size  sizer[T]         // nil: it does not know
	fixed *layout.Codec[T] // codec, if it is that one: values need not be copied for it
	whole bool             // T is kernel.Message: there is nothing to do
	refs  refs
}

// NewMarshaler returns a marshaler that uses c. It does not look for references in T.
func NewMarshaler[T any](c Codec[T]) *Marshaler[T] {
	m := &Marshaler[T]{codec: c}
	m.size, _ = c.(sizer[T])
	m.fixed, _ = c.(*layout.Codec[T])
	return m
}

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

// Marshal makes a message of what v points to. Where T is kernel.Message that is the
// message itself. Errors: the codec's, and kernel.ErrTooLarge.
func (m *Marshaler[T]) Marshal(v *T) (kernel.Message, error) {
	switch {
	case m.fixed != nil:
		return m.marshalFixed(v)
	case m.whole:
		return any(*v).(kernel.Message), nil
	case m.size == nil:
		return m.marshalAside(v)
	}
	n := m.size.Size(*v)
	if n < 0 || n > kernel.MaxMessage {
		return kernel.Message{}, tooLong(*v, n)
	}
	msg := kernel.NewMessage(n)
	into := msg.Bytes()
	b, err := m.codec.Append(into[:0], *v)
	switch {
	case err != nil:
		msg.Release()
		return kernel.Message{}, cannotEncode(*v, err)
	case len(b) != n || n > 0 && &b[0] != &into[0]: // it did not know after all
		defer msg.Release() // b may be a part of it
		return messageOf(b, *v)
	}
	return msg, nil
}

func (m *Marshaler[T]) marshalFixed(v *T) (kernel.Message, error) {
	n := m.fixed.SizeOf(v)
	if n > kernel.MaxMessage {
		return kernel.Message{}, tooLong(*v, n)
	}
	msg := kernel.NewMessage(n)
	if _, err := m.fixed.AppendOf(msg.Bytes()[:0], v); err != nil {
		msg.Release()
		return kernel.Message{}, cannotEncode(*v, err)
	}
	return msg, nil
}

// marshalAside encodes into a buffer that grows, and copies.
func (m *Marshaler[T]) marshalAside(v *T) (kernel.Message, error) {
	s := scratches.Get().(*scratch)
	defer s.free()
	b, err := m.codec.Append(s.b[:0], *v)
	if err != nil {
		return kernel.Message{}, cannotEncode(*v, err)
	}
	if cap(b) >= cap(s.b) {
		s.b = b[:0]
	}
	return messageOf(b, *v)
}

// A scratch is a buffer to encode into.
type scratch struct{ b []byte }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// maxScratch is how long a buffer may be that is kept.
const maxScratch = 1 << 20

func (s *scratch) free() {
	if cap(s.b) <= maxScratch {
		scratches.Put(s)
	}
}

func messageOf(b []byte, v any) (kernel.Message, error) {
	if len(b) > kernel.MaxMessage {
		return kernel.Message{}, tooLong(v, len(b))
	}
	return kernel.CopyMessage(b), nil
}

func tooLong(v any, n int) error {
	return fmt.Errorf("%w: a %T of %d bytes", kernel.ErrTooLarge, v, n)
}

func cannotEncode(v any, err error) error { return errtext.Errorf("sluice: encode %T: %w", v, err) }

// Discard releases a message made by Marshal that was not sent. One that was a value
// belongs to whoever has that.
func (m *Marshaler[T]) Discard(msg kernel.Message) {
	if !m.whole {
		msg.Release()
	}
}

// Unmarshal reads msg into v, which points to a zero T, and takes msg over. An error is
// a *DecodeError without Method and Message; v may then hold a part of the value.
func (m *Marshaler[T]) Unmarshal(msg kernel.Message, v *T) (err error) {
	switch {
	case m.fixed != nil:
		err = m.fixed.DecodeTo(msg.Bytes(), v)
	case m.whole:
		*v = any(msg).(T)
		return nil
	default:
		*v, err = m.codec.Decode(msg.Bytes())
	}
	msg.Release()
	if err != nil {
		return decodeError[T](err)
	}
	return nil
}
