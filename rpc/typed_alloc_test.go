package rpc_test

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
)

// A sender sends pairs by one way, a taker calls f with each that comes by another.
type (
	sender func(ctx context.Context, k *rpc.Sink[pairOfInts], n int) error
	taker  func(ctx context.Context, src *rpc.Source[pairOfInts], f func(pairOfInts)) error
)

// each makes a sender of what sends one.
func each(send func(ctx context.Context, k *rpc.Sink[pairOfInts], v pairOfInts) error) sender {
	return func(ctx context.Context, k *rpc.Sink[pairOfInts], n int) error {
		for i := range int64(n) {
			if err := send(ctx, k, pairOfInts{1, i}); err != nil {
				return err
			}
		}
		return k.CloseSend()
	}
}

var (
	sendEach = each(func(ctx context.Context, k *rpc.Sink[pairOfInts], v pairOfInts) error { return k.Send(ctx, v) })

	trySendEach = each(func(_ context.Context, k *rpc.Sink[pairOfInts], v pairOfInts) error {
		err := k.TrySend(v)
		for errors.Is(err, kernel.ErrWouldBlock) {
			runtime.Gosched()
			err = k.TrySend(v)
		}
		return err
	})

	sendByC = each(func(_ context.Context, k *rpc.Sink[pairOfInts], v pairOfInts) error {
		select {
		case k.Out() <- v:
			return nil
		case <-k.SendDone():
			return k.Err()
		}
	})
)

func receiveEach(ctx context.Context, src *rpc.Source[pairOfInts], f func(pairOfInts)) error {
	for {
		v, err := src.Receive(ctx)
		if err != nil {
			return src.Err()
		}
		f(v)
	}
}

func rangeAll(ctx context.Context, src *rpc.Source[pairOfInts], f func(pairOfInts)) error {
	for v, err := range src.All(ctx) {
		if err != nil {
			return err
		}
		f(v)
	}
	return nil
}

func rangeC(_ context.Context, src *rpc.Source[pairOfInts], f func(pairOfInts)) error {
	for v := range src.In() {
		f(v)
	}
	return src.Err()
}

// pass passes a sink of pairs to a call, and returns the handler's source. The stream
// ends with the test.
func pass(t *testing.T, w *world) (*rpc.Sink[pairOfInts], *rpc.Source[pairOfInts]) {
	t.Helper()
	server, call, _ := by(codec.Fixed)
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	srcs := make(chan *rpc.Source[pairOfInts], 1)
	ok(t, rpc.HandleUnary(w.Srv, kernel.Verb(1), func(_ context.Context, src *rpc.Source[pairOfInts]) (bool, error) {
		src.Go(func(context.Context) error { <-over; return nil })
		srcs <- src
		return true, nil
	}, server))
	sink := testkit.Must[*rpc.Sink[pairOfInts]](t)(rpc.NewSink[pairOfInts](w.Ctx, w.Client, &rpc.SinkOptions{Encoding: codec.Fixed}))
	testkit.Must[bool](t)(rpc.Call[bool, *rpc.Sink[pairOfInts]](w.Ctx, w.Client, kernel.Verb(1), sink, call))
	return sink, <-srcs
}

// A value of fixed size costs no allocation on its way, whichever the side, the wire and
// the way in and out.
func TestValuesOfFixedSizeCostNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("checked builds don't use memory again")
	}
	const warm, count = 20_000, 50_000
	for name, world := range map[string]func(t *testing.T) *world{
		"native":  func(t *testing.T) *world { return newWorld(t, loops, nil, nil) },
		"seastar": func(t *testing.T) *world { return overSeastar(t) },
	} {
		for way, faces := range map[string]struct {
			send sender
			take taker
		}{
			"Send, Receive": {sendEach, receiveEach}, "C, All": {sendByC, rangeAll}, "TrySend, C": {trySendEach, rangeC},
		} {
			t.Run(name+"/"+way, func(t *testing.T) {
				w := world(t)
				sink, src := pass(t, w)
				sent := make(chan error, 1)
				go func() { sent <- faces.send(w.Ctx, sink, warm+count) }()
				var before, after runtime.MemStats
				i := 0
				ok(t, faces.take(w.Ctx, src, func(v pairOfInts) {
					if v != (pairOfInts{1, int64(i)}) {
						t.Errorf("value %d is %v", i, v)
					}
					if i++; i == warm {
						runtime.ReadMemStats(&before)
					}
				}))
				runtime.ReadMemStats(&after)
				ok(t, <-sent)
				if n := float64(after.Mallocs-before.Mallocs) / count; n > 0.05 || i != warm+count {
					t.Errorf("%.3f allocations a message, at most 0.05; %d messages", n, i)
				}
			})
		}
	}
}
