//go:build unix

package kernel_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

// BenchmarkSnapshot looks at 100,000 streams, half of which are blocked: the time, and the CPU.
func BenchmarkSnapshot(b *testing.B) {
	const conns, each = 16, 6250
	lim := kernel.Limits{MaxStreams: each, MaxTotalStreams: 4 * conns * each, ConnWindow: 64 << 20}
	srv, client := kerneltest.Start(b, quietServer(&kernel.ServerOptions{Limits: lim}), quietClient(&kernel.ClientOptions{Limits: lim, Conns: conns}))
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
	infos := make([]kernel.StreamInfo, 0, conns*each)
	runtime.GC()
	before := processTime(b)
	b.ResetTimer()
	for b.Loop() {
		infos = infos[:0]
		for _, c := range srv.Conns() {
			for s := range c.EachStream {
				infos = append(infos, s.Snapshot())
			}
		}
	}
	b.ReportMetric(float64(processTime(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
	blocked := 0
	for i := range infos {
		if infos[i].BlockedOn == kernel.BlockedOnReader {
			blocked++
		}
	}
	if len(infos) != conns*each || blocked != conns*each/2 {
		b.Errorf("%d streams, %d of them blocked", len(infos), blocked)
	}
}
