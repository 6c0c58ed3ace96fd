package guide_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/retry"
	"github.com/sluicerpc/sluice/status"
)

// follow receives a feed until its end, over as many streams as that takes. from says where
// to go on.
func follow(ctx context.Context, c *kernel.Client, from func() metadata.MD, handle func(pool.Message)) error {
	const least, most = 100 * time.Millisecond, 30 * time.Second
	for pause := least; ; pause = min(2*pause, most) {
		s, err := c.Open(ctx, "feed", &kernel.OpenOptions{
			Metadata:     from(),
			WaitForReady: true, // while no server listens, Open makes the pauses
		})
		if err == nil {
			for m := range s.In() {
				handle(m)
				pause = least // it works again
			}
			err = s.Err()
		}
		if err == nil || !retry.Useful(err) {
			return err // the feed has ended, or never will be there
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func watchState(ctx context.Context, c *kernel.Client, show func(kernel.State)) {
	for {
		state, changed := c.State()
		show(state)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func TestFollowGoesOnWhereItWas(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Loose = true
		opens := 0
		w.Srv.Handle("feed", func(ctx context.Context, s *kernel.Stream) error {
			opens++
			from, err := strconv.Atoi(s.Metadata().Get("from"))
			for i := from; err == nil && i < 100; i++ {
				switch i {
				case from + 20:
					time.Sleep(time.Millisecond) // what was sent so far arrives
				case from + 30: // of what came after that some is lost
					return s.Conn().Close()
				}
				err = sendOrRelease(ctx, s, text("%d", i))
			}
			return err
		})
		n := 0
		err := follow(w.Ctx, w.Client, func() metadata.MD {
			return metadata.MD{{Key: "from", Value: strconv.Itoa(n)}}
		}, func(m pool.Message) {
			if got := string(m.Bytes()); got != strconv.Itoa(n) {
				t.Errorf("got %s, want %d", got, n)
			}
			m.Release()
			n++
		})
		if err != nil || n != 100 || opens < 4 {
			t.Errorf("%v after %d values and %d opens", err, n, opens)
		}
	})
}

func sendOrRelease(ctx context.Context, s *kernel.Stream, m pool.Message) error {
	err := s.Send(ctx, m)
	if err != nil {
		m.Release()
	}
	return err
}

// opens counts how often follow opens a feed within an hour that fails with a code at once.
func opens(t *testing.T, code status.Code) (n int, took time.Duration) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.HandleOffer("feed", func(_ context.Context, o *kernel.Offer) error {
			if n++; n > 1000 { // or time would stand still
				time.Sleep(time.Hour)
			}
			o.Reject(&status.HandlerError{Code: code, Reason: "no"})
			return nil
		})
		ctx, cancel := context.WithTimeout(w.Ctx, time.Hour)
		defer cancel()
		start := time.Now()
		if err := follow(ctx, w.Client, func() metadata.MD { return nil }, nil); err == nil {
			t.Error("no error")
		}
		took = time.Since(start)
		w.Quiesce()
	})
	return n, took
}

func TestFollowDoesNotSpin(t *testing.T) {
	for _, code := range []status.Code{status.Refused, status.Unavailable} {
		if n, took := opens(t, code); n < 100 || n > 300 || took != time.Hour {
			t.Errorf("%v: %d opens in %v", code, n, took)
		}
	}
	for _, code := range []status.Code{status.PermissionDenied, status.InvalidArgument} {
		if n, took := opens(t, code); n != 1 || took != 0 {
			t.Errorf("%v: %d opens in %v", code, n, took)
		}
	}
}

// A feed that breaks off again and again, and brings something each time, is opened again
// after the first pause each time.
func TestFollowBeginsAnewWithItsPauses(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		const breaks = 20
		opens := 0
		w.Srv.Handle("feed", func(ctx context.Context, s *kernel.Stream) error {
			err := sendOrRelease(ctx, s, text("x"))
			if opens++; err == nil && opens <= breaks {
				err = &status.HandlerError{Code: status.Unavailable, Reason: "not now"}
			}
			return err
		})
		start := time.Now()
		err := follow(w.Ctx, w.Client, func() metadata.MD { return nil }, pool.Message.Release)
		if d := time.Since(start); err != nil || opens != breaks+1 || d > breaks*150*time.Millisecond {
			t.Errorf("%v after %d opens in %v", err, opens, d)
		}
	})
}

// A server without the method refuses each open at once, as not processed.
func TestFollowEndsWhereThereIsNoSuchMethod(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(w.Ctx, time.Hour)
		defer cancel()
		start := time.Now()
		err := follow(ctx, w.Client, func() metadata.MD { return nil }, nil)
		if !errors.Is(err, &status.StreamError{Code: status.Unimplemented}) || time.Since(start) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestWatchStateSeesTheClientsLife(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Loose = true
		ctx, cancel := context.WithCancel(w.Ctx)
		states := make(chan kernel.State)
		done := make(chan struct{})
		go func() {
			defer close(done)
			watchState(ctx, w.Client, func(s kernel.State) { states <- s })
		}()
		if s := <-states; s != kernel.StateReady {
			t.Errorf("%v, want READY", s)
		}
		go func() { _ = w.Client.Close() }()
		if s := <-states; s != kernel.StateShutdown {
			t.Errorf("%v, want SHUTDOWN", s)
		}
		cancel()
		<-done
	})
}
