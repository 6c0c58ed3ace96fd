package testkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A World is a server and a client that are connected.
type World struct {
	T      testing.TB
	Srv    *kernel.Server
	Client *kernel.Client
	Ctx    context.Context
	Offers <-chan *kernel.Offer // asked for by AskOffers, before the first open
	Loose  bool                 // streams may be left open
	Bubble bool                 // time is a bubble's
}

// OverNative runs f over every transport of sluice's own protocol.
func OverNative(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions, f func(t *testing.T, w *World)) {
	t.Helper()
	for _, tr := range Transports {
		t.Run(tr.Name, func(t *testing.T) {
			f(t, New(t, tr.Start, so, co))
		})
	}
}

// InBubble runs f in memory, where time stands still until everybody waits.
func InBubble(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions, f func(t *testing.T, w *World)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := New(t, kerneltest.Start, so, co)
		w.Bubble = true
		w.Ctx = context.Background() // a bubble tells by itself that nothing will happen any more
		f(t, w)
	})
}

// New connects a server and a client by start, and checks behind the test that nothing is
// left of it.
func New(t testing.TB, start Starter, so *kernel.ServerOptions, co *kernel.ClientOptions) *World {
	t.Helper()
	messages := pool.Outstanding()
	t.Cleanup(func() {
		// Messages on their way when the connection was cut are let go last.
		for end := time.Now().Add(Patience / 2); pool.Outstanding() > messages && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if n := pool.Outstanding() - messages; n > 0 {
			t.Errorf("%d messages were never released", n)
		}
	})
	srv, client := start(t, QuietServer(so), QuietClient(co))
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	w := &World{T: t, Srv: srv, Client: client, Ctx: ctx}
	t.Cleanup(func() {
		if !t.Failed() && !w.Loose {
			w.Settle()
		}
		cancel()
	})
	return w
}

// Settle checks, when a test's streams are over, that on both sides no stream
// is left and all credit is back where it came from.
func (w *World) Settle() {
	w.T.Helper()
	bad := ""
	w.Eventually("the connections to settle", func() bool {
		bad = w.Owed()
		return bad == ""
	}, func() string { return bad })
}

// Owed says what is not settled.
func (w *World) Owed() string {
	client, server := snapshots(w.Client.Conns()), snapshots(w.Srv.Conns())
	return strings.Join(append(Owing("client", client, server), Owing("server", server, client)...), "; ")
}

func snapshots(conns []*kernel.Conn) (all []kernel.ConnInfo) {
	for _, c := range conns {
		all = append(all, c.Snapshot())
	}
	return all
}

// Owing describes those of one side's connections that are not settled. A slow machine can make a
// path look long, and windows grow that become smaller again when their streams are over: then a
// side has as much credit as the other one's window is now, and had more.
func Owing(side string, conns, peers []kernel.ConnInfo) (bad []string) {
	least := int64(math.MaxInt64)
	for i := range peers {
		least = min(least, peers[i].RecvWindow)
	}
	for i := range conns {
		b := &conns[i]
		credit := b.SendGranted - b.SendUsed
		if holds(b) || credit != b.SendWindow && credit < least {
			bad = append(bad, fmt.Sprintf("%s: %+v", side, *b))
		}
	}
	return bad
}

// holds tells whether a connection without streams has something that it should not.
func holds(b *kernel.ConnInfo) bool {
	return b.Streams != 0 || b.Queued != 0 || b.Assembled != 0 || b.ExtraWindows != 0 || b.OpenBytes != 0
}

// Eventually waits until cond holds. It is for what has no event to wait for.
func (w *World) Eventually(what string, cond func() bool, detail ...func() string) {
	w.T.Helper()
	Eventually(w.T, what, cond, detail...)
}

// Pair opens a stream and accepts it, each side with its options.
func (w *World) Pair(opener, acceptor kernel.StreamOptions) (a, b *kernel.Stream) {
	w.T.Helper()
	return w.PairIn(w.Ctx, opener, acceptor)
}

// PairIn is Pair with the context that bounds the life of the opener's stream.
func (w *World) PairIn(ctx context.Context, opener, acceptor kernel.StreamOptions) (a, b *kernel.Stream) {
	w.T.Helper()
	w.AskOffers()
	a, err := w.Client.Open(ctx, "pair", &kernel.OpenOptions{Stream: opener})
	if err != nil {
		w.T.Fatal(err)
	}
	b, err = w.Offer().Accept(pool.Message{}, &acceptor)
	if err != nil {
		w.T.Fatal(err)
	}
	if _, _, err := a.Accepted(w.Ctx); err != nil {
		w.T.Fatal(err)
	}
	w.Cleanup(a, b)
	return a, b
}

// Cleanup has the streams gone, and what they hold released, when the test is.
func (w *World) Cleanup(ss ...*kernel.Stream) {
	w.T.Cleanup(func() {
		for _, s := range ss {
			s.Abort(status.Cancelled, "test over")
			Drain(s)
		}
	})
}

// AskOffers has the server offer what no handler is registered for. An open that arrives
// before is refused.
func (w *World) AskOffers() {
	if w.Offers == nil {
		w.Offers = w.Srv.Offers()
	}
}

// Offer returns the next open that no handler is registered for.
func (w *World) Offer() *kernel.Offer {
	w.T.Helper()
	if w.Offers == nil {
		w.T.Fatal("Offer without AskOffers: the open may have been refused")
	}
	select {
	case o := <-w.Offers:
		return o
	case <-w.Ctx.Done():
		w.T.Fatal("no offer came")
		return nil
	}
}

// Quiesce waits until everything sent has been handed on: in a bubble exactly.
func (w *World) Quiesce() {
	if w.Bubble {
		synctest.Wait()
	}
}

// RequestOf takes the request of an offer, or of a stream that the peer has opened.
func RequestOf(t testing.TB, of interface {
	Request(ctx context.Context) (pool.Message, error)
}) pool.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	m, err := of.Request(ctx)
	if err != nil {
		t.Errorf("request: %v", err)
	}
	return m
}

// Send sends a text.
func (w *World) Send(s *kernel.Stream, format string, args ...any) {
	w.T.Helper()
	w.SendMessage(s, Text(format, args...))
}

// SendMessage sends m.
func (w *World) SendMessage(s *kernel.Stream, m pool.Message) {
	w.T.Helper()
	if err := s.Send(w.Ctx, m); err != nil {
		m.Release()
		w.T.Fatalf("send: %v", err)
	}
}

// Want receives one message that must be exactly this.
func (w *World) Want(s *kernel.Stream, format string, args ...any) {
	w.T.Helper()
	want := fmt.Sprintf(format, args...)
	m, err := s.Receive(w.Ctx)
	if err != nil {
		w.T.Fatalf("receive: %v, want %q", err, want)
	}
	if got := string(m.Bytes()); got != want {
		w.T.Fatalf("received %q, want %q", got, want)
	}
	m.Release()
}

// DrainN receives n messages.
func (w *World) DrainN(s *kernel.Stream, n int) {
	w.T.Helper()
	for range n {
		m, err := s.Receive(w.Ctx)
		if err != nil {
			w.T.Fatal(err)
		}
		m.Release()
	}
}

// WantEOF checks that the peer's half has ended in order.
func (w *World) WantEOF(s *kernel.Stream) {
	w.T.Helper()
	m, err := s.Receive(w.Ctx)
	if !errors.Is(err, io.EOF) {
		m.Release()
		w.T.Fatalf("receive: %v (%d bytes), want io.EOF", err, m.Len())
	}
}

// WantErr receives and checks that there is an error of code c instead of a
// message.
func (w *World) WantErr(s *kernel.Stream, c status.Code) *status.StreamError {
	w.T.Helper()
	m, err := s.Receive(w.Ctx)
	if err == nil {
		m.Release()
	}
	return WantCode(w.T, err, c)
}

// WantDone waits until s is over for good.
func (w *World) WantDone(s *kernel.Stream) {
	w.T.Helper()
	select {
	case <-s.Done():
	case <-w.Ctx.Done():
		w.T.Fatalf("stream %s did not end", s.Method())
	}
}

// Open opens a stream of method.
func (w *World) Open(method string) *kernel.Stream {
	w.T.Helper()
	s, err := w.Client.Open(w.Ctx, method, nil)
	if err != nil {
		w.T.Fatal(err)
	}
	return s
}

// Call makes a call whose answer must be want.
func (w *World) Call(method, req, want string) {
	w.T.Helper()
	reply, err := w.Client.Call(w.Ctx, method, Text("%s", req), nil)
	if err != nil || string(reply.Bytes()) != want {
		w.T.Fatalf("call %s: %q, %v", method, reply.Bytes(), err)
	}
	reply.Release()
}

// OpenWithin returns why there is no room for a stream within a short time: one in
// which the client has found that out.
func (w *World) OpenWithin() (err error) {
	for d := 20 * time.Millisecond; d < Patience; d *= 10 {
		ctx, cancel := context.WithTimeout(w.Ctx, d)
		_, err = w.Client.Open(ctx, "echo", nil)
		cancel()
		if err == nil || errors.Is(err, kernel.ErrTooManyStreams) && errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	return err
}

// Handled waits for a value that a handler gives.
func Handled[T any](w *World, c <-chan T) T {
	w.T.Helper()
	select {
	case v := <-c:
		return v
	case <-w.Ctx.Done():
		w.T.Fatal("the handler did not get there")
		panic("unreachable")
	}
}
