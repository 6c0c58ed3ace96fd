package rpc_test

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
)

// readOnly is in a part of the program that can't be written to.
//
//go:embed typed_test.go
var readOnly string

// overAll runs f over every transport, and over other protocols.
func overAll(t *testing.T, f func(t *testing.T, w *world)) {
	overWires(t, nil, nil, f)
	t.Run("seastar", func(t *testing.T) { f(t, overSeastar(t)) })
	t.Run("brpc", func(t *testing.T) {
		so := &kernel.ServerOptions{Protocols: []frame.Protocol{native.Protocol{}, strm.Protocol{}}}
		f(t, newWorld(t, kerneltest.Start, so, &kernel.ClientOptions{Protocols: []frame.Protocol{strm.Protocol{}}}))
	})
}

// A string that is sent from its own memory arrives whole, on every way, also when nothing
// else refers to it, and is never written to.
func TestStringsAreSentFromTheirOwnMemory(t *testing.T) {
	if len(readOnly) < 16<<10 {
		t.Fatalf("%d bytes are too few", len(readOnly))
	}
	server, call, _ := by(codec.Raw)
	overAll(t, func(t *testing.T, w *world) {
		ok(t, rpc.HandleUnary(w.Srv, kernel.Verb(7), func(_ context.Context, v string) (string, error) { return v[1:], nil }, server))
		back, err := rpc.Call[string](w.Ctx, w.Client, kernel.Verb(7), readOnly, call)
		if err != nil || back != readOnly[1:] {
			t.Errorf("%d bytes of %d came back, %v", len(back), len(readOnly), err)
		}
		if w.Client.Caps().StreamsByID {
			return // a stream has no life of its own
		}
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		raw := testkit.Must[codec.Codec[string]](t)(codec.CodecOf[string](codec.Raw))
		sink := testkit.Must[*rpc.Sink[string]](t)(rpc.SinkOf(a, raw))
		src := testkit.Must[*rpc.Source[string]](t)(rpc.SourceOf(b, raw))
		text := func(i int) string { return fmt.Sprint(i, readOnly) }
		const count = 200
		sent := make(chan error, 1)
		go func() {
			for i := range count {
				if err := sink.Send(w.Ctx, text(i)); err != nil {
					sent <- err
					return
				}
				if i%20 == 0 {
					runtime.GC()
				}
			}
			sent <- sink.CloseSend()
		}()
		for i := range count {
			if v, err := src.Receive(w.Ctx); err != nil || v != text(i) {
				t.Fatalf("value %d has %d bytes, want %d, or others; %v", i, len(v), len(text(i)), err)
			}
		}
		if err := <-sent; err != nil && !errors.Is(err, kernel.ErrNotSupported) {
			t.Error(err)
		}
		_ = b.CloseSend()
	})
}

// In holds some values that have a fixed size, and one that may be large.
func TestInHoldsSmallValues(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		waiting(t, w, 16, func(i int) int32 { return int32(i) })
		waiting(t, w, 16, func(i int) wide { return wide{H: uint64(i)} })
		waiting(t, w, 4, func(i int) (v [512]uint64) { v[511] = uint64(i); return v })
		waiting(t, w, 1, func(i int) (v [4096]uint64) { v[4095] = uint64(i); return v })
		waiting(t, w, 1, func(i int) string { return fmt.Sprint(i) })
		waiting(t, w, 1, func(i int) struct{ P []int32 } { return struct{ P []int32 }{[]int32{int32(i)}} })
	})
}

// waiting checks that In holds n values which nobody has taken, and gives all in order.
func waiting[T any](t *testing.T, w *world, n int, value func(i int) T) {
	t.Helper()
	a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	sink := testkit.Must[*rpc.Sink[T]](t)(rpc.SinkOf(a, fixed[T](t)))
	src := testkit.Must[*rpc.Source[T]](t)(rpc.SourceOf(b, fixed[T](t)))
	in := src.In()
	const count = 20
	go func() {
		for i := range count {
			if err := sink.Send(w.Ctx, value(i)); err != nil {
				t.Error(err)
			}
		}
		_ = sink.CloseSend()
	}()
	synctest.Wait()
	if len(in) != n {
		t.Errorf("%T: %d values wait, want %d", value(0), len(in), n)
	}
	i := 0
	for v := range in {
		if fmt.Sprint(v) != fmt.Sprint(value(i)) {
			t.Errorf("value %d is %v", i, v)
		}
		i++
	}
	if i != count || src.Err() != nil {
		t.Errorf("%T: %d values, %v", value(0), i, src.Err())
	}
	ok(t, b.CloseSend())
}
