package codec

import (
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/sluicerpc/sluice/internal/layout"
	"github.com/sluicerpc/sluice/kernel"
)

// An Encoding finds the codec for each type. A handler, a call, a sink or a stream of
// package rpc can be given one in its options. Nothing on the wire tells encodings
// apart: both sides must use the same. All of them carry values of type kernel.Message
// as they are, without a copy.
//
// EncodingOf and NewEncoding make further ones, FirstOf joins several. An Encoding
// remembers what it found for a type, so make one once.
type Encoding struct {
	name   string
	kind   builtIn
	own    any                                    // a Codec[T]
	lookup func(reflect.Type) (Codec[any], error) // of a program's own
	parts  []*Encoding

	mu    sync.RWMutex
	found map[reflect.Type]any // a *entry[T] each
}

// builtIn is how an encoding of this package finds codecs.
type builtIn uint8

const (
	fixed builtIn = iota + 1
	inJSON
	raw
)

var (
	// Fixed is the default. It lays numbers out little-endian at their width, a
	// bool as a byte, strings and slices behind a length of 32 bits, and structs
	// and arrays as their parts in a row: what Seastar's programs do. Pointers at
	// the end of a struct are optional fields, there if there are bytes for them,
	// and bytes beyond the last field are ignored, so that a struct can grow at
	// its end. So are they behind a value that is no struct: Seastar's programs take
	// it for the first of several. Nothing tells a value of one type from one of
	// another that begins with as many bytes. Not carried: int and uint, which say
	// no width, maps, interfaces and unexported fields. Values without strings,
	// slices and optional fields cost no allocation.
	Fixed = &Encoding{name: "the fixed layout", kind: fixed}

	// JSON is encoding/json.
	JSON = &Encoding{name: "JSON", kind: inJSON}

	// Raw carries []byte and string: the whole message, without a length. Sending
	// copies the bytes into the message and receiving copies them out, so that
	// they are the program's own. Values of type Message save both copies.
	Raw = &Encoding{name: "raw bytes", kind: raw}
)

// NewEncoding makes an encoding of a function that returns what carries the
// values of a type, each in an interface, or ErrNoCodec. It is called once for a
// type. The name is for errors.
func NewEncoding(name string, find func(t reflect.Type) (Codec[any], error)) *Encoding {
	return &Encoding{name: name, lookup: find}
}

// EncodingOf makes an encoding of one codec, which carries T and nothing else.
func EncodingOf[T any](c Codec[T]) *Encoding {
	return &Encoding{name: "the codec of " + reflect.TypeFor[T]().String(), own: c}
}

// FirstOf makes an encoding that carries a type by the first of several that can.
func FirstOf(es ...*Encoding) *Encoding {
	return &Encoding{name: "any of several", parts: append([]*Encoding(nil), es...)}
}

// CodecOf returns the encoding's codec for T, or ErrNoCodec. A nil e is Fixed.
func CodecOf[T any](e *Encoding) (Codec[T], error) {
	m, err := MarshalerOf[T](e)
	if err != nil {
		return nil, err
	}
	return m.codec, nil
}

// An entry is what an encoding remembers of a type: one of the two.
type entry[T any] struct {
	m   *Marshaler[T]
	err error
}

// MarshalerOf returns the encoding's marshaler for T, the same one each time, or
// ErrNoCodec. A nil e is Fixed.
func MarshalerOf[T any](e *Encoding) (*Marshaler[T], error) {
	if e == nil {
		e = Fixed
	}
	t := reflect.TypeFor[T]()
	e.mu.RLock()
	known, ok := e.found[t].(*entry[T])
	e.mu.RUnlock()
	if ok {
		return known.m, known.err
	}
	known = &entry[T]{}
	if known.m, known.err = find[T](e); known.err == nil {
		known.m.refs = refsOf(t)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.found == nil {
		e.found = map[reflect.Type]any{}
	}
	e.found[t] = known
	return known.m, known.err
}

func find[T any](e *Encoding) (*Marshaler[T], error) {
	t := reflect.TypeFor[T]()
	if t == reflect.TypeFor[kernel.Message]() {
		c, _ := any(messageCodec{}).(Codec[T])
		return &Marshaler[T]{codec: c, whole: true}, nil
	}
	switch {
	case e.kind == fixed:
		c, err := layout.New[T](isRef, maxRefs)
		if err != nil {
			return nil, fmt.Errorf("%w: %w (the encoding JSON carries more)", ErrNoCodec, err)
		}
		return NewMarshaler[T](c), nil
	case e.kind == inJSON:
		return NewMarshaler[T](jsonCodec[T]{}), nil
	case e.kind == raw:
		if c, ok := any(rawCodec[[]byte]{}).(Codec[T]); ok {
			return NewMarshaler(c), nil
		}
		if c, ok := any(rawCodec[string]{}).(Codec[T]); ok {
			return NewMarshaler(c), nil
		}
	case e.own != nil:
		if c, ok := e.own.(Codec[T]); ok {
			return NewMarshaler(c), nil
		}
	case e.lookup != nil:
		return findOwn[T](e)
	default:
		return findFirst[T](e)
	}
	return nil, fmt.Errorf("%w: %v is not carried by %s", ErrNoCodec, t, e.name)
}

func findOwn[T any](e *Encoding) (*Marshaler[T], error) {
	c, err := e.lookup(reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	if s, ok := c.(sizer[any]); ok {
		return NewMarshaler[T](sizedAnyCodec[T]{anyCodec[T]{c}, s}), nil
	}
	return NewMarshaler[T](anyCodec[T]{c}), nil
}

func findFirst[T any](e *Encoding) (*Marshaler[T], error) {
	errs := []error{fmt.Errorf("%w: %v", ErrNoCodec, reflect.TypeFor[T]())}
	for _, p := range e.parts {
		c, err := find[T](p)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
