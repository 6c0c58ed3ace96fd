package guide_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/admin"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// ready answers a readiness probe: it is not ready once a drain has begun.
func ready(srv *kernel.Server) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-srv.Draining():
			http.Error(w, "draining", http.StatusServiceUnavailable)
		default:
		}
	}
}

// counted has wg count the handlers that run.
func counted(wg *sync.WaitGroup) kernel.Middleware {
	return func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			wg.Add(1)
			defer wg.Done()
			return next(ctx, s)
		}
	}
}

// show serves a server's pages at 127.0.0.1:9091 until ctx ends.
func show(ctx context.Context, token string) error {
	pages, err := admin.NewHandler(&admin.Options{Token: token})
	if err != nil {
		return err
	}
	srv, err := kernel.NewServer(&kernel.ServerOptions{Observer: pages}) // for /closed and /methods
	if err != nil {
		return err
	}
	pages.AddServer("shop", srv)
	ln, err := admin.Listen(ctx, ":9091")
	if err != nil {
		return err
	}
	return pages.Serve(ctx, ln)
}

func TestShowWantsAToken(t *testing.T) {
	if err := show(context.Background(), "short"); err == nil {
		t.Error("a token that can be guessed was taken")
	}
}

// Shutdown returns while a handler whose stream was reset still works. The server is not
// ready from the first moment of its drain on.
func TestADrainAndItsHandlers(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		var wg sync.WaitGroup
		w.Srv.Use(counted(&wg))
		w.Srv.Handle("saves", func(ctx context.Context, _ *kernel.Stream) error {
			<-ctx.Done()
			time.Sleep(time.Minute)
			return nil
		})
		s := w.Open("saves")
		w.Quiesce()
		s.Abort(status.Cancelled, "gone")
		probe := func() int {
			answer := httptest.NewRecorder()
			ready(w.Srv)(answer, nil)
			return answer.Code
		}
		before, start := probe(), time.Now()
		testkit.OK(t, w.Srv.Shutdown(w.Ctx))
		took := time.Since(start)
		if after := probe(); before != http.StatusOK || after != http.StatusServiceUnavailable {
			t.Errorf("ready: %d, then %d", before, after)
		}
		wg.Wait()
		if took > time.Second || time.Since(start) != time.Minute {
			t.Errorf("Shutdown took %v, the handler %v", took, time.Since(start))
		}
	})
}
