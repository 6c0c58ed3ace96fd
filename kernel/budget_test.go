package kernel_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// stuff sends on s until there is no more credit, and returns how many bytes.
func stuff(t *testing.T, s *kernel.Stream) (n int) {
	t.Helper()
	for {
		m := pool.MessageOf(make([]byte, 1000))
		switch err := s.TrySend(m); {
		case err == nil:
			n += 1000
		case errors.Is(err, kernel.ErrWouldBlock):
			m.Release()
			return n
		default:
			t.Fatal(err)
		}
	}
}

func TestUnreadDataStaysWithinTheMemoryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: kernel.Limits{Memory: 1 << 20}}, nil)
		var streams []*kernel.Stream
		total := 0
		for range 6 {
			a, _ := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{Window: 300 << 10})
			streams = append(streams, a)
			total += stuff(t, a)
		}
		if total < 1<<20 {
			t.Fatalf("sent %d bytes: not enough for the test", total)
		}
		time.Sleep(time.Second)
		if n := srv.Stats().Evicted; n == 0 || n == uint64(len(streams)) {
			t.Errorf("%d of %d streams were evicted", n, len(streams))
		}
		evicted := 0
		for _, s := range streams {
			if errors.Is(s.Err(), &status.StreamError{Code: status.ResourceExhausted}) {
				evicted++
			}
		}
		if uint64(evicted) != srv.Stats().Evicted {
			t.Errorf("%d streams know that they were evicted, the server counts %d", evicted, srv.Stats().Evicted)
		}
	})
}

func TestStreamsAreRefusedNearTheMemoryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: kernel.Limits{Memory: 1 << 20}}, nil)
		a, b := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{Window: 960 << 10})
		stuff(t, a)
		time.Sleep(time.Second)
		s, err := client.Open(context.Background(), "kerneltest", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = s.Accepted(context.Background())
		var se *status.StreamError
		if !errors.As(err, &se) || se.Code != status.Refused || !se.NotProcessed {
			t.Fatalf("got %v, want a refusal that can be tried again", err)
		}
		if n := srv.Stats().Evicted; n > 0 {
			t.Fatalf("%d streams within the budget were evicted", n)
		}
		b.CloseReceive(status.OK)
		time.Sleep(time.Second)
		kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{})
	})
}

func TestALongStalledStreamIsEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: kernel.Limits{ConnWindow: 1 << 20}}, nil)
		var held []*kernel.Stream
		for range 12 { // each takes half of what is left
			a, _ := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{Window: 1 << 20})
			stuff(t, a)
			held = append(held, a)
		}
		time.Sleep(2 * time.Minute)
		if err := held[0].Err(); !errors.Is(err, &status.StreamError{Code: status.ResourceExhausted}) {
			t.Errorf("the largest holder: %v, want RESOURCE_EXHAUSTED", err)
		}
		if err := held[len(held)-1].Err(); err != nil {
			t.Errorf("a small holder was reset: %v", err)
		}
	})
}

// A reader that holds In and takes nothing is found too: what its feeder has in
// hand is held all the same.
func TestUnreadDataBehindInIsHeldAndEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: kernel.Limits{Memory: 1 << 20}}, nil)
		const n = 290
		var streams, readers []*kernel.Stream
		for range 6 {
			a, b := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{Window: n * 1032})
			for j := range n {
				if err := a.TrySend(pool.MessageOf(make([]byte, 1000))); err != nil {
					t.Fatal(err)
				}
				if j%50 == 0 {
					synctest.Wait() // so that none is cut: fragments wait elsewhere
				}
			}
			streams, readers = append(streams, a), append(readers, b)
		}
		synctest.Wait()
		for _, b := range readers {
			b.In() // its feeder takes all that is there
		}
		time.Sleep(time.Second)
		gone := srv.Stats().Evicted
		if gone == 0 || gone == uint64(len(streams)) {
			t.Fatalf("%d of %d streams were evicted", gone, len(streams))
		}
		evicted := uint64(0)
		for i, s := range streams {
			if !errors.Is(s.Err(), &status.StreamError{Code: status.ResourceExhausted}) {
				continue
			}
			evicted++
			left := 0
			for m := range readers[i].In() {
				m.Release()
				left++
			}
			if left > 17 { // In's buffer, and one on its way
				t.Errorf("%d messages of an evicted stream were kept", left)
			}
		}
		if evicted != gone {
			t.Errorf("%d streams know that they were evicted, the server counts %d", evicted, gone)
		}
	})
}
