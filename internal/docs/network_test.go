package docs

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// An outage is a time in which nothing arrives. What was sent then arrives at its end, as
// TCP has it.
type outage struct{ from, to time.Time }

func (o *outage) arrival() time.Time {
	if now := time.Now(); now.Before(o.from) || !now.Before(o.to) {
		return now
	}
	return o.to
}

// A cable is one end of a connection that has an outage.
type cable struct {
	net.Conn
	outage *outage
	in     <-chan piece // without bytes: the other end was closed
	out    chan<- piece
	rest   []byte
	closed chan struct{}
	once   sync.Once
}

func cables(inner net.Conn, o *outage) (near, far net.Conn) {
	there, back := make(chan piece, 1<<16), make(chan piece, 1<<16)
	return &cable{Conn: inner, outage: o, in: back, out: there, closed: make(chan struct{})},
		&cable{Conn: inner, outage: o, in: there, out: back, closed: make(chan struct{})}
}

func (c *cable) Write(b []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	case c.out <- piece{append([]byte(nil), b...), c.outage.arrival()}:
		return len(b), nil
	}
}

func (c *cable) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		select {
		case <-c.closed:
			return 0, net.ErrClosed
		case next := <-c.in:
			select {
			case <-time.After(time.Until(next.due)):
			case <-c.closed:
				return 0, net.ErrClosed
			}
			if c.rest = next.bytes; len(c.rest) == 0 {
				return 0, io.EOF
			}
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *cable) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.out <- piece{nil, c.outage.arrival()}
	})
	return nil
}

func (c *cable) SetDeadline(time.Time) error      { return nil }
func (c *cable) SetReadDeadline(time.Time) error  { return nil }
func (c *cable) SetWriteDeadline(time.Time) error { return nil }

// A cableListener accepts far ends. A dial takes until the outage is over.
type cableListener struct {
	*kerneltest.Listener
	outage *outage
	ends   chan net.Conn
}

func (l *cableListener) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	select {
	case <-time.After(time.Until(l.outage.arrival())):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	inner, err := l.Listener.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	near, far := cables(inner, l.outage)
	l.ends <- far
	return near, nil
}

func (l *cableListener) Accept() (net.Conn, error) {
	if _, err := l.Listener.Accept(); err != nil {
		return nil, err
	}
	return <-l.ends, nil
}

// A seen is what somebody saw, and how long after the network had failed.
type seen struct {
	after time.Duration
	err   error
}

// failing has the network fail for a time, and tells what a stream saw on both sides, a call
// that was under way, and a stream that was opened 55 s later; and how many of the messages
// arrived that were sent, one a second.
func failing(t *testing.T, out time.Duration) (client, server, call, opened seen, sent, arrived int) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := kernel.NewServer(nil)
		if err != nil {
			t.Fatal(err)
		}
		o := &outage{}
		now := func(err error) seen { return seen{time.Since(o.from), err} }
		ended := make(chan struct{})
		srv.Handle("feed", func(ctx context.Context, s *kernel.Stream) error {
			defer close(ended)
			for m, err := range s.All(ctx) {
				if err != nil {
					server = now(err)
					return err
				}
				arrived++
				m.Release()
			}
			return nil
		})
		srv.Handle("slow", func(ctx context.Context, s *kernel.Stream) error {
			time.Sleep(2 * time.Second)
			return s.Send(ctx, pool.MessageOf([]byte("done")))
		})
		ln := &cableListener{kerneltest.Listen(), o, make(chan net.Conn, 1)}
		var wg sync.WaitGroup
		wg.Go(func() { _ = srv.Serve(t.Context(), ln) })
		c, err := kernel.Dial(t.Context(), kerneltest.Target, &kernel.ClientOptions{Dial: ln.dial})
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Open(t.Context(), "feed", nil)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			_, err := c.Call(t.Context(), "slow", pool.Message{}, nil)
			call = now(err)
		})
		synctest.Wait()
		o.from = time.Now()
		o.to = o.from.Add(out)
		wg.Go(func() {
			for range 55 {
				if err := s.Send(t.Context(), pool.New(100)); err != nil {
					client = now(err)
					return
				}
				sent++
				time.Sleep(time.Second)
			}
			client = now(s.Close(t.Context()))
		})
		time.Sleep(55 * time.Second)
		s2, err := c.Open(t.Context(), "feed2", nil)
		opened = now(err)
		if err == nil {
			s2.Abort(status.Cancelled, "test over")
		}
		<-ended
		time.Sleep(out)
		_ = c.Close()
		_ = srv.Close()
		wg.Wait()
	})
	return
}

// What docs/guide/reconnecting.md says of a network that fails for a time.
func TestWhenTheNetworkFails(t *testing.T) {
	client, server, call, opened, sent, arrived := failing(t, 10*time.Second)
	if client.err != nil || server.err != nil || call != (seen{10 * time.Second, nil}) || opened.err != nil || arrived != sent {
		t.Errorf("10 s: client %v, server %v, call %v, open %v, %d of %d arrived", client, server, call, opened, arrived, sent)
	}
	for _, out := range []time.Duration{time.Minute, 5 * time.Minute} {
		client, server, call, opened, sent, arrived = failing(t, out)
		t.Logf("%v: client %v, server %v, call %v, open %v, %d of %d arrived", out, client, server, call, opened, arrived, sent)
		for side, saw := range map[string]seen{"client": client, "server": server, "call": call} {
			silent := errors.Is(saw.err, &status.StreamError{Code: status.ConnectionLost}) && errors.Is(saw.err, &status.ConnError{Code: status.Keepalive})
			if !silent || saw.after < 40*time.Second || saw.after > 51*time.Second {
				t.Errorf("%v, %s: %v after %v", out, side, saw.err, saw.after)
			}
		}
		if sent < 45 || arrived > 1 {
			t.Errorf("%v: %d of %d arrived", out, arrived, sent)
		}
		ce := new(status.ConnError)
		switch {
		case out == time.Minute && (opened.err != nil || opened.after != out):
			t.Errorf("%v: open: %v after %v", out, opened.err, opened.after)
		case out > time.Minute && (!errors.As(opened.err, &ce) || ce.Op != "dial" || opened.after != 70*time.Second):
			t.Errorf("%v: open: %v after %v", out, opened.err, opened.after)
		}
	}
}
