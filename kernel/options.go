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
	"github.com/sluicerpc/sluice/frame/native"
)

// Limits bound what a peer can make us hold and do; all are on by default. A
// zero field is its default; Unlimited says that there shall be none. The fields, with
// their defaults, are listed at conn.Limits and in docs/operations.md.
type Limits = conn.Limits

// Unlimited, where a number is asked for, says that there shall be no limit.
const Unlimited = conn.Unlimited

// None, where zero is the default, says zero by name.
const None = -1

// StreamOptions are one side's wishes for one stream. A nil pointer, and the
// zero value, are the defaults.
type StreamOptions struct {
	// Window is how many bytes the peer may send that we have not taken, each
	// message counted with 32 bytes more. Zero starts small and grows by need
	// to Limits.StreamWindow; a number is used from acceptance on, as far as the
	// connection has that much left; at least 64. On brpc, where the writer
	// chooses the window, it has no effect. Where every stream begins with the same
	// window (frame.Caps.FixedWindow) less than that has none.
	Window int
	// SendLimit is how many bytes of ours may be unread at the peer. Zero leaves
	// that to the peer. On brpc it is the window (max_buf_size). Where every stream has
	// the same window (frame.Caps.FixedWindow) it has no effect.
	SendLimit int
	// InBuffer is how many messages In holds beside the mailbox, of 16 KiB in
	// all. Zero is 16; None makes taking exact.
	InBuffer int
	// MaxBatch is how many messages a Batch holds at most. Zero is 128.
	MaxBatch int
	// IdleTimeout is after how long without a message Idle offers. Zero is off.
	IdleTimeout time.Duration
	// NoReceive makes the stream write-only on this side: the peer's sends get
	// ErrNotReadable.
	NoReceive bool
	// Context bounds the life of a stream that is opened, and is the parent of its
	// Context. Nil is the context given to Open; where it is another, that one bounds
	// the opening alone. Only the side that opens can set it: Accept, and a server's
	// options, fail with ErrLimits. It has no effect on a Call.
	Context context.Context
}

const (
	defaultInBuffer = 16
	defaultMaxBatch = 128
	maxInBuffer     = 1 << 16
)

// Validate tells whether an option is out of range: ErrLimits.
func (o *StreamOptions) Validate() error {
	_, err := o.withDefaults()
	return err
}

func (o *StreamOptions) withDefaults() (StreamOptions, error) {
	var r StreamOptions
	if o != nil {
		r = *o
	}
	switch {
	case r.InBuffer == 0:
		r.InBuffer = defaultInBuffer
	case r.InBuffer == None:
		r.InBuffer = 0
	}
	if r.MaxBatch == 0 {
		r.MaxBatch = defaultMaxBatch
	}
	if r.Window < 0 || r.SendLimit < 0 || r.InBuffer < 0 || r.InBuffer > maxInBuffer || r.MaxBatch < 1 || r.IdleTimeout < 0 {
		return r, fmt.Errorf("%w: stream options %+v", ErrLimits, r)
	}
	return r, nil
}

// An Identity is who a peer proved to be; what it is, Authenticate decides.
type Identity any

// A Peer is what is known of the other side of a connection.
type Peer struct {
	Addr  net.Addr
	TLS   *tls.ConnectionState // nil without TLS
	Token []byte               // what it sent in its hello
}

// ServerOptions configure a server. Nil, and the zero value, are the defaults.
type ServerOptions struct {
	// TLS, if set, is what connections are secured with. MinVersion is raised to
	// TLS 1.3 where it is zero.
	TLS *tls.Config
	// Protocols are the wires that the server tells apart by the first bytes.
	// None is the native one.
	Protocols []Protocol
	// Limits bound what peers can make the server do.
	Limits Limits
	// Stream is what streams are accepted with unless Accept says otherwise.
	Stream StreamOptions
	// NoChecksum leaves out the CRC32C of frames, which clients ask for in plain
	// text. Under TLS there is none.
	NoChecksum bool
	// Logger hears of panics and of connections that end badly. Nil is
	// slog.Default.
	Logger *slog.Logger
	// Authenticate decides who a client is, before it can open any stream, off
	// the event loops and within Limits.Authenticate. An error refuses it: a
	// HandlerError's code and reason go to the peer, of any other, and where the code is
	// CodeOK, only CodeUnauthenticated; the log has the rest.
	Authenticate func(ctx context.Context, p Peer) (Identity, error)
	// Authorize decides on each open, before a handler runs, off the event loops
	// and within Limits.Authenticate. An error refuses the stream with
	// CodePermissionDenied, or the code of a HandlerError.
	Authorize func(ctx context.Context, id Identity, method string, md Metadata) error
	// OnConn is called, in a goroutine of its own, with each new connection, for
	// example to open streams towards the client. A panic in it ends the connection.
	OnConn func(*Conn)
}

var errOpensOnly = fmt.Errorf("%w: StreamOptions.Context is for streams that are opened", ErrLimits)

func (o *ServerOptions) withDefaults() (ServerOptions, error) {
	var r ServerOptions
	if o != nil {
		r = *o
	}
	r.Limits = r.Limits.WithDefaults()
	if r.Logger == nil {
		r.Logger = slog.Default()
	}
	if len(r.Protocols) == 0 {
		r.Protocols = []Protocol{native.Protocol{}}
	}
	r.TLS = secure(r.TLS, r.Protocols)
	_, err := r.Stream.withDefaults()
	if err == nil && r.Stream.Context != nil {
		err = errOpensOnly
	}
	if err == nil {
		err = r.Limits.Validate()
	}
	return r, err
}

// secure completes a TLS configuration for some protocols.
func secure(c *tls.Config, ps []Protocol) *tls.Config {
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

// ClientOptions configure a client. Nil, and the zero value, are the defaults.
type ClientOptions struct {
	// TLS, if set, is what connections are secured with. ServerName is taken
	// from the target where it is empty.
	TLS *tls.Config
	// Protocols are the wires that a target's scheme can name; without a scheme it is
	// the first. None is the native one.
	Protocols []Protocol
	// ConnType is how streams share connections. Zero is ConnSingle.
	ConnType ConnType
	// Conns is how many connections the client makes at most, those of ConnShort
	// apart. Zero is 1, with ConnPooled 100. A further one is made when those
	// there are have all the streams that they may.
	Conns int
	// Limits bound what the server can make us hold.
	Limits Limits
	// Stream is what streams are opened with unless OpenOptions say otherwise.
	Stream StreamOptions
	// NoChecksum leaves out the CRC32C of frames in plain text.
	NoChecksum bool
	// Token is sent in the hello, for the server's Authenticate.
	Token []byte
	// Backoff is how long to wait before dialling again after a failure, or after
	// the second connection in a row that was lost within Backoff.First of being
	// made. The zero value is 1 s, growing by 1.6 to 120 s, all with 20 % of jitter.
	// Connections of ConnShort and dedicated ones wait too, where the last attempt failed.
	Backoff Backoff
	// Logger hears of panics in handlers. Nil is slog.Default.
	Logger *slog.Logger
	// Handlers serve the streams that the server opens: method to handler, as
	// in Server.Handle. NewClient and Dial panic if one is nil.
	Handlers map[string]func(ctx context.Context, s *Stream) error
	// Dial makes the network connection. Nil is net.Dialer's DialContext.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Backoff is how the time between attempts to dial grows. Zero is the default of each,
// None says zero by name.
type Backoff struct {
	First  time.Duration // before the second attempt; a connection that lasts as long is a success
	Most   time.Duration // before jitter; it holds for First too
	Factor float64       // 1 or more; with None the time does not grow
	Jitter float64       // part of the time by which it varies both ways, below 1
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

// mostPause is what Unlimited is as a pause: with it times can be added up.
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

// validate checks what withDefaults has completed; NaN is in no range.
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
	r.Limits = r.Limits.WithDefaults()
	r.Backoff = r.Backoff.withDefaults()
	if r.Logger == nil {
		r.Logger = slog.Default()
	}
	if len(r.Protocols) == 0 {
		r.Protocols = []Protocol{native.Protocol{}}
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
	r.TLS = secure(r.TLS, nil) // the name in TLS is that of the target's protocol
	if r.Conns < 1 || r.ConnType > ConnShort {
		return r, fmt.Errorf("%w: Conns is %d, ConnType %d", ErrLimits, r.Conns, r.ConnType)
	}
	_, err := r.Stream.withDefaults()
	if err == nil {
		err = r.Limits.Validate()
	}
	if err == nil {
		err = r.Backoff.validate()
	}
	return r, err
}

// OpenOptions are what a stream is opened with. Nil, and the zero value, are the
// defaults.
type OpenOptions struct {
	// Request travels with the open: the other side's Offer.Request.
	Request Message
	// Metadata travels with the open.
	Metadata Metadata
	// Stream is this side's wishes for the stream; what is zero in it comes from
	// the client's options.
	Stream StreamOptions
	// Dedicated gives the streams of this open a connection of their own. It
	// belongs to the connection that they would have been opened on, made if there
	// is none: when that fails, or is closed on this side, they fail too. Where
	// the server ends it in order, draining, they go on. The server counts it like
	// any connection, and as many as Limits.MaxStreams may belong to one. It ends
	// with its streams, which does not touch the others.
	Dedicated bool

	unary bool // one message each way
	alone bool // no other streams on the connection
}

// A ConnType says how streams share a client's connections.
type ConnType uint8

// The kinds that brpc's users know by these names.
const (
	// ConnSingle: all streams share the client's connections.
	ConnSingle ConnType = iota
	// ConnPooled: a connection carries the streams of one Open or Call at a time,
	// and is used again afterwards.
	ConnPooled
	// ConnShort: each Open or Call makes a connection, which ends with its streams.
	ConnShort
)

// pooledConns is how many connections a ConnPooled client makes at most, where
// its options don't say.
const pooledConns = 100

// CallOptions are what a call is made with.
type CallOptions struct {
	Metadata Metadata
	// Timeout bounds the call, beside its context. Zero is 60 s where the context has
	// no deadline; Unlimited leaves it to the context.
	Timeout time.Duration
}

const defaultCallTimeout = 60 * time.Second
