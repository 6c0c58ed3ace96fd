package kernel_test

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A handler that ends its goroutine ends its stream, and makes room for others.
func TestAHandlerThatExitsItsGoroutine(t *testing.T) {
	srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1}, Logger: quietServer(nil).Logger}, nil)
	srv.Handle("exit", func(context.Context, *kernel.Stream) error {
		runtime.Goexit()
		return nil
	})
	ctx := context.Background()
	for range 5 { // more than may run at once
		s, err := client.Open(ctx, "exit", nil)
		if err != nil {
			t.Fatal(err)
		}
		<-s.Done()
		if !errors.Is(s.Err(), &status.StreamError{Code: status.Internal}) {
			t.Fatalf("got %v, want INTERNAL", s.Err())
		}
	}
	if n := srv.Stats().Panics; n != 5 {
		t.Errorf("%d handlers are counted, want 5", n)
	}
}

func TestAReplyBeyondThePeersLimit(t *testing.T) {
	srv, client := kerneltest.Start(t, nil, &kernel.ClientOptions{Limits: kernel.Limits{MaxMessage: 100}})
	offers := srv.Offers()
	s, err := client.Open(context.Background(), "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	o := <-offers
	m := pool.New(101)
	if _, err := o.Accept(m, nil); !errors.Is(err, kernel.ErrTooLarge) {
		t.Fatalf("a reply of 101 bytes for a peer that takes 100: %v", err)
	}
	m.Release()
	m = pool.New(100)
	if _, err := o.Accept(m, nil); err != nil {
		t.Fatal(err)
	}
	reply, _, err := s.Accepted(context.Background())
	if err != nil || reply.Len() != 100 {
		t.Fatalf("reply of %d bytes, %v", reply.Len(), err)
	}
	reply.Release()
}
