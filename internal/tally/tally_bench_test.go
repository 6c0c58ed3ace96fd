package tally

import (
	"context"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// BenchmarkRead measures what a look at one connection with a stream over TCP costs.
func BenchmarkRead(b *testing.B) {
	const conns = 200
	var t Tally
	srv, err := kernel.NewServer(&kernel.ServerOptions{Observer: observer{&t}})
	if err != nil {
		b.Fatal(err)
	}
	srv.Handle("hold", func(ctx context.Context, s *kernel.Stream) error {
		s.In() // accepts
		<-ctx.Done()
		return nil
	})
	ln, err := kernel.Listen(b.Context(), "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.WithoutCancel(b.Context()), ln) }()
	defer func() {
		_ = srv.Close()
		<-served
	}()
	for range conns {
		c, err := kernel.Dial(b.Context(), ln.Addr().String(), nil)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		s, err := c.Open(b.Context(), "hold", nil)
		if err == nil {
			_, _, err = s.Accepted(b.Context())
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	for len(t.Read(time.Second, true).Wires) == 0 || t.Read(time.Second, true).Wires[0].Conns < conns {
		time.Sleep(time.Millisecond)
	}
	b.ReportAllocs()
	for b.Loop() {
		t.Read(time.Second, true)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/conns, "ns/conn")
}
