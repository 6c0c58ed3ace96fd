package kernel_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// A noted context notes whether it was asked for its deadline after another one of the same
// request was watched.
type noted struct {
	context.Context
	watching, late *atomic.Bool
}

func (w noted) Done() <-chan struct{} {
	w.watching.Store(true)
	return w.Context.Done()
}

func (w noted) Deadline() (time.Time, bool) {
	if w.watching.Load() {
		w.late.Store(true)
	}
	return w.Context.Deadline()
}

// The streams of one request end together, so each is complete before the end of the first one's
// context can end them all.
func TestStreamsOfARequestAreCompleteBeforeOneCanEnd(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		cancel()
		var watching, late atomic.Bool
		each := make([]kernel.StreamOptions, 3)
		for i := range each {
			each[i].Context = noted{ctx, &watching, &late}
		}
		ss, err := w.Client.OpenN(w.Ctx, "nobody waits for it", nil, each...)
		ok(t, err)
		for _, s := range ss {
			if <-s.Done(); s.Err() == nil {
				t.Error("a stream lives on")
			}
		}
		if !watching.Load() || late.Load() {
			t.Error("a deadline was asked for when a stream could have ended")
		}
	})
}
