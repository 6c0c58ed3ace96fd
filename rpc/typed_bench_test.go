package rpc_test

import (
	"context"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
)

// wide is a value of 64 bytes.
type wide struct{ A, B, C, D, E, F, G, H uint64 }

// BenchmarkOneWay sends small values of fixed size one way, on a stream of
// messages that the program fills itself and on a typed one.
func BenchmarkOneWay(b *testing.B) {
	for _, tr := range []struct {
		name  string
		start starter
	}{{"tcp", loops}, {"memory", kerneltest.Start}} {
		b.Run(tr.name+"/12 B untyped", func(b *testing.B) { oneWayUntyped(b, tr.start, 12) })
		b.Run(tr.name+"/12 B typed", func(b *testing.B) { oneWayTyped(b, tr.start, pairOfInts{1, 2}, codec.Fixed) })
		b.Run(tr.name+"/64 B untyped", func(b *testing.B) { oneWayUntyped(b, tr.start, 64) })
		b.Run(tr.name+"/64 B typed", func(b *testing.B) { oneWayTyped(b, tr.start, wide{A: 1}, codec.Fixed) })
		b.Run(tr.name+"/64 B raw slice", func(b *testing.B) { oneWayTyped(b, tr.start, make([]byte, 64), codec.Raw) })
		large := strings.Repeat("x", 64<<10)
		b.Run(tr.name+"/64 KiB untyped", func(b *testing.B) { oneWayUntyped(b, tr.start, 64<<10) })
		b.Run(tr.name+"/64 KiB untyped, copied", func(b *testing.B) { oneWayCopied(b, tr.start, large) })
		b.Run(tr.name+"/64 KiB string", func(b *testing.B) { oneWayTyped(b, tr.start, large, codec.Fixed) })
		b.Run(tr.name+"/64 KiB raw string", func(b *testing.B) { oneWayTyped(b, tr.start, large, codec.Raw) })
		b.Run(tr.name+"/64 KiB raw slice", func(b *testing.B) { oneWayTyped(b, tr.start, []byte(large), codec.Raw) })
		b.Run(tr.name+"/64 KiB JSON string", func(b *testing.B) { oneWayTyped(b, tr.start, large, codec.JSON) })
		b.Run(tr.name+"/64 B typed through C", func(b *testing.B) { oneWayC(b, tr.start, wide{A: 1}) })
	}
}

func oneWayUntyped(b *testing.B, start starter, size int) {
	w := newWorld(b, start, nil, nil)
	x, y := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for i := range b.N {
			m := pool.New(size)
			binary.LittleEndian.PutUint64(m.Bytes(), uint64(i))
			if err := x.Send(w.Ctx, m); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	for i := range b.N {
		m, err := y.Receive(w.Ctx)
		if err != nil {
			b.Fatal(err)
		}
		if binary.LittleEndian.Uint64(m.Bytes()) != uint64(i) {
			b.Fatal("another message")
		}
		m.Release()
	}
	b.StopTimer()
	_, _ = x.CloseSend(), y.CloseSend()
}

// oneWayCopied is what a program does by hand that has strings and wants strings.
func oneWayCopied(b *testing.B, start starter, v string) {
	w := newWorld(b, start, nil, nil)
	x, y := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			m := pool.New(len(v))
			copy(m.Bytes(), v)
			if err := x.Send(w.Ctx, m); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	for range b.N {
		m, err := y.Receive(w.Ctx)
		if err != nil {
			b.Fatal(err)
		}
		if s := string(m.Bytes()); len(s) != len(v) {
			b.Fatal("another message")
		}
		m.Release()
	}
	b.StopTimer()
	_, _ = x.CloseSend(), y.CloseSend()
}

func oneWayTyped[T any](b *testing.B, start starter, v T, e *codec.Encoding) {
	w := newWorld(b, start, nil, nil)
	x, y := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	c := testkit.Must[codec.Codec[T]](b)(codec.CodecOf[T](e))
	sink := testkit.Must[*rpc.Sink[T]](b)(rpc.SinkOf(x, c))
	src := testkit.Must[*rpc.Source[T]](b)(rpc.SourceOf(y, c))
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			if err := sink.Send(w.Ctx, v); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	for range b.N {
		if _, err := src.Receive(w.Ctx); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	_, _ = x.CloseSend(), y.CloseSend()
}

func oneWayC[T any](b *testing.B, start starter, v T) {
	w := newWorld(b, start, nil, nil)
	x, y := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	sink := testkit.Must[*rpc.Sink[T]](b)(rpc.SinkOf(x, fixed[T](b)))
	src := testkit.Must[*rpc.Source[T]](b)(rpc.SourceOf(y, fixed[T](b)))
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		c := sink.Out()
		for range b.N {
			c <- v
		}
	}()
	c := src.In()
	for range b.N {
		<-c
	}
	b.StopTimer()
	_, _ = sink.CloseSend(), y.CloseSend()
}

// BenchmarkCall makes calls one after the other.
func BenchmarkCall(b *testing.B) {
	w := newWorld(b, loops, nil, nil)
	w.Srv.Handle("untyped", echo)
	server, call, _ := by(codec.Fixed)
	ok(b, rpc.HandleUnary(w.Srv, "typed", echoPair, server))
	ok(b, rpc.HandleUnary(w.Srv, "default", echoPair, nil))
	b.Run("untyped", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m := pool.New(12)
			r, err := w.Client.Call(w.Ctx, "untyped", m, nil)
			if err != nil {
				b.Fatal(err)
			}
			r.Release()
		}
	})
	b.Run("typed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := rpc.Call[pairOfInts, pairOfInts](w.Ctx, w.Client, "typed", pairOfInts{1, 2}, call); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("typed by default", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := rpc.Call[pairOfInts, pairOfInts](w.Ctx, w.Client, "default", pairOfInts{1, 2}, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("with a sink", func(b *testing.B) {
		sumUp(b, w.Srv)
		b.ReportAllocs()
		for b.Loop() {
			sink := newSink(b, w)
			src, err := callSum(w, sink)
			if err == nil {
				err = sink.CloseSend()
			}
			if err == nil {
				_, err = src.Receive(w.Ctx)
			}
			if err == nil {
				_, err = src.Receive(w.Ctx)
			}
			if err != io.EOF {
				b.Fatal(err)
			}
		}
	})
}

func echoPair(_ context.Context, p pairOfInts) (pairOfInts, error) { return p, nil }
