//go:build unix

package admin

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

// BenchmarkWatch is what a second costs in which somebody watches the overview and the list of
// streams, half of which are blocked: the time, and the CPU.
func BenchmarkWatch(b *testing.B) {
	b.Run("100,000 streams", func(b *testing.B) { benchmarkWatch(b, 16, 6250) })
	b.Run("2,000 connections", func(b *testing.B) { benchmarkWatch(b, 2000, 1) })
}

func benchmarkWatch(b *testing.B, conns, each int) {
	lim := kernel.Limits{MaxStreams: each, MaxTotalStreams: 4 * conns * each, MaxConnsPerAddr: 2 * conns, ConnWindow: 64 << 20}
	quiet := slog.New(slog.DiscardHandler)
	srv, client := kerneltest.Start(b, &kernel.ServerOptions{Limits: lim, Logger: quiet}, &kernel.ClientOptions{Limits: lim, Conns: conns, Logger: quiet})
	srv.HandleOffer("idle", func(_ context.Context, o *kernel.Offer) error {
		_, err := o.Accept(pool.Message{}, nil)
		return err
	})
	ctx := context.Background()
	for i := range conns * each {
		s, err := client.Open(ctx, "idle", nil)
		if err != nil {
			b.Fatal(err)
		}
		if i%2 == 0 {
			for err == nil {
				err = s.TrySend(pool.MessageOf(make([]byte, 2000)))
			}
		}
		if _, _, err := s.Accepted(ctx); err != nil {
			b.Fatal(err)
		}
	}
	h, err := NewHandler(nil)
	if err != nil {
		b.Fatal(err)
	}
	h.AddServer("shop", srv)
	var lenses []lens
	for path, lensOf := range map[string]lensMaker{"/": h.overview, "/streams?sort=rate": h.streams} {
		l, err := lensOf(httptest.NewRequest("GET", path, nil))
		if err != nil {
			b.Fatal(err)
		}
		lenses = append(lenses, l)
	}
	old := []*view{{}, {}}
	sent, at := 0, time.Now()
	runtime.GC()
	before := processTime(b)
	b.ResetTimer()
	for b.Loop() {
		at = at.Add(time.Second)
		for i, v := range h.sampler.look(h.all(), lenses, at) {
			text, err := json.Marshal(v.changes(old[i]))
			if err != nil {
				b.Fatal(err)
			}
			sent += len(text)
			old[i] = v
		}
	}
	b.ReportMetric(float64(processTime(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
	b.ReportMetric(float64(sent)/float64(b.N), "bytes/op")
	if n := len(old[0].Tables[0].Rows) + len(old[1].Tables[0].Rows); n < mostRows {
		b.Errorf("%d rows", n)
	}
}

// processTime is the CPU time that the process has taken.
func processTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
