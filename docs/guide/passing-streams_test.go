package guide_test

import (
	"context"
	"io"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
)

// What the handler is given and what the client passes are the same, with a source
// here where there is a sink there.
type scaleRequest struct {
	Factor  int
	Numbers *rpc.Source[int]
}

type scaleArgs struct {
	Factor  int
	Numbers *rpc.Sink[int]
}

func scale(_ context.Context, r scaleRequest) (*rpc.Sink[int], error) {
	out := rpc.MakeSink[int](r.Numbers) // the way back
	r.Numbers.Go(func(ctx context.Context) error {
		for n, err := range r.Numbers.All(ctx) {
			if err != nil {
				return err
			}
			if err := out.Send(ctx, r.Factor*n); err != nil {
				return err
			}
		}
		return nil // the stream ends cleanly
	})
	return out, nil // now the call is answered, and then the function runs
}

func scaled(ctx context.Context, c kernel.Caller, factor int) (*rpc.Sink[int], *rpc.Source[int], error) {
	sink, err := rpc.NewSink[int](ctx, c, nil)
	if err != nil {
		return nil, nil, err
	}
	args := scaleArgs{factor, sink}
	source, err := rpc.Call[*rpc.Source[int]](ctx, c, "scale", args, nil)
	return sink, source, err
}

func TestScaleSendsBackWhatItIsSent(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		testkit.OK(t, rpc.HandleUnary(w.Srv, "scale", scale, nil))
		sink, source, err := scaled(w.Ctx, w.Client, 3)
		testkit.OK(t, err)
		for n := range 100 {
			testkit.OK(t, sink.Send(w.Ctx, n))
			takes(t, w, source, 3*n)
		}
		testkit.OK(t, sink.CloseSend())
		if _, err := source.Receive(w.Ctx); err != io.EOF {
			t.Error(err)
		}
	})
}
