package kernel_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience is how long a test over real sockets may take, and how long what
// follows a test may need to settle.
const patience = time.Minute

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

// A starter connects a server and a client by one transport.
type starter func(testing.TB, *kernel.ServerOptions, *kernel.ClientOptions) (*kernel.Server, *kernel.Client)

// transports is the one suite's list: event loops, any net.Conn, TLS with
// certificates on both sides, memory.
var transports = []struct {
	name  string
	start starter
}{{"loops", loops}, {"netconn", netConn}, {"tls", mutualTLS}, {"pipe", kerneltest.Start}}

// overAll runs f over every transport, and over every foreign protocol that can
// carry it.
func overAll(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions, f func(t *testing.T, w *world)) {
	t.Helper()
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			f(t, newWorld(t, tr.start, so, co))
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

func quietServer(o *kernel.ServerOptions) *kernel.ServerOptions {
	var r kernel.ServerOptions
	if o != nil {
		r = *o
	}
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	return &r
}

func quietClient(o *kernel.ClientOptions) *kernel.ClientOptions {
	var r kernel.ClientOptions
	if o != nil {
		r = *o
	}
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	if r.Backoff == (kernel.Backoff{}) { // connections are lost on purpose, again and again
		r.Backoff = kernel.Backoff{First: time.Millisecond, Most: 10 * time.Millisecond}
	}
	return &r
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
			if b := c.Balance(); b.Streams != 0 || b.Queued != 0 || b.Assembled != 0 || b.Given != 0 || b.Brought != 0 || b.Credit != b.Window {
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

func eventually(t testing.TB, what string, cond func() bool, detail ...func() string) {
	t.Helper()
	for end := time.Now().Add(patience / 2); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			for _, d := range detail {
				what += ": " + d()
			}
			t.Fatalf("gave up waiting for %s", what)
		}
	}
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

// drain releases what a stream that is over still holds.
func drain(s *kernel.Stream) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		m, err := s.Receive(ctx)
		if err != nil {
			return
		}
		m.Release()
	}
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

func text(format string, args ...any) kernel.Message {
	return kernel.CopyMessage(fmt.Appendf(nil, format, args...))
}

func sized(n int, fill byte) kernel.Message {
	m := kernel.NewMessage(n)
	copy(m.Bytes(), bytes.Repeat([]byte{fill}, n))
	return m
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

func wantCode(t testing.TB, err error, c kernel.Code) *kernel.StreamError {
	t.Helper()
	var se *kernel.StreamError
	if !errors.As(err, &se) || se.Code != c {
		t.Fatalf("got %v, want a StreamError of code %v", err, c)
	}
	return se
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

func wantClosed[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	select {
	case v, ok := <-c:
		if ok {
			t.Fatalf("%s gave %v, want it closed", what, v)
		}
	case <-time.After(patience):
		t.Fatalf("%s was not closed", what)
	}
}

func wantOpen[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	select {
	case v, ok := <-c:
		t.Fatalf("%s gave %v, %v", what, v, ok)
	default:
	}
}

func echo(ctx context.Context, s *kernel.Stream) error {
	for m, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		if err := s.Send(ctx, m); err != nil {
			m.Release()
			return err
		}
	}
	return nil
}

// serve starts srv on ln and has both sides gone when the test is.
func serve(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions, ln net.Listener) (*kernel.Server, *kernel.Client) {
	t.Helper()
	srv, err := kernel.NewServer(so)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		if err := <-served; !errors.Is(err, kernel.ErrServerClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, err := kernel.Dial(ctx, ln.Addr().String(), co)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return srv, client
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// loops is plain TCP: both sides are on event loops.
func loops(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
	t.Helper()
	return serve(t, so, co, listen(t))
}

// A plainListener and its connections hide what they are made of.
type (
	plainListener struct{ net.Listener }
	plainConn     struct{ net.Conn }
)

func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return plainConn{c}, nil
}

// netConn is a listener and a dialer of the program's own: no event loop can
// take their connections.
func netConn(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
	t.Helper()
	var o kernel.ClientOptions
	if co != nil {
		o = *co
	}
	o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return plainConn{c}, nil
	}
	return serve(t, so, &o, plainListener{listen(t)})
}

// mutualTLS is TLS with certificates on both sides.
func mutualTLS(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
	t.Helper()
	var s kernel.ServerOptions
	if so != nil {
		s = *so
	}
	var c kernel.ClientOptions
	if co != nil {
		c = *co
	}
	s.TLS, c.TLS = certificates()
	return serve(t, &s, &c, listen(t))
}

// certificates returns the configurations of a server and a client that know
// each other by an authority made for this run.
var certificates = sync.OnceValues(func() (srv, client *tls.Config) {
	authority, key := certificate("authority", nil, nil)
	roots := x509.NewCertPool()
	roots.AddCert(authority.Leaf)
	own, _ := certificate("server", authority.Leaf, key)
	theirs, _ := certificate("client", authority.Leaf, key)
	return &tls.Config{Certificates: []tls.Certificate{own}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert},
		&tls.Config{Certificates: []tls.Certificate{theirs}, RootCAs: roots}
})

func certificate(name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (tls.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: parent == nil,
	}
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, key
}

// A journal keeps what is logged.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

func decimal(i int) string { return strconv.Itoa(i) }
