package interop

import (
	"context"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// Over brpc typed calls and streams say in user fields what their values are, and are
// refused with a status where that does not agree.
func TestBrpcTypesThatDoNotAgreeAreRefused(t *testing.T) {
	w := newWorld(t, brpcOver(loops), nil, nil)
	type words struct{ A, B uint32 }
	server := &rpc.HandleOptions{Encoding: codec.Fixed}
	ok(t, rpc.HandleUnary(w.Srv, "s/call", func(_ context.Context, v words) (uint32, error) { return v.A + v.B, nil }, server))
	ok(t, rpc.HandleBidi(w.Srv, "s/stream", func(ctx context.Context, d *rpc.Bidi[words, uint32]) error {
		for v, err := range d.In.All(ctx) {
			if err == nil {
				err = d.Out.Send(ctx, v.A+v.B)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}, server))
	refused := func(what string, err error) {
		t.Helper()
		se := wantCode(t, err, status.InvalidArgument)
		if !strings.Contains(se.Reason, `"json"`) || !strings.Contains(se.Reason, `"fixed;`) {
			t.Errorf("%s: %q", what, se.Reason)
		}
	}
	_, err := rpc.Call[float64, string](w.Ctx, w.Client, "s/call", "hello", nil)
	refused("a call", err)
	d, err := rpc.CallBidi[float64, string](w.Ctx, w.Client, "s/stream", nil)
	ok(t, err)
	_, err = d.In.Receive(w.Ctx)
	refused("a stream", err)

	sum, err := rpc.Call[uint32, words](w.Ctx, w.Client, "s/call", words{1, 2}, &rpc.CallOptions{Encoding: codec.Fixed})
	if err != nil || sum != 3 {
		t.Errorf("%d, %v", sum, err)
	}
	good, err := rpc.CallBidi[uint32, words](w.Ctx, w.Client, "s/stream", &rpc.OpenOptions{Encoding: codec.Fixed})
	ok(t, err)
	ok(t, good.Out.Send(w.Ctx, words{3, 4}))
	if n, err := good.In.Receive(w.Ctx); err != nil || n != 7 {
		t.Errorf("%d, %v", n, err)
	}
	ok(t, good.Close(w.Ctx))
}
