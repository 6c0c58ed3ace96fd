package kernel_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// A connection that ends before its client has taken note of it is not kept.
func TestConnectionsThatEndWhileTheyAreMadeAreForgotten(t *testing.T) {
	srv, err := kernel.NewServer(quietServer(&kernel.ServerOptions{OnConn: func(c *kernel.Conn) { _ = c.Close() }}))
	ok(t, err)
	ln := listen(t)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	var dials atomic.Int32
	client := must[*kernel.Client](t)(kernel.NewClient(ln.Addr().String(), quietClient(&kernel.ClientOptions{
		Backoff: kernel.Backoff{First: time.Nanosecond, Most: time.Nanosecond},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	})))
	t.Cleanup(func() { _ = client.Close() })
	for dials.Load() < 500 {
		if k, err := client.Conn(t.Context()); err == nil {
			<-k.Done()
		}
	}
	eventually(t, "the connections that have ended to be forgotten", func() bool { return len(client.Conns()) == 0 })
}
