// Package kerneltest connects servers and clients in memory, for tests: no
// socket, no port, and everything may run in a testing/synctest bubble.
package kerneltest

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A Listener accepts connections in memory, which its Dial makes.
type Listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// Listen returns a listener in memory.
func Listen() *Listener {
	return &Listener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Accept returns the server's end of the next connection, net.ErrClosed after
// Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends the listener. Connections live on.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr returns an address that says "pipe".
func (l *Listener) Addr() net.Addr {
	a, _ := conn.Pipe()
	return a.LocalAddr()
}

// Dial returns the client's end of a new connection, whatever network and addr.
// It has the shape of kernel.ClientOptions.Dial.
func (l *Listener) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := conn.Pipe()
	select {
	case l.conns <- b:
		return a, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Target is an address for kernel.Dial where Dial is a Listener's.
const Target = "memory:0"

// Start returns a server and a client that are connected in memory, and gone
// when the test is. Nil options are the defaults.
func Start(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
	t.Helper()
	srv, err := kernel.NewServer(so)
	if err != nil {
		t.Fatal(err)
	}
	ln := Listen()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	var o kernel.ClientOptions
	if co != nil {
		o = *co
	}
	o.Dial = ln.Dial
	client, err := kernel.Dial(context.Background(), Target, &o)
	if err != nil {
		_ = srv.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		_ = srv.Close()
		<-served
	})
	return srv, client
}

// Caller returns a Caller whose calls and streams are served by hs: what stands for a client
// in tests of code that takes a Caller. It is gone when the test is.
func Caller(t testing.TB, hs *kernel.Handlers) kernel.Caller {
	t.Helper()
	_, client := Start(t, &kernel.ServerOptions{Handlers: hs}, nil)
	return client
}

// Pipe returns the two ends of one stream, with each side's options, connected
// in memory and gone when the test is.
func Pipe(t testing.TB, opener, acceptor kernel.StreamOptions) (a, b *kernel.Stream) {
	t.Helper()
	srv, client := Start(t, nil, nil)
	return Open(t, srv, client, opener, acceptor)
}

// Open opens a stream from client to srv, which must have no handler for
// "kerneltest", and returns both ends, established.
func Open(t testing.TB, srv *kernel.Server, client *kernel.Client, opener, acceptor kernel.StreamOptions) (a, b *kernel.Stream) {
	t.Helper()
	ctx := context.Background()
	offers := srv.Offers()
	a, err := client.Open(ctx, "kerneltest", &kernel.OpenOptions{Stream: opener})
	if err != nil {
		t.Fatal(err)
	}
	b, err = (<-offers).Accept(pool.Message{}, &acceptor)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Accepted(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Abort(status.Cancelled, "test over")
		b.Abort(status.Cancelled, "test over")
	})
	return a, b
}
