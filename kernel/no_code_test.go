package kernel_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/kernel"
)

// A failure whose code is CodeOK, which may just have been forgotten, is a failure for
// the peer all the same, with CodeUnknown where the protocol has codes.
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
			return &kernel.HandlerError{Reason: "no code"}
		})
		w.Srv.Handle("stream", func(ctx context.Context, s *kernel.Stream) error {
			half(ctx, s)
			return &kernel.StreamError{Reason: "no code"}
		})
		w.Srv.Handle("abort", func(_ context.Context, s *kernel.Stream) error {
			s.Abort(kernel.CodeOK, "no code")
			return nil
		})
		w.Srv.HandleOffer("offer", func(context.Context, *kernel.Offer) error {
			return &kernel.HandlerError{Reason: "no code"}
		})
		w.Srv.HandleOffer("reject", func(_ context.Context, o *kernel.Offer) error {
			o.Reject(kernel.CodeOK, "no code")
			return nil
		})
		for _, method := range []string{"handler", "stream", "abort", "offer", "reject"} {
			s, err := w.Client.Open(w.Ctx, method, nil)
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				var m kernel.Message
				m, err = s.Receive(w.Ctx)
				m.Release()
			}
			var se *kernel.StreamError
			if !errors.As(err, &se) || w.other == nil && (se.Code != kernel.CodeUnknown || se.Reason != "no code") {
				t.Errorf("%s: %v", method, err)
			}
			s.Abort(kernel.CodeCancelled, "over")
			w.WantDone(s)
		}
	})
}

// An error of Authenticate without a code refuses the client all the same.
func TestARefusalWithoutACodeIsARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := callOnce(t, &kernel.ServerOptions{Authenticate: func(context.Context, kernel.Peer) (kernel.Identity, error) {
			return "client", &kernel.HandlerError{Reason: "unknown client"}
		}}, nil)
		isErr(t, "Authenticate", err, &kernel.ConnError{Code: kernel.CodeUnauthenticated})
		err = callOnce(t, &kernel.ServerOptions{Authorize: func(context.Context, kernel.Identity, string, kernel.Metadata) error {
			return &kernel.HandlerError{Reason: "not you"}
		}}, nil)
		wantCode(t, err, kernel.CodePermissionDenied)
	})
}
