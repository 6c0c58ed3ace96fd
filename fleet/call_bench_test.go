package fleet_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/fleet"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// BenchmarkCall compares calls by a client of one address with those by a fleet of one and of
// four endpoints, over TCP on this machine.
func BenchmarkCall(b *testing.B) {
	srv, err := kernel.NewServer(&kernel.ServerOptions{Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	srv.Handle("echo", func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Request(ctx)
		if err != nil {
			m, err = s.Receive(ctx)
		}
		if err != nil {
			return err
		}
		return s.Send(ctx, m)
	})
	target := "list://"
	served := make(chan error, 4)
	for range 4 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		target += ln.Addr().String() + ","
		go func() { served <- srv.Serve(context.Background(), ln) }()
	}
	b.Cleanup(func() {
		_ = srv.Close()
		for range 4 {
			<-served
		}
	})
	one, _, _ := strings.Cut(strings.TrimPrefix(target, "list://"), ",")
	plain, err := kernel.Dial(b.Context(), one, nil)
	if err != nil {
		b.Fatal(err)
	}
	fleetOfOne, err := fleet.Dial(b.Context(), "list://"+one, nil)
	if err != nil {
		b.Fatal(err)
	}
	fleetOfFour, err := fleet.Dial(b.Context(), target, &fleet.Options{Balancer: fleet.LeastStreams})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = plain.Close(); _ = fleetOfOne.Close(); _ = fleetOfFour.Close() })
	for _, c := range []struct {
		name string
		kernel.Caller
	}{{"client", plain}, {"one", fleetOfOne}, {"four", fleetOfFour}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					reply, err := c.Call(context.Background(), "echo", pool.MessageOf(make([]byte, 64)), nil)
					if err != nil {
						b.Error(err)
						return
					}
					reply.Release()
				}
			})
		})
	}
}
