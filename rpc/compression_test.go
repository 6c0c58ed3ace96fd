package rpc_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
)

// A call's option compresses its request, with and without sinks in it, and a sink's its
// values. Where that can't be, the call says so.
func TestCompressedCallsAndSinks(t *testing.T) {
	type args struct {
		Data   []byte
		Values *rpc.Sink[[]byte]
	}
	p := bytes.Repeat([]byte("much of the same "), 10_000)
	opts := &rpc.CallOptions{}
	opts.Compression = pool.Gzip
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		got := make(chan []byte, 2)
		ok(t, rpc.HandleUnary(w.Srv, "plain", func(_ context.Context, p []byte) ([]byte, error) { return p, nil }, nil))
		ok(t, rpc.HandleUnary(w.Srv, "passes", func(_ context.Context, a struct {
			Data   []byte
			Values *rpc.Source[[]byte]
		}) (bool, error) {
			got <- a.Data
			a.Values.Go(func(ctx context.Context) error {
				for v, err := range a.Values.All(ctx) {
					if err != nil {
						return err
					}
					got <- v
				}
				return nil
			})
			return true, nil
		}, nil))
		back, err := rpc.Call[[]byte](w.Ctx, w.Client, "plain", p, opts)
		if err != nil || !bytes.Equal(back, p) {
			t.Errorf("%d bytes, %v", len(back), err)
		}
		sink := testkit.Must[*rpc.Sink[[]byte]](t)(rpc.NewSink[[]byte](w.Ctx, w.Client,
			&rpc.SinkOptions{Stream: kernel.StreamOptions{Compression: pool.Zstd}}))
		if done, err := rpc.Call[bool](w.Ctx, w.Client, "passes", args{p, sink}, opts); err != nil || !done {
			t.Errorf("%v, %v", done, err)
		}
		ok(t, sink.Send(w.Ctx, p))
		ok(t, sink.CloseSend())
		for range 2 {
			if v := testkit.Handled(w, got); !bytes.Equal(v, p) {
				t.Errorf("%d bytes, want %d", len(v), len(p))
			}
		}
	})
	t.Run("brpc", func(t *testing.T) {
		brpc := []frame.Protocol{strm.Protocol{}}
		w := newWorld(t, kerneltest.Start, &kernel.ServerOptions{Protocols: brpc}, &kernel.ClientOptions{Protocols: brpc})
		sink := testkit.Must[*rpc.Sink[[]byte]](t)(rpc.NewSink[[]byte](w.Ctx, w.Client, nil))
		_, err := rpc.Call[bool](w.Ctx, w.Client, "passes", args{p, sink}, opts)
		isErr(t, "a request that opens streams", err, kernel.ErrNotSupported)
	})
}
