package kernel_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// lone is a server on a listener of its own, and a stand-in for a client in another
// process: its connections are on no event loop, so that the server is the loops'
// only user.
type lone struct {
	*world
	ln     net.Listener
	served chan error
}

func newLone(t *testing.T, so *kernel.ServerOptions) *lone {
	t.Helper()
	leak.Descriptors(t)
	srv, err := kernel.NewServer(quietServer(so))
	if err != nil {
		t.Fatal(err)
	}
	srv.Handle("echo", echo)
	l := &lone{world: &world{World: &testkit.World{T: t, Srv: srv}}, ln: listen(t), served: make(chan error, 1)}
	go func() { l.served <- srv.Serve(context.Background(), l.ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	l.Ctx = ctx
	l.Client, err = kernel.NewClient(l.ln.Addr().String(), quietClient(&kernel.ClientOptions{
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return plainConn{Conn: nc}, nil
		},
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Client.Close() })
	return l
}

// fail closes the listener under Serve, and waits until that has returned.
func (l *lone) fail() {
	l.T.Helper()
	_ = l.ln.Close()
	var ce *status.ConnError
	if err := <-l.served; !errors.As(err, &ce) || ce.Op != "accept" || !errors.Is(err, net.ErrClosed) {
		l.T.Fatalf("Serve returned %v", err)
	}
}

// Streams outlive the listener that their connection came by.
func TestListenerClosedUnderStreams(t *testing.T) {
	l := newLone(t, nil)
	s := l.Open("echo")
	l.Send(s, "before")
	l.Want(s, "before")
	l.fail()
	for range 20 {
		l.Send(s, "after")
		l.Want(s, "after")
	}
	if err := s.Close(l.Ctx); err != nil {
		t.Error(err)
	}
	if err := l.Srv.Shutdown(l.Ctx); err != nil {
		t.Error(err)
	}
}

// So does a connection whose handshake is under way.
func TestListenerClosedDuringHandshake(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	l := newLone(t, &kernel.ServerOptions{
		Authenticate: func(context.Context, kernel.Peer) (kernel.Identity, error) {
			close(begun)
			<-goOn
			return "client", nil
		},
	})
	opened := make(chan error, 1)
	go func() {
		_, err := l.Client.Conn(l.Ctx)
		opened <- err
	}()
	<-begun
	l.fail()
	close(goOn)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	s := l.Open("echo")
	l.Send(s, "hello")
	l.Want(s, "hello")
	if err := s.Close(l.Ctx); err != nil {
		t.Error(err)
	}
}
