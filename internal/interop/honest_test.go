package interop

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// atOnce is how many calls of eight programs are under way, more than the server takes. With the
// race detector each costs fifteen times as much.
var atOnce = map[bool]int{false: 750, true: 200}[testkit.RaceEnabled]

// What programs do at their busiest must cost no connection: the stream beside it goes on,
// and all that the client is told is what it did itself, or an ordinary refusal.
func TestBusyProgramsCostNoConnection(t *testing.T) {
	programs := []struct {
		name  string
		limit func(l *kernel.Limits)
		run   func(ctx context.Context, w *world) error
		times int
	}{
		{name: "receive once and cancel", times: 3000, run: func(ctx context.Context, w *world) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			s, err := w.Client.Open(ctx, "ticks", nil)
			if err != nil {
				return err
			}
			m, err := s.Receive(ctx)
			m.Release()
			cancel()
			drain(s)
			return err
		}},
		{name: "abort", times: 3000, run: func(ctx context.Context, w *world) error {
			s, err := w.Client.Open(ctx, "ticks", nil)
			if err == nil {
				s.Abort(status.Cancelled, "not needed")
				drain(s)
			}
			return err
		}},
		{name: "hedge", times: 1500, run: func(ctx context.Context, w *world) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			won := make(chan error, 3)
			for range 3 {
				go func() {
					s, err := w.Client.Open(ctx, "ticks", nil)
					if err == nil {
						var m pool.Message
						m, err = s.Receive(ctx)
						m.Release()
						defer drain(s)
						defer cancel()
					}
					won <- err
				}()
			}
			err := <-won
			<-won
			<-won
			return err
		}},
		{name: "calls that are given up", times: 3000, run: func(ctx context.Context, w *world) error {
			ctx, cancel := context.WithTimeout(ctx, 300*time.Microsecond)
			defer cancel()
			err := calls(ctx, w, "slow")
			if errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			return err
		}},
		{name: "calls of a method that is not there", times: 12_000, limit: func(l *kernel.Limits) { l.MaxStreams = 10 },
			run: func(ctx context.Context, w *world) error {
				err := calls(ctx, w, "nothing")
				if errors.Is(err, &status.StreamError{Code: status.Unimplemented}) {
					return nil
				}
				return err
			}},
		{name: "thousands of calls at once", times: 8, run: func(ctx context.Context, w *world) error {
			failed := make(chan error, atOnce)
			for range cap(failed) {
				go func() { failed <- calls(ctx, w, "slow") }()
			}
			var bad error
			for range cap(failed) {
				if err := <-failed; err != nil && !errors.Is(err, kernel.ErrRefused) {
					bad = err
				}
			}
			return bad
		}},
	}
	for name, start := range map[string]starter{"native": loops, "brpc": brpcOver(loops)} {
		for _, p := range programs {
			t.Run(name+"/"+p.name, func(t *testing.T) {
				so := &kernel.ServerOptions{}
				if p.limit != nil {
					p.limit(&so.Limits)
				}
				w := newWorld(t, start, so, nil)
				w.Loose = true
				w.Srv.Handle("echo", echo)
				w.Srv.Handle("ticks", func(ctx context.Context, s *kernel.Stream) error {
					if err := send(ctx, s, "tick"); err != nil {
						return err
					}
					<-ctx.Done()
					return ctx.Err()
				})
				w.Srv.Handle("slow", func(ctx context.Context, s *kernel.Stream) error {
					select {
					case <-ctx.Done():
					case <-time.After(time.Millisecond):
					}
					return send(ctx, s, "late")
				})
				beside(t, w, func() { busily(t, w, p.times, p.run) })
			})
		}
	}
}

func send(ctx context.Context, s *kernel.Stream, what string) error {
	m := text("%s", what)
	err := s.Send(ctx, m)
	if err != nil {
		m.Release()
	}
	return err
}

func calls(ctx context.Context, w *world, method string) error {
	req := text("x")
	m, err := w.Client.Call(ctx, method, req, nil)
	if err != nil {
		req.Release()
	}
	m.Release()
	return err
}

// busily runs f so often, eight at a time.
func busily(t *testing.T, w *world, times int, f func(ctx context.Context, w *world) error) {
	t.Helper()
	var left atomic.Int64
	left.Store(int64(times))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := f(w.Ctx, w); err != nil {
					t.Errorf("with %d to go: %v", left.Swap(0), err)
				}
			}
		})
	}
	wg.Wait()
}

// beside runs f while a stream of the same connection echoes, and wants it to go on.
func beside(t *testing.T, w *world, f func()) {
	t.Helper()
	s, err := w.Client.Open(w.Ctx, "echo", nil)
	ok(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		case <-time.After(time.Millisecond):
		}
		w.Send(s, "beside")
		w.Want(s, "beside")
	}
	ok(t, s.Close(w.Ctx))
}
