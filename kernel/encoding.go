package kernel

import (
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/sluicerpc/sluice/internal/layout"
)

// An Encoding finds the codec for each type. A server and a client have one
// (ServerOptions.Encoding, ClientOptions.Encoding), and a handler, a call, a sink
// or a stream can be given another. Nothing on the wire tells encodings apart:
// both sides must mean the same. Values of type Message are carried as they are
// by all of them, without a copy.
//
// Fixed, JSON and Raw are here, protobuf is in package protocodec. EncodingOf and
// NewEncoding make others, FirstOf joins several. An Encoding remembers what it
// found for a type, so make one once.
type Encoding struct {
	name  string
	kind  builtIn
	own   any                                              // a Codec[T]
	find  func(reflect.Type) (codec Codec[any], err error) // of a program's own
	parts []*Encoding

	mu    sync.RWMutex
	infos map[reflect.Type]any // a *typeInfo[T] each
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
	return &Encoding{name: name, find: find}
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
	i := infoOf[T](e)
	if i.err != nil {
		return nil, i.err
	}
	return i.c.codec, nil
}

// typeInfo is what is known of a type in an encoding.
type typeInfo[T any] struct {
	c   carrier[T]
	err error // it can't be carried
	in  arguments
}

// element returns what carries T through a stream.
func (i *typeInfo[T]) element() (carrier[T], error) {
	if i.err == nil && i.in.find != nil {
		return i.c, noElement(reflect.TypeFor[T]())
	}
	return i.c, i.err
}

func noElement(t reflect.Type) error {
	return fmt.Errorf("%w: %v: sinks and sources are passed in calls only", ErrNoCodec, t)
}

func infoOf[T any](e *Encoding) *typeInfo[T] {
	if e == nil {
		e = Fixed
	}
	t := reflect.TypeFor[T]()
	e.mu.RLock()
	i, ok := e.infos[t].(*typeInfo[T])
	e.mu.RUnlock()
	if ok {
		return i
	}
	i = &typeInfo[T]{}
	i.c, i.err = codecFor[T](e)
	if i.err == nil {
		i.in = argumentsOf(t)
		i.err = i.in.check(e)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.infos == nil {
		e.infos = map[reflect.Type]any{}
	}
	e.infos[t] = i
	return i
}

func codecFor[T any](e *Encoding) (carrier[T], error) {
	var none carrier[T]
	t := reflect.TypeFor[T]()
	if t == reflect.TypeFor[Message]() {
		none.whole = true
		none.codec, _ = any(messageCodec{}).(Codec[T])
		return none, nil
	}
	switch {
	case e.kind == fixed:
		c, err := layout.New[T](isArgument, maxGroup)
		if err != nil {
			return none, fmt.Errorf("%w: %w (the encoding JSON carries more)", ErrNoCodec, err)
		}
		return carrierOf[T](c), nil
	case e.kind == inJSON:
		return carrierOf[T](jsonCodec[T]{}), nil
	case e.kind == raw:
		if c, ok := any(rawCodec[[]byte]{}).(Codec[T]); ok {
			return carrierOf(c), nil
		}
		if c, ok := any(rawCodec[string]{}).(Codec[T]); ok {
			return carrierOf(c), nil
		}
	case e.own != nil:
		if c, ok := e.own.(Codec[T]); ok {
			return carrierOf(c), nil
		}
	case e.find != nil:
		return foundCodec[T](e)
	default:
		return firstCodec[T](e)
	}
	return none, fmt.Errorf("%w: %v is not carried by %s", ErrNoCodec, t, e.name)
}

func foundCodec[T any](e *Encoding) (carrier[T], error) {
	c, err := e.find(reflect.TypeFor[T]())
	if err != nil {
		return carrier[T]{}, err
	}
	if s, ok := c.(sizer[any]); ok {
		return carrierOf[T](sizedAnyCodec[T]{anyCodec[T]{c}, s}), nil
	}
	return carrierOf[T](anyCodec[T]{c}), nil
}

func firstCodec[T any](e *Encoding) (carrier[T], error) {
	errs := []error{fmt.Errorf("%w: %v", ErrNoCodec, reflect.TypeFor[T]())}
	for _, p := range e.parts {
		c, err := codecFor[T](p)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return carrier[T]{}, errors.Join(errs...)
}

// or is e, or the other where there is none.
func (e *Encoding) or(other *Encoding) *Encoding {
	if e != nil {
		return e
	}
	return other
}

// messageCodec is what CodecOf says for Message. Sinks and sources don't use it.
type messageCodec struct{}

// Size makes it a codec that knows.
func (messageCodec) Size(m Message) int { return m.Len() }

// Append implements Codec.
func (messageCodec) Append(b []byte, m Message) ([]byte, error) { return append(b, m.Bytes()...), nil }

// Decode implements Codec.
func (messageCodec) Decode(p []byte) (Message, error) { return CopyMessage(p), nil }
