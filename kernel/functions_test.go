package kernel_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// The ways in which a function does not do what it is for.
const (
	panicking = "panic"
	exiting   = "exit"
	nonsense  = "nonsense"
	blocking  = "block"
)

// A fault is what a function of the program's does while it is armed.
type fault struct {
	kind    string
	armed   atomic.Bool
	marks   atomic.Bool   // connections that begin now are those that it is for
	release chan struct{} // ends what blocks
	hits    atomic.Int64
}

// strike does it. It reports true if the function is to return nonsense.
func (f *fault) strike() bool {
	if !f.armed.Load() {
		return false
	}
	f.hits.Add(1)
	switch f.kind {
	case panicking:
		panic("secret")
	case exiting:
		runtime.Goexit()
	case blocking:
		<-f.release
	}
	return f.kind == nonsense
}

// badError is an error that can't say what it is.
type badError struct{}

func (badError) Error() string { panic("secret") }

// plight is a server with an honest client, and what a function is to spoil.
type plight struct {
	*testing.T
	f      *fault
	ctx    context.Context
	log    journal
	so     kernel.ServerOptions
	co     kernel.ClientOptions // of the client that meets the fault
	ln     net.Listener
	mem    *kerneltest.Listener
	srv    *kernel.Server
	good   *kernel.Client
	served chan error
	secure bool
}

// A function is one that a program can give.
type function struct {
	name  string // as errors or the log name it
	kinds string // what it can do; "" is all but nonsense
	set   func(p *plight)
	meet  func(p *plight) error // has it called; nil: a client connects
	block string                // what is named where it blocks; "-": nothing need be
}

func (p *plight) start() {
	if p.mem == nil {
		p.mem = kerneltest.Listen()
	}
	p.so.Limits.Handshake, p.so.Limits.Authenticate = 2*time.Second, time.Second
	if p.ln == nil {
		p.ln = p.mem
	}
	p.srv = must[*kernel.Server](p)(kernel.NewServer(&p.so))
	p.srv.Handle("echo", echo)
	p.served = make(chan error, 1)
	go func() { p.served <- p.srv.Serve(context.Background(), p.ln) }()
	p.good = p.client(kernel.ClientOptions{})
	p.honest(p.good, "before")
}

// client is one more client, with options that have no fault unless they say so.
func (p *plight) client(o kernel.ClientOptions) *kernel.Client {
	if o.Dial == nil {
		o.Dial = p.mem.Dial
	}
	o.Logger = p.log.Logger()
	o.Limits.Handshake, o.Limits.Authenticate = 2*time.Second, time.Second
	if p.secure && o.TLS == nil {
		_, o.TLS = clocked()
	}
	c := must[*kernel.Client](p)(kernel.NewClient(kerneltest.Target, &o))
	return c
}

func (p *plight) honest(c *kernel.Client, what string) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	m, err := c.Call(ctx, "echo", pool.Copy([]byte(what)), nil)
	if err != nil || string(m.Bytes()) != what {
		p.Errorf("an honest client, %s: %q, %v", what, m.Bytes(), err)
	}
	m.Release()
}

// connect has a client connect while the fault is armed, and returns its error.
func connect(p *plight) error {
	c := p.client(p.co)
	defer func() { ok(p, c.Close()) }()
	p.f.marks.Store(true)
	p.f.armed.Store(true)
	k, err := c.Conn(p.ctx)
	if err == nil {
		ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
		defer cancel()
		select {
		case <-k.Done():
			err = k.Err()
		case <-ctx.Done():
		}
	}
	return err
}

// use has a client connect, arms the fault, and has the client make a call.
func use(p *plight) error {
	p.f.marks.Store(true)
	c := p.client(p.co)
	defer func() { ok(p, c.Close()) }()
	if _, err := c.Conn(p.ctx); err != nil {
		return fmt.Errorf("before the fault: %w", err)
	}
	synctest.Wait()
	p.f.armed.Store(true)
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	m, err := c.Call(ctx, "echo", pool.Copy([]byte("x")), nil)
	m.Release()
	return err
}

// open has a client open a stream while the fault is armed.
func open(method string) func(p *plight) error {
	return func(p *plight) error {
		p.f.armed.Store(true)
		ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
		defer cancel()
		s, err := p.good.Open(ctx, method, nil)
		if err != nil {
			return err
		}
		<-s.Done()
		return s.Err()
	}
}

// spoilt is a connection of the program's that has the fault in one method.
type spoilt struct {
	net.Conn
	f      *fault
	method string
}

func (c *spoilt) hit(method string) bool { return method == c.method && c.f.strike() }

func (c *spoilt) Read(p []byte) (int, error) {
	if c.hit("Read") {
		return len(p) + 1, nil
	}
	if c.hit("Read, nothing") {
		if c.f.hits.Load() > 1000 {
			return 0, errors.New("read in vain for ever")
		}
		return 0, nil
	}
	if c.hit("Read, error") {
		return 0, badError{}
	}
	return c.Conn.Read(p)
}

func (c *spoilt) Write(p []byte) (int, error) {
	if c.hit("Write") {
		if c.f.hits.Load() > 1000 {
			return 0, errors.New("written in vain for ever")
		}
		return len(p) - 1, nil
	}
	return c.Conn.Write(p)
}

func (c *spoilt) Close() error {
	if c.hit("Close") {
		return badError{}
	}
	return c.Conn.Close()
}

func (c *spoilt) RemoteAddr() net.Addr {
	if c.hit("RemoteAddr") {
		return nil
	}
	if c.hit("RemoteAddr, typed nil") {
		return (*net.TCPAddr)(nil)
	}
	if c.method == "String" || c.method == "Network" {
		return spoiltAddr{c.Conn.RemoteAddr(), c}
	}
	return c.Conn.RemoteAddr()
}

// spoiltAddr is an address of a type of the program's.
type spoiltAddr struct {
	net.Addr
	c *spoilt
}

func (a spoiltAddr) Network() string { a.c.hit("Network"); return a.Addr.Network() }
func (a spoiltAddr) String() string  { a.c.hit("String"); return a.Addr.String() }

func (c *spoilt) SetDeadline(t time.Time) error {
	if c.hit("SetDeadline") {
		return badError{}
	}
	return c.Conn.SetDeadline(t)
}

func (c *spoilt) SetWriteDeadline(t time.Time) error {
	if c.hit("SetWriteDeadline") {
		return badError{}
	}
	return c.Conn.SetWriteDeadline(t)
}

// spoiltListener is a listener of the program's.
type spoiltListener struct {
	*kerneltest.Listener
	f      *fault
	method string
}

func (l *spoiltListener) hit(method string) bool { return l.method == method && l.f.strike() }

func (l *spoiltListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	switch {
	case l.hit("Accept"):
		return nil, nil
	case l.hit("Accept, typed nil"):
		return (*net.TCPConn)(nil), nil
	case l.hit("Accept, error"):
		return nil, badError{}
	case err == nil && l.f.marks.Load() && l.method != "":
		nc = &spoilt{nc, l.f, l.method}
	}
	return nc, err
}

func (l *spoiltListener) Close() error {
	err := l.Listener.Close()
	if l.hit("listener's Close") {
		return badError{}
	}
	return err
}

func (l *spoiltListener) Addr() net.Addr {
	if l.hit("listener's Addr") {
		return nil
	}
	return l.Listener.Addr()
}

// listening has the server listen on a listener that has the fault, or whose connections
// have it.
func listening(method string) func(p *plight) {
	return func(p *plight) {
		p.mem = kerneltest.Listen()
		p.ln = &spoiltListener{p.mem, p.f, method}
	}
}

// dialled has the client use connections that have the fault.
func dialled(method string) func(p *plight) {
	return func(p *plight) {
		p.co.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := p.mem.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &spoilt{nc, p.f, method}, nil
		}
	}
}

// spoiltProtocol is a protocol of the program's.
type spoiltProtocol struct {
	native.Protocol
	f      *fault
	method string
}

func (p spoiltProtocol) hit(method string) bool { return method == p.method && p.f.strike() }

func (p spoiltProtocol) Detect(first []byte) frame.Verdict {
	if p.hit("Detect") {
		return frame.Verdict(77)
	}
	return p.Protocol.Detect(first)
}

func (p spoiltProtocol) Handshake(ctx context.Context, rw io.ReadWriter, g *frame.Greeting) (frame.Session, error) {
	if p.hit("Handshake") {
		return nil, nil
	}
	if p.hit("Handshake, typed nil") {
		return (*spoiltSession)(nil), nil
	}
	if p.hit("Handshake, error") {
		return nil, badError{}
	}
	s, err := p.Protocol.Handshake(ctx, rw, g)
	if err == nil && p.f.marks.Load() {
		s = &spoiltSession{s, p}
	}
	return s, err
}

type spoiltSession struct {
	frame.Session
	p spoiltProtocol
}

func (s *spoiltSession) Next(p []byte, f *frame.Frame) (int, error) {
	if s.p.hit("Next") {
		return 0, badError{}
	}
	return s.Session.Next(p, f)
}

func (s *spoiltSession) Buffered() int { s.p.hit("Buffered"); return s.Session.Buffered() }

func (s *spoiltSession) Messages(o *frame.Out, id uint64, run pool.Queue) {
	s.p.hit("Messages")
	s.Session.Messages(o, id, run)
}

func (s *spoiltSession) Control(o *frame.Out, f *frame.Frame) {
	s.p.hit("Control")
	s.Session.Control(o, f)
}

func (s *spoiltSession) Flush(o *frame.Out)        { s.p.hit("Flush"); s.Session.Flush(o) }
func (s *spoiltSession) Event(f *frame.Frame) bool { s.p.hit("Event"); return s.Session.Event(f) }
func (s *spoiltSession) Wake() time.Time           { s.p.hit("Wake"); return s.Session.Wake() }
func (s *spoiltSession) Closed()                   { s.p.hit("Closed"); s.Session.Closed() }

func speaking(method string) func(p *plight) {
	return func(p *plight) { p.so.Protocols = []frame.Protocol{spoiltProtocol{f: p.f, method: method}} }
}

// calling has the client speak a protocol that has the fault.
func calling(method string) func(p *plight) {
	return func(p *plight) { p.co.Protocols = []frame.Protocol{spoiltProtocol{f: p.f, method: method}} }
}

// spoiltLog is a slog.Handler of the program's.
type spoiltLog struct {
	f      *fault
	method string
}

func (l *spoiltLog) hit(method string) { _ = method == l.method && l.f.strike() }

func (l *spoiltLog) Enabled(context.Context, slog.Level) bool  { l.hit("Enabled"); return true }
func (l *spoiltLog) Handle(context.Context, slog.Record) error { l.hit("Handle"); return nil }
func (l *spoiltLog) WithAttrs([]slog.Attr) slog.Handler        { return l }
func (l *spoiltLog) WithGroup(string) slog.Handler             { return l }

func logging(method string) func(p *plight) {
	return func(p *plight) {
		p.so.Logger = slog.New(&spoiltLog{p.f, method})
		p.so.Handlers = &kernel.Handlers{}
		p.so.Handlers.Handle("panics", func(context.Context, *kernel.Stream) error { panic("to be logged") })
	}
}

// spoiltObserver is an Observer of the program's.
type spoiltObserver struct{ f *fault }

func (o spoiltObserver) ConnBegun(*kernel.Conn)                        { o.f.strike() }
func (o spoiltObserver) ConnEnded(*kernel.Conn, kernel.ConnInfo)       { o.f.strike() }
func (o spoiltObserver) StreamBegun(*kernel.Stream)                    { o.f.strike() }
func (o spoiltObserver) StreamEnded(*kernel.Stream, kernel.StreamInfo) { o.f.strike() }

// clocked returns the configurations of a server and a client. Their certificates may have
// been made outside of the bubble, whose clock is another.
func clocked() (srv, client *tls.Config) {
	srv, client = certificates()
	srv, client = srv.Clone(), client.Clone()
	at := srv.Certificates[0].Leaf.NotBefore.Add(time.Minute)
	srv.Time = func() time.Time { return at }
	client.Time = srv.Time
	client.ServerName = "127.0.0.1"
	return srv, client
}

// spoiltWriter is where TLS logs its keys.
type spoiltWriter struct{ f *fault }

func (w spoiltWriter) Write(p []byte) (int, error) { w.f.strike(); return len(p), nil }

// spoiltKey is a certificate's key that is elsewhere.
type spoiltKey struct {
	crypto.Signer
	f *fault
}

func (k spoiltKey) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	k.f.strike()
	return k.Signer.Sign(r, digest, o)
}

// spoiltCache keeps no sessions. What comes to it comes after the handshake, to who reads.
type spoiltCache struct{ f *fault }

func (c spoiltCache) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (c spoiltCache) Put(string, *tls.ClientSessionState)        { c.f.strike() }

// secured has both sides use TLS with a callback that has the fault.
func secured(set func(f *fault, srv, client *tls.Config)) func(p *plight) {
	return func(p *plight) {
		p.secure = true
		p.so.TLS, p.co.TLS = clocked()
		set(p.f, p.so.TLS, p.co.TLS)
	}
}

const all = panicking + exiting + nonsense + blocking

var functions = []function{
	{name: "tls.Config.GetCertificate", kinds: all, set: secured(func(f *fault, srv, _ *tls.Config) {
		own := srv.Certificates[0]
		srv.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if f.strike() {
				return &tls.Certificate{}, badError{}
			}
			return &own, nil
		}
		srv.Certificates = nil
	})},
	{name: "tls.Config.GetConfigForClient", kinds: all, set: secured(func(f *fault, srv, _ *tls.Config) {
		srv.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if f.strike() {
				return nil, badError{}
			}
			return nil, nil
		}
	})},
	{name: "tls.Config.VerifyConnection", kinds: all, set: secured(func(f *fault, srv, _ *tls.Config) {
		own := srv.Clone()
		own.NextProtos = []string{native.Protocol{}.Caps().ALPN}
		own.VerifyConnection = func(tls.ConnectionState) error {
			if f.strike() {
				return badError{}
			}
			return nil
		}
		srv.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return own, nil }
	})},
	{name: "tls.Config.VerifyPeerCertificate", kinds: all, set: secured(func(f *fault, srv, _ *tls.Config) {
		srv.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error {
			if f.strike() {
				return badError{}
			}
			return nil
		}
	})},
	{name: "tls.Config.KeyLogWriter", set: secured(func(f *fault, srv, _ *tls.Config) { srv.KeyLogWriter = spoiltWriter{f} })},
	{name: "handshake", set: secured(func(f *fault, srv, _ *tls.Config) {
		srv.Certificates[0].PrivateKey = spoiltKey{srv.Certificates[0].PrivateKey.(crypto.Signer), f}
	})},
	{name: "tls.Config.KeyLogWriter", set: secured(func(f *fault, _, client *tls.Config) { client.KeyLogWriter = spoiltWriter{f} })},
	{set: secured(func(f *fault, _, client *tls.Config) { client.ClientSessionCache = spoiltCache{f} }), block: "-"},
	{name: "handshake", set: secured(func(f *fault, srv, _ *tls.Config) {
		now := srv.Time
		srv.Time = func() time.Time { f.strike(); return now() }
	})},
	{name: "tls.Config.GetClientCertificate", kinds: all, set: secured(func(f *fault, _, client *tls.Config) {
		own := client.Certificates[0]
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if f.strike() {
				return nil, nil
			}
			return &own, nil
		}
	})},
	{name: "tls.Config.VerifyConnection", kinds: all, set: secured(func(f *fault, _, client *tls.Config) {
		client.VerifyConnection = func(tls.ConnectionState) error {
			if f.strike() {
				return badError{}
			}
			return nil
		}
	})},

	{name: "ClientOptions.Dial", kinds: all, set: func(p *plight) {
		p.co.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if p.f.strike() {
				return nil, nil
			}
			return p.mem.Dial(ctx, network, addr)
		}
	}},
	{name: "ClientOptions.Dial", kinds: nonsense, set: func(p *plight) {
		p.co.Dial = func(context.Context, string, string) (net.Conn, error) {
			p.f.strike()
			return (*net.TCPConn)(nil), nil
		}
	}},
	{name: "ClientOptions.Dial", kinds: nonsense, set: func(p *plight) {
		p.co.Dial = func(context.Context, string, string) (net.Conn, error) {
			p.f.strike()
			return nil, badError{}
		}
	}},

	{name: "net.Conn.Read", kinds: all, set: listening("Read"), block: "handshake"},
	{name: "net.Conn.Read", kinds: nonsense, set: listening("Read, nothing")},
	{name: "net.Conn.Read", kinds: nonsense, set: listening("Read, error")},
	{name: "net.Conn.Write", kinds: all, set: listening("Write"), block: "handshake"},
	{name: "net.Conn.SetDeadline", kinds: all, set: listening("SetDeadline"), block: "handshake"},
	{name: "net.Conn.RemoteAddr", kinds: panicking + exiting + blocking, set: listening("RemoteAddr"), block: "handshake"},
	{name: "net.Conn.RemoteAddr", kinds: panicking + exiting + blocking, set: listening("String"), block: "handshake"},
	{name: "unknown", kinds: nonsense, set: listening("RemoteAddr"), meet: badHello},
	{name: "unknown", kinds: nonsense, set: listening("RemoteAddr, typed nil"), meet: badHello},
	{name: "net.Conn.Close", kinds: all, set: listening("Close"), meet: badHello, block: "-"},
	{name: "net.Conn.Read", kinds: all, set: dialled("Read"), block: "handshake"},
	{name: "net.Conn.Write", kinds: all, set: dialled("Write"), block: "handshake"},
	{name: "net.Conn.RemoteAddr", kinds: panicking + exiting, set: dialled("RemoteAddr"), block: "handshake"},

	{name: "net.Conn.Read", kinds: all, set: listening("Read"), meet: use, block: "-"},
	{name: "net.Conn.Read", kinds: nonsense, set: listening("Read, nothing"), meet: use},
	{name: "net.Conn.Read", kinds: nonsense, set: listening("Read, error"), meet: use},
	{name: "net.Conn.Write", kinds: all, set: listening("Write"), meet: use, block: "-"},
	{name: "net.Conn.SetWriteDeadline", kinds: all, set: listening("SetWriteDeadline"), meet: use, block: "-"},
	{name: "net.Conn.Close", kinds: all, set: listening("Close"), meet: use, block: "-"},
	{name: "net.Conn.Read", kinds: all, set: dialled("Read"), meet: use, block: "-"},
	{name: "net.Conn.Write", kinds: all, set: dialled("Write"), meet: use, block: "-"},
	{name: "net.Conn.Close", kinds: all, set: dialled("Close"), meet: use, block: "-"},
	{kinds: nonsense, set: dialled("RemoteAddr")},

	{name: "net.Listener.Accept", kinds: panicking + exiting + nonsense, set: listening("Accept"), meet: accepting},
	{name: "net.Listener.Accept", kinds: nonsense, set: listening("Accept, typed nil"), meet: accepting},
	{name: "net.Listener.Accept", kinds: nonsense, set: listening("Accept, error"), meet: accepting},
	{name: "net.Listener.Addr", kinds: panicking + exiting + blocking, set: listening("listener's Addr"), meet: closing, block: "-"},
	{name: "unknown", kinds: nonsense, set: listening("listener's Addr"), meet: closing},
	{name: "net.Listener.Close", kinds: all, set: listening("listener's Close"), meet: shutting, block: "-"},

	{name: "Authenticate", kinds: all, set: func(p *plight) {
		p.so.Authenticate = func(context.Context, kernel.Peer) (kernel.Identity, error) {
			if p.f.strike() {
				return nil, badError{}
			}
			return nil, nil
		}
	}},
	{name: "Authenticate", kinds: nonsense, set: func(p *plight) {
		p.so.Authenticate = func(context.Context, kernel.Peer) (kernel.Identity, error) {
			var none *status.HandlerError
			if p.f.strike() {
				return nil, none
			}
			return nil, nil
		}
	}},
	{name: "Authorize", kinds: all, set: func(p *plight) {
		p.so.Handlers = &kernel.Handlers{}
		p.so.Handlers.Handle("spoilt", func(context.Context, *kernel.Stream) error { return nil })
		p.so.Authorize = func(_ context.Context, _ kernel.Identity, method string, _ metadata.MD) error {
			if method == "spoilt" && p.f.strike() {
				return badError{}
			}
			return nil
		}
	}, meet: open("spoilt"), block: "authorization"},
	{name: "OnConn", set: func(p *plight) {
		p.so.OnConn = func(*kernel.Conn) { p.f.strike() }
	}, block: "-"},
	{name: "Observer", set: func(p *plight) { p.so.Observer = spoiltObserver{p.f} }, meet: use, block: "-"},
	{name: "spoilt", kinds: all, set: handling(func(f *fault) error {
		if f.strike() {
			return badError{}
		}
		return nil
	}), meet: open("spoilt"), block: "-"},
	{name: "spoilt", kinds: nonsense, set: handling(func(f *fault) error {
		var none *status.HandlerError
		f.strike()
		return none
	}), meet: open("spoilt")},
	{name: "spoilt", set: func(p *plight) {
		p.so.Handlers = &kernel.Handlers{}
		p.so.Handlers.HandleOffer("spoilt", func(context.Context, *kernel.Offer) error { p.f.strike(); return nil })
	}, meet: open("spoilt"), block: "-"},
	{name: "spoilt", set: func(p *plight) {
		p.so.Handlers = &kernel.Handlers{}
		p.so.Handlers.Handle("spoilt", func(context.Context, *kernel.Stream) error { return nil })
		p.so.Handlers.Use(func(next kernel.Handler) kernel.Handler {
			return func(ctx context.Context, s *kernel.Stream) error {
				if s.Method() == "spoilt" {
					p.f.strike()
				}
				return next(ctx, s)
			}
		})
	}, meet: open("spoilt"), block: "-"},
	{set: logging("Handle"), meet: panics, block: "-"},
	{set: logging("Enabled"), meet: panics, block: "-"},

	{name: "handshake", kinds: panicking + exiting + blocking, set: speaking("Detect")},
	{name: "handshake", kinds: nonsense, set: speaking("Detect")},
	{name: "handshake", set: speaking("Handshake")},
	{name: "frame.Protocol.Handshake", kinds: nonsense, set: speaking("Handshake")},
	{name: "frame.Protocol.Handshake", kinds: nonsense, set: speaking("Handshake, typed nil")},
	{name: "frame.Protocol.Handshake", kinds: nonsense, set: calling("Handshake, typed nil")},
	{name: "handshake", kinds: nonsense, set: speaking("Handshake, error")},
	{name: "frame.Session", set: speaking("Next"), meet: use, block: "-"},
	{name: "frame.Session", set: speaking("Buffered"), meet: use, block: "-"},
	{name: "frame.Session", set: speaking("Messages"), meet: use, block: "-"},
	{name: "frame.Session", set: speaking("Control"), meet: use, block: "-"},
	{name: "frame.Session", set: speaking("Flush"), meet: use, block: "-"},
	{name: "frame.Session", set: speaking("Event"), meet: use, block: "-"},
	{name: "frame.Session", set: speaking("Wake"), meet: use, block: "-"},
	{name: "spoilt", set: func(p *plight) {
		p.so.Handlers = &kernel.Handlers{}
		p.so.Handlers.UseOffer(func(next kernel.OfferHandler) kernel.OfferHandler {
			return func(ctx context.Context, o *kernel.Offer) error {
				if o.Method() == "spoilt" {
					p.f.strike()
				}
				return next(ctx, o)
			}
		})
		p.so.Handlers.HandleOffer("spoilt", func(context.Context, *kernel.Offer) error { return nil })
	}, meet: open("spoilt"), block: "-"},
	{name: "frame.Session.Closed", set: speaking("Closed"), meet: use, block: "-"},
}

func handling(f func(*fault) error) func(p *plight) {
	return func(p *plight) {
		p.so.Handlers = &kernel.Handlers{}
		p.so.Handlers.Handle("spoilt", func(context.Context, *kernel.Stream) error { return f(p.f) })
	}
}

// badHello has a client connect and say what no protocol begins with.
func badHello(p *plight) error {
	p.f.marks.Store(true)
	p.f.armed.Store(true)
	nc, err := p.mem.Dial(p.ctx, "", "")
	if err != nil {
		return err
	}
	ok(p, nc.SetDeadline(time.Now().Add(5*time.Second)))
	_, _ = nc.Write([]byte("this is no protocol that anybody speaks"))
	_, _ = io.Copy(io.Discard, nc)
	return nc.Close()
}

// accepting has one more connection accepted, and returns Serve's error.
func accepting(p *plight) error {
	p.f.armed.Store(true)
	nc, err := p.mem.Dial(p.ctx, "", "")
	if err != nil {
		return err
	}
	err = <-p.served
	p.f.armed.Store(false)
	ok(p, nc.Close())
	p.mem = kerneltest.Listen() // the server goes on with another
	go func() { p.served <- p.srv.Serve(context.Background(), p.mem) }()
	return err
}

// closing has the program close the listener under Serve.
func closing(p *plight) error {
	p.f.armed.Store(true)
	ok(p, p.mem.Close())
	err := <-p.served
	p.f.armed.Store(false)
	p.mem = kerneltest.Listen()
	go func() { p.served <- p.srv.Serve(context.Background(), p.mem) }()
	return err
}

// shutting has the server drained, with a listener that does not close as it should. What
// follows needs a server that goes on: another one.
func shutting(p *plight) error {
	p.f.armed.Store(true)
	start := time.Now()
	_ = p.srv.Shutdown(p.ctx)
	if d := time.Since(start); d > time.Second {
		p.Errorf("Shutdown has taken %v", d)
	}
	if err := <-p.served; !errors.Is(err, kernel.ErrServerClosed) {
		p.Errorf("Serve has returned %v", err)
	}
	p.f.armed.Store(false)
	ok(p, p.good.Close())
	p.so.Handlers, p.ln, p.mem = nil, nil, nil
	p.start()
	return nil
}

// panics has a handler panic, which is to be logged, and its client told.
func panics(p *plight) error {
	err := open("panics")(p)
	isErr(p, "the client is told", err, &status.StreamError{Code: status.Internal})
	return err
}

// keptLog is a spoiltLog that counts the records that it has handled.
type keptLog struct {
	spoiltLog
	kept atomic.Int64
}

func (l *keptLog) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *keptLog) WithGroup(string) slog.Handler      { return l }
func (l *keptLog) Handle(ctx context.Context, r slog.Record) error {
	err := l.spoiltLog.Handle(ctx, r)
	l.kept.Add(1)
	return err
}

// A log's handler that fails with one record, or takes its time for it, is given the next one.
func TestALogGoesOnBehindARecordThatFails(t *testing.T) {
	for _, kind := range []string{panicking, exiting, blocking} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &plight{T: t, f: &fault{kind: kind, release: make(chan struct{})}, ctx: context.Background()}
				logging("Handle")(p)
				log := &keptLog{spoiltLog: spoiltLog{p.f, "Handle"}}
				p.so.Logger = slog.New(log)
				p.start()
				_ = panics(p)
				synctest.Wait()
				before := log.kept.Load() // none, or one that is late
				p.f.armed.Store(false)
				ctx, cancel := context.WithTimeout(p.ctx, time.Second)
				defer cancel()
				<-must[*kernel.Stream](t)(p.good.Open(ctx, "panics", nil)).Done()
				time.Sleep(time.Second)
				close(p.f.release)
				synctest.Wait()
				want := before + 1
				if kind == blocking {
					want++
				}
				if n := log.kept.Load(); n != want {
					t.Errorf("%d records were kept, want %d", n, want)
				}
				ok(t, p.good.Close())
				ok(t, p.srv.Close())
				<-p.served
			})
		})
	}
}

// Whatever a function of the program's does, the process lives, other connections go on, an
// error or the log names it, and no goroutine is left when it has returned: the bubble waits
// for all.
func TestNoFunctionOfTheProgramsHarmsOthers(t *testing.T) {
	certificates() // outside of the bubble, for other tests
	for _, fn := range functions {
		kinds := fn.kinds
		if kinds == "" {
			kinds = panicking + exiting + blocking
		}
		for _, kind := range []string{panicking, exiting, nonsense, blocking} {
			if !strings.Contains(kinds, kind) {
				continue
			}
			t.Run(fn.name+"/"+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { fn.test(t, kind) })
			})
		}
	}
}

func (fn *function) test(t *testing.T, kind string) {
	p := &plight{T: t, f: &fault{kind: kind, release: make(chan struct{})}, ctx: context.Background()}
	p.so.Logger = p.log.Logger()
	fn.set(p)
	p.start()
	meet := fn.meet
	if meet == nil {
		meet = connect
	}
	start := time.Now()
	err := meet(p)
	p.honest(p.good, "meanwhile")
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("all waited for %v", d)
	}
	name := fn.name
	if kind == blocking && fn.block != "" {
		name = strings.TrimPrefix(fn.block, "-")
	}
	synctest.Wait()
	if p.f.hits.Load() == 0 {
		t.Error("the function was not called")
	}
	said := p.log.String()
	if err != nil {
		said += "\n" + err.Error()
	}
	if !strings.Contains(said, name) {
		t.Errorf("nothing names %q: %v; logged: %s", name, err, &p.log)
	}
	if what := name + " called runtime.Goexit"; kind == exiting && strings.HasPrefix(name, "net.Conn.") && fn.meet == nil && !strings.Contains(said, what) {
		t.Errorf("nothing says %q: %v; logged: %s", what, err, &p.log)
	}
	logged := strings.Count(p.log.String(), "hook panicked") - strings.Count(p.log.String(), "hook=handshake ") // which a method has ended
	if strings.HasPrefix(name, "net.Conn.") && kind != nonsense && int64(logged) != p.f.hits.Load() {
		t.Errorf("called %d times, logged %d times: %s", p.f.hits.Load(), logged, &p.log)
	}
	p.f.armed.Store(false)
	close(p.f.release)
	p.f.marks.Store(false)
	after := p.client(kernel.ClientOptions{})
	p.honest(after, "after")
	ok(t, after.Close())
	ok(t, p.good.Close())
	ok(t, p.srv.Close())
	if err := <-p.served; !errors.Is(err, kernel.ErrServerClosed) {
		t.Errorf("Serve has returned %v", err)
	}
}

// onceError is an error that says only once what it is.
type onceError struct{ asked atomic.Bool }

func (e *onceError) Error() string {
	if e.asked.Swap(true) {
		panic("secret")
	}
	return "said once"
}

// Of an error of Authenticate's the text is kept: nobody asks for it again.
func TestAnErrorOfAuthenticateIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plight{T: t, f: &fault{}, ctx: context.Background()}
		p.so.Logger = p.log.Logger()
		var no atomic.Bool
		p.so.Authenticate = func(context.Context, kernel.Peer) (kernel.Identity, error) {
			if no.Load() {
				return nil, &onceError{}
			}
			return nil, nil
		}
		p.start()
		no.Store(true)
		isErr(t, "the client is told", connect(p), &status.ConnError{Code: status.Unauthenticated})
		synctest.Wait()
		if n := p.srv.Stats().Panics; n != 0 || !strings.Contains(p.log.String(), "said once") {
			t.Errorf("%d panics; logged: %s", n, &p.log)
		}
		ok(t, p.good.Close())
		ok(t, p.srv.Close())
		<-p.served
	})
}

// spoiltContext is a context of the program's.
type spoiltContext struct {
	context.Context
	f      *fault
	method string
}

func (c *spoiltContext) hit(method string) {
	if method == c.method {
		c.f.strike()
	}
}

func (c *spoiltContext) Done() <-chan struct{} { c.hit("Done"); return c.Context.Done() }
func (c *spoiltContext) Err() error {
	if c.hit("Err"); c.method == "no error" {
		return nil
	}
	return c.Context.Err()
}
func (c *spoiltContext) Value(key any) any { c.hit("Value"); return nil }
func (c *spoiltContext) Deadline() (time.Time, bool) {
	c.hit("Deadline")
	return c.Context.Deadline()
}
func (c *spoiltContext) AfterFunc(f func()) func() bool {
	c.hit("AfterFunc")
	return context.AfterFunc(c.Context, f)
}

// with calls f with m, and releases it if f has not handed it over, also if f panics.
func with(m pool.Message, f func(pool.Message)) {
	defer func() {
		if pool.IsLive(m) {
			m.Release()
		}
	}()
	f(m)
}

// receive receives a message, and releases it.
func receive(s *kernel.Stream, ctx context.Context) error {
	m, err := s.Receive(ctx)
	m.Release()
	return err
}

// alone runs f, which may panic or end its goroutine, as a goroutine of the program's may that
// recovers.
func alone(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		f()
	}()
	<-done
}

// A context whose methods panic, or do not return, does so to the goroutine of the program's that
// has called with it. Where a goroutine of the library's asks it, it has ended. The stream's
// neighbours on the connection go on, whoever ends the stream.
func TestContextsOfTheProgramsHarmTheirOwnStreamAlone(t *testing.T) {
	for _, method := range []string{"Done", "Err", "Value", "Deadline", "AfterFunc", "no error"} {
		for _, kind := range []string{panicking, exiting, blocking} {
			for _, end := range []string{"cancel", "peer"} {
				t.Run(method+"/"+kind+"/"+end, func(t *testing.T) {
					inBubble(t, nil, nil, func(t *testing.T, w *world) { spoiltLife(t, w, method, kind, end == "peer") })
				})
			}
		}
	}
}

// spoiltLife opens a stream with a context that has a fault, uses it in each way, and ends it by
// the context, or has the peer end it.
func spoiltLife(t *testing.T, w *world, method, kind string, byPeer bool) {
	w.Srv.Handle("echo", echo)
	end := make(chan struct{})
	w.Srv.Handle("ended", func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		if err := s.Send(ctx, m); err != nil {
			m.Release()
			return err
		}
		select {
		case <-end:
		case <-ctx.Done():
		}
		return errors.New("the peer's end")
	})
	parent, cancel := context.WithCancel(t.Context())
	defer cancel()
	ctx := &spoiltContext{parent, &fault{kind: kind, release: make(chan struct{})}, method}
	neighbour := w.Open("echo")
	s, err := w.Client.Open(ctx, "ended", nil)
	ok(t, err)
	w.Send(s, "x")
	w.Want(s, "x")
	ctx.f.armed.Store(true)
	for _, f := range []func(){
		func() { with(text("y"), func(m pool.Message) { _ = s.Send(ctx, m) }) },
		func() { receive(s, ctx) },
		func() { _ = s.Context().Value(4711) },
		func() {
			if s, err := w.Client.Open(ctx, "echo", nil); err == nil {
				s.Abort(status.Cancelled, "")
			}
		},
		func() {
			with(text("z"), func(m pool.Message) {
				if r, err := w.Client.Call(ctx, "echo", m, nil); err == nil {
					r.Release()
				}
			})
		},
		func() { _, _, _ = s.Accepted(ctx) },
	} {
		go alone(f)
		synctest.Wait()
	}
	if byPeer {
		close(end)
	} else {
		cancel()
	}
	synctest.Wait()
	go alone(func() { _ = s.CloseSend() })
	go alone(func() { _ = s.Close(ctx) })
	synctest.Wait()
	w.Send(neighbour, "on")
	w.Want(neighbour, "on")
	ok(t, neighbour.Close(w.Ctx))
	ctx.f.armed.Store(false)
	close(ctx.f.release)
	cancel()
	if <-s.Done(); s.Err() == nil {
		t.Error("the stream has ended in order")
	}
	for receive(s, w.Ctx) == nil {
	}
}

// An error of the program's that panics when it is asked is still one: as the cause of a context,
// and as what Dial returns.
func TestErrorsOfTheProgramsThatPanic(t *testing.T) {
	t.Run("cause", func(t *testing.T) {
		inBubble(t, nil, nil, func(t *testing.T, w *world) {
			w.Srv.Handle("echo", echo)
			ctx, cancel := context.WithCancelCause(t.Context())
			s, err := w.Client.Open(ctx, "echo", nil)
			ok(t, err)
			cancel(badError{})
			if <-s.Done(); !errors.Is(s.Err(), &status.StreamError{Code: status.Cancelled}) {
				t.Error(s.Err())
			}
			_ = s.Err().Error()
			drain(s)
		})
	})
	t.Run("As", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := must[*kernel.Client](t)(kernel.NewClient(kerneltest.Target, quietClient(&kernel.ClientOptions{
				Dial: func(context.Context, string, string) (net.Conn, error) { return nil, badAs{} },
			})))
			if _, err := c.Conn(t.Context()); err == nil || !strings.Contains(err.Error(), "ClientOptions.Dial panicked") {
				t.Error(err)
			}
			ok(t, c.Close())
		})
	})
}

// badAs is an error that can't be asked for another.
type badAs struct{}

func (badAs) Error() string { return "bad" }
func (badAs) As(any) bool   { panic("secret") }

// What a program does in a loop over an iterator, or in a function that is called for each,
// does not stay behind in a lock.
func TestLoopBodiesThatPanic(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		s := w.Open("echo")
		for _, f := range []func(){func() { panic("secret") }, runtime.Goexit} {
			w.Send(s, "one")
			alone(func() {
				for m := range s.All(w.Ctx) {
					m.Release()
					f()
				}
			})
			c := s.Conn()
			alone(func() {
				for range c.EachStream {
					f()
				}
			})
			w.Send(s, "two")
			alone(func() { c.Trace(w.Ctx, func(conn.FrameInfo) { f() }) })
			w.Want(s, "two")
			w.Send(s, "three")
			w.Want(s, "three")
		}
		ok(t, s.Close(w.Ctx))
	})
}

// Over TCP, where connections share event loops: a protocol of the program's that waits, or
// ends its goroutine, while it reads does not hold up the connections of others.
func TestAProtocolOfTheProgramsOnEventLoops(t *testing.T) {
	for _, kind := range []string{panicking, exiting, blocking} {
		for _, method := range []string{"Next", "Control", "Messages", "Flush"} {
			t.Run(method+"/"+kind, func(t *testing.T) {
				f := &fault{kind: kind, release: make(chan struct{})}
				start := func(o *kernel.ServerOptions) (*kernel.Server, string, chan error) {
					srv := must[*kernel.Server](t)(kernel.NewServer(quietServer(o)))
					srv.Handle("echo", echo)
					ln, served := listen(t), make(chan error, 1)
					go func() { served <- srv.Serve(context.Background(), ln) }()
					return srv, ln.Addr().String(), served
				}
				honest, addr, served := start(nil)
				good := must[*kernel.Client](t)(kernel.NewClient(addr, quietClient(nil)))
				spoilt, addr, spoiltServed := start(&kernel.ServerOptions{Protocols: []frame.Protocol{spoiltProtocol{f: f, method: method}}})
				var clients []*kernel.Client
				f.marks.Store(true)
				for range 4 { // enough for each loop
					c := must[*kernel.Client](t)(kernel.NewClient(addr, quietClient(nil)))
					clients = append(clients, c)
					_, err := c.Conn(t.Context())
					ok(t, err)
				}
				f.armed.Store(true)
				for _, c := range clients {
					ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
					_, err := c.Call(ctx, "echo", text("x"), nil)
					cancel()
					if err == nil {
						t.Error("the call has succeeded")
					}
				}
				for range 4 {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					m, err := good.Call(ctx, "echo", text("on"), nil)
					cancel()
					ok(t, err)
					m.Release()
				}
				f.armed.Store(false)
				close(f.release)
				for _, c := range clients {
					ok(t, c.Close())
				}
				ok(t, spoilt.Close())
				<-spoiltServed
				ok(t, good.Close())
				ok(t, honest.Close())
				<-served
			})
		}
	}
}
