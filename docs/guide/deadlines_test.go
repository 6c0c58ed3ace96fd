package guide_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/retry"
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

// retrying returns a Caller that makes calls again: reads also where a handler may have seen
// them, others where none has.
func retrying(c kernel.Caller) (*retry.Caller, error) {
	return retry.New(c, &retry.Options{
		Methods: map[string]retry.Policy{
			"": {}, // three attempts, where they are safe and useful
			"shop.Shop/GetPrice": {
				Attempts: 5,
				Codes:    []status.Code{status.Unavailable, status.ConnectionLost},
			},
			"shop.Shop/Search": {
				Attempts: 2,
				Hedge:    200 * time.Millisecond, // a second attempt, if the first takes longer
			},
		},
	})
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

// retried counts how often a method is called that always fails with a code, and says for how
// long.
func retried(t *testing.T, method string, code status.Code) (calls int, took time.Duration) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		err := rpc.HandleUnary(w.Srv, method, func(context.Context, string) (string, error) {
			calls++
			return "", &status.HandlerError{Code: code}
		}, nil)
		testkit.OK(t, err)
		c, err := retrying(w.Client)
		testkit.OK(t, err)
		start := time.Now()
		if _, err := rpc.Call[string](w.Ctx, c, method, "tea", nil); !errors.Is(err, &status.StreamError{Code: code}) {
			t.Error(err)
		}
		took = time.Since(start)
		w.Quiesce()
	})
	return calls, took
}

func TestRetriesNeitherSpinNorRepeatWhatTheyMayNot(t *testing.T) {
	for _, c := range []struct {
		method string
		code   status.Code
		calls  int
	}{
		{"shop.Shop/GetPrice", status.InvalidArgument, 1}, {"shop.Shop/GetPrice", status.Unavailable, 5},
		{"shop.Shop/Buy", status.Unavailable, 1}, {"shop.Shop/Search", status.Unavailable, 1},
	} {
		calls, took := retried(t, c.method, c.code)
		if least := time.Duration(c.calls-1) * 25 * time.Millisecond; calls != c.calls || took < least {
			t.Errorf("%s, %v: %d calls in %v", c.method, c.code, calls, took)
		}
	}
}

// The server comes back.
func TestRetriesSucceedInTheEnd(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		calls := 0
		err := rpc.HandleUnary(w.Srv, "shop.Shop/GetPrice", func(ctx context.Context, name string) (string, error) {
			switch calls++; calls {
			case 1:
				return "", kernel.FromContext(ctx).Conn().Close()
			case 2:
				return "", &status.HandlerError{Code: status.Unavailable}
			}
			return "7 for " + name, nil
		}, nil)
		testkit.OK(t, err)
		c, err := retrying(w.Client)
		testkit.OK(t, err)
		got, err := rpc.Call[string](w.Ctx, c, "shop.Shop/GetPrice", "tea", nil)
		if err != nil || got != "7 for tea" || calls != 3 {
			t.Errorf("%q, %v after %d calls", got, err, calls)
		}
	})
}

// What retry.Safe lets a program repeat was seen by no handler, whatever code the handlers choose
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
			if err == nil || retry.Safe(err) || calls != 1 {
				t.Errorf("%v: safe is %v, %d calls", err, retry.Safe(err), calls)
			}
		}
		w.Srv.Handle("lost", func(_ context.Context, s *kernel.Stream) error { return s.Conn().Close() })
		_, err := w.Client.Call(w.Ctx, "lost", pool.Message{}, nil)
		ce := new(status.ConnError)
		if !errors.As(err, &ce) || retry.Safe(err) {
			t.Errorf("%v: safe is %v", err, retry.Safe(err))
		}
		if _, err := w.Client.Call(w.Ctx, "no such method", pool.Message{}, nil); !retry.Safe(err) || retry.Useful(err) {
			t.Errorf("%v: safe is %v, again %v", err, retry.Safe(err), retry.Useful(err))
		}
		testkit.OK(t, w.Srv.Close())
		w.Quiesce()
		if _, err := w.Client.Call(w.Ctx, "gone", pool.Message{}, nil); !retry.Safe(err) || !retry.Useful(err) {
			t.Errorf("%v: safe is %v, again %v", err, retry.Safe(err), retry.Useful(err))
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
		if !retry.Safe(err) {
			t.Errorf("%v is not safe", err)
		}
		first.Abort(status.Cancelled, "test over")
	})
}
