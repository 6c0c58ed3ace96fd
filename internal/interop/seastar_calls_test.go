package interop

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
)

// Seastar's clients have as many calls in flight as their programs make. All are served,
// whatever their number is: beyond what a server lets be served at once the connection is
// not read.
func TestSeastarManyCallsInFlightAreAllServed(t *testing.T) {
	const calls = 20_000
	for name, c := range map[string]struct {
		maxCalls int
		begun    int // calls that are served when none has been answered
	}{
		"the default":             {0, 1000},
		"fewer":                   {10, 10},
		"more than MaxStreams":    {5000, 5000},
		"as many as are made":     {calls, calls},
		"more than are ever made": {10 * calls, calls},
	} {
		t.Run(name, func(t *testing.T) {
			if testkit.RaceEnabled && c.begun > 5000 {
				t.Skip("the race detector allows 8,128 goroutines")
			}
			inSeastarBubble(t, kernel.Limits{MaxMessage: 1 << 20}, &seastar.Protocol{MaxCalls: c.maxCalls}, func(t *testing.T, tg *target, h *hand) {
				var mu sync.Mutex
				begun := 0
				release := make(chan struct{})
				tg.Srv.Handle("#1", func(ctx context.Context, s *kernel.Stream) error {
					m, err := s.Receive(ctx)
					if err != nil {
						return err
					}
					mu.Lock()
					begun++
					mu.Unlock()
					<-release
					return s.Send(ctx, m)
				})
				go func() {
					for range calls {
						h.call(1, "ask")
					}
				}()
				synctest.Wait()
				mu.Lock()
				if begun != c.begun {
					t.Errorf("%d calls are served at once, want %d", begun, c.begun)
				}
				mu.Unlock()
				close(release)
				answered := map[int64]bool{}
				for range calls {
					id, text := h.reply()
					if id <= 0 || answered[id] {
						t.Fatalf("after %d answers: call %d is answered %q", len(answered), id, text)
					}
					answered[id] = true
				}
			})
		})
	}
}

// Seastar's server starts the handlers of a connection in the order of its calls. Here that
// has to be asked for.
func TestSeastarCallsInOrder(t *testing.T) {
	const calls = 1500
	w := overSeastar(t, nil, nil)
	var mu sync.Mutex
	var got []int32
	all := make(chan struct{})
	for _, verb := range []uint64{1, 2} {
		ok(t, rpc.HandleUnary(w.Srv, kernel.Verb(verb), func(_ context.Context, n int32) (struct{}, error) {
			runtime.Gosched()
			mu.Lock()
			defer mu.Unlock()
			if got = append(got, n); len(got) == calls {
				close(all)
			}
			return struct{}{}, nil
		}, nil))
		w.Srv.Ordered(kernel.Verb(verb))
	}
	noWait := &rpc.CallOptions{CallOptions: kernel.CallOptions{NoWait: true}}
	for i := range int32(calls) {
		_, err := rpc.Call[struct{}](w.Ctx, w.Client, kernel.Verb(1+uint64(i)%2), i, noWait)
		ok(t, err)
	}
	select {
	case <-all:
	case <-w.Ctx.Done():
		t.Fatalf("%d calls of %d are served", len(got), calls)
	}
	for i, n := range got {
		if n != int32(i) {
			t.Fatalf("call %d is served as number %d", n, i)
		}
	}
}
