// Package protocodec carries protobuf messages through typed calls and streams. It
// is a package of its own so that programs without protobuf do not link it. A program that
// imports it, if only for that, can leave the choice to codec.Default:
//
//	import _ "github.com/sluicerpc/sluice/rpc/protocodec"
package protocodec

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/sluicerpc/sluice/rpc/codec"
)

// Encoding carries every type that is a proto.Message, the pointers that protoc
// generates among them, in protobuf's wire format. A received message is a new one
// each time; a nil one is sent as an empty one. codec.Default carries such types by it.
// To carry other types beside them by another encoding than JSON:
//
//	codec.FirstOf(protocodec.Encoding, codec.Fixed)
var Encoding = codec.RegisterProtobuf(codec.NewEncoding("protobuf", find))

func find(t reflect.Type) (codec.Codec[any], error) {
	if t.Kind() != reflect.Pointer || !t.Implements(reflect.TypeFor[proto.Message]()) {
		return nil, fmt.Errorf("%w: %v is no protobuf message", codec.ErrNoCodec, t)
	}
	name, ok := nameOf(t)
	if !ok {
		return nil, fmt.Errorf("%w: %v does not say which message it is before it is made", codec.ErrNoCodec, t)
	}
	return message{t.Elem(), name}, nil
}

// nameOf is the full name of the messages of type t. A dynamic message's type has none.
func nameOf(t reflect.Type) (name string, ok bool) {
	defer func() { _ = recover() }()
	m := reflect.Zero(t).Interface().(proto.Message)
	return string(m.ProtoReflect().Descriptor().FullName()), true
}

// message is the codec for pointers to one generated type.
type message struct {
	t    reflect.Type
	name string
}

// TypeName is the message's full name, on which both sides must agree.
func (c message) TypeName() string { return c.name }

// Size makes it a codec that knows.
func (message) Size(v any) int { return proto.Size(v.(proto.Message)) }

// Append implements codec.Codec.
func (message) Append(b []byte, v any) ([]byte, error) {
	return proto.MarshalOptions{}.MarshalAppend(b, v.(proto.Message))
}

// Decode implements codec.Codec.
func (c message) Decode(p []byte) (any, error) {
	m := reflect.New(c.t).Interface().(proto.Message)
	if err := proto.Unmarshal(p, m); err != nil {
		return nil, &codec.DecodeError{Offset: c.brokenAt(p), Err: err}
	}
	return m, nil
}

// brokenAt is where the first field of p begins that can't be read, -1 if each can be.
func (c message) brokenAt(p []byte) int {
	one := proto.UnmarshalOptions{AllowPartial: true}
	for at := 0; at < len(p); {
		_, _, n := protowire.ConsumeField(p[at:])
		if n < 0 || one.Unmarshal(p[at:at+n], reflect.New(c.t).Interface().(proto.Message)) != nil {
			return at
		}
		at += n
	}
	return -1
}
