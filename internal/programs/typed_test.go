package programs

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// A passed call has a stream of numbers in its request, and one in its result.
type passed struct {
	Stop uint32 // after so many numbers the handler reads no more
	Fail bool
	In   *rpc.Source[uint64]
}

type passing struct {
	Stop uint32
	Fail bool
	In   *rpc.Sink[uint64]
}

func (r *run) typedMethod(n uint64) string {
	if r.caps.Verbs {
		return kernel.Verb(10 + n)
	}
	return []string{"random.Typed/Sum", "random.Typed/Pass"}[n]
}

// handleTyped registers handlers of package rpc.
func (r *run) handleTyped(hs *kernel.Handlers) {
	err := errors.Join(
		rpc.HandleUnary(hs, r.typedMethod(0), func(_ context.Context, n [4]uint64) (uint64, error) {
			return n[0] + n[1] + n[2] + n[3], nil
		}, nil),
		rpc.HandleUnary(hs, r.typedMethod(1), r.servePassed, nil))
	if err != nil {
		r.t.Fatal(err)
	}
}

// servePassed doubles numbers.
func (r *run) servePassed(_ context.Context, p passed) (*rpc.Sink[uint64], error) {
	if p.Fail {
		return nil, errPlain
	}
	out := rpc.MakeSink[uint64](p.In)
	p.In.Go(func(ctx context.Context) error {
		n := uint32(0)
		for v, err := range p.In.All(ctx) {
			if err != nil {
				return err
			}
			if n == p.Stop {
				return nil
			}
			n++
			if err := out.Send(ctx, 2*v); err != nil {
				return err
			}
		}
		return nil
	})
	return out, nil
}

// typed makes a typed call, or one that passes a stream.
func (r *run) typed(rnd *rand.Rand, c *kernel.Client) {
	ctx, cancel := r.within(rnd)
	defer cancel()
	if chance(rnd, 2) {
		a := rnd.Uint64()
		sum, err := rpc.Call[uint64](ctx, c, r.typedMethod(0), [4]uint64{a, 1, 2, 3}, nil)
		r.judge("a typed call", err)
		if err == nil && sum != a+6 {
			r.fail("a typed call has returned %d for %d", sum, a)
		}
		return
	}
	r.pass(ctx, rnd, c)
}

func (r *run) pass(ctx context.Context, rnd *rand.Rand, c *kernel.Client) {
	sink, err := rpc.NewSink[uint64](ctx, c, nil)
	if err != nil {
		r.judge("NewSink", err)
		return
	}
	defer sink.Abort(status.Cancelled, "over")
	stop := uint32(rnd.IntN(r.plan.messages + 1))
	src, err := rpc.Call[*rpc.Source[uint64]](ctx, c, r.typedMethod(1), passing{stop, chance(rnd, 8), sink}, nil)
	if err != nil {
		r.judge("a call that passes a stream", err)
		return
	}
	n := uint64(rnd.IntN(r.plan.messages + 1))
	early := chance(rnd, 4) // ends before it has read all
	r.spawn(func() {
		for i := range n {
			if err := sink.Send(ctx, i); err != nil {
				r.judge("a typed send", err)
				return
			}
		}
		if r.caps.HalfClose {
			r.judge("CloseSend of a sink", sink.CloseSend())
		}
	})
	got := uint64(0)
	for {
		v, err := src.Receive(ctx)
		if err == io.EOF {
			if want := min(n, uint64(stop)); got != want {
				r.fail("%d of %d values came back, and the end in order", got, want)
			}
			return
		}
		if err != nil {
			r.judge("a typed Receive", err)
			return
		}
		if v != 2*got {
			r.fail("value %d is %d", got, v)
			return
		}
		got++
		if !r.caps.HalfClose && got == n || early && got == n/2 {
			return
		}
	}
}
