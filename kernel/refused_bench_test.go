//go:build unix

package kernel_test

import (
	"context"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// BenchmarkRefused compares what streams cost that are served, reset by their opener and
// refused, as CPU of both sides: what is not served costs no more, so it need not be counted.
func BenchmarkRefused(b *testing.B) {
	for _, c := range []struct {
		name, method string
		use          func(s *kernel.Stream)
	}{
		{"served", "answers", func(s *kernel.Stream) {
			m, _ := s.Receive(context.Background())
			m.Release()
			_ = s.CloseSend()
			drain(s)
		}},
		{"reset", "answers", func(s *kernel.Stream) {
			s.Abort(status.Cancelled, "not needed")
			drain(s)
		}},
		{"refused", "nobody serves it", drain},
	} {
		b.Run(c.name, func(b *testing.B) {
			srv, client := loops(b, quietServer(nil), quietClient(nil))
			srv.Handle("answers", func(ctx context.Context, s *kernel.Stream) error {
				m := text("answer")
				err := s.Send(ctx, m)
				if err != nil {
					m.Release()
				}
				return err
			})
			ctx := context.Background()
			before := processTime(b)
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					s, err := client.Open(ctx, c.method, nil)
					if err != nil {
						b.Error(err)
						return
					}
					c.use(s)
				}
			})
			b.ReportMetric(float64(processTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
