package kernel

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math"
	"net"
	"slices"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
)

// ServerOptions configure a server. A nil pointer and the zero value are the defaults.
type ServerOptions struct {
	// TLS, if set, secures all connections. A zero MinVersion means TLS 1.3.
	TLS *tls.Config
	// Protocols are those that the server speaks. It tells them apart by ALPN under TLS,
	// and by a connection's first bytes. Empty is the native protocol.
	Protocols []frame.Protocol
	// Handlers serve the streams that clients open. Nil is a new Handlers, to be filled
	// through the server's methods.
	Handlers *Handlers
	// Limits bound what peers can make the server hold and do.
	Limits Limits
	// Stream are the options of accepted streams, unless Offer.Accept gives others.
	Stream StreamOptions
	// NoChecksum turns off the CRC32C of frames on connections without TLS. Connections
	// with TLS have none.
	NoChecksum bool
	// Logger gets panics, failed handshakes, and connections that ended in an error. Nil
	// is slog.Default. Its handler is called on a goroutine of its own.
	Logger *slog.Logger
	// Authenticate identifies a client before it can open a stream. It runs in a
	// goroutine of its own; ctx ends after Limits.Authenticate. An error refuses the
	// connection. A status.HandlerError's code and reason are sent to the client. For any other
	// error, and for status.OK, the client gets status.Unauthenticated alone, and the log has
	// the error.
	Authenticate func(ctx context.Context, p Peer) (Identity, error)
	// Authorize decides on each open before the handler runs, in the handler's goroutine;
	// ctx ends after Limits.Authenticate. An error refuses the stream with
	// status.PermissionDenied, or with the code of a status.HandlerError.
	Authorize func(ctx context.Context, id Identity, method string, md metadata.MD) error
	// OnConn is called with each new connection, in a goroutine of its own, for example
	// to open streams to the client. If it panics the connection is closed.
	OnConn func(*Conn)
	// Observer is told of connections and streams as they begin and end. Nil costs nothing;
	// Observers makes one of several.
	Observer Observer
}

var errOpensOnly = fmt.Errorf("%w: StreamOptions.Context is for streams that are opened", ErrLimits)

func (o *ServerOptions) withDefaults() (ServerOptions, error) {
	var r ServerOptions
	if o != nil {
		r = *o
	}
	r.Limits = r.Limits.withDefaults()
	if r.Logger == nil {
		r.Logger = slog.Default()
	}
	if len(r.Protocols) == 0 {
		r.Protocols = []frame.Protocol{native.Protocol{}}
	}
	r.TLS = secure(r.TLS, r.Protocols)
	_, err := r.Stream.withDefaults()
	if err == nil && r.Stream.Context != nil {
		err = errOpensOnly
	}
	if err == nil {
		err = r.Stream.checkCompression(r.Protocols)
	}
	if err == nil {
		err = conn.Validate(conn.Limits(r.Limits))
	}
	return r, err
}

// secure completes a TLS configuration: the least version, and the names of ps for ALPN.
func secure(c *tls.Config, ps []frame.Protocol) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	if c.MinVersion == 0 {
		c.MinVersion = tls.VersionTLS13
	}
	if len(c.NextProtos) == 0 {
		for _, p := range ps {
			if name := p.Caps().ALPN; name != "" && !slices.Contains(c.NextProtos, name) {
				c.NextProtos = append(c.NextProtos, name)
			}
		}
	}
	return c
}

// ClientOptions configure a client. A nil pointer and the zero value are the defaults.
type ClientOptions struct {
	// TLS, if set, secures all connections. An empty ServerName is the target's host, or
	// "localhost" for a Unix socket. A
	// zero MinVersion means TLS 1.3.
	TLS *tls.Config
	// Protocols are those that a target can name, as in "protocol://host:port". A target
	// that names none uses the first. Empty is the native protocol.
	Protocols []frame.Protocol
	// ConnType says how streams share connections. Zero is ConnSingle.
	ConnType ConnType
	// Conns is the largest number of connections, ConnShort's and dedicated ones apart.
	// Zero is 1, with ConnPooled 100. The client makes another one when all others have
	// as many streams as the server allows.
	Conns int
	// Limits bound what the server can make the client hold and do.
	Limits Limits
	// Stream are the options of opened streams, where OpenOptions leave them zero.
	Stream StreamOptions
	// NoChecksum turns off the CRC32C of frames on connections without TLS.
	NoChecksum bool
	// Token is sent in the handshake, for the server's Authenticate.
	Token []byte
	// Backoff is the pause before dialling again after a failure. A connection that was
	// lost within Backoff.First counts as a failure too, from the second in a row on.
	// The zero value is 1 s, growing by 1.6 to 120 s, with 20 % of jitter. Dedicated
	// connections and those of ConnShort wait too if the last attempt failed.
	Backoff Backoff
	// Logger gets panics of handlers. Nil is slog.Default.
	Logger *slog.Logger
	// Handlers serve the streams that the server opens. Nil serves none.
	Handlers *Handlers
	// Observer is told of connections and streams as they begin and end. Nil costs nothing;
	// Observers makes one of several.
	Observer Observer
	// Dial makes the network connection; network is "tcp" or "unix". Nil is net.Dialer's
	// DialContext. What it returns is the client's: the descriptor of a *net.TCPConn or
	// *net.UnixConn goes to an event loop, and to close the value does nothing then. What it
	// returns after ctx has ended is closed.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Backoff says how the pause between attempts to dial grows. A zero field has its default;
// None means zero.
type Backoff struct {
	First  time.Duration // the first pause; a connection that lasts as long is a success
	Most   time.Duration // the longest pause before jitter, First included
	Factor float64       // by which the pause grows, 1 or more; None is 1
	Jitter float64       // the part of the pause by which it varies both ways, below 1
}

func (b Backoff) withDefaults() Backoff {
	b.First = orDefault(b.First, time.Second)
	b.Most = orDefault(b.Most, 120*time.Second)
	b.Factor = orDefault(b.Factor, 1.6)
	b.Jitter = orDefault(b.Jitter, 0.2)
	if b.Factor == 0 {
		b.Factor = 1
	}
	b.First, b.Most = min(b.First, mostPause), min(b.Most, mostPause)
	return b
}

// mostPause is the longest pause: it can be added to a time without an overflow.
const mostPause = time.Duration(1 << 60)

func orDefault[T time.Duration | float64](v, d T) T {
	switch v {
	case 0:
		return d
	case None:
		return 0
	}
	return v
}

// validate checks a Backoff with its defaults. NaN fails every comparison.
func (b Backoff) validate() error {
	if b.First >= 0 && b.Most >= 0 && b.Factor >= 1 && b.Factor <= math.MaxFloat64 && b.Jitter >= 0 && b.Jitter < 1 {
		return nil
	}
	return fmt.Errorf("%w: backoff %+v", ErrLimits, b)
}

func (o *ClientOptions) withDefaults() (ClientOptions, error) {
	var r ClientOptions
	if o != nil {
		r = *o
	}
	r.Limits = r.Limits.withDefaults()
	r.Backoff = r.Backoff.withDefaults()
	if r.Logger == nil {
		r.Logger = slog.Default()
	}
	if len(r.Protocols) == 0 {
		r.Protocols = []frame.Protocol{native.Protocol{}}
	}
	switch {
	case r.Conns != 0:
	case r.ConnType == ConnPooled:
		r.Conns = pooledConns
	default:
		r.Conns = 1
	}
	if r.Dial == nil {
		r.Dial = (&net.Dialer{}).DialContext
	}
	r.TLS = secure(r.TLS, nil) // the client offers the name of the target's protocol alone
	if r.Conns < 1 || r.ConnType > ConnShort {
		return r, fmt.Errorf("%w: Conns is %d, ConnType %d", ErrLimits, r.Conns, r.ConnType)
	}
	_, err := r.Stream.withDefaults()
	if err == nil {
		err = r.Stream.checkCompression(r.Protocols)
	}
	if err == nil {
		err = conn.Validate(conn.Limits(r.Limits))
	}
	if err == nil {
		err = r.Backoff.validate()
	}
	return r, err
}

// OpenOptions are the options of an open. A nil pointer and the zero value are the
// defaults.
type OpenOptions struct {
	// Request is sent with the open: the peer finds it by Stream.Request or Offer.Request.
	// The open takes it over if it succeeds. It fails with ErrNotSupported where streams
	// have no request (Seastar).
	Request pool.Message
	// Metadata is sent with the open.
	Metadata metadata.MD
	// Stream are this side's options for the stream. Zero fields have the values of the
	// client's or server's options.
	Stream StreamOptions
	// Dedicated gives the streams of this open a new connection, which ends with them.
	// Its parent is the connection that they would have been opened on, which is made if
	// there is none. When the parent ends, the streams fail too, up to 1 s later. When
	// the server drains the parent, or ends it because it is idle, they stay open. A
	// connection may have Limits.MaxStreams children with open streams. The server
	// counts each like any connection.
	Dedicated bool
	// WaitForReady has a client's Open try again while no connection can be made, with
	// the pauses of ClientOptions.Backoff, until ctx ends: also if the server's name is
	// unknown or its certificate is bad. An answer of the server that would not change,
	// such as status.Unauthenticated, ends it. It has no effect on a Conn.
	WaitForReady bool

	unary       bool // a call: one message each way
	noReply     bool // a call whose reply nobody waits for
	exclusively bool // on a connection on which this side has no other stream
}

// A ConnType says how streams share a client's connections.
type ConnType uint8

// The names are brpc's.
const (
	// ConnSingle: all streams share the client's connections.
	ConnSingle ConnType = iota
	// ConnPooled: a connection carries the streams of one Open or Call at a time, and
	// is reused.
	ConnPooled
	// ConnShort: each Open or Call makes a connection, which ends with its streams.
	ConnShort
)

// pooledConns is the default of ClientOptions.Conns with ConnPooled.
const pooledConns = 100

// CallOptions are the options of a call. A nil pointer and the zero value are the defaults.
type CallOptions struct {
	// Metadata is sent with the call. Where the protocol carries none the call fails with
	// ErrNotSupported.
	Metadata metadata.MD
	// Header and Trailer, if not nil, are where the metadata goes that comes with the
	// reply, and with the end or a refusal. If the call is never opened they are left as
	// they are. Where both travel together (brpc) each has all of it.
	Header, Trailer *metadata.MD
	// Conn, if not nil, is where the connection goes that the call was made on. If the call is
	// never opened it is left as it is.
	Conn **Conn
	// Timeout bounds the call, as its context does. Zero is 60 s if the context has no
	// deadline. Unlimited is no limit beside the context's.
	Timeout time.Duration
	// WaitForReady is OpenOptions.WaitForReady.
	WaitForReady bool
	// NoWait has Call return when the request is on its way, with an empty reply. What the
	// handler answers is dropped, and what goes wrong nobody hears. The call goes on when
	// its context ends, until the deadline.
	NoWait bool
	// MaxReceive and MaxSend bound the reply and the request: see StreamOptions. A reply that
	// is too long fails the call with TOO_LARGE.
	MaxReceive, MaxSend int
	// Compression is how the request is compressed: see StreamOptions.Compression. The
	// reply is the server's choice.
	Compression pool.Compression
}

const defaultCallTimeout = 60 * time.Second
