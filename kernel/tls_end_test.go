package kernel_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// A TLS connection whose peer does not read close_notify ends at the time limit of its
// GOAWAY, and delays no other timer until then: TLS itself would try for 5 s.
func TestTheEndOfTLSWaitsForNoPeer(t *testing.T) {
	server, client := certificates()
	server, client = server.Clone(), client.Clone()
	now := time.Now() // the certificates are not of the bubble's time
	server.Time = func() time.Time { return now }
	client.Time = server.Time
	client.ServerName, client.NextProtos = "127.0.0.1", []string{"sluice/1"}
	synctest.Test(t, func(t *testing.T) {
		ln := kerneltest.Listen()
		srv := must[*kernel.Server](t)(kernel.NewServer(quietServer(&kernel.ServerOptions{TLS: server})))
		served := make(chan error, 1)
		go func() { served <- srv.Serve(context.Background(), muteListener{ln}) }()
		nc := must[net.Conn](t)(ln.Dial(context.Background(), "", ""))
		tc := tls.Client(nc, client)
		g := &frame.Greeting{Client: true, Own: hello()}
		if _, err := (native.Protocol{}).Handshake(context.Background(), tc, g); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("the connection took %v to end", d)
		}
		_ = nc.Close()
		<-served
	})
}

// A muteListener's connections block in the write of TLS's close_notify.
type muteListener struct{ net.Listener }

func (l muteListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return &muteConn{Conn: nc, closed: make(chan struct{})}, err
}

type muteConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}

	mu       sync.Mutex
	deadline time.Time
}

// notifyLen is the length of TLS 1.3's record with a close_notify in it.
const notifyLen = 24

func (c *muteConn) Write(p []byte) (int, error) {
	if len(p) != notifyLen {
		return c.Conn.Write(p)
	}
	c.mu.Lock()
	patience := time.NewTimer(time.Until(c.deadline))
	c.mu.Unlock()
	defer patience.Stop()
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	case <-patience.C:
		return 0, context.DeadlineExceeded
	}
}

func (c *muteConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	return c.Conn.SetWriteDeadline(t)
}

func (c *muteConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
