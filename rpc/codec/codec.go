package codec

import "errors"

// A Codec turns values of one type into bytes and back. It is used by several
// goroutines at once. One that also has the method
//
//	Size(v T) int
//
// which returns how many bytes Append will append, has its values encoded straight
// into the message that is sent. Decode reads straight from the message that came.
type Codec[T any] interface {
	// Append appends v's bytes to b, which it must not keep.
	Append(b []byte, v T) ([]byte, error)
	// Decode makes a value of p. The value must share no memory with p. An error
	// that says where p is wrong is a *DecodeError with an Offset.
	Decode(p []byte) (T, error)
}

// A sizer is a codec that knows how long a value will be.
type sizer[T any] interface{ Size(v T) int }

// ErrNoCodec: the encoding can't carry values of this type.
var ErrNoCodec = errors.New("sluice: no codec for the type")
