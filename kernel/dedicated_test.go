package kernel_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// dedicated opens a stream on a connection of its own, and returns the one that
// that belongs to.
func dedicated(t testing.TB, w *world, method string) (s *kernel.Stream, parent *kernel.Conn) {
	t.Helper()
	parent = must[*kernel.Conn](t)(w.Client.Conn(w.Ctx))
	s = must[*kernel.Stream](t)(w.Client.Open(w.Ctx, method, &kernel.OpenOptions{Dedicated: true}))
	if s.Conn() == parent {
		t.Fatal("it shares its connection")
	}
	w.Send(s, "x")
	w.Want(s, "x")
	return s, parent
}

// A dedicated connection fails with the one that it belongs to, and the handler
// on the other side gets an error.
func TestADedicatedConnectionFailsWithItsParent(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		handled := make(chan error, 1)
		w.Srv.Handle("echo", func(ctx context.Context, s *kernel.Stream) error {
			err := echo(ctx, s)
			handled <- err
			return err
		})
		s, parent := dedicated(t, w, "echo")
		ok(t, parent.Close())
		se := w.WantErr(s, status.ConnectionLost)
		if !strings.Contains(se.Error(), "belongs to") || !errors.Is(se, net.ErrClosed) {
			t.Errorf("the cause is missing: %v", se)
		}
		wantCode(t, <-handled, status.ConnectionLost)
		w.WantDone(s)
		<-s.Conn().Done()

		s, _ = dedicated(t, w, "echo") // on a new parent
		ok(t, w.Client.Close())
		w.WantErr(s, status.ConnectionLost)
		wantCode(t, <-handled, status.ConnectionLost)
		w.Loose = true
	})
}

// A severed is a dialer whose connections can be cut.
type severed struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (d *severed) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = append(d.conns, c)
	return plainConn{Conn: c}, nil
}

func TestADedicatedConnectionIsCutWithItsParent(t *testing.T) {
	d := &severed{}
	w := newWorld(t, loops, nil, &kernel.ClientOptions{Dial: d.dial})
	w.Srv.Handle("echo", echo)
	s, parent := dedicated(t, w, "echo")
	ok(t, d.conns[0].Close())
	w.WantErr(s, status.ConnectionLost)
	if err := parent.Err(); err == nil {
		t.Error("the parent lives")
	}
}

// Its own end touches nothing else, and neither does that of another.
func TestADedicatedConnectionsEndIsItsOwn(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		one, parent := dedicated(t, w, "echo")
		two, same := dedicated(t, w, "echo")
		common := w.Open("echo")
		if parent != same || common.Conn() != parent {
			t.Fatal("they should belong to one")
		}
		_ = one.Conn().Close()
		w.WantErr(one, status.ConnectionLost)
		ok(t, two.Close(w.Ctx))
		<-two.Conn().Done()
		w.Send(common, "y")
		w.Want(common, "y")
		ok(t, common.Close(w.Ctx))
	})
}

// A drained server ends a connection without streams at once. What runs on one
// that belongs to it is let finish like anything else.
func TestADrainLetsDedicatedStreamsFinish(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		w.Loose = true
		w.Srv.Handle("echo", echo)
		s, parent := dedicated(t, w, "echo")
		drained := make(chan error, 1)
		go func() { drained <- w.Srv.Shutdown(w.Ctx) }()
		<-parent.Done()
		for range 100 {
			w.Send(s, "still here")
			w.Want(s, "still here")
		}
		ok(t, s.Close(w.Ctx))
		ok(t, <-drained)
	})
}

func TestAnIdleParentLeavesItsDedicatedConnections(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Loose = true
		w.Srv.Handle("echo", echo)
		s, parent := dedicated(t, w, "echo")
		start := time.Now()
		<-parent.Done() // the server's IdleConn
		if d := time.Since(start); d < 10*time.Minute {
			t.Errorf("it was closed after %v", d)
		}
		w.Send(s, "still here")
		w.Want(s, "still here")
		ok(t, s.Close(w.Ctx))
	})
}

func TestDedicatedConnectionsAreLimited(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{MaxConns: 3}}
	overNative(t, so, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		one, _ := dedicated(t, w, "echo")
		two, _ := dedicated(t, w, "echo")
		if _, err := w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{Dedicated: true}); err == nil {
			t.Error("the server took one more connection than it may")
		}
		eventually(t, "three connections and a refusal", func() bool { n := w.Srv.Stats(); return n.Conns == 3 && n.Refused > 0 })
		ok(t, one.Close(w.Ctx))
		<-one.Conn().Done()
		eventually(t, "the server to count it out", func() bool { return w.Srv.Stats().Conns == 2 })
		three, _ := dedicated(t, w, "echo")
		ok(t, errors.Join(two.Close(w.Ctx), three.Close(w.Ctx)))
	})
	co := &kernel.ClientOptions{Limits: kernel.Limits{MaxStreams: 2}}
	overNative(t, nil, co, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		one, _ := dedicated(t, w, "echo")
		two, _ := dedicated(t, w, "echo")
		_, err := w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{Dedicated: true})
		isErr(t, "a third", err, kernel.ErrTooManyStreams)
		ok(t, one.Close(w.Ctx))
		<-one.Conn().Done()
		eventually(t, "the client to forget one", func() bool { return len(w.Client.Conns()) == 2 })
		three, _ := dedicated(t, w, "echo")
		ok(t, errors.Join(two.Close(w.Ctx), three.Close(w.Ctx)))
	})
}

// A connection's own Open can ask for another one too, on the side that made it.
func TestAConnectionOpensDedicatedStreams(t *testing.T) {
	refused := make(chan error, 1)
	so := &kernel.ServerOptions{OnConn: func(c *kernel.Conn) {
		_, err := c.Open(context.Background(), "x", &kernel.OpenOptions{Dedicated: true})
		refused <- err
	}}
	overNative(t, so, &kernel.ClientOptions{Conns: 2}, func(t *testing.T, w *world) {
		isErr(t, "the server's side", <-refused, kernel.ErrNotSupported)
		w.Srv.Handle("echo", echo)
		conn := must[*kernel.Conn](t)(w.Client.Conn(w.Ctx))
		s := must[*kernel.Stream](t)(conn.Open(w.Ctx, "echo", &kernel.OpenOptions{Dedicated: true}))
		if s.Conn() == conn {
			t.Fatal("it shares its connection")
		}
		<-refused
		w.Send(s, "x")
		w.Want(s, "x")
		ok(t, conn.Close())
		w.WantErr(s, status.ConnectionLost)
	})
}
