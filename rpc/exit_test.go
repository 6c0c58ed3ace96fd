package rpc_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// leaving is a codec that calls runtime.Goexit where a value, or what is read, asks for it.
type leaving struct{}

func (leaving) Append(b []byte, v string) ([]byte, error) {
	if v == "append" {
		runtime.Goexit()
	}
	return append(b, v...), nil
}

func (leaving) Decode(p []byte) (string, error) {
	if string(p) == "decode" {
		runtime.Goexit()
	}
	return string(p), nil
}

// leavingSized knows how long values are.
type leavingSized struct{ leaving }

func (leavingSized) Size(v string) int {
	if v == "size" {
		runtime.Goexit()
	}
	return len(v)
}

// leaver is a value that does the same when JSON is made of it, or it of JSON.
type leaver string

// MarshalJSON implements json.Marshaler.
func (v leaver) MarshalJSON() ([]byte, error) {
	b, err := leaving{}.Append([]byte{'"'}, string(v))
	return append(b, '"'), err
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *leaver) UnmarshalJSON(p []byte) error {
	s, err := leaving{}.Decode(p[1 : len(p)-1])
	*v = leaver(s)
	return err
}

// leaves runs f in a goroutine, which must end before f returns.
func leaves(t *testing.T, what string, f func()) {
	t.Helper()
	returned, over := false, make(chan struct{})
	go func() {
		defer close(over)
		f()
		returned = true
	}()
	if <-over; returned {
		t.Errorf("%s returned", what)
	}
}

func wantExit(t *testing.T, what string, err error) {
	t.Helper()
	wantPanic(t, what, err, nil)
}

// sinkCause is why the stream of a sink was ended here.
func sinkCause(k *rpc.Sink[string]) error {
	var se *status.StreamError
	if errors.As(k.Err(), &se) {
		return se.Cause
	}
	return k.Err()
}

// A codec that ends its goroutine with a value to send ends the stream, whichever way the
// value went.
func TestACodecThatExitsOnAValueToSendEndsItsStream(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		for _, c := range []struct {
			codec.Codec[string]
			value string
		}{{leaving{}, "append"}, {leavingSized{}, "append"}, {leavingSized{}, "size"}} {
			for way, send := range map[string]func(k *rpc.Sink[string]){
				"Send":    func(k *rpc.Sink[string]) { _ = k.Send(w.Ctx, c.value) },
				"TrySend": func(k *rpc.Sink[string]) { _ = k.TrySend(c.value) },
				"Out":     nil,
			} {
				a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
				sink := testkit.Must[*rpc.Sink[string]](t)(rpc.SinkOf(a, c.Codec))
				ok(t, sink.Send(w.Ctx, "one"))
				w.Want(b, "one")
				if send != nil {
					leaves(t, way, func() { send(sink) })
				} else {
					sink.Out() <- c.value
				}
				<-sink.SendDone()
				wantExit(t, way, sinkCause(sink))
				wantCode(t, sink.Send(w.Ctx, "two"), status.InvalidArgument)
				_ = sink.Close(w.Ctx) // waits for nobody
				w.WantErr(b, status.InvalidArgument)
			}
		}
	})
}

// A codec that ends its goroutine on a message ends the stream, whichever way the value
// was to be read.
func TestACodecThatExitsOnAMessageEndsItsStream(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		for way, read := range map[string]func(src *rpc.Source[string]){
			"Receive": func(src *rpc.Source[string]) {
				for {
					if _, err := src.Receive(w.Ctx); err != nil {
						return
					}
				}
			},
			"All": func(src *rpc.Source[string]) {
				for range src.All(w.Ctx) {
				}
			},
			"In": nil,
		} {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			src := testkit.Must[*rpc.Source[string]](t)(rpc.SourceOf[string](b, leaving{}))
			for _, s := range []string{"one", "decode", "behind"} {
				w.Send(a, "%s", s)
			}
			if read != nil {
				leaves(t, way, func() { read(src) })
			} else {
				for range src.In() {
				}
			}
			wantExit(t, way, src.Err())
			_, err := src.Receive(w.Ctx)
			wantExit(t, way, err)
			var de *codec.DecodeError
			if !errors.As(err, &de) || de.Message != 2 {
				t.Errorf("%s: %v", way, err)
			}
			w.WantDone(a)
			wantCode(t, a.Err(), status.InvalidArgument)
		}
	})
}

// A codec that ends its goroutine in a handler of any shape ends the handler's stream.
func TestACodecThatExitsInAHandlerEndsItsCall(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		ok(t, rpc.HandleUnary(w.Srv, "unary", func(_ context.Context, v leaver) (leaver, error) { return v[2:], nil }, nil))
		ok(t, rpc.HandleClientStream(w.Srv, "up", func(ctx context.Context, in *rpc.Source[leaver]) (leaver, error) {
			v, err := in.Receive(ctx)
			return v[2:], err
		}, nil))
		ok(t, rpc.HandleServerStream(w.Srv, "down", func(ctx context.Context, v leaver, out *rpc.Sink[leaver]) error {
			return out.Send(ctx, v[2:])
		}, nil))
		ok(t, rpc.HandleServerStream(w.Srv, "channel", func(ctx context.Context, v leaver, out *rpc.Sink[leaver]) error {
			out.Out() <- v[2:]
			return nil
		}, nil))
		ok(t, rpc.HandleBidi(w.Srv, "bidi", func(ctx context.Context, b *rpc.Bidi[leaver, leaver]) error {
			for v := range b.In.In() {
				if err := b.Out.Send(ctx, v[2:]); err != nil {
					return err
				}
			}
			return b.In.Err()
		}, nil))
		for _, method := range []string{"unary", "up", "down", "channel", "bidi"} {
			for _, v := range []string{"decode", "  append"} {
				s := w.Open(method)
				w.Send(s, `"%s"`, v)
				_ = s.CloseSend() // the handler's end may have come
				_, err := s.Receive(w.Ctx)
				var se *status.StreamError
				if !errors.As(err, &se) || se.Code != status.Internal && se.Code != status.InvalidArgument {
					t.Errorf("%s, %s: %v", method, v, err)
				}
			}
		}
	})
}

// A codec that ends the goroutine of a call leaves nothing behind on the caller's side.
func TestACodecThatExitsInACallLeavesNothing(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		ok(t, rpc.HandleUnary(w.Srv, "unary", func(_ context.Context, v string) (string, error) { return v, nil }, nil))
		ok(t, rpc.HandleClientStream(w.Srv, "up", func(ctx context.Context, in *rpc.Source[string]) (string, error) { return in.Receive(ctx) }, nil))
		ok(t, rpc.HandleServerStream(w.Srv, "down", func(ctx context.Context, v string, out *rpc.Sink[string]) error { return out.Send(ctx, v) }, nil))
		leaves(t, "Call, the request", func() { _, _ = rpc.Call[string](w.Ctx, w.Client, "unary", leaver("append"), nil) })
		leaves(t, "Call, the result", func() { _, _ = rpc.Call[leaver](w.Ctx, w.Client, "unary", "decode", nil) })
		leaves(t, "CallServerStream, the request", func() {
			_, _ = rpc.CallServerStream[string](w.Ctx, w.Client, "down", leaver("append"), nil)
		})
		src := testkit.Must[*rpc.Source[leaver]](t)(rpc.CallServerStream[leaver](w.Ctx, w.Client, "down", "decode", nil))
		leaves(t, "CallServerStream, a value", func() { _, _ = src.Receive(w.Ctx) })
		wantExit(t, "CallServerStream", src.Err())
		up := testkit.Must[*rpc.ClientStream[string, leaver]](t)(rpc.CallClientStream[string, leaver](w.Ctx, w.Client, "up", nil))
		ok(t, up.Out.Send(w.Ctx, "decode"))
		leaves(t, "CloseAndReceive", func() { _, _ = up.CloseAndReceive(w.Ctx) })
	})
}

// A codec that ends the goroutine of a call which passes streams ends those, on both sides.
func TestACodecThatExitsEndsTheStreamsThatItsCallPasses(t *testing.T) {
	type args struct {
		V      leaver
		Stream *rpc.Sink[string]
	}
	type request struct {
		V      leaver
		Stream *rpc.Source[string]
	}
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		ends := make(chan error, 1)
		ok(t, rpc.HandleUnary(w.Srv, "pass", func(_ context.Context, r request) (leaver, error) {
			r.Stream.Go(func(ctx context.Context) error {
				_, err := r.Stream.Receive(ctx)
				ends <- err
				return nil
			})
			return r.V[2:], nil
		}, nil))
		pass := func(v leaver) *rpc.Sink[string] {
			sink := testkit.Must[*rpc.Sink[string]](t)(rpc.NewSink[string](w.Ctx, w.Client, nil))
			leaves(t, string(v), func() { _, _ = rpc.Call[leaver](w.Ctx, w.Client, "pass", args{v, sink}, nil) })
			return sink
		}
		sink := pass("append") // no call is made
		if err := sink.Send(w.Ctx, "x"); err == nil {
			t.Error("a value was sent where no call is")
		}
		sink = pass("  decode") // the result
		if err := sink.Send(w.Ctx, "x"); err == nil {
			t.Error("a value was sent to a call that has failed")
		}
		if err := testkit.Handled(w, ends); err == nil || err == io.EOF {
			t.Errorf("the handler's source ended with %v", err)
		}
		for _, v := range []leaver{"decode", "  append"} { // in the handler
			sink = testkit.Must[*rpc.Sink[string]](t)(rpc.NewSink[string](w.Ctx, w.Client, nil))
			_, err := rpc.Call[string](w.Ctx, w.Client, "pass", args{v, sink}, nil)
			if err == nil || sink.Send(w.Ctx, "x") == nil {
				t.Errorf("%s: the call failed with %v, a send with nil", v, err)
			}
		}
	})
}
