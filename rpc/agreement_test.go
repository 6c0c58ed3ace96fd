package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

type words struct{ A, B uint32 }

func by(e *codec.Encoding) (*rpc.HandleOptions, *rpc.CallOptions, *rpc.OpenOptions) {
	return &rpc.HandleOptions{Encoding: e}, &rpc.CallOptions{Encoding: e}, &rpc.OpenOptions{Encoding: e}
}

// A signature is e's for T.
func signature[T any](t testing.TB, e *codec.Encoding) string {
	t.Helper()
	return testkit.Must[*codec.Marshaler[T]](t)(codec.MarshalerOf[T](e)).Signature()
}

// What one side takes for something else than the other is refused before a handler runs,
// whatever the shape of the call, and the refusal names both.
func TestValuesOfOtherTypesAreRefusedBeforeTheHandler(t *testing.T) {
	fixedServer, fixedCall, fixedOpen := by(codec.Fixed)
	jsonServer, jsonCall, jsonOpen := by(codec.JSON)
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		ran := func() { t.Error("a handler ran") }
		ok(t, rpc.HandleUnary(w.Srv, "words", func(context.Context, words) (uint64, error) { ran(); return 0, nil }, fixedServer))
		ok(t, rpc.HandleUnary(w.Srv, "person", func(context.Context, point) (point, error) { ran(); return point{}, nil }, jsonServer))
		ok(t, rpc.HandleBidi(w.Srv, "duplex", func(context.Context, *rpc.Bidi[words, string]) error { ran(); return nil }, fixedServer))
		ok(t, rpc.HandleClientStream(w.Srv, "up", func(context.Context, *rpc.Source[words]) (string, error) { ran(); return "", nil }, fixedServer))
		ok(t, rpc.HandleServerStream(w.Srv, "down", func(context.Context, words, *rpc.Sink[string]) error { ran(); return nil }, fixedServer))
		ok(t, rpc.HandleUnary(w.Srv, "pass", func(context.Context, *rpc.Source[words]) (bool, error) { ran(); return false, nil }, fixedServer))

		fixed := func(v string) string { return fmt.Sprintf("%q", v) }
		for _, c := range []struct {
			name         string
			theirs, ours string
			call         func() error
		}{
			{"a JSON caller", `"json"`, fixed(signature[words](t, codec.Fixed)), func() error {
				_, err := rpc.Call[float64, string](w.Ctx, w.Client, "words", "hello", jsonCall)
				return err
			}},
			{"a fixed caller", fixed(signature[words](t, codec.Fixed)), `"json"`, func() error {
				_, err := rpc.Call[words, words](w.Ctx, w.Client, "person", words{}, fixedCall)
				return err
			}},
			{"another request", fixed(signature[string](t, codec.Fixed)), fixed(signature[words](t, codec.Fixed)), func() error {
				_, err := rpc.Call[uint64, string](w.Ctx, w.Client, "words", "12345678", fixedCall)
				return err
			}},
			{"another reply", fixed(signature[float64](t, codec.Fixed)), fixed(signature[uint64](t, codec.Fixed)), func() error {
				_, err := rpc.Call[float64, words](w.Ctx, w.Client, "words", words{}, fixedCall)
				return err
			}},
			{"In and Out swapped", fixed(signature[string](t, codec.Fixed)), fixed(signature[words](t, codec.Fixed)), func() error {
				d := testkit.Must[*rpc.Bidi[words, string]](t)(rpc.CallBidi[words, string](w.Ctx, w.Client, "duplex", fixedOpen))
				_ = d.Out.Send(w.Ctx, "12345678")
				_, err := d.In.Receive(w.Ctx)
				return err
			}},
			{"many up", `"json"`, fixed(signature[words](t, codec.Fixed)), func() error {
				d := testkit.Must[*rpc.ClientStream[words, string]](t)(rpc.CallClientStream[words, string](w.Ctx, w.Client, "up", jsonOpen))
				_, err := d.CloseAndReceive(w.Ctx)
				return err
			}},
			{"many down", fixed(signature[uint32](t, codec.Fixed)), fixed(signature[string](t, codec.Fixed)), func() error {
				src, err := rpc.CallServerStream[uint32, words](w.Ctx, w.Client, "down", words{}, fixedOpen)
				if err == nil {
					_, err = src.Receive(w.Ctx)
				}
				return err
			}},
			{"a sink of something else", signature[string](t, codec.Fixed), signature[words](t, codec.Fixed), func() error {
				sink := testkit.Must[*rpc.Sink[string]](t)(rpc.NewSink[string](w.Ctx, w.Client, &rpc.SinkOptions{Encoding: codec.Fixed}))
				_, err := rpc.Call[bool, *rpc.Sink[string]](w.Ctx, w.Client, "pass", sink, fixedCall)
				return err
			}},
		} {
			se := wantCode(t, c.call(), status.InvalidArgument)
			if !strings.Contains(se.Reason, c.theirs) || !strings.Contains(se.Reason, c.ours) {
				t.Errorf("%s: %q does not name %s and %s", c.name, se.Reason, c.theirs, c.ours)
			}
		}
	})
}

// A type can grow on either side.
func TestTypesMayGrowOnEitherSide(t *testing.T) {
	type (
		before struct{ A int32 }
		after  struct {
			A int32
			B *string
		}
	)
	more := "more"
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		for name, e := range map[string]*codec.Encoding{"default": nil, "fixed": codec.Fixed, "JSON": codec.JSON} {
			server, call, _ := by(e)
			w.Srv.Remove("before")
			ok(t, rpc.HandleUnary(w.Srv, "before", func(_ context.Context, v before) (before, error) { return v, nil }, server))
			w.Srv.Remove("after")
			ok(t, rpc.HandleUnary(w.Srv, "after", func(_ context.Context, v after) (after, error) { return after{v.A, &more}, nil }, server))
			if v, err := rpc.Call[after, after](w.Ctx, w.Client, "before", after{7, &more}, call); err != nil || v != (after{7, nil}) {
				t.Errorf("%s: a client that knows more: %v, %v", name, v, err)
			}
			if v, err := rpc.Call[before, before](w.Ctx, w.Client, "after", before{7}, call); err != nil || v.A != 7 {
				t.Errorf("%s: a client that knows less: %v, %v", name, v, err)
			}
			if v, err := rpc.Call[after, before](w.Ctx, w.Client, "after", before{7}, call); err != nil || v.B == nil || *v.B != more {
				t.Errorf("%s: the reply has grown: %v, %v", name, v, err)
			}
		}
	})
}

// Who says nothing is not asked: an untyped client is served, and told what it gets.
func TestWhatIsAbsentAgrees(t *testing.T) {
	server, _, _ := by(codec.Fixed)
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		ok(t, rpc.HandleUnary(w.Srv, "add", func(_ context.Context, v words) (uint32, error) { return v.A + v.B, nil }, server))
		var header metadata.MD
		r, err := w.Client.Call(w.Ctx, "add", text("\x01\x00\x00\x00\x02\x00\x00\x00"), &kernel.CallOptions{Header: &header})
		if err != nil || string(r.Bytes()) != "\x03\x00\x00\x00" {
			t.Fatalf("%q, %v", r.Bytes(), err)
		}
		r.Release()
		req, rep := signature[words](t, codec.Fixed), signature[uint32](t, codec.Fixed)
		if header.Get(rpc.KeyRequest) != req || header.Get(rpc.KeyReply) != rep {
			t.Errorf("the header is %v, want %s and %s", header, req, rep)
		}
		// A name without a type agrees with each of its types.
		md := metadata.MD{{Key: rpc.KeyRequest, Value: "fixed"}}
		r, err = w.Client.Call(w.Ctx, "add", text("\x01\x00\x00\x00\x02\x00\x00\x00"), &kernel.CallOptions{Metadata: md})
		ok(t, err)
		r.Release()
		// Nothing is said for messages.
		w.Srv.Handle("raw", func(ctx context.Context, s *kernel.Stream) error {
			if md := s.Metadata(); len(md) > 0 {
				t.Errorf("the metadata is %v", md)
			}
			return echo(ctx, s)
		})
		m := testkit.Must[pool.Message](t)(rpc.Call[pool.Message, pool.Message](w.Ctx, w.Client, "raw", text("x"), nil))
		m.Release()
	})
}

// An answer that names other values than are expected is none.
func TestAnswersWithOtherValuesAreNotDecoded(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		for _, key := range []string{rpc.KeyRequest, rpc.KeyReply} {
			answersWithOtherValues(t, w, metadata.MD{{Key: key, Value: "fixed;00000000"}})
		}
	})
}

func answersWithOtherValues(t *testing.T, w *world, other metadata.MD) {
	w.Srv.Remove("number")
	w.Srv.Handle("number", func(ctx context.Context, s *kernel.Stream) error {
		ok(t, s.SetHeader(other))
		return s.Send(ctx, text("12345678"))
	})
	w.Srv.Remove("pass")
	w.Srv.HandleOffer("pass", func(_ context.Context, o *kernel.Offer) error {
		testkit.RequestOf(t, o).Release()
		ok(t, o.SetHeader(other))
		_, err := o.Accept(text("12345678"), nil)
		return err
	})
	spoilt := func(what string, err error) {
		t.Helper()
		var de *codec.DecodeError
		if !errors.As(err, &de) || !errors.Is(err, rpc.ErrEncoding) || !strings.Contains(err.Error(), `"fixed;00000000"`) || !strings.Contains(err.Error(), `"json`) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := rpc.Call[float64, string](w.Ctx, w.Client, "number", "", nil)
	spoilt("Call", err)
	src := testkit.Must[*rpc.Source[float64]](t)(rpc.CallServerStream[float64, string](w.Ctx, w.Client, "number", "", nil))
	_, err = src.Receive(w.Ctx)
	spoilt("CallServerStream", err)
	d := testkit.Must[*rpc.Bidi[float64, string]](t)(rpc.CallBidi[float64, string](w.Ctx, w.Client, "number", nil))
	_, err = d.In.Receive(w.Ctx)
	spoilt("CallBidi", err)
	wantCode(t, d.Stream().Err(), status.InvalidArgument)
	sink := newSink(t, w)
	_, err = rpc.Call[float64, *intSink](w.Ctx, w.Client, "pass", sink, nil)
	spoilt("a call that passes a sink", err)
	w.Loose = true
}

// A sink goes by the encoding of the call that it is passed to, which is the handler's.
func TestASinkGoesByItsCallsEncoding(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		sumUp(t, w.Srv)
		sink := testkit.Must[*intSink](t)(rpc.NewSink[int32](w.Ctx, w.Client, &rpc.SinkOptions{Encoding: codec.Fixed}))
		_, err := callSum(w, sink)
		isErr(t, "another encoding", err, rpc.ErrEncoding)
	})
}

func TestReservedKeysAreRefused(t *testing.T) {
	w := newWorld(t, loops, nil, nil)
	for _, key := range []string{rpc.KeyRequest, rpc.KeyReply} {
		md := metadata.MD{{Key: "mine", Value: "1"}, {Key: key, Value: "json"}}
		refused := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, kernel.ErrMetadataKey) || !strings.Contains(err.Error(), key) {
				t.Errorf("%s: %v", what, err)
			}
		}
		_, err := rpc.Call[string, string](w.Ctx, w.Client, "x", "", &rpc.CallOptions{CallOptions: kernel.CallOptions{Metadata: md}})
		refused("Call", err)
		_, err = rpc.Call[string, *intSink](w.Ctx, w.Client, "x", newSink(t, w), &rpc.CallOptions{CallOptions: kernel.CallOptions{Metadata: md}})
		refused("a call with a sink", err)
		open := &rpc.OpenOptions{OpenOptions: kernel.OpenOptions{Metadata: md}}
		_, err = rpc.CallBidi[string, string](w.Ctx, w.Client, "x", open)
		refused("CallBidi", err)
		_, err = rpc.CallServerStream[string, string](w.Ctx, w.Client, "x", "", open)
		refused("CallServerStream", err)
	}
}

// The program's own metadata travels beside what this package says.
func TestMetadataOfTheProgramTravelsToo(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		mine := metadata.MD{{Key: "mine", Value: "1"}}
		ok(t, rpc.HandleUnary(w.Srv, "md", func(ctx context.Context, _ string) (string, error) {
			md := kernel.FromContext(ctx).Metadata()
			return md.Get("mine") + " " + md.Get(rpc.KeyRequest) + " " + md.Get(rpc.KeyReply), nil
		}, nil))
		v, err := rpc.Call[string, string](w.Ctx, w.Client, "md", "", &rpc.CallOptions{CallOptions: kernel.CallOptions{Metadata: mine}})
		if v != "1 json json" || err != nil || len(mine) != 1 {
			t.Errorf("%q, %v; the caller's is %v", v, err, mine)
		}
	})
}

// What a value is sent as depends on its type and, where the protocol has values of its
// own, on that.
func TestTheDefaultGoesByTheType(t *testing.T) {
	sent := func(t *testing.T, w *world, want [3]string) {
		got := make(chan string, 3)
		for verb := range uint64(3) {
			w.Srv.Handle(kernel.Verb(verb), func(ctx context.Context, s *kernel.Stream) error {
				m, err := s.Receive(ctx)
				if err != nil {
					return err
				}
				got <- string(m.Bytes())
				return s.Send(ctx, m)
			})
		}
		_, err := rpc.Call[[]byte, []byte](w.Ctx, w.Client, kernel.Verb(0), []byte("abc"), nil)
		ok(t, err)
		_, err = rpc.Call[words, words](w.Ctx, w.Client, kernel.Verb(1), words{1, 2}, nil)
		ok(t, err)
		_, err = rpc.Call[string, string](w.Ctx, w.Client, kernel.Verb(2), "x", nil)
		ok(t, err)
		for _, v := range want {
			if m := <-got; m != v {
				t.Errorf("%q was sent, want %q", m, v)
			}
		}
	}
	overWires(t, nil, nil, func(t *testing.T, w *world) { sent(t, w, [3]string{"abc", `{"A":1,"B":2}`, `"x"`}) })
	t.Run("seastar", func(t *testing.T) {
		sent(t, overSeastar(t), [3]string{"\x03\x00\x00\x00abc", "\x01\x00\x00\x00\x02\x00\x00\x00", "\x01\x00\x00\x00x"})
	})
}

// One handler serves both kinds of protocols, each with its own values. A type that one of
// them can't carry is refused there alone.
func TestAHandlerServesProtocolsWithOtherValues(t *testing.T) {
	var ln net.Listener
	w := newWorld(t, onSeastar(func(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
		ln = listen(t)
		return testkit.Serve(t, so, co, ln)
	}), nil, nil)
	verb, number := kernel.Verb(1), kernel.Verb(2)
	ok(t, rpc.HandleUnary(w.Srv, verb, func(_ context.Context, v words) (words, error) { return words{v.B, v.A}, nil }, nil))
	ok(t, rpc.HandleUnary(w.Srv, number, func(_ context.Context, n int) (int, error) { return n + 1, nil }, nil))
	ok(t, rpc.HandleBidi(w.Srv, "many", func(context.Context, *rpc.Bidi[map[string]int, int]) error { return nil }, nil))
	if v, err := rpc.Call[words, words](w.Ctx, w.Client, verb, words{1, 2}, nil); err != nil || v != (words{2, 1}) {
		t.Errorf("%v, %v", v, err)
	}
	m := text("\x01\x00\x00\x00")
	_, err := w.Client.Call(w.Ctx, number, m, nil)
	if m.Release(); err == nil || !strings.Contains(err.Error(), "UNIMPLEMENTED") {
		t.Errorf("a type without a fixed layout: %v", err)
	}
	_, err = rpc.Call[int, int](w.Ctx, w.Client, number, 1, nil)
	isErr(t, "a client's type without a fixed layout", err, codec.ErrNoCodec)
	native := testkit.Must[*kernel.Client](t)(kernel.Dial(w.Ctx, ln.Addr().String(), nil))
	defer native.Close()
	if v, err := rpc.Call[words, words](w.Ctx, native, verb, words{1, 2}, nil); err != nil || v != (words{2, 1}) {
		t.Errorf("native: %v, %v", v, err)
	}
	if n, err := rpc.Call[int, int](w.Ctx, native, number, 1, nil); err != nil || n != 2 {
		t.Errorf("native: %d, %v", n, err)
	}
}

// broken is a codec that panics where a value, or what is read, asks for it.
type broken struct{}

type brokenSized struct{ broken }

func (brokenSized) Size(v string) int {
	if v == "size" {
		panic("size")
	}
	return len(v)
}

func (broken) Append(b []byte, v string) ([]byte, error) {
	if v == "panic" {
		panic("append")
	}
	return append(b, v...), nil
}

func (broken) Decode(p []byte) (string, error) {
	if string(p) == "spoilt" {
		panic("decode")
	}
	return string(p), nil
}

func wantPanic(t *testing.T, what string, err error, value any) {
	t.Helper()
	var pe *codec.PanicError
	if !errors.As(err, &pe) || pe.Value != value || len(pe.Stack) == 0 {
		t.Errorf("%s: %v", what, err)
	}
	if err == io.EOF {
		t.Errorf("%s looks like an end in order", what)
	}
}

// A codec's panic ends the stream, and nothing else, whichever way the value came or went.
func TestACodecsPanicEndsItsStream(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		for name, read := range map[string]func(src *rpc.Source[string]) error{
			"Receive": func(src *rpc.Source[string]) error {
				for {
					if _, err := src.Receive(w.Ctx); err != nil {
						return err
					}
				}
			},
			"All": func(src *rpc.Source[string]) (end error) {
				for _, err := range src.All(w.Ctx) {
					end = err
				}
				return end
			},
			"C": func(src *rpc.Source[string]) error {
				for range src.In() {
				}
				return src.Err()
			},
		} {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			src := testkit.Must[*rpc.Source[string]](t)(rpc.SourceOf[string](b, broken{}))
			for _, s := range []string{"one", "spoilt", "behind"} {
				w.Send(a, "%s", s)
			}
			_ = a.CloseSend()
			err := read(src)
			wantPanic(t, name, err, "decode")
			var de *codec.DecodeError
			if !errors.As(err, &de) || de.Message != 2 {
				t.Errorf("%s: %v", name, err)
			}
			w.WantDone(a)
			wantCode(t, a.Err(), status.InvalidArgument)
		}
		for _, c := range []codec.Codec[string]{broken{}, brokenSized{}} {
			for name, send := range map[string]func(k *rpc.Sink[string], v string) error{
				"Send":    func(k *rpc.Sink[string], v string) error { return k.Send(w.Ctx, v) },
				"TrySend": func(k *rpc.Sink[string], v string) error { return k.TrySend(v) },
				"C": func(k *rpc.Sink[string], v string) error {
					k.Out() <- v
					<-k.SendDone()
					var se *status.StreamError
					if !errors.As(k.Err(), &se) {
						return k.Err()
					}
					return se.Cause
				},
			} {
				for _, v := range []string{"panic", "size"} {
					want := map[string]string{"panic": "append", "size": "size"}[v]
					if _, sized := c.(brokenSized); !sized && v == "size" {
						continue
					}
					a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
					sink := testkit.Must[*rpc.Sink[string]](t)(rpc.SinkOf(a, c))
					ok(t, sink.Send(w.Ctx, "one"))
					w.Want(b, "one")
					wantPanic(t, name, send(sink, v), want)
					w.WantErr(b, status.InvalidArgument)
				}
			}
		}
	})
}

// A codec's panic in a call ends that call.
func TestACodecsPanicEndsItsCall(t *testing.T) {
	log := &journal{}
	w := newWorld(t, loops, &kernel.ServerOptions{Logger: log.Logger()}, nil)
	e := codec.EncodingOf[string](broken{})
	server, call, _ := by(e)
	ok(t, rpc.HandleUnary(w.Srv, "echo", func(_ context.Context, v string) (string, error) { return v + v[:0], nil }, server))
	ok(t, rpc.HandleUnary(w.Srv, "panic", func(context.Context, string) (string, error) { return "panic", nil }, server))
	ok(t, rpc.HandleUnary(w.Srv, "spoilt", func(context.Context, string) (string, error) { return "spoilt", nil }, server))
	_, err := rpc.Call[string, string](w.Ctx, w.Client, "echo", "panic", call)
	wantPanic(t, "the request", err, "append")
	_, err = rpc.Call[string, string](w.Ctx, w.Client, "echo", "spoilt", call)
	wantCode(t, err, status.InvalidArgument)
	_, err = rpc.Call[string, string](w.Ctx, w.Client, "panic", "", call)
	wantCode(t, err, status.Internal)
	_, err = rpc.Call[string, string](w.Ctx, w.Client, "spoilt", "", call)
	wantPanic(t, "the result", err, "decode")
	for _, v := range []string{"decode", "append", "stack"} {
		w.Eventually("the log to have "+v, func() bool { return strings.Contains(log.String(), v) }, log.String)
	}
}

// lender is a codec whose Append returns the value's own memory.
type lender struct{}

func (lender) Append(_ []byte, v []byte) ([]byte, error) { return v, nil }
func (lender) Decode(p []byte) ([]byte, error)           { return append([]byte{}, p...), nil }

// sizedLender knows its size.
type sizedLender struct{ lender }

func (sizedLender) Size(v []byte) int { return len(v) }

// A codec that returns the program's memory, in place of appending to what it was given, is
// refused on each way, and nothing is ever written into that memory.
func TestAValuesOwnMemoryIsRefused(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		for _, c := range []codec.Codec[[]byte]{lender{}, sizedLender{}} {
			for _, size := range []int{100, 5_000, 200_000} {
				v := make([]byte, size)
				a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
				sink := testkit.Must[*rpc.Sink[[]byte]](t)(rpc.SinkOf(a, c))
				isErr(t, "Send", sink.Send(w.Ctx, v), codec.ErrNotAppended)
				isErr(t, "TrySend", sink.TrySend(v), codec.ErrNotAppended)
				_, call, _ := by(codec.EncodingOf(c))
				_, err := rpc.Call[[]byte, []byte](w.Ctx, w.Client, "x", v, call)
				isErr(t, "Call", err, codec.ErrNotAppended)
				other := testkit.Must[*rpc.Sink[string]](t)(rpc.SinkOf[string](a, broken{}))
				for range 100 { // what would be written there
					ok(t, other.Send(w.Ctx, "another stream's bytes"))
					w.Want(b, "another stream's bytes")
				}
				sink.Out() <- v
				<-sink.SendDone()
				isErr(t, "C", sink.Err().(*status.StreamError).Cause, codec.ErrNotAppended)
				w.WantErr(b, status.InvalidArgument)
				for i, c := range v {
					if c != 0 {
						t.Fatalf("byte %d of the program's value was written to", i)
					}
				}
			}
		}
	})
}

// What is said of the values stands beside a header of the program's, for callers that say
// nothing of theirs, and does not keep an error before the first use from being a refusal.
func TestTheAnswersHeaderIsTheProgramsToo(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Use(func(next kernel.Handler) kernel.Handler {
			return func(ctx context.Context, s *kernel.Stream) error {
				if s.Method() == "m" {
					ok(t, s.SetHeader(metadata.MD{{Key: "request-id", Value: "7"}}))
				}
				return next(ctx, s)
			}
		})
		ok(t, rpc.HandleUnary(w.Srv, "m", func(_ context.Context, n int) (int, error) { return n, nil }, nil))
		var header metadata.MD
		reply, err := w.Client.Call(w.Ctx, "m", text("1"), &kernel.CallOptions{Header: &header})
		ok(t, err)
		reply.Release()
		if header.Get("request-id") != "7" || header.Get(rpc.KeyReply) == "" {
			t.Errorf("%v", header)
		}
		ok(t, rpc.HandleBidi(w.Srv, "no", func(context.Context, *rpc.Bidi[int, int]) error {
			return &status.HandlerError{Code: status.NotFound, Reason: "no"}
		}, nil))
		s := w.Open("no")
		_, err = s.Receive(w.Ctx)
		isErr(t, "an error before the first use", err, kernel.ErrRefused)
	})
}

// Values that don't agree refuse the stream, whatever its shape.
func TestValuesThatDontAgreeAreARefusal(t *testing.T) {
	type a struct{ X int32 }
	type b struct{ Y string }
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		fixed := &rpc.HandleOptions{Encoding: codec.Fixed}
		ok(t, rpc.HandleBidi(w.Srv, "m", func(context.Context, *rpc.Bidi[a, b]) error { return nil }, fixed))
		d, err := rpc.CallBidi[a, b](w.Ctx, w.Client, "m", &rpc.OpenOptions{Encoding: codec.Fixed}) // swapped
		ok(t, err)
		_, err = d.In.Receive(w.Ctx)
		isErr(t, "values", err, kernel.ErrRefused)
		isErr(t, "values", err, &status.StreamError{Code: status.InvalidArgument})
		if text := err.Error(); strings.Count(text, "sluice: ") != 1 || strings.Contains(text, "\n") {
			t.Errorf("%q", text)
		}
	})
}
