package sluicegrpc

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	protoenc "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// A codec makes messages of values and values of messages.
type codec struct {
	c anyCodec
	// proto: c is grpc-go's own for protobuf. It does nothing but to call package proto, which
	// can be called without the buffers that a codec gives and takes.
	proto bool
}

// anyCodec is what the codecs of all of grpc-go's interfaces have in common.
type anyCodec interface {
	Marshal(v any) (mem.BufferSlice, error)
	Unmarshal(data mem.BufferSlice, v any) error
}

// codecFor returns the codec that is registered for a content-subtype. "" is protobuf.
func codecFor(subtype string) (codec, error) {
	if subtype == "" {
		subtype = protoenc.Name
	}
	if c := encoding.GetCodec(subtype); c != nil { // in the order in which grpc-go looks
		return codec{c: oldCodec{c}}, nil
	}
	c := encoding.GetCodecV2(subtype)
	if c == nil {
		return codec{}, status.Errorf(codes.Internal, "there is no codec for the content-subtype %q", subtype)
	}
	return codec{c: c, proto: isGRPCProto(c)}, nil
}

// isGRPCProto reports whether c is the codec that package encoding/proto registers: a program may
// have registered another one under its name.
func isGRPCProto(c encoding.CodecV2) bool {
	t := reflect.TypeOf(c)
	return t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "google.golang.org/grpc/encoding/proto"
}

// An oldCodec is a codec of one of grpc-go's older interfaces: its messages are single slices of
// bytes.
type oldCodec struct {
	c interface {
		Marshal(v any) ([]byte, error)
		Unmarshal(data []byte, v any) error
	}
}

func (c oldCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, err := c.c.Marshal(v)
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

func (c oldCodec) Unmarshal(data mem.BufferSlice, v any) error {
	return c.c.Unmarshal(data.Materialize(), v)
}

// marshal returns v as a message.
func (c codec) marshal(v any) (m pool.Message, err error) {
	defer func() { recovered(&err, recover(), "encoded") }()
	m, err = c.encode(v)
	if _, ok := status.FromError(err); !ok {
		err = status.Errorf(codes.Internal, "the message can't be encoded: %v", err)
	}
	return m, err
}

func (c codec) encode(v any) (pool.Message, error) {
	switch p, ok := v.(proto.Message); {
	case v == nil: // as in grpc-go
		return pool.New(0), nil
	case ok && c.proto:
		return encodeProto(p)
	}
	data, err := c.c.Marshal(v)
	if err != nil {
		return pool.Message{}, err
	}
	defer data.Free()
	if data.Len() > pool.MaxLen {
		return pool.Message{}, errTooLong
	}
	m := pool.New(data.Len())
	data.CopyTo(m.Bytes())
	return m, nil
}

var errTooLong = status.Error(codes.ResourceExhausted, "the message is longer than any connection carries")

// encodeProto encodes p where it is sent from.
func encodeProto(p proto.Message) (pool.Message, error) {
	n := proto.Size(p)
	if n > pool.MaxLen {
		return pool.Message{}, errTooLong
	}
	m := pool.New(n)
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(m.Bytes()[:0], p)
	if err == nil && len(b) != n {
		err = errChanged
	}
	if err != nil {
		m.Release()
		return pool.Message{}, err
	}
	return m, nil
}

var errChanged = status.Error(codes.Internal, "the message was changed while it was encoded")

// unmarshal sets v to what m holds, and takes m over.
func (c codec) unmarshal(m pool.Message, v any) (err error) {
	defer func() { recovered(&err, recover(), "decoded") }()
	if err := c.decode(m, v); err != nil {
		return status.Errorf(codes.Internal, "the message can't be decoded: %v", err)
	}
	return nil
}

func (c codec) decode(m pool.Message, v any) error {
	if p, ok := v.(proto.Message); ok && c.proto {
		defer m.Release()
		return proto.Unmarshal(m.Bytes(), p) // which keeps nothing of the bytes
	}
	buf := bufferOf(m)
	defer buf.Free()
	return c.c.Unmarshal(mem.BufferSlice{buf}, v)
}

// A panicError is the panic of a codec.
type panicError struct {
	st    *status.Status
	value string
	stack []byte
}

func (e *panicError) Error() string { return e.st.Err().Error() }

// GRPCStatus is what package status looks for.
func (e *panicError) GRPCStatus() *status.Status { return e.st }

// recovered sets *err if a codec has panicked with p. done is what was to become of the message.
func recovered(err *error, p any, done string) {
	if p == nil {
		return
	}
	text := fmt.Sprint(p)
	*err = &panicError{status.Newf(codes.Internal, "the message can't be %s: the codec panicked: %s", done, text), text, debug.Stack()}
}

// logPanic logs err if it is the panic of a codec. c is nil where there is no connection yet.
func logPanic(c *kernel.Conn, method string, err error) {
	var p *panicError
	if c != nil && errors.As(err, &p) {
		c.Logger().Error("sluice: codec panicked", "method", method, "peer", c.Peer().Addr, "panic", p.value, "stack", string(p.stack))
	}
}

// bufferOf is m as a buffer that a codec may keep, by a reference of its own. A short one is copied:
// grpc-go's buffers of that length have no references, and m's memory is used again.
func bufferOf(m pool.Message) mem.Buffer {
	b := m.Bytes()
	if mem.IsBelowBufferPoolingThreshold(len(b)) {
		defer m.Release()
		return mem.SliceBuffer(bytes.Clone(b))
	}
	b = b[:len(b):len(b)] // NewBuffer looks at the capacity
	return mem.NewBuffer(&b, release{m})
}

// release is a mem.BufferPool for the one buffer that holds a message: it is released with that.
type release struct{ m pool.Message }

func (release) Get(n int) *[]byte {
	b := make([]byte, n)
	return &b
}

func (r release) Put(*[]byte) { r.m.Release() }
