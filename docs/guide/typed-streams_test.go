package guide_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	_ "github.com/sluicerpc/sluice/rpc/protocodec"
	"github.com/sluicerpc/sluice/status"
)

type division struct{ A, B int }

func divide(_ context.Context, d division) (int, error) {
	if d.B == 0 {
		return 0, &status.HandlerError{Code: status.InvalidArgument, Reason: "division by zero"}
	}
	return d.A / d.B, nil
}

func sum(ctx context.Context, in *rpc.Source[int]) (int, error) {
	total := 0
	for n, err := range in.All(ctx) {
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func count(ctx context.Context, to int, out *rpc.Sink[int]) error {
	for n := range to {
		if err := out.Send(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func lengths(ctx context.Context, b *rpc.Bidi[string, int]) error {
	for word, err := range b.In.All(ctx) {
		if err != nil {
			return err
		}
		if err := b.Out.Send(ctx, len(word)); err != nil {
			return err
		}
	}
	return nil
}

func register(r rpc.Registrar) error {
	return errors.Join(
		rpc.HandleUnary(r, "math/divide", divide, nil),
		rpc.HandleClientStream(r, "math/sum", sum, nil),
		rpc.HandleServerStream(r, "math/count", count, nil),
		rpc.HandleBidi(r, "text/lengths", lengths, nil),
	)
}

func callDivide(ctx context.Context, c kernel.Caller) (int, error) {
	return rpc.Call[int](ctx, c, "math/divide", division{42, 6}, nil)
}

func callSum(ctx context.Context, c kernel.Caller) (int, error) {
	call, err := rpc.CallClientStream[int, int](ctx, c, "math/sum", nil)
	if err != nil {
		return 0, err
	}
	for n := range 101 {
		if err := call.Out.Send(ctx, n); err != nil {
			break // CloseAndReceive says why
		}
	}
	return call.CloseAndReceive(ctx)
}

func callCount(ctx context.Context, c kernel.Caller) (got []int, err error) {
	numbers, err := rpc.CallServerStream[int](ctx, c, "math/count", 3, nil)
	if err != nil {
		return nil, err
	}
	for n, err := range numbers.All(ctx) {
		if err != nil {
			return nil, err
		}
		got = append(got, n)
	}
	return got, nil
}

func callLengths(ctx context.Context, c kernel.Caller, words []string) (got []int, err error) {
	b, err := rpc.CallBidi[int, string](ctx, c, "text/lengths", nil) // In is int on this side
	if err != nil {
		return nil, err
	}
	for _, word := range words {
		if err := b.Out.Send(ctx, word); err != nil {
			return nil, err
		}
		n, err := b.In.Receive(ctx)
		if err != nil {
			return nil, err
		}
		got = append(got, n)
	}
	return got, b.Close(ctx)
}

func doubleBySelect(ctx context.Context, b *rpc.Bidi[int, int]) error {
	in, out := b.In.In(), (chan<- int)(nil)
	var held int
	for {
		select {
		case n, ok := <-in:
			if !ok {
				return b.In.Err() // nil if the peer ended cleanly
			}
			held, in, out = 2*n, nil, b.Out.Out()
		case out <- held:
			in, out = b.In.In(), nil
		case <-b.Out.SendDone():
			return b.In.Err() // nil if the peer just reads no more
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func greetFrom(ctx context.Context, name string) (string, error) {
	s := kernel.FromContext(ctx) // the stream of the call
	from := s.Metadata().Get("user")
	header := s.SetHeader(metadata.MD{{Key: "server", Value: "a"}})
	trailer := s.SetTrailer(metadata.MD{{Key: "cost", Value: "7"}})
	if err := errors.Join(header, trailer); err != nil {
		return "", err
	}
	return fmt.Sprintf("hello %s, says %s", name, from), nil
}

func callAsBob(ctx context.Context, c kernel.Caller) (greeting, server, cost string, err error) {
	var header, trailer metadata.MD
	greeting, err = rpc.Call[string](ctx, c, "greet", "Ada", &rpc.CallOptions{
		CallOptions: kernel.CallOptions{ // those of a call without types
			Metadata: metadata.MD{{Key: "user", Value: "bob"}},
			Header:   &header, // is filled in, as is the trailer
			Trailer:  &trailer,
		},
	})
	return greeting, header.Get("server"), trailer.Get("cost"), err
}

type (
	question struct{ Text string }
	answer   struct{ Number int }
)

func fourShapes(ctx context.Context, c kernel.Caller, q question) error {
	one, err := rpc.Call[answer](ctx, c, "one", q, nil) // the request's type is found by itself
	if err != nil {
		return err
	}
	many, err := rpc.CallServerStream[answer](ctx, c, "many", q, nil) // the same
	if err != nil {
		return err
	}
	up, err := rpc.CallClientStream[question, answer](ctx, c, "up", nil) // as in a signature
	if err != nil {
		return err
	}
	both, err := rpc.CallBidi[answer, question](ctx, c, "both", nil) // In, which is received, and Out
	if err != nil {
		return err
	}
	return use(ctx, one, many, up, both)
}

// use makes one exchange by each shape; every answer is 42.
func use(ctx context.Context, one answer, many *rpc.Source[answer], up *rpc.ClientStream[question, answer], both *rpc.Bidi[answer, question]) error {
	got := []answer{one}
	for a, err := range many.All(ctx) {
		if err != nil {
			return err
		}
		got = append(got, a)
	}
	if err := up.Out.Send(ctx, question{"up"}); err != nil {
		return err
	}
	a, err := up.CloseAndReceive(ctx)
	if err != nil {
		return err
	}
	got = append(got, a)
	if err := both.Out.Send(ctx, question{"both"}); err != nil {
		return err
	}
	if a, err = both.In.Receive(ctx); err != nil {
		return err
	}
	if got = append(got, a); !slices.Equal(got, []answer{{42}, {42}, {42}, {42}}) {
		return fmt.Errorf("received %v", got)
	}
	return both.Close(ctx)
}

func TestFourShapes(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		testkit.OK(t, errors.Join(
			rpc.HandleUnary(w.Srv, "one", func(context.Context, question) (answer, error) { return answer{42}, nil }, nil),
			rpc.HandleServerStream(w.Srv, "many", func(ctx context.Context, _ question, out *rpc.Sink[answer]) error {
				return out.Send(ctx, answer{42})
			}, nil),
			rpc.HandleClientStream(w.Srv, "up", func(ctx context.Context, in *rpc.Source[question]) (answer, error) {
				for _, err := range in.All(ctx) {
					if err != nil {
						return answer{}, err
					}
				}
				return answer{42}, nil
			}, nil),
			rpc.HandleBidi(w.Srv, "both", func(ctx context.Context, b *rpc.Bidi[question, answer]) error {
				if _, err := b.In.Receive(ctx); err != nil {
					return err
				}
				return b.Out.Send(ctx, answer{42})
			}, nil),
		))
		testkit.OK(t, fourShapes(w.Ctx, w.Client, question{"what?"}))
	})
}

// A halving has types of fixed size, which the fixed layout needs.
type halving struct{ N int64 }

func registerFixed(r rpc.Registrar) error {
	h := func(_ context.Context, v halving) (halving, error) { return halving{v.N / 2}, nil }
	return rpc.HandleUnary(r, "math/halve", h, &rpc.HandleOptions{Encoding: codec.Fixed})
}

func callFixed(ctx context.Context, c kernel.Caller) (halving, error) {
	return rpc.Call[halving](ctx, c, "math/halve", halving{84}, &rpc.CallOptions{Encoding: codec.Fixed})
}

func later(_ context.Context, at *timestamppb.Timestamp) (*timestamppb.Timestamp, error) {
	return timestamppb.New(at.AsTime().Add(time.Hour)), nil
}

func callLater(ctx context.Context, c kernel.Caller) (time.Time, error) {
	at, err := rpc.Call[*timestamppb.Timestamp](ctx, c, "later", timestamppb.New(time.Unix(0, 0)), nil)
	return at.AsTime(), err
}

// takes receives the next value, which must be want.
func takes[T any](t *testing.T, w *world, src *rpc.Source[T], want T) {
	t.Helper()
	if v, err := src.Receive(w.Ctx); err != nil || !reflect.DeepEqual(v, want) {
		t.Fatalf("received %v, %v; want %v", v, err, want)
	}
}

func TestTheFourShapes(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		testkit.OK(t, register(w.Srv))
		if n, err := callDivide(w.Ctx, w.Client); err != nil || n != 7 {
			t.Errorf("divide: %d, %v", n, err)
		}
		if n, err := callSum(w.Ctx, w.Client); err != nil || n != 5050 {
			t.Errorf("sum: %d, %v", n, err)
		}
		if ns, err := callCount(w.Ctx, w.Client); err != nil || !slices.Equal(ns, []int{0, 1, 2}) {
			t.Errorf("count: %v, %v", ns, err)
		}
		if ns, err := callLengths(w.Ctx, w.Client, []string{"a", "bcd"}); err != nil || !slices.Equal(ns, []int{1, 3}) {
			t.Errorf("lengths: %v, %v", ns, err)
		}
		_, err := rpc.Call[int](w.Ctx, w.Client, "math/divide", division{1, 0}, nil)
		if !errors.Is(err, &status.StreamError{Code: status.InvalidArgument}) {
			t.Errorf("by zero: %v", err)
		}
	})
}

func TestDoubleBySelect(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		done := make(chan error, 1)
		testkit.OK(t, rpc.HandleBidi(w.Srv, "double", func(ctx context.Context, b *rpc.Bidi[int, int]) error {
			err := doubleBySelect(ctx, b)
			done <- err
			return err
		}, nil))
		open := func() *rpc.Bidi[int, int] {
			return testkit.Must[*rpc.Bidi[int, int]](t)(rpc.CallBidi[int, int](w.Ctx, w.Client, "double", nil))
		}
		b := open()
		for n := range 100 {
			testkit.OK(t, b.Out.Send(w.Ctx, n))
			takes(t, w, b.In, 2*n)
		}
		testkit.OK(t, b.Out.CloseSend())
		if _, err := b.In.Receive(w.Ctx); err == nil || b.In.Err() != nil {
			t.Errorf("%v, %v", err, b.In.Err())
		}
		testkit.OK(t, <-done)

		b = open() // a peer that reads no more
		b.In.CloseReceive(status.OK)
		testkit.OK(t, <-done)
		testkit.OK(t, b.Out.CloseSend())
		b = open() // and one that is gone
		testkit.OK(t, b.Out.Send(w.Ctx, 1))
		takes(t, w, b.In, 2)
		b.Abort(status.Aborted, "enough")
		if err := <-done; err == nil {
			t.Error("a reset looks like a clean end")
		}
	})
}

func TestMetadataOfACall(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		testkit.OK(t, rpc.HandleUnary(w.Srv, "greet", greetFrom, nil))
		greeting, server, cost, err := callAsBob(w.Ctx, w.Client)
		if greeting != "hello Ada, says bob" || server != "a" || cost != "7" || err != nil {
			t.Errorf("%q, %q, %q, %v", greeting, server, cost, err)
		}
	})
}

func TestProtobuf(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		testkit.OK(t, rpc.HandleUnary(w.Srv, "later", later, nil))
		if at, err := callLater(w.Ctx, w.Client); err != nil || at.Unix() != 3600 {
			t.Errorf("%v, %v", at, err)
		}
	})
}

// What both sides name must agree: the handler is not called.
func TestEncodings(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		testkit.OK(t, registerFixed(w.Srv))
		if got, err := callFixed(w.Ctx, w.Client); err != nil || got.N != 42 {
			t.Errorf("%v, %v", got, err)
		}
		_, err := rpc.Call[halving](w.Ctx, w.Client, "math/halve", halving{84}, nil)
		if !errors.Is(err, &status.StreamError{Code: status.InvalidArgument}) || errors.Is(err, rpc.ErrEncoding) {
			t.Error(err)
		}
		// Types of JSON are not compared.
		testkit.OK(t, rpc.HandleUnary(w.Srv, "json", func(_ context.Context, d division) (division, error) { return d, nil }, nil))
		type wider struct{ A, B, C int }
		if got, err := rpc.Call[wider](w.Ctx, w.Client, "json", wider{1, 2, 3}, nil); err != nil || got != (wider{1, 2, 0}) {
			t.Errorf("%v, %v", got, err)
		}
	})
}
