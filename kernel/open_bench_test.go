//go:build unix

package kernel_test

import (
	"context"
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// BenchmarkOpen opens a stream whose handler returns nil at once, and waits for its end:
// the time, and the CPU that both sides use.
func BenchmarkOpen(b *testing.B) {
	for _, tr := range []struct {
		name  string
		start starter
	}{{"tcp", loops}, {"memory", kerneltest.Start}} {
		b.Run(tr.name, func(b *testing.B) {
			srv, client := tr.start(b, quietServer(nil), quietClient(nil))
			srv.Handle("nothing", func(context.Context, *kernel.Stream) error { return nil })
			ctx := context.Background()
			b.ReportAllocs()
			before := processTime(b)
			for b.Loop() {
				s, err := client.Open(ctx, "nothing", nil)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := s.Receive(ctx); !errors.Is(err, io.EOF) {
					b.Fatal(err)
				}
				_ = s.CloseSend()
			}
			b.ReportMetric(float64(processTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// processTime is the CPU that the process has used, in nanoseconds.
func processTime(b *testing.B) int64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return r.Utime.Nano() + r.Stime.Nano()
}
