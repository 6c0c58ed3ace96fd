package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// endsInOrder checks that src has ended in order, and stays so.
func endsInOrder[T any](t testing.TB, w *world, src *rpc.Source[T]) {
	t.Helper()
	for range 2 {
		if v, err := src.Receive(w.Ctx); err != io.EOF {
			t.Fatalf("received %v, %v; want io.EOF", v, err)
		}
	}
	ok(t, src.Err())
}

type point struct {
	X, Y int32
	Name string
}

// echoed sends v to a handler that returns it.
func echoed[T any](t *testing.T, w *world, e *codec.Encoding, v T) {
	t.Helper()
	method := fmt.Sprintf("%T", v)
	w.Srv.Remove(method)
	ok(t, rpc.HandleUnary(w.Srv, method, func(_ context.Context, v T) (T, error) { return v, nil },
		&rpc.HandleOptions{Encoding: e}))
	got, err := rpc.Call[T, T](w.Ctx, w.Client, method, v, &rpc.CallOptions{Encoding: e})
	if err != nil || !reflect.DeepEqual(got, v) {
		t.Errorf("%T came back as %v, %v; want %v", v, got, err, v)
	}
}

func TestTypedCallsCarryAnyEncoding(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		echoed(t, w, nil, point{1, -2, "here"})
		echoed(t, w, codec.Fixed, []point{{1, 2, ""}, {3, 4, "x"}})
		echoed(t, w, nil, "")
		echoed(t, w, nil, struct{}{})
		echoed(t, w, codec.JSON, map[string]any{"a": 1.5, "b": []any{"c"}})
		echoed(t, w, codec.Raw, []byte("as it is"))
		echoed(t, w, codec.Raw, strings.Repeat("x", 100_000))
		echoed(t, w, codec.FirstOf(codec.EncodingOf(minuteCodec{}), codec.JSON), 7*time.Minute)
		echoed(t, w, codec.FirstOf(codec.EncodingOf(minuteCodec{}), codec.JSON), map[string]int{"a": 1})
		echoed(t, w, codec.NewEncoding("text", textCodecs), number(12))
		echoed(t, w, codec.NewEncoding("text", textCodecs), "other")
	})
}

// number is carried by textCodecs, and tells its size.
type number int

// textCodecs carries numbers and strings as text.
func textCodecs(t reflect.Type) (codec.Codec[any], error) {
	switch t {
	case reflect.TypeFor[number]():
		return sizedText{}, nil
	case reflect.TypeFor[string]():
		return plainText{}, nil
	}
	return nil, codec.ErrNoCodec
}

type plainText struct{}

func (plainText) Append(b []byte, v any) ([]byte, error) { return fmt.Append(b, v), nil }
func (plainText) Decode(p []byte) (any, error)           { return string(p), nil }

type sizedText struct{}

func (sizedText) Size(v any) int                         { return len(fmt.Sprint(v)) }
func (sizedText) Append(b []byte, v any) ([]byte, error) { return fmt.Append(b, v), nil }

func (sizedText) Decode(p []byte) (any, error) {
	var n number
	_, err := fmt.Sscan(string(p), (*int)(&n))
	return n, err
}

// A Message is handed over as it is, whatever the encoding.
func TestMessagesAreCarriedWithoutACodec(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		ok(t, rpc.HandleBidi(w.Srv, "echo", func(ctx context.Context, d *rpc.Bidi[pool.Message, pool.Message]) error {
			for m, err := range d.In.All(ctx) {
				if err != nil {
					return err
				}
				if err := d.Out.Send(ctx, m); err != nil {
					m.Release()
					return err
				}
			}
			return nil
		}, nil))
		d := testkit.Must[*rpc.Bidi[pool.Message, pool.Message]](t)(
			rpc.CallBidi[pool.Message, pool.Message](w.Ctx, w.Client, "echo", nil))
		ok(t, d.Out.Send(w.Ctx, text("there")))
		m := testkit.Must[pool.Message](t)(d.In.Receive(w.Ctx))
		if string(m.Bytes()) != "there" {
			t.Errorf("%q came back", m.Bytes())
		}
		m.Release()
		ok(t, d.Out.CloseSend())
		m = text("too late")
		isErr(t, "Send after CloseSend", d.Out.Send(w.Ctx, m), kernel.ErrSendClosed)
		m.Release() // still ours
		endsInOrder(t, w, d.In)
	})
}

// fickle is a codec that says the wrong size, or fails.
type fickle struct{ size int }

var errFickle = errors.New("not today")

func (c fickle) Size(string) int { return c.size }

func (c fickle) Append(b []byte, v string) ([]byte, error) {
	if v == "" {
		return append(b, "half"...), errFickle
	}
	return append(b, v...), nil
}

func (c fickle) Decode(p []byte) (string, error) {
	switch string(p) {
	case "bad":
		return "", &codec.DecodeError{Offset: 2, Err: errFickle}
	case "short":
		return "", io.EOF
	}
	return string(p), nil
}

func TestACodecMayBeWrongAboutSizes(t *testing.T) {
	for _, size := range []int{0, 3, 5, 50} {
		overWires(t, nil, nil, func(t *testing.T, w *world) { echoed(t, w, codec.EncodingOf(fickle{size}), "hello") })
	}
	w := newWorld(t, loops, nil, nil)
	e := codec.EncodingOf(fickle{-1})
	_, err := rpc.Call[string, string](w.Ctx, w.Client, "x", "hello", &rpc.CallOptions{Encoding: e})
	isErr(t, "negative", err, kernel.ErrTooLarge)
	e = codec.EncodingOf(fickle{1<<30 + 1})
	_, err = rpc.Call[string, string](w.Ctx, w.Client, "x", "hello", &rpc.CallOptions{Encoding: e})
	isErr(t, "beyond 1 GiB", err, kernel.ErrTooLarge)
	e = codec.EncodingOf(fickle{})
	_, err = rpc.Call[string, string](w.Ctx, w.Client, "x", "", &rpc.CallOptions{Encoding: e})
	isErr(t, "a codec that fails", err, errFickle)
}

func TestTypesThatCannotBeCarriedAreRefusedAtOnce(t *testing.T) {
	w := newWorld(t, loops, nil, nil)
	refused := func(what string, err error) {
		t.Helper()
		isErr(t, what, err, codec.ErrNoCodec)
	}
	type (
		source = rpc.Source[point]
		sink   = rpc.Sink[point]
	)
	fixedServer, call, open := by(codec.Fixed)
	refused("request", rpc.HandleUnary(w.Srv, "x", func(context.Context, int) (int32, error) { return 0, nil }, fixedServer))
	refused("result", rpc.HandleUnary(w.Srv, "x", func(context.Context, int32) (any, error) { return 0, nil }, fixedServer))
	refused("sink for a handler", rpc.HandleUnary(w.Srv, "x", func(context.Context, *sink) (int32, error) { return 0, nil }, fixedServer))
	refused("source from a handler", rpc.HandleUnary(w.Srv, "x", func(context.Context, *source) (*source, error) { return nil, nil }, fixedServer))
	refused("sink of nothing", rpc.HandleUnary(w.Srv, "x", func(context.Context, int32) (*sink, error) { return nil, nil }, fixedServer))
	refused("source of what can't be carried", rpc.HandleUnary(w.Srv, "x",
		func(context.Context, struct{ S []*rpc.Source[int] }) (int32, error) { return 0, nil }, fixedServer))
	refused("source of sources", rpc.HandleUnary(w.Srv, "x",
		func(context.Context, *rpc.Source[*source]) (int32, error) { return 0, nil }, fixedServer))
	refused("duplex", rpc.HandleBidi(w.Srv, "x", func(context.Context, *rpc.Bidi[int, int32]) error { return nil }, fixedServer))
	refused("source form", rpc.HandleClientStream(w.Srv, "x", func(context.Context, *rpc.Source[int32]) (int, error) { return 0, nil }, fixedServer))
	refused("sink form", rpc.HandleServerStream(w.Srv, "x", func(context.Context, int32, *rpc.Sink[uint]) error { return nil }, fixedServer))
	refused("raw", rpc.HandleUnary(w.Srv, "x", func(context.Context, []byte) (int32, error) { return 0, nil },
		&rpc.HandleOptions{Encoding: codec.Raw}))
	refused("none of several", rpc.HandleUnary(w.Srv, "x", func(context.Context, []byte) (int32, error) { return 0, nil },
		&rpc.HandleOptions{Encoding: codec.FirstOf(codec.Raw, codec.EncodingOf(minuteCodec{}))}))

	_, err := rpc.NewSink[int](w.Ctx, w.Client, &rpc.SinkOptions{Encoding: codec.Fixed})
	refused("NewSink", err)
	if !strings.Contains(err.Error(), "JSON") {
		t.Errorf("%v does not say what else there is", err)
	}
	_, err = rpc.NewSink[*sink](w.Ctx, w.Client, nil)
	refused("NewSink of sinks", err)
	_, err = rpc.Call[int32, int](w.Ctx, w.Client, "x", 1, call)
	refused("Call", err)
	_, err = rpc.Call[int32, *source](w.Ctx, w.Client, "x", nil, nil)
	refused("Call with a source", err)
	_, err = rpc.Call[*source, int32](w.Ctx, w.Client, "x", 1, nil)
	refused("Call for a source of nothing", err)
	_, err = rpc.CallBidi[int, int](w.Ctx, w.Client, "x", open)
	refused("CallBidi", err)
	_, err = rpc.CallServerStream[int, int32](w.Ctx, w.Client, "x", 1, open)
	refused("CallServerStream", err)
	_, err = codec.CodecOf[int](codec.Fixed)
	refused("CodecOf", err)
	if _, err := w.Client.Call(w.Ctx, "x", pool.Message{}, nil); !errors.Is(err, &status.StreamError{Code: status.Unimplemented}) {
		t.Errorf("a method that was never registered: %v", err)
	}
}

// A request that is none is the caller's fault, and the handler does not hear of
// it; a result that is none is told to the caller.
func TestRequestsAndResultsThatAreNone(t *testing.T) {
	fixedServer, call, _ := by(codec.Fixed)
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		ok(t, rpc.HandleUnary(w.Srv, "point", func(_ context.Context, p point) (int32, error) {
			t.Errorf("the handler got %v", p)
			return 0, nil
		}, fixedServer))
		m := text("four")
		_, err := w.Client.Call(w.Ctx, "point", m, nil) // which does not say what it is
		m.Release()
		se := wantCode(t, err, status.InvalidArgument)
		if !strings.Contains(se.Reason, "point: message 1, byte 0: cannot decode rpc_test.point: 8 bytes are due here, 4 are left") {
			t.Errorf("reason %q", se.Reason)
		}
		s := testkit.Must[*kernel.Stream](t)(w.Client.Open(w.Ctx, "point", nil))
		ok(t, s.CloseSend())
		w.WantErr(s, status.Unimplemented)

		w.Srv.Handle("number", func(ctx context.Context, s *kernel.Stream) error { return s.Send(ctx, text("four")) })
		_, err = rpc.Call[point, struct{}](w.Ctx, w.Client, "number", struct{}{}, call)
		var de *codec.DecodeError
		if !errors.As(err, &de) || de.Method != "number" || de.Message != 1 || de.Offset != 0 {
			t.Errorf("%#v", err)
		}
		ok(t, rpc.HandleUnary(w.Srv, "unspeakable", func(context.Context, struct{}) (map[string]any, error) {
			return map[string]any{"f": func() {}}, nil
		}, &rpc.HandleOptions{Encoding: codec.JSON}))
		_, err = rpc.Call[struct{}, any](w.Ctx, w.Client, "unspeakable", struct{}{}, &rpc.CallOptions{Encoding: codec.JSON})
		wantCode(t, err, status.Internal)
	})
}

// fixed is codec.Fixed's codec for T.
func fixed[T any](t testing.TB) codec.Codec[T] {
	t.Helper()
	return testkit.Must[codec.Codec[T]](t)(codec.CodecOf[T](codec.Fixed))
}

// points serves one typed stream and gives its source to the test.
func points(t *testing.T, w *world) (raw *kernel.Stream, src *rpc.Source[point]) {
	t.Helper()
	raw, s := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	return raw, testkit.Must[*rpc.Source[point]](t)(rpc.SourceOf(s, fixed[point](t)))
}

func wantSpoilt(t *testing.T, err error) {
	t.Helper()
	var de *codec.DecodeError
	if !errors.As(err, &de) || de.Message != 3 || de.Offset != 8 || de.Type != "rpc_test.point" || de.Method != "pair" {
		t.Errorf("%#v", err)
	}
}

// Everything before a message that is no value arrives; nothing behind it does;
// both sides are told.
func TestADecodeErrorNamesTheMessageAndLosesNothingBeforeIt(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		for _, way := range []string{"Receive", "All", "C"} {
			raw, src := points(t, w)
			sink := testkit.Must[*rpc.Sink[point]](t)(rpc.SinkOf(raw, fixed[point](t)))
			ok(t, sink.Send(w.Ctx, point{1, 2, "a"}))
			ok(t, sink.Send(w.Ctx, point{3, 4, "b"}))
			w.Send(raw, "12345678\x09\x00\x00\x00short")
			for range 5 {
				_ = sink.Send(w.Ctx, point{5, 6, "behind"}) // the stream may be over already
			}
			var got []point
			var end error
			switch way {
			case "Receive":
				for end == nil {
					var p point
					if p, end = src.Receive(w.Ctx); end == nil {
						got = append(got, p)
					}
				}
			case "All":
				for p, err := range src.All(w.Ctx) {
					if end = err; err == nil {
						got = append(got, p)
					}
				}
			case "C":
				for p := range src.In() {
					got = append(got, p)
				}
				end = src.Err()
			}
			if len(got) != 2 || got[1] != (point{3, 4, "b"}) {
				t.Errorf("%s: got %v", way, got)
			}
			wantSpoilt(t, end)
			_, again := src.Receive(w.Ctx)
			if again != end || src.Err() != end {
				t.Errorf("%s: first %v, then %v and %v", way, end, again, src.Err())
			}
			w.WantDone(raw)
			wantCode(t, raw.Err(), status.InvalidArgument)
			wantSpoilt(t, src.Stream().Err())
		}
	})
}

func TestDecodeErrorsOfEveryCodecNameTheByte(t *testing.T) {
	w := newWorld(t, loops, nil, nil)
	for _, c := range []struct {
		bytes  string
		offset int
		read   func(ctx context.Context, s *kernel.Stream) error
	}{
		{"{\"X\": 1,}", 8, readOne[point](t, codec.JSON)},
		{"{\"X\": \"a\"}", 9, readOne[point](t, codec.JSON)},
		{"{\"X\": 1", 7, readOne[point](t, codec.JSON)},
		{"", 0, readOne[point](t, codec.JSON)},
		{"bad", 2, readOne[string](t, codec.EncodingOf(fickle{}))},
		{"short", -1, readOne[string](t, codec.EncodingOf(fickle{}))},
		{"x", -1, readOne[time.Duration](t, codec.EncodingOf(minuteCodec{}))},
		{"12345678", 8, readOne[point](t, codec.Fixed)},
	} {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		w.Send(a, "%s", c.bytes)
		var de *codec.DecodeError
		if err := c.read(w.Ctx, b); !errors.As(err, &de) || de.Offset != c.offset || de.Message != 1 {
			t.Errorf("%q: %#v, want offset %d", c.bytes, err, c.offset)
		}
		if err := b.Err(); errors.Is(de, io.EOF) || errors.Is(err, io.EOF) {
			t.Errorf("%q: %v and %v look like an end in order", c.bytes, de, err)
		}
	}
}

func readOne[T any](t *testing.T, e *codec.Encoding) func(context.Context, *kernel.Stream) error {
	c := testkit.Must[codec.Codec[T]](t)(codec.CodecOf[T](e))
	return func(ctx context.Context, s *kernel.Stream) error {
		src, err := rpc.SourceOf(s, c)
		if err == nil {
			_, err = src.Receive(ctx)
		}
		return err
	}
}

// However a stream ends, a source that was read to the end says so for ever.
func TestASourcesEndIsOneForEver(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(w *world, a *kernel.Stream, src *rpc.Source[point])
		then func(w *world, a *kernel.Stream, src *rpc.Source[point])
		want error
	}{
		{"in order, then reset", func(_ *world, a *kernel.Stream, _ *rpc.Source[point]) { _ = a.CloseSend() },
			func(_ *world, _ *kernel.Stream, src *rpc.Source[point]) { src.Abort(status.Aborted, "no") }, io.EOF},
		{"in order, then lost", func(_ *world, a *kernel.Stream, _ *rpc.Source[point]) { _ = a.CloseSend() },
			func(w *world, _ *kernel.Stream, _ *rpc.Source[point]) { _ = w.Client.Close() }, io.EOF},
		{"reset, then lost", func(_ *world, a *kernel.Stream, _ *rpc.Source[point]) { a.Abort(status.Aborted, "no") },
			func(w *world, _ *kernel.Stream, _ *rpc.Source[point]) { _ = w.Client.Close() },
			&status.StreamError{Code: status.Aborted}},
		{"lost, then closed", func(w *world, _ *kernel.Stream, _ *rpc.Source[point]) { _ = w.Client.Close() },
			func(_ *world, _ *kernel.Stream, src *rpc.Source[point]) { src.CloseReceive(status.OK) },
			&status.StreamError{Code: status.ConnectionLost}},
		{"closed here, then reset", func(_ *world, _ *kernel.Stream, src *rpc.Source[point]) { src.CloseReceive(status.OK) },
			func(_ *world, a *kernel.Stream, _ *rpc.Source[point]) { a.Abort(status.Aborted, "no") }, kernel.ErrClosed},
	} {
		overWires(t, nil, nil, func(t *testing.T, w *world) {
			w.Loose = true
			a, src := points(t, w)
			c.end(w, a, src)
			_, first := src.Receive(w.Ctx)
			c.then(w, a, src)
			for range 3 {
				if _, err := src.Receive(w.Ctx); !errors.Is(first, c.want) || err != first {
					t.Errorf("%s: first %v, then %v", c.name, first, err)
				}
			}
			for range src.In() {
				t.Errorf("%s: a value after the end", c.name)
			}
			if err := src.Err(); c.want == io.EOF && err != nil || c.want != io.EOF && !errors.Is(err, c.want) {
				t.Errorf("%s: Err is %v", c.name, err)
			}
		})
	}
}

// Not even a context whose cause is io.EOF looks like a stream's end.
func TestACanceledWaitIsNotAnEnd(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, src := points(t, w)
		ctx, cancel := context.WithCancelCause(w.Ctx)
		cancel(io.EOF)
		if _, err := src.Receive(ctx); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%v", err)
		}
		n := 0
		for _, err := range src.All(ctx) {
			if n++; err == nil {
				t.Error("a value came out of nothing")
			}
		}
		for _, err := range src.Stream().All(ctx) {
			if n++; err == nil {
				t.Error("a message came out of nothing")
			}
		}
		if n != 2 {
			t.Errorf("%d errors, want one from each loop", n)
		}
		ctx, cancel = context.WithCancelCause(w.Ctx)
		cancel(&status.StreamError{Code: status.Aborted})
		if _, err := src.Receive(ctx); err == nil || src.Err() != nil {
			t.Errorf("%v, and %v ends the source", err, src.Err())
		}
		sink := testkit.Must[*rpc.Sink[point]](t)(rpc.SinkOf(a, fixed[point](t)))
		ok(t, sink.Send(w.Ctx, point{1, 2, "still"}))
		takes(t, w, src, point{1, 2, "still"})
	})
}

func TestTrySendTellsWouldBlockFromAnEnd(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{SendLimit: 64}, kernel.StreamOptions{})
		sink := testkit.Must[*rpc.Sink[int32]](t)(rpc.SinkOf(a, fixed[int32](t)))
		src := testkit.Must[*rpc.Source[int32]](t)(rpc.SourceOf(b, fixed[int32](t)))
		n := int32(0)
		for ; ; n++ {
			if err := sink.TrySend(n); err != nil {
				isErr(t, "without credit", err, kernel.ErrWouldBlock)
				break
			}
		}
		for i := range n {
			takes(t, w, src, i)
		}
		synctest.Wait()
		ok(t, sink.TrySend(n))
		ok(t, sink.CloseSend())
		isErr(t, "after CloseSend", sink.TrySend(0), kernel.ErrSendClosed)
		takes(t, w, src, n)
		endsInOrder(t, w, src)
	})
}

// What C has taken is sent before an end that comes after.
func TestCloseSendComesBehindWhatCHasTaken(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		for _, end := range []func(*rpc.Sink[int32]){
			func(k *rpc.Sink[int32]) { _ = k.CloseSend(); _ = k.CloseSend() },
			func(k *rpc.Sink[int32]) { close(k.Out()) },
			func(k *rpc.Sink[int32]) { close(k.Out()); _ = k.CloseSend() },
		} {
			a, b := w.Pair(kernel.StreamOptions{SendLimit: 64}, kernel.StreamOptions{})
			sink := testkit.Must[*rpc.Sink[int32]](t)(rpc.SinkOf(a, fixed[int32](t)))
			src := testkit.Must[*rpc.Source[int32]](t)(rpc.SourceOf(b, fixed[int32](t)))
			n := int32(0)
			for stuck := false; !stuck; { // until one is in hand that waits for credit
				synctest.Wait()
				select {
				case sink.Out() <- n:
					n++
				default:
					stuck = true
				}
			}
			end(sink)
			synctest.Wait()
			for i := range n {
				takes(t, w, src, i)
			}
			endsInOrder(t, w, src)
			<-sink.SendDone()
			b.Abort(status.Cancelled, "test over")
		}
	})
}

// A handler that returns in order has sent what its channel has taken.
func TestAHandlersChannelIsEmptiedBeforeItsStreamEnds(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		fill := func(d chan<- int32) {
			for i := range int32(100) {
				d <- i
			}
		}
		ok(t, rpc.HandleBidi(w.Srv, "duplex", func(_ context.Context, d *rpc.Bidi[int32, int32]) error {
			fill(d.Out.Out())
			return nil
		}, nil))
		ok(t, rpc.HandleServerStream(w.Srv, "sink", func(_ context.Context, _ struct{}, k *rpc.Sink[int32]) error {
			fill(k.Out())
			return nil
		}, nil))
		ok(t, rpc.HandleUnary(w.Srv, "call", func(_ context.Context, src *rpc.Source[int32]) (*rpc.Sink[int32], error) {
			out := rpc.MakeSink[int32](src)
			src.Go(func(context.Context) error { fill(out.Out()); return nil })
			return out, nil
		}, nil))
		small := &rpc.OpenOptions{OpenOptions: kernel.OpenOptions{Stream: kernel.StreamOptions{Window: 64}}}
		d := testkit.Must[*rpc.Bidi[int32, int32]](t)(rpc.CallBidi[int32, int32](w.Ctx, w.Client, "duplex", small))
		one := testkit.Must[*rpc.Source[int32]](t)(rpc.CallServerStream[int32, struct{}](w.Ctx, w.Client, "sink", struct{}{}, small))
		k := testkit.Must[*rpc.Sink[int32]](t)(rpc.NewSink[int32](w.Ctx, w.Client, &rpc.SinkOptions{Stream: small.Stream}))
		two := testkit.Must[*rpc.Source[int32]](t)(rpc.Call[*rpc.Source[int32], *rpc.Sink[int32]](w.Ctx, w.Client, "call", k, nil))
		for _, src := range []*rpc.Source[int32]{d.In, one, two} {
			for i := range int32(100) {
				takes(t, w, src, i)
			}
			endsInOrder(t, w, src)
		}
		_, _ = d.Out.CloseSend(), k.CloseSend()
	})
}

// A value that can't be sent ends the stream for good, which is all that a
// channel can say.
func TestAValueThatCanNotBeSentOnCAbortsTheStream(t *testing.T) {
	overWires(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxMessage: 1000}}, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		sink := testkit.Must[*rpc.Sink[any]](t)(rpc.SinkOf(a, testkit.Must[codec.Codec[any]](t)(codec.CodecOf[any](codec.JSON))))
		sink.Out() <- func() {}
		<-sink.SendDone()
		wantCode(t, sink.Err(), status.InvalidArgument)
		w.WantErr(b, status.InvalidArgument)

		a, b = w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		large := testkit.Must[*rpc.Sink[pool.Message]](t)(rpc.SinkOf[pool.Message](a, nil))
		large.Out() <- sized(1001, 1)
		<-large.SendDone()
		wantCode(t, large.Err(), status.TooLarge)
		w.WantErr(b, status.TooLarge)
	})
}

// The goroutines behind the channels end with their halves: the package's leak
// check is what fails here.
func TestTheChannelsGoroutinesEnd(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		for _, end := range []func(d *rpc.Bidi[string, string]){
			func(d *rpc.Bidi[string, string]) { d.In.CloseReceive(status.OK); _ = d.Out.CloseSend() },
			func(d *rpc.Bidi[string, string]) { d.Abort(status.Cancelled, "enough") },
			func(d *rpc.Bidi[string, string]) { _ = d.Close(w.Ctx) },
			func(d *rpc.Bidi[string, string]) { _ = d.Stream().Close(w.Ctx) },
		} {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			d := testkit.Must[*rpc.Bidi[string, string]](t)(rpc.BidiOf[string, string](a, nil, nil))
			peer := testkit.Must[*rpc.Bidi[string, string]](t)(rpc.BidiOf[string, string](b, nil, nil))
			in, out := d.In.In(), d.Out.Out()
			for range 3 {
				ok(t, peer.Out.Send(w.Ctx, "1"))
			}
			<-in // and one is in its buffer, one in hand
			out <- "1"
			go func() { // the peer takes and ends what there is
				for range peer.In.In() {
				}
				_ = peer.Out.CloseSend()
				peer.In.CloseReceive(status.OK)
			}()
			end(d)
			for range in {
			}
			if err := d.In.Err(); err == nil {
				t.Error("a source that was given up looks as if its peer had ended it")
			}
			<-d.Out.SendDone()
			w.WantDone(a)
		}
		// A handler that leaves its channels behind.
		ok(t, rpc.HandleBidi(w.Srv, "careless", func(_ context.Context, d *rpc.Bidi[int32, int32]) error {
			<-d.In.In()
			d.Out.Out() <- 1
			return errors.New("never mind")
		}, nil))
		d := testkit.Must[*rpc.Bidi[int32, int32]](t)(rpc.CallBidi[int32, int32](w.Ctx, w.Client, "careless", nil))
		for range 3 {
			_ = d.Out.Send(w.Ctx, 1)
		}
		for range d.In.In() {
		}
		wantCode(t, d.In.Err(), status.Unknown)
	})
}

// A stream's handler forms, and what each makes of an error.
func TestStreamingFormsPassErrorsOn(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		no := &status.HandlerError{Code: 300, Reason: "no"}
		ok(t, rpc.HandleClientStream(w.Srv, "up", func(ctx context.Context, in *rpc.Source[int32]) (int32, error) {
			v, err := in.Receive(ctx)
			if err == nil && v < 0 {
				err = no
			}
			return v, err
		}, nil))
		d := testkit.Must[*rpc.ClientStream[int32, int32]](t)(rpc.CallClientStream[int32, int32](w.Ctx, w.Client, "up", nil))
		ok(t, d.Out.Send(w.Ctx, -1))
		_, err := d.CloseAndReceive(w.Ctx)
		wantCode(t, err, 300)

		ok(t, rpc.HandleServerStream(w.Srv, "down", func(ctx context.Context, n int32, out *rpc.Sink[int32]) error {
			if n < 0 {
				return no
			}
			_ = out.Send(ctx, n)
			return no
		}, nil))
		for n, want := range map[int32]int{-1: 0, 5: 1} {
			src := testkit.Must[*rpc.Source[int32]](t)(rpc.CallServerStream[int32, int32](w.Ctx, w.Client, "down", n, nil))
			got := 0
			for _, err := range src.All(w.Ctx) {
				if err == nil {
					got++
					continue
				}
				wantCode(t, err, 300)
			}
			if got != want {
				t.Errorf("%d values, want %d", got, want)
			}
		}
		// Not one reply, and not two.
		ok(t, rpc.HandleBidi(w.Srv, "none", func(context.Context, *rpc.Bidi[int32, int32]) error { return nil }, nil))
		d = testkit.Must[*rpc.ClientStream[int32, int32]](t)(rpc.CallClientStream[int32, int32](w.Ctx, w.Client, "none", nil))
		_, err = d.CloseAndReceive(w.Ctx)
		isErr(t, "no reply", err, kernel.ErrNoReply)
		ok(t, rpc.HandleBidi(w.Srv, "two", func(ctx context.Context, d *rpc.Bidi[int32, int32]) error {
			return errors.Join(d.Out.Send(ctx, 1), d.Out.Send(ctx, 2))
		}, nil))
		d = testkit.Must[*rpc.ClientStream[int32, int32]](t)(rpc.CallClientStream[int32, int32](w.Ctx, w.Client, "two", nil))
		if v, err := d.CloseAndReceive(w.Ctx); err == nil || !strings.Contains(err.Error(), "more than one reply") {
			t.Errorf("%d, %v", v, err)
		}
	})
}

func TestTypedCallsThatNobodyWaitsFor(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		heard := make(chan int32, 1)
		ok(t, rpc.HandleUnary(w.Srv, "tell", func(_ context.Context, n int32) (string, error) {
			heard <- n
			return "an answer", nil
		}, nil))
		v, err := rpc.Call[string](w.Ctx, w.Client, "tell", int32(7), &rpc.CallOptions{CallOptions: kernel.CallOptions{NoWait: true}})
		if v != "" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
		if n := testkit.Handled(w, heard); n != 7 {
			t.Errorf("%d", n)
		}
	})
}

func TestVerbsAreNumbersWithNames(t *testing.T) {
	w := newWorld(t, loops, nil, nil)
	ok(t, rpc.HandleUnary(w.Srv, kernel.Verb(7), func(ctx context.Context, n int32) (string, error) {
		return fmt.Sprint(kernel.FromContext(ctx).Method(), " ", n), nil
	}, nil))
	if v, err := rpc.Call[string, int32](w.Ctx, w.Client, "#7", 1, nil); v != "#7 1" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
}
