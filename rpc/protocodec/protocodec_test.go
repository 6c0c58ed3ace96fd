package protocodec_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/rpc/protocodec"
	"github.com/sluicerpc/sluice/status"
)

// Example makes a call with protobuf messages. Nobody needs to name the encoding: the types
// do.
func Example() {
	ctx := context.Background()
	srv, err := kernel.NewServer(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = rpc.HandleUnary(srv, "greet", func(_ context.Context, name *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		return wrapperspb.String("hello " + name.GetValue()), nil
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ln := kerneltest.Listen()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, ln) }()
	defer func() { _ = srv.Close(); <-served }()

	client, err := kernel.Dial(ctx, kerneltest.Target, &kernel.ClientOptions{Dial: ln.Dial})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	reply, err := rpc.Call[*wrapperspb.StringValue, *wrapperspb.StringValue](ctx, client, "greet", wrapperspb.String("Ada"), nil)
	fmt.Println(reply.GetValue(), err)
	// Output: hello Ada <nil>
}

func TestMessagesComeBackEqual(t *testing.T) {
	st, err := structpb.NewStruct(map[string]any{"a": 1.5, "b": []any{"c", nil, true}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, st)
	same(t, durationpb.New(1234567890))
	same(t, &wrapperspb.BytesValue{})
	same(t, wrapperspb.String(strings.Repeat("x", 100_000)))
}

func same[T proto.Message](t *testing.T, m T) {
	t.Helper()
	c, err := codec.CodecOf[T](protocodec.Encoding)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Append([]byte("before"), m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Decode(b[len("before"):])
	if err != nil || !proto.Equal(got, m) {
		t.Errorf("%v came back as %v, %v", m, got, err)
	}
	if n := c.(interface{ Size(T) int }).Size(m); n != len(b)-len("before") {
		t.Errorf("size %d of %d bytes", n, len(b)-len("before"))
	}
}

func TestStreamsOfMessages(t *testing.T) {
	srv, client := kerneltest.Start(t, nil, nil)
	type value = *wrapperspb.Int64Value
	err := rpc.HandleBidi(srv, "double", func(ctx context.Context, d *rpc.Bidi[value, value]) error {
		for v, err := range d.In.All(ctx) {
			if err != nil {
				return err
			}
			if err := d.Out.Send(ctx, wrapperspb.Int64(2*v.GetValue())); err != nil {
				return err
			}
		}
		return nil
	}, &rpc.HandleOptions{Encoding: protocodec.Encoding})
	if err != nil {
		t.Fatal(err)
	}
	d, err := rpc.CallBidi[value, value](t.Context(), client, "double", &rpc.OpenOptions{Encoding: protocodec.Encoding})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(100) {
		if err := d.Out.Send(t.Context(), wrapperspb.Int64(i)); err != nil {
			t.Fatal(err)
		}
		if v, err := d.In.Receive(t.Context()); err != nil || v.GetValue() != 2*i {
			t.Fatalf("%v, %v", v, err)
		}
	}
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A call can pass streams of protobuf messages: its arguments are a struct beside
// them, which another encoding carries.
func TestStreamsOfMessagesThroughCalls(t *testing.T) {
	e := codec.FirstOf(protocodec.Encoding, codec.Fixed)
	srv, client := kerneltest.Start(t, nil, nil)
	type value = *wrapperspb.StringValue
	err := rpc.HandleUnary(srv, "upper", func(_ context.Context, in *rpc.Source[value]) (*rpc.Sink[value], error) {
		out := rpc.MakeSink[value](in)
		in.Go(func(ctx context.Context) error {
			for v, err := range in.All(ctx) {
				if err != nil {
					return err
				}
				if err := out.Send(ctx, wrapperspb.String(strings.ToUpper(v.GetValue()))); err != nil {
					return err
				}
			}
			return nil
		})
		return out, nil
	}, &rpc.HandleOptions{Encoding: e})
	if err != nil {
		t.Fatal(err)
	}
	sink, err := rpc.NewSink[value](t.Context(), client, &rpc.SinkOptions{Encoding: e})
	if err != nil {
		t.Fatal(err)
	}
	src, err := rpc.Call[*rpc.Source[value], *rpc.Sink[value]](t.Context(), client, "upper", sink, &rpc.CallOptions{Encoding: e})
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Send(t.Context(), wrapperspb.String("abc")); err != nil {
		t.Fatal(err)
	}
	if v, err := src.Receive(t.Context()); err != nil || v.GetValue() != "ABC" {
		t.Errorf("%v, %v", v, err)
	}
	if err := sink.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoMessageIsRefused(t *testing.T) {
	for name, err := range map[string]error{
		"string":    second(codec.CodecOf[string](protocodec.Encoding)),
		"value":     second(codec.CodecOf[struct{ A int }](protocodec.Encoding)),
		"interface": second(codec.CodecOf[proto.Message](protocodec.Encoding)),
		"dynamic":   second(codec.CodecOf[*dynamicpb.Message](protocodec.Encoding)),
	} {
		if !errors.Is(err, codec.ErrNoCodec) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := codec.CodecOf[*wrapperspb.StringValue](protocodec.Encoding)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := c.Decode([]byte("\xff")); err == nil {
		t.Errorf("nonsense is %v", v)
	}
	var none *wrapperspb.StringValue
	if b, err := c.Append(nil, none); err != nil || len(b) != 0 {
		t.Errorf("a nil message: % x, %v", b, err)
	}
}

func second[T any](_ T, err error) error { return err }

// The error for what is no message names the first field that can't be read, also where
// it is the field's own message that can't.
func TestErrorsNameTheField(t *testing.T) {
	c, err := codec.CodecOf[*structpb.ListValue](protocodec.Encoding)
	if err != nil {
		t.Fatal(err)
	}
	good := "\x0a\x05\x1a\x03abc" // a string among the values
	for p, want := range map[string]int{
		good + "\x0a": 7, good + "\x0a\x05\x1a\x03a": 7, good + good + "\x0a\x05\x1a\x04abc": 14, good + "\x0a\x03\x1a\x01\xff" + good: 7,
		"\x07": 0,
	} {
		var de *codec.DecodeError
		if _, err := c.Decode([]byte(p)); !errors.As(err, &de) || de.Offset != want {
			t.Errorf("% x: %v, want offset %d", p, err, want)
		}
	}
}

// Programs that don't use it don't link protobuf.
func TestOtherProgramsDoNotLinkProtobuf(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/sluicerpc/sluice/rpc").Output()
	if err != nil {
		t.Skipf("cannot list the dependencies: %v", err)
	}
	if strings.Contains(string(out), "protobuf") || !strings.Contains(string(out), "sluice/frame/native") {
		t.Errorf("rpc depends on\n%s", out)
	}
}

// What is linked does not choose: without this package a message's type is refused, and the
// error says what to import.
func TestWithoutThisPackageMessagesAreRefused(t *testing.T) {
	codec.RegisterProtobuf(nil)
	defer codec.RegisterProtobuf(protocodec.Encoding)
	_, err := codec.CodecOf[*wrapperspb.FloatValue](nil)
	if !errors.Is(err, codec.ErrNoCodec) || !strings.Contains(err.Error(), "import github.com/sluicerpc/sluice/rpc/protocodec") {
		t.Errorf("%v", err)
	}
}

func TestTheDefaultKnowsMessages(t *testing.T) {
	m, err := codec.MarshalerOf[*wrapperspb.StringValue](nil)
	if err != nil || m.Signature() != "protobuf;google.protobuf.StringValue" {
		t.Errorf("%q, %v", m.Signature(), err)
	}
	_, err = codec.MarshalerOf[wrapperspb.StringValue](nil)
	if !errors.Is(err, codec.ErrNoCodec) || !strings.Contains(err.Error(), "use *wrapperspb.StringValue") {
		t.Errorf("a message by value: %v", err)
	}
}

// A message that knows one field, and one of the same name that knows another beside it.
type (
	older struct{ m *dynamicpb.Message }
	newer struct{ m *dynamicpb.Message }
)

// descriptor describes a message of a name with strings for fields.
func descriptor(fields ...string) protoreflect.MessageDescriptor {
	m := &descriptorpb.DescriptorProto{Name: proto.String("Person")}
	for i, name := range fields {
		m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{
			Name: proto.String(name), Number: proto.Int32(int32(i + 1)),
			Type:  descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		})
	}
	f, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("person.proto"), Package: proto.String("test"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{m},
	}, nil)
	if err != nil {
		panic(err)
	}
	return f.Messages().Get(0)
}

var olderPerson, newerPerson = descriptor("name"), descriptor("name", "title")

func reflected(m **dynamicpb.Message, d protoreflect.MessageDescriptor) protoreflect.Message {
	if *m == nil {
		*m = dynamicpb.NewMessage(d)
	}
	return (*m).ProtoReflect()
}

func (p *older) ProtoReflect() protoreflect.Message {
	if p == nil {
		p = &older{}
	}
	return reflected(&p.m, olderPerson)
}

func (p *newer) ProtoReflect() protoreflect.Message {
	if p == nil {
		p = &newer{}
	}
	return reflected(&p.m, newerPerson)
}

// named sets the first fields of a message.
func named[T proto.Message](m T, values ...string) T {
	r := m.ProtoReflect()
	for i, v := range values {
		r.Set(r.Descriptor().Fields().Get(i), protoreflect.ValueOfString(v))
	}
	return m
}

func values(m proto.Message) (vs []string) {
	r := m.ProtoReflect()
	for i := range r.Descriptor().Fields().Len() {
		vs = append(vs, r.Get(r.Descriptor().Fields().Get(i)).String())
	}
	return vs
}

// A message can grow on either side; another message is refused.
func TestMessagesMayGrowOnEitherSide(t *testing.T) {
	srv, client := kerneltest.Start(t, nil, nil)
	for _, err := range []error{
		rpc.HandleUnary(srv, "older", func(_ context.Context, p *older) (*older, error) { return p, nil }, nil),
		rpc.HandleUnary(srv, "newer", func(_ context.Context, p *newer) (*newer, error) {
			return named(p, values(p)[0], "Countess"), nil
		}, nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	v, err := rpc.Call[*newer, *newer](t.Context(), client, "older", named(&newer{}, "Ada", "Countess"), nil)
	if err != nil || values(v)[0] != "Ada" {
		t.Errorf("a client that knows more: %v, %v", v, err)
	}
	o, err := rpc.Call[*older, *older](t.Context(), client, "newer", named(&older{}, "Ada"), nil)
	if err != nil || values(o)[0] != "Ada" {
		t.Errorf("a client that knows less: %v, %v", o, err)
	}
	for _, err := range []error{
		second(rpc.Call[*older, *wrapperspb.StringValue](t.Context(), client, "older", wrapperspb.String("Ada"), nil)),
		second(rpc.Call[*wrapperspb.StringValue, *older](t.Context(), client, "older", named(&older{}, "Ada"), nil)),
	} {
		var se *status.StreamError
		if !errors.As(err, &se) || se.Code != status.InvalidArgument ||
			!strings.Contains(se.Reason, "protobuf;test.Person") || !strings.Contains(se.Reason, "protobuf;google.protobuf.StringValue") {
			t.Errorf("another message: %v", err)
		}
	}
}
