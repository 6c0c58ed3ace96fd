package interop

import (
	"errors"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// TestALargeCallThatIsRefusedEndsNothingElse: where nobody grants credit, a call that
// is refused may have a whole message on its way, however small the connection's window.
func TestALargeCallThatIsRefusedEndsNothingElse(t *testing.T) {
	limits := kernel.Limits{MaxMessage: 8 << 20, ConnWindow: 1 << 20}
	so := &kernel.ServerOptions{Limits: limits}
	co := &kernel.ClientOptions{Limits: limits, ConnType: kernel.ConnSingle}
	for _, k := range []struct {
		name, unknown, known string
		world                func(*testing.T, *kernel.ServerOptions, *kernel.ClientOptions) *world
	}{
		{"brpc", "unknown", "known", overBrpc},
		{"seastar", "#9", "#1", overSeastar},
	} {
		t.Run(k.name, func(t *testing.T) {
			w := k.world(t, so, co)
			w.Srv.Handle(k.known, echo)
			w.Call(k.known, "before", "before")
			large := sized(limits.MaxMessage, 1)
			defer large.Release()
			for range 3 {
				_, err := w.Client.Call(w.Ctx, k.unknown, large, nil)
				var se *status.StreamError
				if !errors.As(err, &se) || se.Code != status.Unimplemented {
					t.Fatalf("a large call to a method that is not there: %v", err)
				}
			}
			w.Call(k.known, "after", "after")
			w.Eventually("the connection to be counted", func() bool { return w.Srv.Stats().Accepted > 0 })
			if n := w.Srv.Stats().Accepted; n != 1 {
				t.Errorf("%d connections were made", n)
			}
		})
	}
}
