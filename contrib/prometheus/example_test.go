package sluiceprometheus_test

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	sluiceprometheus "github.com/sluicerpc/sluice/contrib/prometheus"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

// A client's calls are in a histogram when they have ended.
func ExampleNew() {
	ctx := context.Background()
	srv, err := kernel.NewServer(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	srv.Handle("greet", func(ctx context.Context, s *kernel.Stream) error {
		return s.Send(ctx, pool.MessageOf([]byte("hello")))
	})
	ln := kerneltest.Listen()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, ln) }()

	m := sluiceprometheus.New("orders", nil)
	client, err := kernel.Dial(ctx, kerneltest.Target, &kernel.ClientOptions{Observer: m, Dial: ln.Dial})
	if err != nil {
		fmt.Println(err)
		return
	}
	m.Watch(client)
	reg := prometheus.NewRegistry()
	reg.MustRegister(m)

	for range 3 {
		reply, err := client.Call(ctx, "greet", pool.Message{}, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		reply.Release()
	}
	_ = client.Close() // the Collector is told of everything before it returns
	_ = srv.Close()
	<-served
	families, err := reg.Gather()
	if err != nil {
		fmt.Println(err)
		return
	}
	var calls uint64
	for _, f := range families {
		if f.GetName() == "rpc_client_call_duration_seconds" {
			for _, m := range f.GetMetric() { // one for each code
				calls += m.GetHistogram().GetSampleCount()
			}
		}
	}
	fmt.Println(calls, "calls")
	// Output: 3 calls
}
