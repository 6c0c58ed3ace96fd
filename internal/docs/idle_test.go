package docs

import (
	"context"
	"runtime"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// BenchmarkIdle measures what docs/operations.md says of memory: of an idle connection over
// TCP, and of an idle stream on one, both ends together.
func BenchmarkIdle(b *testing.B) {
	b.Run("connection", func(b *testing.B) {
		_, addr := served(b, &kernel.ServerOptions{Limits: kernel.Limits{MaxConnsPerAddr: kernel.Unlimited}})
		clients := make([]*kernel.Client, b.N)
		perEach(b, func(i int) {
			clients[i] = dialed(b, addr)
		})
		for _, c := range clients {
			_ = c.Close()
		}
	})
	b.Run("stream with a handler", func(b *testing.B) {
		srv, addr := served(b, &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1 << 20}})
		srv.Handle("hold", func(ctx context.Context, s *kernel.Stream) error {
			s.In() // accepts
			<-ctx.Done()
			return nil
		})
		idleStreams(b, addr)
	})
	b.Run("stream of an offer", func(b *testing.B) {
		srv, addr := served(b, &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1 << 20}})
		offers := srv.Offers()
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		go func() {
			for {
				select {
				case o := <-offers:
					_, _ = o.Accept(pool.Message{}, nil)
				case <-ctx.Done():
					return
				}
			}
		}()
		idleStreams(b, addr)
	})
}

func idleStreams(b *testing.B, addr string) {
	c := dialed(b, addr)
	defer c.Close()
	streams := make([]*kernel.Stream, b.N)
	perEach(b, func(i int) {
		s, err := c.Open(b.Context(), "hold", nil)
		if err == nil {
			_, _, err = s.Accepted(b.Context())
		}
		if err != nil {
			b.Fatal(err)
		}
		streams[i] = s
	})
	runtime.KeepAlive(streams)
}

func served(b *testing.B, so *kernel.ServerOptions) (*kernel.Server, string) {
	srv, err := kernel.NewServer(so)
	if err != nil {
		b.Fatal(err)
	}
	ln, err := kernel.Listen(b.Context(), "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	over := make(chan struct{})
	go func() { _ = srv.Serve(context.Background(), ln); close(over) }()
	b.Cleanup(func() { _ = srv.Close(); <-over })
	return srv, ln.Addr().String()
}

func dialed(b *testing.B, addr string) *kernel.Client {
	c, err := kernel.Dial(b.Context(), addr, nil)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// perEach reports by how much the memory of the process grows for each.
func perEach(b *testing.B, do func(i int)) {
	do(0) // what is made once
	before := inUse()
	for i := 1; i < b.N; i++ {
		do(i)
	}
	after := inUse()
	b.ReportMetric(float64(after-before)/float64(max(b.N-1, 1)), "B/each")
	b.ReportMetric(0, "ns/op")
}

func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
