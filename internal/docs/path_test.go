package docs

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

// A piece is a piece of what is under way.
type piece struct {
	bytes []byte
	due   time.Time
}

// rateOver returns the bytes a second that streams carry together on a path with a round
// trip, once they have carried as much as is then measured.
func rateOver(t *testing.T, rtt time.Duration, streams int, limits kernel.Limits) (rate float64) {
	synctest.Test(t, func(t *testing.T) {
		const total, size = 128 << 20, 64 << 10
		srv, err := kernel.NewServer(&kernel.ServerOptions{Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		got, half := 0, time.Time{}
		srv.Handle("bulk", func(ctx context.Context, s *kernel.Stream) error {
			for m, err := range s.All(ctx) {
				if err != nil {
					return err
				}
				mu.Lock()
				got += m.Len()
				if half.IsZero() && got >= total/2 {
					half = time.Now()
				}
				if got == total {
					rate = total / 2 / time.Since(half).Seconds()
				}
				mu.Unlock()
				m.Release()
			}
			return nil
		})
		path := testkit.NewPath(rtt, 0)
		var wg sync.WaitGroup
		wg.Go(func() { _ = srv.Serve(t.Context(), path) })
		client, err := kernel.Dial(t.Context(), kerneltest.Target, &kernel.ClientOptions{Limits: limits, Dial: path.Dial})
		if err != nil {
			t.Fatal(err)
		}
		var senders sync.WaitGroup
		for range streams {
			s, err := client.Open(t.Context(), "bulk", nil)
			if err != nil {
				t.Fatal(err)
			}
			senders.Go(func() {
				for range total / size / streams {
					if err := s.Send(t.Context(), pool.New(size)); err != nil {
						t.Error(err)
						return
					}
				}
				if err := s.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		senders.Wait()
		_ = client.Close()
		_ = srv.Close()
		wg.Wait()
		time.Sleep(2 * rtt) // what is under way arrives
	})
	return rate
}
