package codec

import (
	"encoding/json"
	"fmt"

	"github.com/sluicerpc/sluice/kernel"
)

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

// messageCodec is what CodecOf returns for kernel.Message. A Marshaler does not use it.
type messageCodec struct{}

// Size makes it a codec that knows.
func (messageCodec) Size(m kernel.Message) int { return m.Len() }

// Append implements Codec.
func (messageCodec) Append(b []byte, m kernel.Message) ([]byte, error) {
	return append(b, m.Bytes()...), nil
}

// Decode implements Codec.
func (messageCodec) Decode(p []byte) (kernel.Message, error) { return kernel.CopyMessage(p), nil }
