// Package raw is plain TCP, or TLS of the standard library, with messages framed by hand, one
// connection per stream: what every library is measured against.
package raw

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/framed"
	"github.com/sluicerpc/sluice/benchmarks/peer/internal/listen"
)

type raw struct {
	name  string
	batch bool
}

// New returns net.Conn with buffers of 64 KiB, flushed when the next receive
// would wait.
func New() peer.Peer { return raw{"raw", true} }

// NewUnbatched returns net.Conn with one Write per message.
func NewUnbatched() peer.Peer { return raw{"raw1", false} }

func (r raw) Name() string { return r.name }

// Secure implements peer.Secure.
func (r raw) Secure() bool { return true }

func (r raw) Serve(addr string, o peer.Options) (peer.Server, error) {
	o.Duplex = false
	var secure *tls.Config
	if o.TLS {
		var err error
		if secure, err = peer.ServerTLS(); err != nil {
			return nil, err
		}
	}
	return listen.Serve(addr, func(nc net.Conn) {
		if secure != nil {
			nc = tls.Server(nc, secure)
		}
		_ = framed.New(nc, r.batch, framed.Buffer, o).Serve(o)
	})
}

func (r raw) Dial(_ context.Context, addr string, o peer.Options) (peer.Conn, error) {
	return NewConn(addr, r.batch, o), nil
}

// Conn opens a TCP connection for each stream.
type Conn struct {
	addr  string
	batch bool
	o     peer.Options
	dial  net.Dialer
}

// NewConn returns a Conn to a server that speaks package framed.
func NewConn(addr string, batch bool, o peer.Options) *Conn {
	return &Conn{addr: addr, batch: batch, o: o}
}

// Open connects. The address's port is not kept busy after Close: thousands of
// opens a second would use all ports up.
func (c *Conn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	nc, err := c.dial.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return nil, err
	}
	if err := nc.(*net.TCPConn).SetLinger(0); err != nil {
		return nil, err
	}
	if c.o.TLS {
		nc = tls.Client(nc, peer.ClientTLS())
	}
	s := framed.New(nc, c.batch, framed.Buffer, c.o)
	if err := s.Open(m); err != nil {
		nc.Close()
		return nil, err
	}
	return s, nil
}

// Close does nothing: streams close their connections.
func (c *Conn) Close() error { return nil }
