package interop

import (
	"context"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
)

// A call too is answered when its offer is accepted, and not before.
func TestCallsAreNotAnsweredBeforeTheAcceptance(t *testing.T) {
	for _, k := range []struct {
		name, method string
		world        func(*testing.T, *kernel.ServerOptions, *kernel.ClientOptions) *world
	}{
		{"brpc", "service/method", overBrpc},
		{"seastar", "#1", overSeastar},
	} {
		t.Run(k.name, func(t *testing.T) {
			w := k.world(t, nil, nil)
			w.Srv.HandleOffer(k.method, func(ctx context.Context, o *kernel.Offer) error {
				if !o.Unary() {
					t.Error("the call is none")
				}
				s := o.Stream(0)
				m := text("too early")
				isErr(t, "Send", s.Send(ctx, m), kernel.ErrNotAccepted)
				isErr(t, "TrySend", s.TrySend(m), kernel.ErrNotAccepted)
				m.Release()
				isErr(t, "CloseSend", s.CloseSend(), kernel.ErrNotAccepted)
				if _, err := o.Accept(text("reply"), nil); err != nil {
					return err
				}
				s.Finish(nil)
				return nil
			})
			w.Call(k.method, "request", "reply")
		})
	}
}
