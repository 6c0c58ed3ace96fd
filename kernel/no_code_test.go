package kernel_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A failure whose code is status.OK, which may just have been forgotten, is a failure for
// the peer all the same, with status.Unknown where the protocol has codes.
func TestAFailureWithoutACodeIsNoSuccess(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		half := func(ctx context.Context, s *kernel.Stream) {
			m := text("half an answer")
			if s.Send(ctx, m) != nil {
				m.Release()
			}
		}
		w.Srv.Handle("handler", func(ctx context.Context, s *kernel.Stream) error {
			half(ctx, s)
			return &status.HandlerError{Reason: "no code"}
		})
		w.Srv.Handle("stream", func(ctx context.Context, s *kernel.Stream) error {
			half(ctx, s)
			return &status.StreamError{Reason: "no code"}
		})
		w.Srv.Handle("abort", func(_ context.Context, s *kernel.Stream) error {
			s.Abort(status.OK, "no code")
			return nil
		})
		w.Srv.HandleOffer("offer", func(context.Context, *kernel.Offer) error {
			return &status.HandlerError{Reason: "no code"}
		})
		w.Srv.HandleOffer("reject", func(_ context.Context, o *kernel.Offer) error {
			o.Reject(&status.HandlerError{Code: status.OK, Reason: "no code"})
			return nil
		})
		for _, method := range []string{"handler", "stream", "abort", "offer", "reject"} {
			s, err := w.Client.Open(w.Ctx, method, nil)
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				var m pool.Message
				m, err = s.Receive(w.Ctx)
				m.Release()
			}
			var se *status.StreamError
			if !errors.As(err, &se) || w.other == nil && (se.Code != status.Unknown || se.Reason != "no code") {
				t.Errorf("%s: %v", method, err)
			}
			s.Abort(status.Cancelled, "over")
			w.WantDone(s)
		}
	})
}

// An error of Authenticate without a code refuses the client all the same.
func TestARefusalWithoutACodeIsARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := callOnce(t, &kernel.ServerOptions{Authenticate: func(context.Context, kernel.Peer) (kernel.Identity, error) {
			return "client", &status.HandlerError{Reason: "unknown client"}
		}}, nil)
		isErr(t, "Authenticate", err, &status.ConnError{Code: status.Unauthenticated})
		err = callOnce(t, &kernel.ServerOptions{Authorize: func(context.Context, kernel.Identity, string, metadata.MD) error {
			return &status.HandlerError{Reason: "not you"}
		}}, nil)
		wantCode(t, err, status.PermissionDenied)
	})
}
