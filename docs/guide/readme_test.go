package guide_test

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

var echo = testkit.Echo

func serve(ctx context.Context, addr string, cert tls.Certificate, token string) error {
	srv, err := kernel.NewServer(&kernel.ServerOptions{
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}},
		Authenticate: func(_ context.Context, p kernel.Peer) (kernel.Identity, error) {
			if subtle.ConstantTimeCompare(p.Token, []byte(token)) != 1 {
				return nil, errors.New("wrong token") // for our log; the client gets UNAUTHENTICATED
			}
			return "a friend", nil
		},
		Limits: kernel.Limits{Drain: 10 * time.Second},
	})
	if err != nil {
		return err
	}
	srv.Handle("echo", echo)

	// The first signal begins the drain: no new streams, and 10 s for those that are open.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // stop listening for signals: the next one kills
	if err := srv.ListenAndServe(ctx, addr); !errors.Is(err, kernel.ErrServerClosed) {
		return err
	}
	return nil
}

func dial(ctx context.Context, addr string, roots *x509.CertPool, token string) (*kernel.Client, error) {
	return kernel.Dial(ctx, addr, &kernel.ClientOptions{TLS: &tls.Config{RootCAs: roots}, Token: []byte(token)})
}

// TestServeSecurely runs the README's server: who has the token is served, who has not is
// refused, and a stream that is open outlives the signal.
func TestServeSecurely(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	cert, roots := certificate(t, "server")
	addr := freeAddr(t)
	served := make(chan error, 1)
	go func() { served <- serve(ctx, addr, cert, "sesame") }()

	var client *kernel.Client
	testkit.Eventually(t, "the server", func() bool {
		var err error
		client, err = dial(t.Context(), addr, roots, "sesame")
		return err == nil
	})
	defer client.Close()
	if _, err := dial(t.Context(), addr, roots, "tahini"); !errors.Is(err, &status.ConnError{Code: status.Unauthenticated}) {
		t.Errorf("with a wrong token: %v", err)
	}
	if _, err := dial(t.Context(), addr, x509.NewCertPool(), "sesame"); err == nil {
		t.Error("the server's certificate was not checked")
	}

	s, err := client.Open(t.Context(), "echo", nil)
	testkit.OK(t, err)
	says := func(word string) {
		t.Helper()
		testkit.OK(t, s.Send(t.Context(), text("%s", word)))
		m, err := s.Receive(t.Context())
		if err != nil || string(m.Bytes()) != word {
			t.Fatalf("%q, %v", m.Bytes(), err)
		}
	}
	says("before")
	interrupt()
	<-s.GoingAway()
	says("after")
	testkit.OK(t, s.Close(t.Context()))
	testkit.OK(t, <-served)
}
