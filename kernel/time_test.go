package kernel_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/status"
)

// What happens in the course of time, in a bubble, where every figure is exact.

// Idle offers the time of the last message while a stream is silent; the offer
// is withdrawn when the silence ends.
func TestIdleIsAnOfferNotATick(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{IdleTimeout: time.Second})
		idle := b.Idle()
		time.Sleep(3 * time.Second)
		if quiet := time.Since(<-idle); quiet != 3*time.Second {
			t.Errorf("silent for %v, want 3s", quiet)
		}
		time.Sleep(2 * time.Second) // due again, while nothing receives from Idle
		w.Send(a, "ping")
		w.Quiesce()
		select {
		case <-idle:
			t.Error("the notice outlived the silence it was about")
		case m := <-b.In():
			m.Release()
		}
	})
}

// The period runs from the latest of: last message received, last taken, last
// notice taken. What this side sends does not count.
func TestWhatIdleCountsFrom(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{IdleTimeout: 10 * time.Second})
		idle := b.Idle()
		due := func(what string, d time.Duration, last time.Time) {
			t.Helper()
			start := time.Now()
			if at := <-idle; !at.Equal(last) {
				t.Errorf("%s: the last message came at %v, want %v", what, at, last)
			}
			// The wheel looks at a notice that waits now and then.
			if got := time.Since(start); got < d || got > d+time.Second {
				t.Errorf("%s: due after %v, want %v", what, got, d)
			}
		}
		start := time.Now()
		due("start", 10*time.Second, start)
		due("a notice was taken", 10*time.Second, start)
		time.Sleep(4 * time.Second)
		w.Send(a, "x")
		w.Quiesce()
		received := time.Now()
		time.Sleep(5 * time.Second)
		w.Want(b, "x")
		due("a message was taken", 10*time.Second, received)
		time.Sleep(4 * time.Second)
		w.Send(b, "our own")
		w.Want(a, "our own")
		due("we sent", 6*time.Second, received)
	})
}

func TestWithoutIdleTimeoutThereIsNoIdle(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, _ := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		if a.Idle() != nil {
			t.Error("a channel that never offers anything")
		}
	})
}

// A peer is one end of a connection that the test drives itself.
type peer struct {
	t    *testing.T
	nc   net.Conn
	sess frame.Session
	buf  []byte
	f    frame.Frame
}

// greet does the native handshake on nc.
func greet(t *testing.T, nc net.Conn, client bool, own frame.Settings) *peer {
	t.Helper()
	g := &frame.Greeting{Client: client, Own: own}
	sess, err := native.Protocol{}.Handshake(context.Background(), nc, g)
	if err != nil {
		t.Fatal(err)
	}
	return &peer{t: t, nc: nc, sess: sess, buf: g.Early}
}

func generous() frame.Settings {
	return frame.Settings{
		MaxFragment: native.DefaultMaxFragment, MaxMessage: 4 << 20, MaxStreams: 1000,
		MaxMetadata: 16 << 10, InitialCredit: 64 << 10, ConnCredit: 16 << 20,
	}
}

// next reads one frame; nil at the connection's end.
func (p *peer) next() *frame.Frame {
	for {
		n, err := p.sess.Next(p.buf, &p.f)
		if err != nil {
			p.t.Fatal(err)
		}
		p.buf = p.buf[n:]
		if p.f.Kind != frame.None {
			return &p.f
		}
		buf := make([]byte, 4<<10)
		k, err := p.nc.Read(buf)
		if err != nil {
			return nil
		}
		p.buf = append(p.buf, buf[:k]...)
	}
}

func (p *peer) write(fs ...*frame.Frame) {
	var o frame.Out
	for _, f := range fs {
		p.sess.Control(&o, f)
	}
	p.sess.Flush(&o)
	_, _ = p.nc.Write(o.Buf)
}

// dialling is a client whose other side is the test's.
func dialling(t *testing.T, co kernel.ClientOptions, serve func(net.Conn)) *kernel.Client {
	t.Helper()
	ln := kerneltest.Listen()
	co.Dial = ln.Dial
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			serve(nc)
		}
	}()
	c, err := kernel.NewClient(kerneltest.Target, quietClient(&co))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = ln.Close()
		<-done
	})
	return c
}

// A peer that answers nothing any more is pinged after the interval, and its connection
// fails after the timeout; its streams fail with the cause.
func TestKeepaliveFailsAnUnresponsivePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lim := kernel.Limits{KeepaliveInterval: 8 * time.Second, KeepaliveTimeout: 4 * time.Second}
		pings := make(chan time.Time, 10)
		c := dialling(t, kernel.ClientOptions{Limits: lim}, func(nc net.Conn) {
			p := greet(t, nc, false, generous())
			for f := p.next(); f != nil; f = p.next() { // reads, and never answers
				if f.Kind == frame.Ping {
					pings <- time.Now()
				}
			}
			_ = nc.Close()
		})
		start := time.Now()
		s, err := c.Open(t.Context(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Receive(t.Context())
		se := wantCode(t, err, status.ConnectionLost)
		var ce *status.ConnError
		if !errors.As(se, &ce) || ce.Code != status.Keepalive || ce.Op != "keepalive" {
			t.Errorf("the cause is %v", se.Cause)
		}
		if d := time.Since(start); d < 12*time.Second || d > 14*time.Second {
			t.Errorf("given up after %v, want 8 s and 4 s and what it takes to look", d)
		}
		var asked time.Time
		for len(pings) > 0 {
			asked = <-pings
		}
		if d := asked.Sub(start); d < 8*time.Second || d > 9*time.Second {
			t.Errorf("asked after %v, want 8s", d)
		}
	})
}

// A peer that answers pings keeps its connection, however silent it is otherwise; a stream
// waits for ever.
func TestKeepaliveKeepsAResponsivePeer(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		time.Sleep(5 * time.Hour)
		w.Send(a, "still here")
		w.Want(b, "still here")
	})
}

// A connection without streams is closed by the server after IdleConn; the
// client makes another one when it needs it.
func TestAnIdleConnectionIsClosed(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		w.Quiesce()
		if n := w.Srv.Stats().Conns; n != 1 {
			t.Fatal(n)
		}
		time.Sleep(9 * time.Minute)
		if n := w.Srv.Stats().Conns; n != 1 {
			t.Fatal("closed too early")
		}
		time.Sleep(2 * time.Minute)
		if n := w.Srv.Stats().Conns; n != 0 {
			t.Fatal("not closed")
		}
		reply, err := w.Client.Call(w.Ctx, "echo", text("again"), nil)
		if err != nil || string(reply.Bytes()) != "again" {
			t.Fatal(err)
		}
		reply.Release()
	})
}

// A client that pings too often is closed with ENHANCE_YOUR_CALM.
func TestTooManyPings(t *testing.T) {
	for gap, calm := range map[time.Duration]bool{50 * time.Millisecond: true, 100 * time.Millisecond: false} {
		synctest.Test(t, func(t *testing.T) {
			srv, ln := serverOnly(t, nil)
			nc, err := ln.Dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			p := greet(t, nc, true, generous())
			ends := make(chan frame.Frame, 1)
			go func() {
				for f := p.next(); f != nil; f = p.next() {
					if f.Kind == frame.GoAway {
						ends <- *f
					}
				}
				_ = nc.Close()
				close(ends)
			}()
			for i := range uint64(2500) {
				p.write(&frame.Frame{Kind: frame.Ping, Value: i})
				time.Sleep(gap)
			}
			if n := srv.Stats().Conns; (n == 0) != calm {
				t.Errorf("a ping every %v: %d connections are left", gap, n)
			}
			if f := <-ends; calm && f.Code != status.EnhanceYourCalm {
				t.Errorf("a ping every %v: the GOAWAY is %v", gap, f.Code)
			}
		})
	}
}

// serverOnly is a server in memory without a client.
func serverOnly(t *testing.T, so *kernel.ServerOptions) (*kernel.Server, *kerneltest.Listener) {
	t.Helper()
	srv, err := kernel.NewServer(quietServer(so))
	if err != nil {
		t.Fatal(err)
	}
	ln := kerneltest.Listen()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return srv, ln
}

// A connection that does not complete the handshake in time is closed, and no other waits
// for that.
func TestHandshakesHaveATimeLimit(t *testing.T) {
	for name, say := range map[string]string{"nothing": "", "half the magic": native.Magic[:4], "the magic": native.Magic} {
		synctest.Test(t, func(t *testing.T) {
			srv, ln := serverOnly(t, &kernel.ServerOptions{Limits: kernel.Limits{Handshake: 3 * time.Second}})
			nc, err := ln.Dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, _ = nc.Write([]byte(say))
			_, err = io.ReadAll(nc)
			if d := time.Since(start); d != 3*time.Second {
				t.Errorf("%s: put out after %v (%v)", name, d, err)
			}
			_ = nc.Close()
			synctest.Wait()
			if st := srv.Stats(); st.Failed != 1 || st.Accepted != 0 || st.Conns != 0 {
				t.Errorf("%s: %+v", name, st)
			}
		})
	}
}

// A client closes a connection whose server does not answer the handshake.
func TestAClientsHandshakeHasATimeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := dialling(t, kernel.ClientOptions{Limits: kernel.Limits{Handshake: 2 * time.Second, Authenticate: time.Second}}, func(nc net.Conn) {
			_, _ = io.Copy(io.Discard, nc)
			_ = nc.Close()
		})
		start := time.Now()
		_, err := c.Open(t.Context(), "x", nil)
		var ce *status.ConnError
		if !errors.As(err, &ce) || ce.Op != "handshake" || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// The connection of a peer that stops reading fails when a write has waited for
// WriteStall.
func TestAPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lim := kernel.Limits{WriteStall: 5 * time.Second, InFlight: 4 << 20}
		stop := make(chan struct{})
		c := dialling(t, kernel.ClientOptions{Limits: lim}, func(nc net.Conn) {
			own := generous()
			own.InitialCredit = 8 << 20
			greet(t, nc, false, own)
			<-stop // never reads again
			_ = nc.Close()
		})
		s, err := c.Open(t.Context(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := s.Send(t.Context(), sized(1<<20, 1)); err != nil {
			t.Fatal(err)
		}
		_, err = s.Receive(t.Context())
		se := wantCode(t, err, status.ConnectionLost)
		var ce *status.ConnError
		if !errors.As(se, &ce) || ce.Code != status.WriteStall {
			t.Errorf("the cause is %v", se.Cause)
		}
		if d := time.Since(start); d < 5*time.Second || d > 7*time.Second {
			t.Errorf("given up after %v", d)
		}
		close(stop)
	})
}

// A server that takes connections and ends them soon is dialled with pauses too,
// from the second such on; one that lasted makes up for all before.
func TestConnectionsThatDoNotLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := kerneltest.Listen()
		srv, good := serve(t, nil, &kernel.ClientOptions{
			Dial:    ln.Dial,
			Backoff: kernel.Backoff{First: time.Second, Most: 5 * time.Second, Factor: 2, Jitter: 1e-9},
		}, memoryListener{ln})
		srv.Handle("die", func(_ context.Context, s *kernel.Stream) error { return s.Conn().Close() })
		w := &world{World: &testkit.World{T: t, Ctx: t.Context(), Srv: srv, Client: good}}
		lose := func() time.Duration {
			start := time.Now()
			s := w.Open("die")
			if _, err := s.Receive(w.Ctx); err == nil {
				t.Fatal("it lives")
			}
			return time.Since(start).Round(time.Millisecond)
		}
		for i, want := range []time.Duration{0, 0, 1, 2, 4, 5, 5} {
			if d := lose(); d != want*time.Second {
				t.Errorf("connection %d after %v, want %v s", i, d, int(want))
			}
		}
		if _, err := good.Conn(w.Ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		for i, want := range []time.Duration{0, 0, 0, 1} { // the first is on the one that has lasted
			if d := lose(); d != want*time.Second {
				t.Errorf("after one that lasted, connection %d after %v, want %v s", i, d, int(want))
			}
		}
	})
}

// After a failure the client waits before it dials again, longer each time, with
// jitter; success starts over.
func TestRedialBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials []time.Time
		broken := errors.New("unreachable")
		fail := true
		ln := kerneltest.Listen()
		srv, err := kernel.NewServer(quietServer(nil))
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(context.Background(), ln) }()
		c, err := kernel.NewClient(kerneltest.Target, &kernel.ClientOptions{
			Backoff: kernel.Backoff{First: time.Second, Most: 10 * time.Second, Factor: 2, Jitter: 0.25},
			Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
				dials = append(dials, time.Now())
				if fail {
					return nil, broken
				}
				return ln.Dial(ctx, n, a)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		different := map[time.Duration]bool{}
		for range 12 {
			if _, err := c.Open(t.Context(), "x", nil); !errors.Is(err, broken) {
				t.Fatal(err)
			}
		}
		for i := 1; i < len(dials); i++ {
			base := min(time.Second<<(i-1), 10*time.Second)
			gap := dials[i].Sub(dials[i-1])
			if gap < base*3/4 || gap > base*5/4 {
				t.Errorf("attempt %d after %v, want %v by a quarter", i, gap, base)
			}
			different[gap] = true
		}
		if len(dials) != 12 || len(different) < 8 {
			t.Errorf("%d dials, %d different gaps: that is no jitter", len(dials), len(different))
		}
		fail = false
		if _, err := c.Conn(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the server's side of it may be a moment later
		_ = srv.Conns()[0].Close()
		synctest.Wait()
		fail = true
		start := time.Now()
		if _, err := c.Conn(t.Context()); !errors.Is(err, broken) || time.Since(start) != 0 {
			t.Errorf("the first dial after a good connection: %v after %v", err, time.Since(start))
		}
		// A wait for the next attempt that is canceled ends at once.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start = time.Now()
		if _, err := c.Conn(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		_ = c.Close()
		_ = srv.Close()
		<-served
	})
}
