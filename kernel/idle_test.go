package kernel_test

import (
	"context"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// A handler whose first look at its stream is Idle gets a channel like any other.
func TestIdleBeforeAnythingElseIsUsed(t *testing.T) {
	const period = time.Hour
	inBubble(t, &kernel.ServerOptions{Stream: kernel.StreamOptions{IdleTimeout: period}}, nil, func(t *testing.T, w *world) {
		silent := make(chan time.Duration, 1)
		w.Srv.Handle("quiet", func(ctx context.Context, s *kernel.Stream) error {
			select {
			case since := <-s.Idle():
				silent <- time.Since(since)
			case <-ctx.Done():
				close(silent)
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(context.Background(), 2*period)
		defer cancel()
		s, err := w.Client.Open(ctx, "quiet", nil)
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := <-silent; !ok || d != period {
			t.Errorf("told after %v, %v, want %v", d, ok, period)
		}
		_ = s.Close(ctx)
	})
}
