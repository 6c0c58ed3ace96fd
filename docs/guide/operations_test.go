package guide_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

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

// debug shows what a server's connections and streams do.
func debug(srv *kernel.Server) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		type conn struct {
			Conn    kernel.ConnInfo
			Streams []kernel.StreamInfo
		}
		conns := []conn{}
		for _, c := range srv.Conns() {
			one := conn{Conn: c.Snapshot()}
			for s := range c.EachStream {
				one.Streams = append(one.Streams, s.Snapshot())
			}
			conns = append(conns, one)
		}
		_ = json.NewEncoder(w).Encode(conns)
	}
}

func TestDebugShowsStreams(t *testing.T) {
	recipe(t, kernel.StreamOptions{}, kernel.StreamOptions{}, func(t *testing.T, w *world, a, b *kernel.Stream) {
		answer := httptest.NewRecorder()
		debug(w.Srv)(answer, nil)
		var got []struct {
			Conn    map[string]any
			Streams []struct{ Method string }
		}
		testkit.OK(t, json.Unmarshal(answer.Body.Bytes(), &got))
		if len(got) != 1 || len(got[0].Conn) == 0 || len(got[0].Streams) != 1 || got[0].Streams[0].Method != b.Method() {
			t.Errorf("%s", answer.Body)
		}
	})
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
