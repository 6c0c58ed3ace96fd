package rpc_test

import (
	"context"
	"slices"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
)

// brpc's protocol has no end of one direction. A call with one request needs none.
func TestCallsWithoutHalfClose(t *testing.T) {
	brpc := []frame.Protocol{strm.Protocol{}}
	w := newWorld(t, loops, &kernel.ServerOptions{Protocols: brpc}, &kernel.ClientOptions{Protocols: brpc})
	ok(t, rpc.HandleServerStream(w.Srv, "count", func(ctx context.Context, n int, out *rpc.Sink[int]) error {
		for i := range n {
			if err := out.Send(ctx, i); err != nil {
				return err
			}
		}
		return nil
	}, nil))
	ok(t, rpc.HandleClientStream(w.Srv, "sum", func(context.Context, *rpc.Source[int]) (int, error) {
		t.Error("a handler runs that can't know when it has everything")
		return 0, nil
	}, nil))

	in, err := rpc.CallServerStream[int](w.Ctx, w.Client, "count", 3, nil)
	ok(t, err)
	var got []int
	for v, err := range in.All(w.Ctx) {
		ok(t, err)
		got = append(got, v)
	}
	if want := []int{0, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("received %v, want %v", got, want)
	}

	_, err = rpc.CallClientStream[int, int](w.Ctx, w.Client, "sum", nil)
	isErr(t, "a client stream", err, kernel.ErrNotSupported)
}
