package kernel_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

// An Open that its context ends says so, whatever it was waiting for.
func TestOpensErrorsKeepTheirContexts(t *testing.T) {
	srv, client := kerneltest.Start(t, quietServer(&kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1}}), quietClient(nil))
	srv.Handle("hold", func(_ context.Context, s *kernel.Stream) error {
		<-s.Done()
		return nil
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%10)*100*time.Microsecond)
				s, err := client.Open(ctx, "hold", nil)
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v", err)
				}
				if err == nil {
					s.Abort(status.Cancelled, "")
				}
				cancel()
			}
		})
	}
	wg.Wait()
}

// An open that has waited for a free stream until its context ended says both.
func TestAnOpenThatHasWaitedSaysForWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, client := kerneltest.Start(t, quietServer(&kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1}}), quietClient(nil))
		srv.Handle("hold", func(_ context.Context, s *kernel.Stream) error {
			<-s.Done()
			return nil
		})
		s, err := client.Open(t.Context(), "hold", nil)
		ok(t, err)
		enough := errors.New("enough")
		for _, want := range []error{context.DeadlineExceeded, context.Canceled, enough} {
			ctx, cancel := context.WithCancelCause(t.Context())
			switch want {
			case context.DeadlineExceeded:
				var stop func()
				ctx, stop = context.WithTimeout(ctx, time.Second)
				defer stop()
			case enough:
				time.AfterFunc(time.Second, func() { cancel(enough) })
			default:
				time.AfterFunc(time.Second, func() { cancel(nil) })
			}
			_, err := client.Open(ctx, "hold", nil)
			isErr(t, "Open", err, kernel.ErrTooManyStreams)
			isErr(t, "Open", err, want)
			isErr(t, "Open", err, ctx.Err())
			cancel(nil)
		}
		s.Abort(status.Cancelled, "")
	})
}

// What a peer says is quoted where it could forge lines, and an error says once whose it is.
func TestErrorTexts(t *testing.T) {
	const forged = "x\nlevel=INFO msg=\"all is well\"\x1b[2J\x00"
	synctest.Test(t, func(t *testing.T) {
		srv, client := kerneltest.Start(t, quietServer(nil), quietClient(nil))
		srv.Handle("a/", func(_ context.Context, s *kernel.Stream) error {
			s.In() // accepts
			return &status.HandlerError{Code: status.Aborted, Reason: forged}
		})
		srv.Handle("refuses", func(context.Context, *kernel.Stream) error { return errors.New(forged) })
		texts := map[string]error{}
		for _, method := range []string{"a/" + forged, "refuses", "none " + forged} {
			s, err := client.Open(t.Context(), method, nil)
			ok(t, err)
			_, texts[method] = s.Receive(t.Context())
			s.Abort(status.Cancelled, "")
		}
		s, err := client.Open(t.Context(), "a/", nil)
		ok(t, err)
		_, texts["closed"] = s.Receive(t.Context())
		ok(t, srv.Close())
		_, texts["conn"] = client.Open(t.Context(), "late", nil)
		texts["key"] = s.SetTrailer(metadata.MD{{Key: "ok"}, {Key: "No"}})
		_, texts["window"] = client.Open(t.Context(), "x", &kernel.OpenOptions{Stream: kernel.StreamOptions{MaxBatch: -1}})
		for name, err := range texts {
			text := "nil"
			if err != nil {
				text = err.Error()
			}
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) || strings.Count(text, "sluice: ") != 1 {
				t.Errorf("%q: %q", name, text)
			}
		}
		if text := texts["key"].Error(); !strings.Contains(text, `"No"`) {
			t.Errorf("%s does not name the key", text)
		}
	})
}

// An option that is out of range is named.
func TestOptionsOutOfRangeAreNamed(t *testing.T) {
	for field, so := range map[string]kernel.StreamOptions{
		"Window": {Window: -1}, "SendLimit": {SendLimit: -2}, "InBuffer": {InBuffer: 1 << 20}, "MaxBatch": {MaxBatch: -3}, "IdleTimeout": {IdleTimeout: -1},
	} {
		if err := so.Validate(); !errors.Is(err, kernel.ErrLimits) || !strings.Contains(err.Error(), "StreamOptions."+field+" is -") && field != "InBuffer" {
			t.Errorf("%s: %v", field, err)
		}
	}
}
