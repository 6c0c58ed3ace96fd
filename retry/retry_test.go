package retry_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/retry"
	"github.com/sluicerpc/sluice/status"
)

// A world is a server whose method "pkg.S/m" answers as the test says, and a Caller of it.
type world struct {
	*testkit.World
	c *retry.Caller

	mu    sync.Mutex
	times []time.Duration // of the calls that have arrived, from the start on
}

// seen is when calls have arrived.
func (w *world) seen() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.times)
}

// script runs f with a server that answers call n, from 1 on, with answer(n).
func script(t *testing.T, opts *retry.Options, answer func(ctx context.Context, n int) error, f func(t *testing.T, w *world)) {
	t.Helper()
	testkit.InBubble(t, nil, nil, func(t *testing.T, tw *testkit.World) {
		w := &world{World: tw}
		w.Loose = true // attempts that were cancelled
		var n atomic.Int64
		start := time.Now()
		w.Srv.Handle("pkg.S/m", func(ctx context.Context, s *kernel.Stream) error {
			w.mu.Lock()
			w.times = append(w.times, time.Since(start))
			w.mu.Unlock()
			m, err := s.Request(ctx)
			if err != nil {
				m, err = s.Receive(ctx)
			}
			if err != nil {
				return err
			}
			if err := answer(ctx, int(n.Add(1))); err != nil {
				m.Release()
				return err
			}
			return s.Send(ctx, m)
		})
		c, err := retry.New(w.Client, opts)
		if err != nil {
			t.Fatal(err)
		}
		w.c = c
		f(t, w)
		w.Quiesce()
	})
}

// call makes a call, and checks that the message is where it belongs.
func (w *world) call(ctx context.Context, opts *kernel.CallOptions) error {
	w.T.Helper()
	req := pool.MessageOf([]byte("hello"))
	reply, err := w.c.Call(ctx, "pkg.S/m", req, opts)
	switch {
	case opts != nil && opts.NoWait:
	case err == nil && string(reply.Bytes()) != "hello":
		w.T.Errorf("reply %q", reply.Bytes())
	case err != nil && string(req.Bytes()) != "hello":
		w.T.Errorf("request %q", req.Bytes())
	}
	if err != nil {
		req.Release()
	}
	reply.Release()
	return err
}

func fails(c status.Code) error { return &status.HandlerError{Code: c} }

func only(p retry.Policy) *retry.Options {
	return &retry.Options{Methods: map[string]retry.Policy{"pkg.S/": p}}
}

var fixed = kernel.Backoff{First: time.Second, Factor: 2, Most: 3 * time.Second, Jitter: kernel.None}

func TestCodesAreTriedAgainWithPauses(t *testing.T) {
	p := retry.Policy{Attempts: 5, Codes: []status.Code{status.Unavailable}, Backoff: fixed}
	script(t, only(p), func(_ context.Context, n int) error {
		if n < 5 {
			return fails(status.Unavailable)
		}
		return nil
	}, func(t *testing.T, w *world) {
		if err := w.call(w.Ctx, nil); err != nil {
			t.Error(err)
		}
		want := []time.Duration{0, time.Second, 3 * time.Second, 6 * time.Second, 9 * time.Second}
		if fmt.Sprint(w.seen()) != fmt.Sprint(want) {
			t.Errorf("attempts at %v, want %v", w.seen(), want)
		}
	})
}

func TestAttemptsAreCounted(t *testing.T) {
	p := retry.Policy{Attempts: 3, Codes: []status.Code{status.Unavailable}}
	script(t, only(p), func(context.Context, int) error { return fails(status.Unavailable) }, func(t *testing.T, w *world) {
		if err := w.call(w.Ctx, nil); !errors.Is(err, &status.StreamError{Code: status.Unavailable}) || len(w.seen()) != 3 {
			t.Errorf("%v after %d attempts", err, len(w.seen()))
		}
	})
}

func TestOtherCodesAndMethodsAreNotTriedAgain(t *testing.T) {
	p := retry.Policy{Codes: []status.Code{status.Unavailable}}
	for _, c := range []struct {
		code status.Code
		opts *retry.Options
		no   bool // wait for no reply
	}{
		{code: status.Internal, opts: only(p)},
		{code: status.Unavailable}, // a handler has seen it
		{code: status.Unavailable, opts: &retry.Options{Methods: map[string]retry.Policy{"other/": p, "pkg.S/n": p}}},
		{code: status.Unavailable, opts: &retry.Options{Methods: map[string]retry.Policy{"": p, "pkg.S/m": {Attempts: 1}}}},
		{code: status.Unavailable, opts: only(p), no: true},
	} {
		script(t, c.opts, func(context.Context, int) error { return fails(c.code) }, func(t *testing.T, w *world) {
			if err := w.call(w.Ctx, &kernel.CallOptions{NoWait: c.no}); (err == nil) != c.no {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			if len(w.seen()) != 1 {
				t.Errorf("%+v: %d attempts", c, len(w.seen()))
			}
		})
	}
}

// What no handler has seen is tried again without any code.
func TestWhatIsSafeIsTriedAgain(t *testing.T) {
	testkit.InBubble(t, nil, nil, func(t *testing.T, w *testkit.World) {
		n := 0
		w.Srv.HandleOffer("m", func(ctx context.Context, o *kernel.Offer) error {
			if n++; n < 3 {
				o.Reject(&status.HandlerError{Code: status.Unavailable})
				return nil
			}
			_, err := o.Accept(pool.MessageOf([]byte("x")), nil)
			return err
		})
		c, err := retry.New(w.Client, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Call(w.Ctx, "m", pool.Message{}, nil)
		if se := new(status.StreamError); !errors.As(err, &se) || se.NotProcessed || n != 1 { // a handler has rejected it
			t.Errorf("%v after %d", err, n)
		}
		w.Loose = true
		if _, err := c.Call(w.Ctx, "no such method", pool.Message{}, nil); !retry.Safe(err) || retry.Useful(err) {
			t.Errorf("%v", err)
		}
	})
	refused := &status.StreamError{Code: status.Refused, NotProcessed: true}
	f := &failing{err: refused}
	synctest.Test(t, func(t *testing.T) {
		c, err := retry.New(f, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Call(t.Context(), "m", pool.Message{}, nil); !errors.Is(err, refused) || f.n != 3 {
			t.Errorf("%v after %d", err, f.n)
		}
		f.n, f.err = 0, &status.ConnError{Op: "dial"}
		if _, _ = c.Call(t.Context(), "m", pool.Message{}, nil); f.n != 3 {
			t.Errorf("%d attempts", f.n)
		}
		f.n, f.err = 0, &status.ConnError{Op: "handshake", Code: status.Unauthenticated}
		if _, _ = c.Call(t.Context(), "m", pool.Message{}, nil); f.n != 1 {
			t.Errorf("%d attempts", f.n)
		}
	})
}

// failing fails all calls.
type failing struct {
	kernel.Caller
	err error
	n   int
}

func (f *failing) Call(context.Context, string, pool.Message, *kernel.CallOptions) (pool.Message, error) {
	f.n++
	if f.err == nil {
		panic("no error")
	}
	return pool.Message{}, f.err
}

func TestTheDeadlineBoundsAllAttempts(t *testing.T) {
	p := retry.Policy{Attempts: 100, Codes: []status.Code{status.Unavailable}, Backoff: fixed}
	script(t, only(p), func(context.Context, int) error { return fails(status.Unavailable) }, func(t *testing.T, w *world) {
		for _, with := range []func() error{
			func() error { return w.call(w.Ctx, &kernel.CallOptions{Timeout: 5 * time.Second}) },
			func() error {
				ctx, cancel := context.WithTimeout(w.Ctx, 5*time.Second)
				defer cancel()
				return w.call(ctx, nil)
			},
		} {
			start := time.Now()
			if err := with(); !errors.Is(err, &status.StreamError{Code: status.Unavailable}) || time.Since(start) != 3*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		}
		ctx, cancel := context.WithCancel(w.Ctx)
		time.AfterFunc(100*time.Millisecond, cancel)
		start := time.Now()
		if err := w.call(ctx, nil); err == nil || time.Since(start) != 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestEachAttemptHasATimeout(t *testing.T) {
	p := retry.Policy{Attempts: 3, Codes: []status.Code{status.DeadlineExceeded}, Timeout: time.Second, Backoff: fixed}
	script(t, only(p), func(ctx context.Context, n int) error {
		if n < 3 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}, func(t *testing.T, w *world) {
		start := time.Now()
		if err := w.call(w.Ctx, nil); err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// However much fails, retries are a fifth of the calls.
func TestTheBudgetBoundsRetries(t *testing.T) {
	o := only(retry.Policy{Attempts: 5, Codes: []status.Code{status.Unavailable}})
	for burst, want := range map[int]int{0: 200 + 10 + 40, kernel.Unlimited: 1000} {
		o.Budget.Burst = burst
		script(t, o, func(context.Context, int) error { return fails(status.Unavailable) }, func(t *testing.T, w *world) {
			for range 200 {
				_ = w.call(w.Ctx, nil)
			}
			if n := len(w.seen()); n < want-10 || n > want {
				t.Errorf("%d attempts of 200 calls, want %d", n, want)
			}
		})
	}
}

// The server says when to try again, or not to, on every wire that carries metadata.
func TestPushback(t *testing.T) {
	for _, proto := range []frame.Protocol{native.Protocol{}, &strm.Protocol{}, &triple.Protocol{}} {
		if proto.Caps().MaxMetadata == 0 {
			continue
		}
		for _, trailer := range []bool{true, false} {
			for said, want := range map[string]time.Duration{"7000": 7 * time.Second, "0": 0, "-1": -1, "soon": -1, "99999999999999": -1} {
				ps := []frame.Protocol{proto}
				testkit.InBubble(t, &kernel.ServerOptions{Protocols: ps}, &kernel.ClientOptions{Protocols: ps}, func(t *testing.T, w *testkit.World) {
					n := 0
					w.Srv.Handle("pkg.S/m", func(ctx context.Context, s *kernel.Stream) error {
						if n++; n == 2 {
							return s.Send(ctx, pool.MessageOf([]byte("x")))
						}
						md := metadata.MD{{Key: retry.KeyPushback, Value: said}}
						if trailer {
							_ = s.SetTrailer(md)
							md = nil
						}
						return &status.HandlerError{Code: status.Unavailable, Details: md}
					})
					c, err := retry.New(w.Client, only(retry.Policy{Codes: []status.Code{status.Unavailable}, Backoff: fixed}))
					if err != nil {
						t.Fatal(err)
					}
					start := time.Now()
					req := pool.MessageOf([]byte("q"))
					reply, err := c.Call(w.Ctx, "pkg.S/m", req, nil)
					if err != nil {
						req.Release()
					}
					reply.Release()
					if d := time.Since(start); (err == nil) != (want >= 0) || d != max(want, 0) {
						t.Errorf("%s: %q: %v after %v", proto.Name(), said, err, d)
					}
				})
			}
		}
	}
}

func TestHedges(t *testing.T) {
	p := retry.Policy{Attempts: 3, Codes: []status.Code{status.Unavailable}, Hedge: time.Second}
	wait := func(d time.Duration, err error) func(context.Context) error {
		return func(ctx context.Context) error {
			select {
			case <-time.After(d):
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	for name, c := range map[string]struct {
		script []func(context.Context) error
		took   time.Duration
		begun  int
		code   status.Code
	}{
		"the first is quick":     {[]func(context.Context) error{wait(0, nil)}, 0, 1, status.OK},
		"the second is quicker":  {[]func(context.Context) error{wait(time.Hour, nil), wait(0, nil)}, time.Second, 2, status.OK},
		"the first after all":    {[]func(context.Context) error{wait(2500*time.Millisecond, nil), wait(time.Hour, nil), wait(time.Hour, nil)}, 2500 * time.Millisecond, 3, status.OK},
		"a failure is no answer": {[]func(context.Context) error{wait(0, fails(status.Unavailable)), wait(time.Hour, nil), wait(0, nil)}, time.Second, 3, status.OK},
		"all fail":               {[]func(context.Context) error{wait(0, fails(status.Unavailable)), wait(0, fails(status.Unavailable)), wait(0, fails(status.Unavailable))}, 0, 3, status.Unavailable},
		"one fails for good":     {[]func(context.Context) error{wait(time.Hour, nil), wait(0, fails(status.NotFound))}, time.Second, 2, status.NotFound},
		"time is over":           {[]func(context.Context) error{wait(time.Hour, nil), wait(time.Hour, nil), wait(time.Hour, nil)}, time.Minute, 3, status.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			script(t, only(p), func(ctx context.Context, n int) error { return c.script[n-1](ctx) }, func(t *testing.T, w *world) {
				start := time.Now()
				err := w.call(w.Ctx, nil)
				if code, _ := status.Of(err); code != c.code || time.Since(start) != c.took || len(w.seen()) != c.begun {
					t.Errorf("%v after %v and %d attempts", err, time.Since(start), len(w.seen()))
				}
				w.Quiesce()
				if n := w.Client.Conns()[0].Streams(); n != 0 {
					t.Errorf("%d attempts go on", n)
				}
			})
		})
	}
}

// The trailer, the header and the connection are those of the attempt that counts.
func TestHedgesReportTheAttemptThatCounts(t *testing.T) {
	testkit.InBubble(t, nil, nil, func(t *testing.T, w *testkit.World) {
		w.Loose = true
		var n atomic.Int64
		w.Srv.Handle("pkg.S/m", func(ctx context.Context, s *kernel.Stream) error {
			if n.Add(1) == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			_ = s.SetHeader(metadata.MD{{Key: "try", Value: "2"}})
			_ = s.SetTrailer(metadata.MD{{Key: "try", Value: "two"}})
			return s.Send(ctx, pool.MessageOf([]byte("x")))
		})
		c, err := retry.New(w.Client, only(retry.Policy{Hedge: time.Second}))
		if err != nil {
			t.Fatal(err)
		}
		var header, trailer metadata.MD
		var on *kernel.Conn
		reply, err := c.Call(w.Ctx, "pkg.S/m", pool.Message{}, &kernel.CallOptions{Header: &header, Trailer: &trailer, Conn: &on})
		reply.Release()
		if err != nil || header.Get("try") != "2" || trailer.Get("try") != "two" || on == nil {
			t.Errorf("%v, %v, %v, %v", err, header, trailer, on)
		}
		w.Quiesce()
	})
}

func TestHedgesStayInTheBudget(t *testing.T) {
	o := only(retry.Policy{Attempts: 10, Hedge: time.Second})
	o.Budget.Burst = 1
	script(t, o, func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }, func(t *testing.T, w *world) {
		if err := w.call(w.Ctx, nil); !errors.Is(err, context.DeadlineExceeded) || len(w.seen()) != 2 {
			t.Errorf("%v after %d attempts", err, len(w.seen()))
		}
	})
}

func TestACallerThatPanicsFailsItsHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := retry.New(&failing{}, &retry.Options{Methods: map[string]retry.Policy{"": {Hedge: time.Second}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Call(t.Context(), "m", pool.Message{}, nil); err == nil || !strings.Contains(err.Error(), "panicked: no error") {
			t.Errorf("%v", err)
		}
	})
}

func TestTheRestIsTheCallersOwn(t *testing.T) {
	testkit.InBubble(t, nil, nil, func(t *testing.T, w *testkit.World) {
		w.AskOffers()
		c, err := retry.New(w.Client, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Open(w.Ctx, "m", nil); err != nil {
			t.Error(err)
		}
		if ss, err := c.OpenN(w.Ctx, "m", nil, kernel.StreamOptions{}); err != nil || len(ss) != 1 {
			t.Error(err)
		}
		if k, err := c.Conn(w.Ctx); err != nil || k != w.Client.Conns()[0] || c.Caps().MaxGroup != w.Client.Caps().MaxGroup {
			t.Error(err)
		}
		w.Loose = true
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if s, _ := w.Client.State(); s != kernel.StateShutdown {
			t.Error(s)
		}
		other, err := retry.New(&failing{}, nil)
		if err != nil || other.Close() != nil {
			t.Error(err)
		}
	})
}

func TestOptionsThatCanNotBe(t *testing.T) {
	for _, p := range []retry.Policy{
		{Attempts: -1}, {Attempts: 101}, {Timeout: -1}, {Hedge: -1}, {Codes: []status.Code{status.OK}},
		{Backoff: kernel.Backoff{Factor: 0.5}}, {Backoff: kernel.Backoff{Factor: math.NaN()}}, {Backoff: kernel.Backoff{Jitter: 1}}, {Backoff: kernel.Backoff{Jitter: -2}},
	} {
		if _, err := retry.New(nil, only(p)); !errors.Is(err, kernel.ErrLimits) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for _, b := range []retry.Budget{{Ratio: -1}, {Ratio: math.NaN()}, {Burst: -2}, {Burst: 2_000_000}} {
		if _, err := retry.New(nil, &retry.Options{Budget: b}); !errors.Is(err, kernel.ErrLimits) {
			t.Errorf("%+v: %v", b, err)
		}
	}
}
