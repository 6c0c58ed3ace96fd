package codec_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc/codec"
)

// seconds is a codec of durations, as whole seconds in 4 bytes.
type seconds struct{}

func (seconds) Append(b []byte, d time.Duration) ([]byte, error) {
	if d < 0 || d > time.Hour {
		return nil, errors.New("out of range")
	}
	return binary.BigEndian.AppendUint32(b, uint32(d/time.Second)), nil
}

func (seconds) Decode(p []byte) (time.Duration, error) {
	if len(p) != 4 {
		return 0, &codec.DecodeError{Offset: min(len(p), 4), Err: errors.New("want 4 bytes")}
	}
	return time.Duration(binary.BigEndian.Uint32(p)) * time.Second, nil
}

// Size is optional: it saves a copy.
func (seconds) Size(time.Duration) int { return 4 }

// A Codec of a program's own carries one type. EncodingOf makes an encoding of it, which the
// options of package rpc take.
func ExampleCodec() {
	var own codec.Codec[time.Duration] = seconds{}
	e := codec.EncodingOf(own)
	m, err := codec.MarshalerOf[time.Duration](e)
	if err != nil {
		fmt.Println(err)
		return
	}
	d := 90 * time.Second
	msg, err := m.Marshal(&d)
	fmt.Println(msg.Bytes(), err)
	var back time.Duration
	fmt.Println(m.Unmarshal(msg, &back), back)
	_, err = codec.MarshalerOf[string](e)
	fmt.Println(errors.Is(err, codec.ErrNoCodec))
	// Output:
	// [0 0 0 90] <nil>
	// <nil> 1m30s
	// true
}

// What the encodings of this package make of the same value.
func ExampleEncoding() {
	type point struct{ X, Y int16 }
	show := func(name string, e *codec.Encoding) {
		c, err := codec.CodecOf[point](e)
		if err != nil {
			fmt.Println(name, errors.Is(err, codec.ErrNoCodec))
			return
		}
		b, err := c.Append(nil, point{1, 2})
		if err != nil {
			fmt.Println(err)
			return
		}
		back, err := c.Decode(b)
		fmt.Printf("%s %q %v %v\n", name, b, back, err)
	}
	show("default", codec.Default)
	show("json", codec.JSON)
	show("fixed", codec.Fixed)
	show("raw", codec.Raw)
	show("first of", codec.FirstOf(codec.Raw, codec.Fixed))
	// Output:
	// default "{\"X\":1,\"Y\":2}" {1 2} <nil>
	// json "{\"X\":1,\"Y\":2}" {1 2} <nil>
	// fixed "\x01\x00\x02\x00" {1 2} <nil>
	// raw true
	// first of "\x01\x00\x02\x00" {1 2} <nil>
}

// text carries every type that can write itself as text, in an interface.
type text struct{}

func (text) Append(b []byte, v any) ([]byte, error) { return fmt.Append(b, v), nil }

func (text) Decode([]byte) (any, error) { return nil, errors.New("cannot be read back") }

// NewEncoding makes an encoding of a function that finds the codec for each type. Both sides
// give it the same name.
func ExampleNewEncoding() {
	e := codec.NewEncoding("text", func(t reflect.Type) (codec.Codec[any], error) {
		if !t.Implements(reflect.TypeFor[fmt.Stringer]()) {
			return nil, codec.ErrNoCodec
		}
		return text{}, nil
	})
	m, err := codec.MarshalerOf[time.Duration](e)
	if err != nil {
		fmt.Println(err)
		return
	}
	d := time.Minute
	msg, err := m.Marshal(&d)
	fmt.Printf("%s %v %s\n", msg.Bytes(), err, m.Signature())
	_, err = codec.MarshalerOf[int](e)
	fmt.Println(errors.Is(err, codec.ErrNoCodec))
	// Output:
	// 1m0s <nil> text
	// true
}

// A DecodeError says where a message is wrong.
func ExampleDecodeError() {
	type point struct{ X, Y int16 }
	m, err := codec.MarshalerOf[point](codec.JSON)
	if err != nil {
		fmt.Println(err)
		return
	}
	var p point
	err = m.Unmarshal(pool.MessageOf([]byte(`{"X":1,"Y":two}`)), &p)
	var wrong *codec.DecodeError
	if errors.As(err, &wrong) {
		fmt.Println(wrong.Type, "byte", wrong.Offset)
	}
	// Output: codec_test.point byte 12
}

// careless has two mistakes that codecs make.
type careless struct{}

func (careless) Append(_ []byte, p []byte) ([]byte, error) { return p, nil } // must append to its argument

func (careless) Decode([]byte) ([]byte, error) { panic("not finished") }

// Mistakes of a codec are found where a value passes through it.
func ExamplePanicError() {
	m := codec.NewMarshaler[[]byte](careless{})
	value := []byte("memory that is the value's own")
	_, err := m.Marshal(&value)
	fmt.Println(errors.Is(err, codec.ErrNotAppended))
	var broken *codec.PanicError
	fmt.Println(errors.As(m.Unmarshal(pool.MessageOf([]byte("x")), &value), &broken), broken.Value)
	// Output:
	// true
	// true not finished
}

// A ticket stands in a value as a number, which is a reference to what the program keeps.
type ticket struct {
	codec.Ref
	seat string
}

// A Ref makes pointers to a struct references: the encoding carries the number, and the layer
// that uses the codec finds out what it refers to. Package rpc passes streams in this way.
func ExampleMarshaler() {
	type booking struct {
		Name   string
		Ticket *ticket
	}
	m, err := codec.MarshalerOf[booking](codec.Fixed)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(m.RefTypes()), m.RefTypes()[0])
	b := booking{"Ada", &ticket{codec.Ref{ID: 7}, "12a"}}
	msg, err := m.Marshal(&b)
	if err != nil {
		fmt.Println(err)
		return
	}
	copied := msg.Share()
	var back booking
	if err := m.Unmarshal(msg, &back); err != nil {
		fmt.Println(err)
		return
	}
	known := map[uint64]string{7: "12a"}
	err = m.EachRef(&back, func(ref any) error {
		t := ref.(*ticket)
		t.seat = known[t.ID]
		return nil
	})
	fmt.Println(back.Name, back.Ticket.seat, err)
	m.Discard(copied) // a message that was made and is not sent
	// Output:
	// 1 *codec_test.ticket
	// Ada 12a <nil>
}

// Package protocodec gives Default the encoding of protobuf messages in this way. Without one
// they fail.
func ExampleRegisterProtobuf() {
	var e *codec.Encoding // protocodec.Encoding
	fmt.Println(codec.RegisterProtobuf(e) == e)
	// Output: true
}
