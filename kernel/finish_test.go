package kernel_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// The acceptance of a stream that its handler has not used and the end are written
// together. Neither is lost where several goroutines finish at once, and where the peer
// ends the stream meanwhile.
func TestFinishOfAnUnusedStream(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("nothing", func(_ context.Context, s *kernel.Stream) error {
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() { s.Finish(nil) })
			}
			wg.Wait()
			return nil
		})
		for i := range 200 {
			s := w.Open("nothing")
			if i%3 == 2 {
				s.Abort(status.Cancelled, "never mind")
				continue
			}
			if _, _, err := s.Accepted(w.Ctx); err != nil {
				t.Fatalf("stream %d, accepted: %v", i, err)
			}
			if _, err := s.Receive(w.Ctx); !errors.Is(err, io.EOF) {
				t.Fatalf("stream %d: %v", i, err)
			}
			ok(t, s.Close(w.Ctx))
		}
	})
}
