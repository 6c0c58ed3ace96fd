package rpc_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
)

// counting is a Caller of a program's own, around another.
type counting struct {
	kernel.Caller
	calls, opens atomic.Int32
}

func (c *counting) Call(ctx context.Context, method string, req pool.Message, opts *kernel.CallOptions) (pool.Message, error) {
	c.calls.Add(1)
	return c.Caller.Call(ctx, method, req, opts)
}

func (c *counting) Open(ctx context.Context, method string, opts *kernel.OpenOptions) (*kernel.Stream, error) {
	c.opens.Add(1)
	return c.Caller.Open(ctx, method, opts)
}

func (c *counting) OpenN(ctx context.Context, method string, opts *kernel.OpenOptions, each ...kernel.StreamOptions) ([]*kernel.Stream, error) {
	c.opens.Add(1)
	return c.Caller.OpenN(ctx, method, opts, each...)
}

// A program's Caller is asked for everything that is its to do; a sink belongs to the
// Caller that it was made for.
func TestAProgramCanWrapACaller(t *testing.T) {
	for name, world := range map[string]func(*testing.T) *world{
		"native":  func(t *testing.T) *world { return newWorld(t, loops, nil, nil) },
		"seastar": overSeastar,
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t)
			c := &counting{Caller: w.Client}
			verb := kernel.Verb(1)
			ok(t, rpc.HandleUnary(w.Srv, kernel.Verb(2), func(_ context.Context, n int32) (int32, error) { return 2 * n, nil }, nil))
			if n, err := rpc.Call[int32, int32](w.Ctx, c, kernel.Verb(2), 21, nil); n != 42 || err != nil || c.calls.Load() != 1 {
				t.Errorf("%d, %v after %d calls", n, err, c.calls.Load())
			}
			ok(t, rpc.HandleUnary(w.Srv, verb, func(_ context.Context, src *intSource) (*intSink, error) {
				out := rpc.MakeSink[int32](src)
				src.Go(func(ctx context.Context) error {
					n, err := src.Receive(ctx)
					if err != nil {
						return err
					}
					return out.Send(ctx, n)
				})
				return out, nil
			}, nil))
			sink := testkit.Must[*intSink](t)(rpc.NewSink[int32](w.Ctx, c, nil))
			_, err := rpc.Call[*intSource, *intSink](w.Ctx, w.Client, verb, sink, nil)
			isErr(t, "a call by what is wrapped", err, rpc.ErrSinkForeign)
			src := testkit.Must[*intSource](t)(rpc.Call[*intSource, *intSink](w.Ctx, c, verb, sink, nil))
			if name == "native" && c.opens.Load() != 1 {
				t.Errorf("%d opens", c.opens.Load())
			}
			ok(t, sink.Send(w.Ctx, 7))
			takes(t, w, src, 7)
			endsInOrder(t, w, src)
			ok(t, sink.Close(w.Ctx))
		})
	}
}
