package codec

import (
	"fmt"

	"github.com/sluicerpc/sluice/internal/layout"
	"github.com/sluicerpc/sluice/pool"
)

// fixedCodec is Fixed's.
type fixedCodec[T any] struct{ *layout.Codec[T] }

func (c fixedCodec[T]) signature() string { return fmt.Sprintf("fixed;%08x", c.Sum()) }

// rawBytes and rawString carry bytes as they are.
type (
	rawBytes  struct{}
	rawString struct{}
)

func (rawBytes) signature() string  { return "raw" }
func (rawString) signature() string { return "raw" }

// message implements direct.
func (rawBytes) message(v []byte) (pool.Message, error) {
	if len(v) > pool.MaxLen {
		return pool.Message{}, tooLong(v, len(v))
	}
	return pool.Copy(v), nil
}

// message implements direct. A long string is sent from its own memory: nobody can write to
// that meanwhile.
func (rawString) message(v string) (pool.Message, error) {
	n := len(v)
	switch {
	case n > pool.MaxLen:
		return pool.Message{}, tooLong(v, n)
	case n > copied:
		return pool.MessageOf(bytesOf(v)), nil
	}
	m := pool.New(n)
	copy(m.Bytes(), v)
	return m, nil
}

// value implements direct.
func (rawBytes) value(p []byte) []byte { return append([]byte{}, p...) }

// value implements direct.
func (rawString) value(p []byte) string { return string(p) }

// Size makes it a codec that knows.
func (rawBytes) Size(v []byte) int { return len(v) }

// Append implements Codec.
func (rawBytes) Append(b []byte, v []byte) ([]byte, error) { return append(b, v...), nil }

// Decode implements Codec.
func (c rawBytes) Decode(p []byte) ([]byte, error) { return c.value(p), nil }

// Size makes it a codec that knows.
func (rawString) Size(v string) int { return len(v) }

// Append implements Codec.
func (rawString) Append(b []byte, v string) ([]byte, error) { return append(b, v...), nil }

// Decode implements Codec.
func (c rawString) Decode(p []byte) (string, error) { return c.value(p), nil }

// anyCodec makes a codec of values in an interface one of values of their type.
type anyCodec[T any] struct {
	c    Codec[any]
	name string // of the encoding
}

func (c anyCodec[T]) signature() string {
	if n, ok := c.c.(typeNamer); ok && c.name != "" {
		return c.name + ";" + plain(n.TypeName())
	}
	return c.name
}

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

// messageCodec is what CodecOf returns for pool.Message. A Marshaler does not use it.
type messageCodec struct{}

// Size makes it a codec that knows.
func (messageCodec) Size(m pool.Message) int { return m.Len() }

// Append implements Codec.
func (messageCodec) Append(b []byte, m pool.Message) ([]byte, error) {
	return append(b, m.Bytes()...), nil
}

// Decode implements Codec.
func (messageCodec) Decode(p []byte) (pool.Message, error) { return pool.Copy(p), nil }
