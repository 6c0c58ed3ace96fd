// main.go
package main

import (
	"context"
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	sluiceprometheus "github.com/sluicerpc/sluice/contrib/prometheus"
	"github.com/sluicerpc/sluice/kernel"
)

func main() {
	m := sluiceprometheus.New("echo", nil)
	srv, err := kernel.NewServer(&kernel.ServerOptions{Observer: m})
	if err != nil {
		log.Fatal(err)
	}
	m.Watch(srv)
	srv.Handle("echo", echo)
	go func() { log.Fatal(srv.ListenAndServe(context.Background(), "127.0.0.1:36369")) }()

	reg := prometheus.NewRegistry()
	reg.MustRegister(m)
	http.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	log.Fatal(http.ListenAndServe("127.0.0.1:36681", nil))
}

// echo sends back what it receives.
func echo(ctx context.Context, s *kernel.Stream) error {
	for m, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		if err := s.Send(ctx, m); err != nil {
			return err
		}
	}
	return nil
}
