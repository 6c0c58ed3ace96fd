package codec

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sluicerpc/sluice/internal/layout"
	"github.com/sluicerpc/sluice/pool"
)

// An Encoding finds the codec for each type. A handler, a call, a sink or a stream of
// package rpc can be given one in its options. Both sides must use the same: where the
// wire carries metadata they tell each other, by Marshaler.Signature, and refuse what does
// not agree. All of them carry values of type pool.Message as they are, without a copy.
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
	byType builtIn = iota + 1
	fixed
	inJSON
	raw
)

var (
	// Default chooses by the type alone: Raw for []byte, protobuf for the pointers that
	// are proto.Messages, JSON for everything else. Protobuf takes package protocodec,
	// which the program must import; without it such types fail with ErrNoCodec.
	Default = &Encoding{name: "default", kind: byType}

	// Fixed lays numbers out little-endian at their width, a bool as a byte, strings and
	// slices behind a length of 32 bits, and structs and arrays as their parts in a row:
	// what Seastar's programs do, and the default on their wire. Pointers at the end of a
	// struct are optional fields, there if there are bytes for them, and bytes beyond the
	// last field are ignored, so that a struct can grow at its end. So are they behind a
	// value that is no struct: Seastar's programs take it for the first of several. In the
	// bytes nothing tells a value of one type from one of another that begins with as many
	// bytes; see Marshaler.Signature. Not carried: int and uint, which say no width, maps,
	// interfaces and unexported fields. Values without strings, slices and optional fields
	// cost no allocation.
	Fixed = &Encoding{name: "fixed", kind: fixed}

	// JSON is encoding/json.
	JSON = &Encoding{name: "json", kind: inJSON}

	// Raw carries []byte and string: the whole message, without a length. Sending copies
	// the bytes into the message, except that a string of more than 4 KiB is sent from its
	// own memory. Receiving copies them out, so that they are the program's own. Values of
	// type Message save both copies.
	Raw = &Encoding{name: "raw", kind: raw}
)

// NewEncoding makes an encoding of a function that returns what carries the
// values of a type, each in an interface, or ErrNoCodec. It is called once for a
// type. Both sides must give it the same name, if it has one: see Marshaler.Signature.
// What stands for "json" must read and write JSON. An encoding without a name is not
// compared.
func NewEncoding(name string, find func(t reflect.Type) (Codec[any], error)) *Encoding {
	return &Encoding{name: plain(name), lookup: find}
}

// plain replaces what stands for something in a signature.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == ';' || r == ',' || r == 0x7f {
			return '_'
		}
		return r
	}, name)
}

// EncodingOf makes an encoding of one codec, which carries T and nothing else. It has no
// name.
func EncodingOf[T any](c Codec[T]) *Encoding { return &Encoding{own: c} }

// FirstOf makes an encoding that carries a type by the first of several that can. Its
// name is that one's.
func FirstOf(es ...*Encoding) *Encoding {
	return &Encoding{parts: append([]*Encoding(nil), es...)}
}

// CodecOf returns the encoding's codec for T, or ErrNoCodec. A nil e is Default.
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
// ErrNoCodec. A nil e is Default.
func MarshalerOf[T any](e *Encoding) (*Marshaler[T], error) {
	if e == nil {
		e = Default
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
	if t == reflect.TypeFor[pool.Message]() {
		c, _ := any(messageCodec{}).(Codec[T])
		return &Marshaler[T]{codec: c, whole: true}, nil
	}
	switch {
	case e.kind == byType:
		return findByType[T](t)
	case e.kind == fixed:
		c, err := layout.New[T](isRef, maxRefs)
		if err != nil {
			return nil, fmt.Errorf("%w: %w (the encoding JSON carries more)", ErrNoCodec, err)
		}
		return NewMarshaler[T](fixedCodec[T]{c}), nil
	case e.kind == inJSON:
		if c, ok := any(jsonString{}).(Codec[T]); ok {
			return NewMarshaler(c), nil
		}
		return NewMarshaler[T](jsonCodec[T]{}), nil
	case e.kind == raw:
		if c, ok := any(rawBytes{}).(Codec[T]); ok {
			return NewMarshaler(c), nil
		}
		if c, ok := any(rawString{}).(Codec[T]); ok {
			return NewMarshaler(c), nil
		}
		return nil, fmt.Errorf("%w: %v is no []byte and no string", ErrNoCodec, t)
	case e.own != nil:
		if c, ok := e.own.(Codec[T]); ok {
			return NewMarshaler(c), nil
		}
		return nil, fmt.Errorf("%w: %v is not carried by a %T", ErrNoCodec, t, e.own)
	case e.lookup != nil:
		return findOwn[T](e)
	}
	return findFirst[T](e)
}

// protobuf is what RegisterProtobuf was given.
var protobuf atomic.Pointer[Encoding]

// RegisterProtobuf has Default carry the types that are proto.Messages by e, and returns e.
// Package protocodec calls it.
func RegisterProtobuf(e *Encoding) *Encoding {
	protobuf.Store(e)
	return e
}

// findByType is Default's choice. The types that have the method ProtoReflect are
// protobuf's, whether that is linked or not: what is linked must not change what is sent.
func findByType[T any](t reflect.Type) (*Marshaler[T], error) {
	if t == reflect.TypeFor[[]byte]() {
		return find[T](Raw)
	}
	if isProtobuf(t) {
		e := protobuf.Load()
		if e == nil {
			return nil, fmt.Errorf("%w: %v is a protobuf message: import github.com/sluicerpc/sluice/rpc/protocodec", ErrNoCodec, t)
		}
		return find[T](e)
	}
	if isProtobuf(reflect.PointerTo(t)) {
		return nil, fmt.Errorf("%w: %v is a protobuf message without its pointer: use *%v", ErrNoCodec, t, t)
	}
	return find[T](JSON)
}

func isProtobuf(t reflect.Type) bool {
	_, ok := t.MethodByName("ProtoReflect")
	return ok
}

func findOwn[T any](e *Encoding) (*Marshaler[T], error) {
	c, err := e.lookup(reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	a := anyCodec[T]{c, e.name}
	if s, ok := c.(sizer[any]); ok {
		return NewMarshaler[T](sizedAnyCodec[T]{a, s}), nil
	}
	return NewMarshaler[T](a), nil
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
