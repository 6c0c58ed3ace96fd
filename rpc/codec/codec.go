package codec

import (
	"errors"

	"github.com/sluicerpc/sluice/pool"
)

// A Codec turns values of one type into bytes and back. It is used by several
// goroutines at once. One that also has the method
//
//	Size(v T) int
//
// which returns how many bytes Append will append, has its values encoded straight
// into the message that is sent. Decode reads straight from the message that came. One
// that has the method
//
//	TypeName() string
//
// says what both sides must agree on beside the encoding: see Marshaler.Signature.
type Codec[T any] interface {
	// Append appends v's bytes to b, which it must not keep, and which may hold other
	// bytes. To return something else, such as v's own memory, is an error, ErrNotAppended.
	Append(b []byte, v T) ([]byte, error)
	// Decode makes a value of p. The value must share no memory with p. An error
	// that says where p is wrong is a *DecodeError with an Offset.
	Decode(p []byte) (T, error)
}

// A sizer is a codec that knows how long a value will be.
type sizer[T any] interface{ Size(v T) int }

// A maker is a codec of this package that makes messages itself.
type maker[T any] interface {
	message(v T) (pool.Message, error)
}

// A direct codec is one of this package that runs no code of a program's: no panic need be
// caught.
type direct[T any] interface {
	maker[T]
	value(p []byte) T
}

// A typeNamer is a codec that says which type it carries.
type typeNamer interface{ TypeName() string }

// A signer is a codec of this package, which knows its encoding.
type signer interface{ signature() string }

var (
	// ErrNoCodec: the encoding can't carry values of this type.
	ErrNoCodec = errors.New("sluice: no codec for the type")
	// ErrNotAppended: a codec's Append has returned something else than the bytes that it
	// was given with the value's behind them.
	ErrNotAppended = errors.New("sluice: the codec's Append did not append to what it was given")
)
