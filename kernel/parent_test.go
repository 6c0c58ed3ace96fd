package kernel_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// A stream whose context has ended is no stream that has ended in order, however soon
// its program ends the sending half: "send until it fails, then CloseSend" must not make
// what was cut short look complete.
func TestAnEndDoesNotOvertakeTheContexts(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		for name, end := range map[string]func(s *kernel.Stream){
			"CloseSend": func(s *kernel.Stream) { _ = s.CloseSend() },
			"Close":     func(s *kernel.Stream) { _ = s.Close(w.Ctx) },
			"Out":       func(s *kernel.Stream) { close(s.Out()) },
		} {
			if name != "Close" && !w.caps.HalfClose {
				continue
			}
			for range 50 {
				ctx, cancel := context.WithCancel(w.Ctx)
				a, b := w.PairIn(ctx, kernel.StreamOptions{}, kernel.StreamOptions{})
				for range 3 {
					w.Send(a, "a part")
				}
				cancel()
				end(a)
				var err error
				for err == nil {
					var m pool.Message
					m, err = b.Receive(w.Ctx)
					m.Release()
				}
				if errors.Is(err, io.EOF) || b.Err() == nil {
					t.Fatalf("%s: the peer was told %v, its stream %v", name, err, b.Err())
				}
				<-a.Done()
				if !errors.Is(a.Err(), context.Canceled) {
					t.Fatalf("%s: here it failed with %v", name, a.Err())
				}
			}
		}
	})
}
