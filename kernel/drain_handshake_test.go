package kernel_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// TestDrainIncludesConnectionsInTheirHandshake: a connection whose handshake ends
// while its server drains is drained too. A stream on it is served or refused
// unprocessed, and never lost.
func TestDrainIncludesConnectionsInTheirHandshake(t *testing.T) {
	for range 40 {
		latecomer(t)
	}
}

func latecomer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	asked, proceed := make(chan struct{}), make(chan struct{})
	srv, err := kernel.NewServer(&kernel.ServerOptions{
		Logger: slog.New(slog.DiscardHandler),
		Authenticate: func(context.Context, kernel.Peer) (kernel.Identity, error) {
			close(asked)
			<-proceed
			return nil, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Handle("echo", echo)
	ln := listen(t)
	served, drained := make(chan error, 1), make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	go func() {
		<-asked
		go func() { drained <- srv.Shutdown(ctx) }()
		for { // until it has stopped listening
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				close(proceed)
				return
			}
			_ = c.Close()
		}
	}()
	client, err := kernel.NewClient(ln.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		s, err := client.Open(ctx, "echo", nil)
		if err != nil {
			break // it has heard of the drain
		}
		wantServedOrRefused(ctx, t, s)
	}
	_ = client.Close()
	if err := <-drained; err != nil {
		t.Error("drain:", err)
	}
	<-served
}

func wantServedOrRefused(ctx context.Context, t *testing.T, s *kernel.Stream) {
	t.Helper()
	_ = s.Send(ctx, text("over?"))
	_ = s.CloseSend()
	var se *status.StreamError
	m, err := s.Receive(ctx)
	switch {
	case errors.As(err, &se) && se.NotProcessed:
	case err != nil || string(m.Bytes()) != "over?":
		t.Errorf("a stream opened while the server drains: %v", err)
	}
}
