package guide_test

import (
	"context"
	"crypto/tls"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

func TestLengths(t *testing.T) {
	srv, client := kerneltest.Start(t, nil, nil) // both are gone when the test is
	if err := rpc.HandleBidi(srv, "text/lengths", lengths, nil); err != nil {
		t.Fatal(err)
	}
	got, err := callLengths(t.Context(), client, []string{"one", "three"})
	if err != nil || len(got) != 2 || got[1] != 5 {
		t.Errorf("received %v, %v", got, err)
	}
}

func TestTwoClientsWithTLS(t *testing.T) {
	cert, roots := certificate(t, "memory") // for the name "memory", as a function of yours makes it
	srv, err := kernel.NewServer(&kernel.ServerOptions{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	if err != nil {
		t.Fatal(err)
	}
	srv.Handle("echo", echo)
	ln := kerneltest.Listen()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	for range 2 {
		client, err := kernel.Dial(t.Context(), kerneltest.Target, &kernel.ClientOptions{
			Dial: ln.Dial, TLS: &tls.Config{RootCAs: roots},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		m, err := client.Call(t.Context(), "echo", pool.MessageOf([]byte("hello")), nil)
		if err != nil || string(m.Bytes()) != "hello" {
			t.Errorf("%q, %v", m.Bytes(), err)
		}
	}
	_ = srv.Close()
	<-served
}

func TestTheHandlerWaitsForASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		srv, client := kerneltest.Start(t, nil, nil)
		srv.Handle("numbers", func(ctx context.Context, s *kernel.Stream) error {
			for ; ; sent++ {
				if err := s.Send(ctx, pool.New(1000)); err != nil {
					return err
				}
			}
		})
		s, err := client.Open(t.Context(), "numbers", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Accepted(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // until everybody waits for something
		if sent == 0 || sent > 100 {
			t.Errorf("%d messages were sent to a client that does not read", sent)
		}
		s.Abort(status.Cancelled, "test over")
	})
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := kerneltest.Pipe(t, kernel.StreamOptions{}, kernel.StreamOptions{IdleTimeout: time.Hour})
		start := time.Now()
		err := serveUntilIdle(b, pool.Message.Release) // an hour, in no time
		if he := new(status.HandlerError); !errors.As(err, &he) || time.Since(start) != time.Hour {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		a.Abort(status.Cancelled, "test over")
	})
}

// A greeter is code that needs a client.
type greeter struct{ client kernel.Caller }

func (g *greeter) greet(ctx context.Context, name string) (string, error) {
	return rpc.Call[string](ctx, g.client, "greet", name, nil)
}

func TestGreeter(t *testing.T) {
	var handlers kernel.Handlers // stands for the server
	err := rpc.HandleUnary(&handlers, "greet", func(_ context.Context, name string) (string, error) {
		if name == "" {
			return "", &status.HandlerError{Code: status.InvalidArgument, Reason: "who?"}
		}
		return "hello " + name, nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := &greeter{kerneltest.Caller(t, &handlers)}
	if got, err := g.greet(t.Context(), "Ada"); err != nil || got != "hello Ada" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := g.greet(t.Context(), ""); !errors.Is(err, &status.StreamError{Code: status.InvalidArgument}) {
		t.Errorf("without a name: %v", err)
	}
}

func TestALostConnection(t *testing.T) {
	srv, client := kerneltest.Start(t, nil, nil)
	srv.Handle("feed", func(_ context.Context, s *kernel.Stream) error {
		return s.Conn().Close() // as if the network had failed
	})
	s, err := client.Open(t.Context(), "feed", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Receive(t.Context())
	if !errors.Is(err, &status.StreamError{Code: status.ConnectionLost}) {
		t.Errorf("got %v", err)
	}
	if _, err := client.Conn(t.Context()); err != nil { // the client makes a new one
		t.Error(err)
	}
}
