package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

func TestMain(m *testing.M) { leak.Main(m) }

const (
	patience    = testkit.Patience
	raceEnabled = testkit.RaceEnabled
)

type (
	starter   = testkit.Starter
	journal   = testkit.Journal
	plainConn = testkit.PlainConn
)

var (
	loops        = testkit.Loops
	certificates = testkit.Certificates
	certificate  = testkit.Certificate
	serve        = testkit.Serve
	listen       = testkit.Listen
	quietServer  = testkit.QuietServer
	quietClient  = testkit.QuietClient
	eventually   = testkit.Eventually
	wantCode     = testkit.WantCode
	text         = testkit.Text
	sized        = testkit.Sized
	echo         = testkit.Echo
	drain        = testkit.Drain
	ok           = testkit.OK
	isErr        = testkit.IsErr
)

// A world is a server and a client that are connected.
type world struct {
	t      testing.TB
	srv    *kernel.Server
	client *kernel.Client
	ctx    context.Context
	offers <-chan *kernel.Offer
	loose  bool // streams may be left open
	bubble bool
	caps   frame.Caps // of the client's first connection
	other  *foreign   // the protocol, where it is not sluice's own
}

// overAll runs f over every transport, and over every foreign protocol that can
// carry it.
func overAll(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions, f func(t *testing.T, w *world)) {
	t.Helper()
	for _, tr := range testkit.Transports {
		t.Run(tr.Name, func(t *testing.T) {
			f(t, newWorld(t, tr.Start, so, co))
		})
	}
	for _, p := range foreigns {
		if p.lacks(t.Name()) {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			f(t, newWorld(t, p.start, so, co))
		})
	}
}

// inBubble runs f in memory, where time stands still until everybody waits.
func inBubble(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, kerneltest.Start, so, co)
		w.bubble = true
		w.ctx = context.Background() // a bubble tells by itself that nothing will happen any more
		f(t, w)
	})
}

func newWorld(t testing.TB, start starter, so *kernel.ServerOptions, co *kernel.ClientOptions) *world {
	t.Helper()
	messages := pool.Outstanding()
	t.Cleanup(func() {
		// Messages on their way when the connection was cut are let go last.
		for end := time.Now().Add(patience / 2); pool.Outstanding() > messages && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if n := pool.Outstanding() - messages; n > 0 {
			t.Errorf("%d messages were never released", n)
		}
	})
	srv, client := start(t, quietServer(so), quietClient(co))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w := &world{t: t, srv: srv, client: client, ctx: ctx}
	w.learn()
	t.Cleanup(func() {
		if !t.Failed() && !w.loose {
			w.settle()
		}
		cancel()
	})
	return w
}

// settle checks, when a test's streams are over, that on both sides no stream
// is left and all credit is back where it came from.
func (w *world) settle() {
	w.t.Helper()
	bad := ""
	w.eventually("the connections to settle", func() bool {
		bad = w.owed()
		return bad == ""
	}, func() string { return bad })
}

// owed says what is not settled.
func (w *world) owed() string {
	var bad []string
	for side, conns := range map[string][]*kernel.Conn{"client": w.client.Conns(), "server": w.srv.Conns()} {
		for _, c := range conns {
			if b := c.Snapshot(); b.Streams != 0 || b.Queued != 0 || b.Assembled != 0 || b.ExtraWindows != 0 || b.OpenBytes != 0 || b.SendGranted-b.SendUsed != b.SendWindow {
				bad = append(bad, fmt.Sprintf("%s: %+v", side, b))
			}
		}
	}
	return strings.Join(bad, "; ")
}

// eventually waits until cond holds. It is for what has no event to wait for.
func (w *world) eventually(what string, cond func() bool, detail ...func() string) {
	w.t.Helper()
	eventually(w.t, what, cond, detail...)
}

// pair opens a stream and accepts it, each side with its options.
func (w *world) pair(opener, acceptor kernel.StreamOptions) (a, b *kernel.Stream) {
	w.t.Helper()
	return w.pairIn(w.ctx, opener, acceptor)
}

// pairIn is pair with the context that bounds the life of the opener's stream.
func (w *world) pairIn(ctx context.Context, opener, acceptor kernel.StreamOptions) (a, b *kernel.Stream) {
	w.t.Helper()
	if w.offers == nil {
		w.offers = w.srv.Offers()
	}
	a, err := w.client.Open(ctx, "pair", &kernel.OpenOptions{Stream: opener})
	if err != nil {
		w.t.Fatal(err)
	}
	b, err = w.offer().Accept(kernel.Message{}, &acceptor)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, _, err := a.Accepted(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	w.cleanup(a, b)
	return a, b
}

// cleanup has the streams gone, and what they hold released, when the test is.
func (w *world) cleanup(ss ...*kernel.Stream) {
	w.t.Cleanup(func() {
		for _, s := range ss {
			s.Abort(kernel.CodeCancelled, "test over")
			drain(s)
		}
	})
}

func (w *world) offer() *kernel.Offer {
	w.t.Helper()
	if w.offers == nil {
		w.offers = w.srv.Offers()
	}
	select {
	case o := <-w.offers:
		return o
	case <-w.ctx.Done():
		w.t.Fatal("no offer came")
		return nil
	}
}

// quiesce waits until everything sent has been handed on: in a bubble exactly.
func (w *world) quiesce() {
	if w.bubble {
		synctest.Wait()
	}
}

func (w *world) send(s *kernel.Stream, format string, args ...any) {
	w.t.Helper()
	w.sendMessage(s, text(format, args...))
}

func (w *world) sendMessage(s *kernel.Stream, m kernel.Message) {
	w.t.Helper()
	if err := s.Send(w.ctx, m); err != nil {
		m.Release()
		w.t.Fatalf("send: %v", err)
	}
}

// want receives one message that must be exactly this.
func (w *world) want(s *kernel.Stream, format string, args ...any) {
	w.t.Helper()
	want := fmt.Sprintf(format, args...)
	m, err := s.Receive(w.ctx)
	if err != nil {
		w.t.Fatalf("receive: %v, want %q", err, want)
	}
	if got := string(m.Bytes()); got != want {
		w.t.Fatalf("received %q, want %q", got, want)
	}
	m.Release()
}

// wantEOF checks that the peer's half has ended in order.
func (w *world) wantEOF(s *kernel.Stream) {
	w.t.Helper()
	m, err := s.Receive(w.ctx)
	if !errors.Is(err, io.EOF) {
		m.Release()
		w.t.Fatalf("receive: %v (%d bytes), want io.EOF", err, m.Len())
	}
}

// wantErr receives and checks that there is an error of code c instead of a
// message.
func (w *world) wantErr(s *kernel.Stream, c kernel.Code) *kernel.StreamError {
	w.t.Helper()
	m, err := s.Receive(w.ctx)
	if err == nil {
		m.Release()
	}
	return wantCode(w.t, err, c)
}

// wantDone waits until s is over for good.
func (w *world) wantDone(s *kernel.Stream) {
	w.t.Helper()
	select {
	case <-s.Done():
	case <-w.ctx.Done():
		w.t.Fatalf("stream %s did not end", s.Method())
	}
}

func decimal(i int) string { return strconv.Itoa(i) }

// overNative runs f over every transport of sluice's own protocol.
func overNative(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions, f func(t *testing.T, w *world)) {
	t.Helper()
	for _, tr := range testkit.Transports {
		t.Run(tr.Name, func(t *testing.T) {
			f(t, newWorld(t, tr.Start, so, co))
		})
	}
}

// must is v, where nothing may go wrong.
func must[T any](t testing.TB) func(v T, err error) T { return testkit.Must[T](t) }

func wantClosed[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	testkit.WantClosed(t, what, c)
}

func wantOpen[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	testkit.WantOpen(t, what, c)
}
