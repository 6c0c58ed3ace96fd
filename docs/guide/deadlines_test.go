package guide_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

func withTimeouts(ctx context.Context, c kernel.Caller) error {
	// A call for which the context sets the limit.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := rpc.Call[string](ctx, c, "greet", "Ada", nil); err != nil {
		return err
	}

	// A call with a shorter limit of its own.
	opts := &rpc.CallOptions{CallOptions: kernel.CallOptions{Timeout: time.Second}}
	_, err := rpc.Call[string](ctx, c, "greet", "Ada", opts)
	return err
}

func sendWithin(s *kernel.Stream, m pool.Message, d time.Duration) error {
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	select {
	case slot, ok := <-s.Writable():
		if !ok {
			return kernel.ErrClosed
		}
		return slot.Send(m)
	case <-timeout.C:
		return context.DeadlineExceeded // m is still ours, and the stream lives on
	}
}

func openWithin(ctx context.Context, c *kernel.Client, d time.Duration) (*kernel.Stream, error) {
	opening, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	s, err := c.Open(opening, "feed", &kernel.OpenOptions{
		Stream: kernel.StreamOptions{Context: ctx}, // the stream lives as long as this one
	})
	if err != nil {
		return nil, err
	}
	if _, _, err := s.Accepted(opening); err != nil {
		s.Abort(status.DeadlineExceeded, "not accepted in time")
		return nil, err
	}
	return s, nil
}

// safe reports whether no handler has seen what failed, so that another attempt does no harm.
func safe(err error) bool {
	if se := new(status.StreamError); errors.As(err, &se) {
		return se.NotProcessed
	}
	ce := new(status.ConnError)
	return errors.As(err, &ce) && (ce.Op == "dial" || ce.Op == "handshake")
}

// again reports whether another attempt is useful: the server could not serve, or the
// connection was lost.
func again(err error) bool {
	switch code, _ := status.Of(err); code {
	case status.Unavailable, status.Refused, status.GoingAway, status.ConnectionLost:
		return true
	}
	return false
}

// retry makes a call until it succeeds, fails for good, or ctx ends. What it calls must do
// no harm when it is done twice; else ask for safe(err) too.
func retry[Resp, Req any](ctx context.Context, c kernel.Caller, method string, req Req) (Resp, error) {
	opts := &rpc.CallOptions{CallOptions: kernel.CallOptions{WaitForReady: true}}
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		resp, err := rpc.Call[Resp](ctx, c, method, req, opts)
		if err == nil || !again(err) {
			return resp, err
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)): // not all clients at the same time
		case <-ctx.Done():
			return resp, err
		}
	}
}

func TestSendWithinGivesUpTheWaitAndNotTheStream(t *testing.T) {
	recipe(t, kernel.StreamOptions{SendLimit: 64}, kernel.StreamOptions{}, func(t *testing.T, w *world, a, b *kernel.Stream) {
		for range 2 { // 12 bytes of credit are left for the second, which is enough
			if err := sendWithin(a, sized(20, 1), time.Second); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		m := sized(5, 2)
		if err := sendWithin(a, m, time.Second); err != context.DeadlineExceeded || time.Since(start) != time.Second {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		w.DrainN(b, 2)
		if err := sendWithin(a, m, time.Second); err != nil {
			t.Error(err)
		}
	})
}

// The limit of a call is known to its handler, and ends both.
func TestACallsTimeout(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		var limits []time.Duration
		err := rpc.HandleUnary(w.Srv, "greet", func(ctx context.Context, name string) (string, error) {
			end, _ := ctx.Deadline()
			if limits = append(limits, time.Until(end)); len(limits) == 2 {
				<-ctx.Done()
			}
			return "hello " + name, nil
		}, nil)
		testkit.OK(t, err)
		start := time.Now()
		err = withTimeouts(w.Ctx, w.Client)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		w.Quiesce()
		if len(limits) != 2 || limits[0] != 2*time.Second || limits[1] != time.Second {
			t.Errorf("the handler's limits: %v", limits)
		}
		limits = nil
		_, err = rpc.Call[string](w.Ctx, w.Client, "greet", "Ada", nil)
		testkit.OK(t, err)
		if limits[0] != time.Minute {
			t.Errorf("without any limit it is %v, the page says 60 s", limits[0])
		}
	})
}

func TestOpenWithinBoundsTheOpeningAlone(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		offers := w.Srv.Offers()
		start := time.Now()
		if _, err := openWithin(w.Ctx, w.Client, time.Second); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		(<-offers).Reject(&status.HandlerError{Code: status.Unavailable, Reason: "too late"})
		go func() {
			s, err := (<-offers).Accept(pool.Message{}, nil)
			testkit.OK(t, err)
			time.Sleep(time.Hour)
			w.Send(s, "late")
		}()
		s, err := openWithin(w.Ctx, w.Client, time.Second)
		testkit.OK(t, err)
		w.Want(s, "late")
		s.Abort(status.Cancelled, "test over")
	})
}

// retried counts how often retry calls a handler that always fails with a code, and says
// for how long.
func retried(t *testing.T, code status.Code) (calls int, took time.Duration) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		err := rpc.HandleUnary(w.Srv, "greet", func(context.Context, string) (string, error) {
			calls++
			return "", &status.HandlerError{Code: code}
		}, nil)
		testkit.OK(t, err)
		start := time.Now()
		ctx, cancel := context.WithTimeout(w.Ctx, time.Minute)
		defer cancel()
		if _, err := retry[string](ctx, w.Client, "greet", "Ada"); !errors.Is(err, &status.StreamError{Code: code}) {
			t.Error(err)
		}
		took = time.Since(start)
		w.Quiesce()
	})
	return calls, took
}

func TestRetryNeitherSpinsNorRepeatsWhatCannotSucceed(t *testing.T) {
	if calls, took := retried(t, status.InvalidArgument); calls != 1 || took != 0 {
		t.Errorf("%d calls in %v", calls, took)
	}
	if calls, took := retried(t, status.Unavailable); calls < 10 || calls > 40 || took != time.Minute {
		t.Errorf("%d calls in %v", calls, took)
	}
}

// The server comes back.
func TestRetrySucceedsInTheEnd(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		calls := 0
		err := rpc.HandleUnary(w.Srv, "greet", func(ctx context.Context, name string) (string, error) {
			switch calls++; calls {
			case 1:
				return "", kernel.FromContext(ctx).Conn().Close()
			case 2:
				return "", &status.HandlerError{Code: status.Unavailable}
			}
			return "hello " + name, nil
		}, nil)
		testkit.OK(t, err)
		got, err := retry[string](w.Ctx, w.Client, "greet", "Ada")
		if err != nil || got != "hello Ada" || calls != 3 {
			t.Errorf("%q, %v after %d calls", got, err, calls)
		}
	})
}

// What safe lets a program repeat was seen by no handler, whatever code the handlers choose
// and whenever the connection is lost.
func TestSafeRepeatsNothingThatAHandlerSaw(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Loose = true
		for code := status.Cancelled; code < 100; code++ {
			calls := 0
			w.Srv.Handle(code.String(), func(context.Context, *kernel.Stream) error {
				calls++
				return &status.HandlerError{Code: code}
			})
			_, err := w.Client.Call(w.Ctx, code.String(), pool.Message{}, nil)
			if err == nil || safe(err) || calls != 1 {
				t.Errorf("%v: safe is %v, %d calls", err, safe(err), calls)
			}
		}
		w.Srv.Handle("lost", func(_ context.Context, s *kernel.Stream) error { return s.Conn().Close() })
		_, err := w.Client.Call(w.Ctx, "lost", pool.Message{}, nil)
		ce := new(status.ConnError)
		if !errors.As(err, &ce) || safe(err) {
			t.Errorf("%v: safe is %v", err, safe(err))
		}
		if _, err := w.Client.Call(w.Ctx, "no such method", pool.Message{}, nil); !safe(err) || again(err) {
			t.Errorf("%v: safe is %v, again %v", err, safe(err), again(err))
		}
		testkit.OK(t, w.Srv.Close())
		w.Quiesce()
		if _, err := w.Client.Call(w.Ctx, "gone", pool.Message{}, nil); !safe(err) || !again(err) {
			t.Errorf("%v: safe is %v, again %v", err, safe(err), again(err))
		}
	})
}

// Offers that nobody answers are refused, which is safe, though no code of a refusal.
func TestARefusalOfManyOffersIsSafe(t *testing.T) {
	inBubble(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxOffers: 1}}, nil, func(t *testing.T, w *world) {
		w.Loose = true
		w.AskOffers()
		first, second := w.Open("a"), w.Open("b")
		err := w.WantErr(second, status.ResourceExhausted)
		if !safe(err) {
			t.Errorf("%v is not safe", err)
		}
		first.Abort(status.Cancelled, "test over")
	})
}
