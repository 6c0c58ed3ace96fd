package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluicerpc/sluice/cmd/protoc-gen-go-sluice/internal/editionpb"
	"github.com/sluicerpc/sluice/cmd/protoc-gen-go-sluice/internal/namespb"
	"github.com/sluicerpc/sluice/cmd/protoc-gen-go-sluice/internal/shapespb"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// shapes serves all methods but the old ones.
type shapes struct {
	shapespb.UnimplementedShapesHandler
}

func text(n int64) *shapespb.Text { return &shapespb.Text{Value: strconv.FormatInt(n, 10)} }

func (shapes) Unary(_ context.Context, req *shapespb.Number) (*shapespb.Text, error) {
	return text(req.Value), nil
}

func (shapes) ClientStream(ctx context.Context, in *rpc.Source[*shapespb.Number]) (*shapespb.Text, error) {
	sum := int64(0)
	for n, err := range in.All(ctx) {
		if err != nil {
			return nil, err
		}
		sum += n.Value
	}
	return text(sum), nil
}

func (shapes) ServerStream(ctx context.Context, req *shapespb.Number, out *rpc.Sink[*shapespb.Text]) error {
	for n := range req.Value {
		if err := out.Send(ctx, text(n)); err != nil {
			return err
		}
	}
	return nil
}

func (shapes) Bidi(ctx context.Context, b *rpc.Bidi[*shapespb.Number, *shapespb.Text]) error {
	for n, err := range b.In.All(ctx) {
		if err != nil {
			return err
		}
		if err := b.Out.Send(ctx, text(n.Value)); err != nil {
			return err
		}
	}
	return nil
}

// overWires runs f over each wire that has named methods and carries messages of protobuf.
func overWires(t *testing.T, f func(t *testing.T, w *testkit.World)) {
	for _, p := range []frame.Protocol{native.Protocol{}, strm.Protocol{}, triple.Protocol{}} {
		t.Run(fmt.Sprintf("%T", p), func(t *testing.T) {
			protocols := []frame.Protocol{p}
			f(t, testkit.New(t, testkit.Loops, &kernel.ServerOptions{Protocols: protocols}, &kernel.ClientOptions{Protocols: protocols}))
		})
	}
}

func TestAHandlerAnswersItsCaller(t *testing.T) {
	overWires(t, func(t *testing.T, w *testkit.World) {
		testkit.OK(t, shapespb.HandleShapes(w.Srv, shapes{}, nil))
		c := shapespb.NewShapesCaller(w.Client)
		t.Run("unary", func(t *testing.T) { unary(t, w, c) })
		t.Run("client stream", func(t *testing.T) { clientStream(t, w, c) })
		t.Run("server stream", func(t *testing.T) { serverStream(t, w, c) })
		t.Run("bidi", func(t *testing.T) { bidi(t, w, c) })
		t.Run("unimplemented", func(t *testing.T) {
			//lint:ignore SA1019 a deprecated method can be called
			_, err := c.Old(w.Ctx, &shapespb.Number{}, nil)
			testkit.WantCode(t, err, status.Unimplemented)
		})
	})
}

func unary(t *testing.T, w *testkit.World, c shapespb.ShapesCaller) {
	reply, err := c.Unary(w.Ctx, &shapespb.Number{Value: 7}, nil)
	if err != nil || reply.Value != "7" {
		t.Errorf("the reply is %v, %v", reply, err)
	}
}

func clientStream(t *testing.T, w *testkit.World, c shapespb.ShapesCaller) {
	s, err := c.ClientStream(w.Ctx, nil)
	if !w.Client.Caps().HalfClose {
		testkit.IsErr(t, "a client stream over a wire without half-close", err, kernel.ErrNotSupported)
		return
	}
	testkit.OK(t, err)
	for n := range int64(10) {
		testkit.OK(t, s.Out.Send(w.Ctx, &shapespb.Number{Value: n}))
	}
	reply, err := s.CloseAndReceive(w.Ctx)
	if err != nil || reply.Value != "45" {
		t.Errorf("the reply is %v, %v", reply, err)
	}
}

func serverStream(t *testing.T, w *testkit.World, c shapespb.ShapesCaller) {
	in, err := c.ServerStream(w.Ctx, &shapespb.Number{Value: 10}, nil)
	testkit.OK(t, err)
	n := int64(0)
	for m, err := range in.All(w.Ctx) {
		testkit.OK(t, err)
		if m.Value != text(n).Value {
			t.Fatalf("message %d is %v", n, m)
		}
		n++
	}
	if n != 10 {
		t.Errorf("%d messages", n)
	}
}

func bidi(t *testing.T, w *testkit.World, c shapespb.ShapesCaller) {
	b, err := c.Bidi(w.Ctx, nil)
	testkit.OK(t, err)
	for n := range int64(10) {
		testkit.OK(t, b.Out.Send(w.Ctx, &shapespb.Number{Value: n}))
		m, err := b.In.Receive(w.Ctx)
		testkit.OK(t, err)
		if m.Value != text(n).Value {
			t.Fatalf("message %d is %v", n, m)
		}
	}
	if !w.Client.Caps().HalfClose {
		testkit.OK(t, b.Close(w.Ctx))
		return
	}
	testkit.OK(t, b.Out.CloseSend())
	if m, err := b.In.Receive(w.Ctx); err != io.EOF {
		t.Errorf("behind the last message came %v, %v", m, err)
	}
}

// Seastar's methods have numbers and values of another kind: a call fails, and says why.
func TestWhatAWireCannotCarryIsAnError(t *testing.T) {
	w := testkit.New(t, testkit.Loops, &kernel.ServerOptions{Protocols: []frame.Protocol{&seastar.Protocol{}}},
		&kernel.ClientOptions{Protocols: []frame.Protocol{&seastar.Protocol{}}})
	testkit.OK(t, shapespb.HandleShapes(w.Srv, shapes{}, nil))
	c := shapespb.NewShapesCaller(w.Client)
	_, err := c.Unary(w.Ctx, &shapespb.Number{}, nil)
	testkit.IsErr(t, "a unary call", err, codec.ErrNoCodec)
	_, err = c.Bidi(w.Ctx, nil)
	testkit.IsErr(t, "a stream", err, codec.ErrNoCodec)
}

// namesHandler serves methods whose names are told apart on the wire by a capital letter alone.
type namesHandler struct {
	namespb.UnimplementedNamesHandler
}

var errSmall, errCapital = errors.New("small"), errors.New("capital")

func (namesHandler) Greet(context.Context, *namespb.Context) (*namespb.Context, error) {
	return nil, &status.HandlerError{Code: status.FirstAppCode, Reason: errSmall.Error()}
}

func (namesHandler) Greet_(context.Context, *namespb.Context) (*namespb.Context, error) {
	return nil, &status.HandlerError{Code: status.FirstAppCode, Reason: errCapital.Error()}
}

func TestNamesOnTheWireAreKept(t *testing.T) {
	overWires(t, func(t *testing.T, w *testkit.World) {
		testkit.OK(t, namespb.HandleNames_(w.Srv, namesHandler{}, nil))
		for method, want := range map[string]error{"greet": errSmall, "Greet": errCapital} {
			_, err := rpc.Call[*namespb.Context](w.Ctx, w.Client, "sluice.test.names.Names/"+method, &namespb.Context{}, nil)
			if e := testkit.WantCode(t, err, status.FirstAppCode); e != nil && e.Reason != want.Error() {
				t.Errorf("%s was answered by the other one: %v", method, err)
			}
		}
	})
}

func TestDescriptors(t *testing.T) {
	s := shapespb.ShapesService()
	if got := s.FullName(); got != "sluice.test.shapes.v1.Shapes" {
		t.Errorf("the service is %s", got)
	}
	m := s.Methods().ByName("serverStream")
	if m == nil || m.IsStreamingClient() || !m.IsStreamingServer() {
		t.Errorf("the method is %v", m)
	}
	for _, s := range []protoreflect.ServiceDescriptor{namespb.NamesGreetService_(), editionpb.FirstService(), editionpb.SecondService()} {
		if s == nil {
			t.Error("a service has no descriptor")
		}
	}
}
