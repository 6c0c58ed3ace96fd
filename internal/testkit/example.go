package testkit

import (
	"context"
	"log/slog"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// ExampleServer returns a server for an example, with default options. It logs nothing.
func ExampleServer() *kernel.Server {
	srv, err := kernel.NewServer(&kernel.ServerOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	return srv
}

// StartExample serves srv in memory and returns a client of it, and what ends both.
func StartExample(srv *kernel.Server, opts *kernel.ClientOptions) (client *kernel.Client, stop func()) {
	o := OrZero(opts)
	ln := kerneltest.Listen()
	o.Dial = ln.Dial
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	client, err := kernel.Dial(context.Background(), kerneltest.Target, &o)
	if err != nil {
		panic(err)
	}
	return client, func() {
		_ = client.Close()
		_ = srv.Close()
		<-served
	}
}

// An ExampleT stands for a test's *testing.T in an example. Done does the cleanups.
type ExampleT struct {
	testing.TB
	cleanups []func()
}

// Helper implements testing.TB.
func (t *ExampleT) Helper() {}

// Cleanup implements testing.TB.
func (t *ExampleT) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// Done does what the end of a test does.
func (t *ExampleT) Done() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}
