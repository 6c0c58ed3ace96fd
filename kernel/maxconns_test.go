package kernel_test

import (
	"context"
	"sync"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// As many connections as allowed get in, at once as well as one by one; the next
// does not, and one that leaves makes room for another.
func TestAsManyConnectionsAsAllowed(t *testing.T) {
	const most = 40
	srv, err := kernel.NewServer(quietServer(&kernel.ServerOptions{Limits: kernel.Limits{MaxConns: most}}))
	if err != nil {
		t.Fatal(err)
	}
	ln := kerneltest.Listen()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	dial := func() (*kernel.Client, error) {
		return kernel.Dial(context.Background(), kerneltest.Target, quietClient(&kernel.ClientOptions{Dial: ln.Dial}))
	}
	clients := make([]*kernel.Client, most)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			c, err := dial()
			if err != nil {
				t.Errorf("connection %d of %d: %v", i, most, err)
				return
			}
			clients[i] = c
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	if c, err := dial(); err == nil {
		t.Error("one more than allowed got in")
		_ = c.Close()
	}
	_ = clients[0].Close()
	eventually(t, "the connection to be gone", func() bool { return srv.Stats().Conns == most-1 })
	if clients[0], err = dial(); err != nil {
		t.Errorf("after one has left: %v", err)
	}
	for _, c := range clients {
		if c != nil {
			_ = c.Close()
		}
	}
	_ = srv.Close()
	<-served
}
