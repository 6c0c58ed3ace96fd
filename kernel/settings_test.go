package kernel_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/testkit/capwire"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// What HTTP/2 does and no other protocol of ours: settings that change while streams
// are open, pings beside data, pings that idle connections must not send.

// An http2World is a world over HTTP/2's capabilities.
type http2World struct {
	*world
	p    *capwire.Protocol
	echo *kernel.Stream
}

// overHTTP2 runs f over HTTP/2's capabilities. The server says first what it says at
// first.
func overHTTP2(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions, first func(*frame.Settings), f func(w *http2World)) {
	t.Helper()
	p := capwire.HTTP2()
	p.First = first
	proto := foreign{name: "as-http2", proto: p, connect: kerneltest.Start}
	w := &http2World{world: newWorld(t, proto.start, so, co), p: p}
	w.Srv.Handle("echo", echo)
	w.echo = w.Open("echo")
	w.roundTrip()
	f(w)
	_ = w.echo.Close(w.Ctx)
}

// roundTrip has the server write, and what it wrote before arrive.
func (w *http2World) roundTrip() {
	w.T.Helper()
	w.Send(w.echo, "x")
	w.Want(w.echo, "x")
}

// change has the server's settings changed, and waits until the client knows.
func (w *http2World) change(f func(*frame.Settings)) {
	w.T.Helper()
	w.p.Changes <- f
	w.roundTrip() // the change is behind the answer,
	w.roundTrip() // and before this one
}

func initialCredit(n uint64) func(*frame.Settings) {
	return func(s *frame.Settings) { s.InitialCredit = n }
}

// offered opens a stream that the server knows of and has not accepted.
func (w *http2World) offered() (*kernel.Stream, *kernel.Offer) {
	w.T.Helper()
	w.AskOffers()
	a, err := w.Client.Open(w.Ctx, "pair", nil)
	if err != nil {
		w.T.Fatal(err)
	}
	return a, w.Offer()
}

func (w *http2World) accept(a *kernel.Stream, o *kernel.Offer) *kernel.Stream {
	w.T.Helper()
	b, err := o.Accept(pool.Message{}, nil)
	if err != nil {
		w.T.Fatal(err)
	}
	w.Cleanup(a, b)
	return b
}

// admitted is how many messages of n bytes a credit admits.
func (w *http2World) admitted(credit, n int) int {
	cost := w.caps.Cost(n)
	return (credit + cost - 1) / cost
}

// Streams without credit can send when the peer raises what streams begin with.
func TestRaisedInitialCredit(t *testing.T) {
	overHTTP2(t, nil, nil, initialCredit(10), func(w *http2World) {
		a, o := w.offered()
		const n = 100
		if got := tryAll(t, a, n); got != 1 {
			t.Fatalf("a credit of 10 admits %d messages, want 1", got)
		}
		sent := make(chan error, 1)
		go func() {
			for i := range 50 {
				if err := a.Send(w.Ctx, sized(n, byte(i))); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		w.roundTrip()
		select {
		case err := <-sent:
			t.Fatalf("sent without credit: %v", err)
		default:
		}
		w.change(initialCredit(60 * 105)) // one is on its way, 50 wait
		select {
		case err := <-sent:
			ok(t, err)
		case <-w.Ctx.Done():
			t.Fatal("credit has come, and who waits is not woken")
		}
		if got := tryAll(t, a, n); got != 9 {
			t.Errorf("%d messages beside 51 of 60", got)
		}
		w.DrainN(w.accept(a, o), 60)
	})
}

// Credit that the peer takes back may be spent: it is owed then. What was sent arrives,
// and what is granted for it counts from below.
func TestLoweredInitialCredit(t *testing.T) {
	const n, window = 1000 - 5, 60_000
	so := &kernel.ServerOptions{Limits: kernel.Limits{StreamWindow: window, MaxStreams: 10}}
	overHTTP2(t, so, nil, nil, func(w *http2World) {
		a, o := w.offered()
		b := w.accept(a, o)
		if _, _, err := a.Accepted(w.Ctx); err != nil {
			t.Fatal(err)
		}
		const first, more = 40, 200 // of 60 that the credit admits
		for i := range first {
			w.SendMessage(a, sized(n, byte(i)))
		}
		w.change(initialCredit(1000))
		if got := tryAll(t, a, n); got != 0 {
			t.Fatalf("%d messages, and credit is owed", got)
		}
		sent := make(chan error, 1)
		go func() {
			for i := range more {
				if err := a.Send(w.Ctx, sized(n, byte(first+i))); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		for i := range first + more {
			m, err := b.Receive(w.Ctx)
			if err != nil {
				t.Fatal(err)
			}
			if m.Len() != n || m.Bytes()[0] != byte(i) {
				t.Errorf("message %d is another one", i)
			}
			m.Release()
		}
		ok(t, <-sent)
		// A stream that begins now has the new credit.
		a, o = w.offered()
		if got := tryAll(t, a, n); got != 1 {
			t.Errorf("%d messages with a credit of one", got)
		}
		w.DrainN(w.accept(a, o), 1)
	})
}

// Streams that are opened while a change is on its way have the credit that it leaves
// them, whichever is first.
func TestOpensRacingASettingsChange(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{StreamWindow: 60_000, MaxStreams: 100}}
	overHTTP2(t, so, nil, initialCredit(500), func(w *http2World) {
		const n = 20
		for _, credit := range []int{3000, 100, 0, 8000, 50, 1000} {
			as := make([]*kernel.Stream, 16)
			os := make([]*kernel.Offer, len(as))
			w.AskOffers()
			var wg sync.WaitGroup
			wg.Go(func() {
				for i := range as {
					as[i], _ = w.Client.Open(w.Ctx, "pair", nil)
				}
			})
			w.change(initialCredit(uint64(credit)))
			wg.Wait()
			for i := range os {
				os[i] = w.Offer()
			}
			for i, a := range as {
				if got, want := tryAll(t, a, n), w.admitted(credit, n); got != want {
					t.Errorf("stream %d of %d bytes: %d messages, want %d", i, credit, got, want)
				}
			}
			for i, a := range as { // offers come in the order of the opens
				b := w.accept(a, os[i])
				w.DrainN(b, w.admitted(credit, n))
				a.Abort(status.Cancelled, "enough")
			}
		}
	})
}

// An Open that waits for a free stream has one when the peer allows more.
func TestRaisedMaxStreams(t *testing.T) {
	overHTTP2(t, nil, nil, func(s *frame.Settings) { s.MaxStreams = 1 }, func(w *http2World) {
		opened := make(chan *kernel.Stream)
		go func() {
			s, err := w.Client.Open(w.Ctx, "echo", nil)
			if err != nil {
				t.Error(err)
			}
			opened <- s
		}()
		w.roundTrip()
		select {
		case <-opened:
			t.Fatal("a second stream of one")
		case <-time.After(10 * time.Millisecond):
		}
		w.change(func(s *frame.Settings) { s.MaxStreams = 2 })
		s := <-opened
		w.Send(s, "here")
		w.Want(s, "here")
		if n := len(w.Client.Conns()); n != 1 {
			t.Errorf("%d connections", n)
		}
		_ = s.Close(w.Ctx)
	})
}

// A receiver may send a ping beside each grant of credit, to measure the path. That is no abuse, as
// often as it may be.
func TestPingsBesideGrants(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{StreamWindow: 2000}}
	co := &kernel.ClientOptions{Limits: kernel.Limits{StreamWindow: 2000}}
	p := capwire.HTTP2()
	p.PingEach = true
	proto := foreign{name: "as-http2", proto: p, connect: kerneltest.Start}
	w := newWorld(t, proto.start, so, co)
	w.Srv.Handle("echo", echo)
	s := w.Open("echo")
	for range 2000 {
		w.SendMessage(s, sized(1000, 1))
		w.DrainN(s, 1)
	}
	ok(t, s.Close(w.Ctx))
	w.Eventually("the connection to be counted", func() bool { return w.Srv.Stats().Accepted > 0 })
	if n := len(w.Client.Conns()); n != 1 || w.Srv.Stats().Accepted != 1 {
		t.Errorf("%d connections of %d", n, w.Srv.Stats().Accepted)
	}
}

// A protocol that allows pings only while streams are open, and says how long a silence
// may be, has none sooner; what the program says counts more.
func TestKeepaliveOfTheProtocol(t *testing.T) {
	for name, c := range map[string]struct {
		says, program, sooner, later time.Duration
	}{
		"the protocol's": {says: 5 * time.Minute, sooner: 5 * time.Minute, later: 6 * time.Minute},
		"the program's":  {says: 5 * time.Minute, program: 20 * time.Second, sooner: 20 * time.Second, later: 35 * time.Second},
		"the kernel's":   {sooner: 30 * time.Second, later: 45 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := capwire.HTTP2()
				p.C.Keepalive = c.says
				proto := foreign{name: "as-http2", proto: p, connect: kerneltest.Start}
				w := newWorld(t, proto.start,
					&kernel.ServerOptions{Limits: kernel.Limits{IdleConn: kernel.Unlimited, KeepaliveInterval: kernel.Unlimited}},
					&kernel.ClientOptions{Limits: kernel.Limits{KeepaliveInterval: c.program}})
				w.Bubble, w.Ctx = true, context.Background()
				w.Srv.Handle("echo", echo)
				pings := func(what string, after time.Duration, some bool) {
					t.Helper()
					before := p.Pings.Load()
					time.Sleep(after)
					synctest.Wait()
					if n := p.Pings.Load() - before; (n > 0) != some {
						t.Errorf("%s: %d pings in %v", what, n, after)
					}
				}
				pings("without a stream", 3*time.Hour, false)
				s := w.Open("echo")
				w.Send(s, "x")
				w.Want(s, "x")
				pings("sooner", c.sooner-time.Second, false)
				pings("later", c.later-c.sooner+time.Second, true)
				_ = s.Close(w.Ctx)
				pings("without a stream again", 3*time.Hour, false)
				if n := len(w.Client.Conns()); n != 1 || w.Srv.Stats().Accepted != 1 {
					t.Errorf("%d connections of %d", n, w.Srv.Stats().Accepted)
				}
				if s, err := w.Client.Open(w.Ctx, "echo", nil); err != nil { // and the connection did not fail
					t.Error(err)
				} else {
					w.Send(s, "y")
					w.Want(s, "y")
					_ = s.Close(w.Ctx)
				}
			})
		})
	}
}

// Where streams begin with one window for all, the peer does not know of a limit of
// ours: a writer must not wait for what it does not know to grant.
func TestSendLimitUnknownToThePeer(t *testing.T) {
	overHTTP2(t, nil, nil, nil, func(w *http2World) {
		for name, opts := range map[string][2]kernel.StreamOptions{
			"opener": {{SendLimit: 256}, {}}, "acceptor": {{}, {SendLimit: 256}},
		} {
			a, b := w.Pair(opts[0], opts[1])
			if name == "acceptor" {
				a, b = b, a
			}
			for range 100 {
				m := sized(1000, 1)
				if err := a.Send(w.Ctx, m); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				w.DrainN(b, 1)
			}
		}
	})
}
