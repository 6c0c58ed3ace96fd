package testkit

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// A Starter connects a server and a client by one transport.
type Starter func(testing.TB, *kernel.ServerOptions, *kernel.ClientOptions) (*kernel.Server, *kernel.Client)

// Transports is the one suite's list: event loops, any net.Conn, TLS with
// certificates on both sides, memory.
var Transports = []struct {
	Name  string
	Start Starter
}{{"loops", Loops}, {"netconn", NetConn}, {"tls", MutualTLS}, {"pipe", kerneltest.Start}}

// OrZero is *p, or the zero value if p is nil.
func OrZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// QuietServer is o with a logger that says nothing, unless it has one.
func QuietServer(o *kernel.ServerOptions) *kernel.ServerOptions {
	r := OrZero(o)
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	settled(&r.Limits)
	return &r
}

// settled keeps the connection's window from growing, as it may on a path that a busy machine
// makes look long: a window that is smaller again is not the one that Settle looks for.
func settled(l *kernel.Limits) {
	if l.MaxWindow == 0 && l.StreamWindow >= 0 && l.ConnWindow >= 0 {
		l.MaxWindow = max(cmp.Or(l.ConnWindow, 16<<20)/2, cmp.Or(l.StreamWindow, 1<<20))
	}
}

// QuietClient is o with a logger that says nothing and a short backoff, unless it has
// others.
func QuietClient(o *kernel.ClientOptions) *kernel.ClientOptions {
	r := OrZero(o)
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	if r.Backoff == (kernel.Backoff{}) { // connections are lost on purpose, again and again
		r.Backoff = kernel.Backoff{First: time.Millisecond, Most: 10 * time.Millisecond}
	}
	settled(&r.Limits)
	return &r
}

// Serve starts srv on ln and has both sides gone when the test is.
func Serve(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions, ln net.Listener) (*kernel.Server, *kernel.Client) {
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
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	client, err := kernel.Dial(ctx, ln.Addr().String(), co)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return srv, client
}

// Listen listens on a free port.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// Loops is plain TCP: both sides are on event loops.
func Loops(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
	t.Helper()
	return Serve(t, so, co, Listen(t))
}

// A PlainListener and its connections, PlainConns, hide what they are made of.
type (
	PlainListener struct{ net.Listener }
	PlainConn     struct{ net.Conn }
)

// Accept implements net.Listener.
func (l PlainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return PlainConn{c}, nil
}

// NetConn is a listener and a dialer of the program's own: no event loop can
// take their connections.
func NetConn(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
	t.Helper()
	o := OrZero(co)
	o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return PlainConn{c}, nil
	}
	return Serve(t, so, &o, PlainListener{Listen(t)})
}

// MutualTLS is TLS with certificates on both sides.
func MutualTLS(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
	t.Helper()
	s, c := OrZero(so), OrZero(co)
	s.TLS, c.TLS = Certificates()
	return Serve(t, &s, &c, Listen(t))
}

// Certificates returns the configurations of a server and a client that know
// each other by an authority made for this run.
var Certificates = sync.OnceValues(func() (srv, client *tls.Config) {
	authority, key := Certificate("authority", nil, nil)
	roots := x509.NewCertPool()
	roots.AddCert(authority.Leaf)
	own, _ := Certificate("server", authority.Leaf, key)
	theirs, _ := Certificate("client", authority.Leaf, key)
	return &tls.Config{Certificates: []tls.Certificate{own}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert},
		&tls.Config{Certificates: []tls.Certificate{theirs}, RootCAs: roots}
})

// Certificate makes a certificate that parent signs; nil: it signs itself.
func Certificate(name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (tls.Certificate, *ecdsa.PrivateKey) {
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
