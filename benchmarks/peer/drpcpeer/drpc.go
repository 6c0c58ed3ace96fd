// Package drpcpeer drives drpc with messages of raw bytes. Its connections
// carry one stream at a time, so a Conn is a pool of them.
package drpcpeer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"storj.io/drpc"
	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcmanager"
	"storj.io/drpc/drpcserver"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

type drpcPeer struct {
	name  string
	batch bool
}

// New returns drpc; with batch, messages are kept back until the next receive,
// which drpc flushes before whether it has to wait or not.
func New(batch bool) peer.Peer {
	if batch {
		return drpcPeer{"drpc+b", true}
	}
	return drpcPeer{"drpc", false}
}

func (d drpcPeer) Name() string { return d.name }

func (d drpcPeer) options(o peer.Options) drpcmanager.Options {
	var m drpcmanager.Options
	m.Reader.MaximumBufferSize = max(o.MaxMessage, 4<<20)
	m.Stream.ManualFlush = d.batch
	return m
}

// encoding passes *[]byte through; drpc's buffers are copied from and to.
type encoding struct{}

func (encoding) Marshal(msg drpc.Message) ([]byte, error) { return *msg.(*[]byte), nil }

// MarshalAppend is what drpc prefers to Marshal.
func (encoding) MarshalAppend(buf []byte, msg drpc.Message) ([]byte, error) {
	return append(buf, *msg.(*[]byte)...), nil
}

func (encoding) Unmarshal(buf []byte, msg drpc.Message) error {
	p := msg.(*[]byte)
	*p = append((*p)[:0], buf...)
	return nil
}

type stream struct {
	drpc.Stream
	in, out   []byte
	sent, got bool // the ends of the halves
	free      func(clean bool) error
	conn      *drpcconn.Conn // a client's
}

func (s *stream) Buf(n int) []byte {
	if cap(s.out) < n {
		s.out = make([]byte, n)
	}
	return s.out[:n]
}

func (s *stream) Send(p []byte) error {
	s.out = p
	return s.MsgSend(&s.out, encoding{})
}

// Flush sends what MsgSend kept back.
func (s *stream) Flush() error { return s.Stream.(interface{ RawFlush() error }).RawFlush() }

func (s *stream) Recv() ([]byte, error) {
	if s.got {
		return nil, io.EOF
	}
	err := s.MsgRecv(&s.in, encoding{})
	s.got = errors.Is(err, io.EOF)
	return s.in, err
}

func (s *stream) CloseSend() error {
	s.sent = true
	return s.Stream.CloseSend()
}

// Break closes the connection, which is the stream's alone.
func (s *stream) Break() { _ = s.conn.Close() }

func (s *stream) Close() error { return s.free(s.sent && s.got) }

type handler struct{ o peer.Options }

// HandleRPC serves the stream whose mode is the method's name.
func (h handler) HandleRPC(s drpc.Stream, rpc string) error {
	if len(rpc) != 1 {
		return fmt.Errorf("unknown method %q", rpc)
	}
	return h.o.Handle(peer.Mode(rpc[0]), &stream{Stream: s})
}

type server struct {
	ln     net.Listener
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func (d drpcPeer) Serve(addr string, o peer.Options) (peer.Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := drpcserver.NewWithOptions(handler{o}, drpcserver.Options{Manager: d.options(o)})
	s := &server{ln: ln, cancel: cancel}
	s.wg.Go(func() { _ = srv.Serve(ctx, ln) }) // ends with ctx; Close waits
	return s, nil
}

func (s *server) Addr() string { return s.ln.Addr().String() }

func (s *server) Close() error {
	s.cancel()
	s.wg.Wait()
	return nil
}

func (d drpcPeer) Dial(_ context.Context, addr string, o peer.Options) (peer.Conn, error) {
	return &conn{addr: addr, options: d.options(o)}, nil
}

type conn struct {
	addr    string
	options drpcmanager.Options

	mu     sync.Mutex
	idle   []*drpcconn.Conn
	closed bool
}

// take returns an idle connection or a new one.
func (c *conn) take(ctx context.Context) (*drpcconn.Conn, error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		dc := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return dc, nil
	}
	c.mu.Unlock()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return nil, err
	}
	if err := nc.(*net.TCPConn).SetLinger(0); err != nil { // see package raw
		return nil, errors.Join(err, nc.Close())
	}
	return drpcconn.NewWithOptions(nc, drpcconn.Options{Manager: c.options}), nil
}

func (c *conn) put(dc *drpcconn.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return dc.Close()
	}
	c.idle = append(c.idle, dc)
	return nil
}

func (c *conn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	dc, err := c.take(ctx)
	if err != nil {
		return nil, err
	}
	ds, err := dc.NewStream(ctx, string(m), encoding{})
	if err != nil {
		return nil, errors.Join(err, dc.Close())
	}
	s := &stream{Stream: ds, conn: dc}
	s.free = func(clean bool) error {
		if !clean {
			return dc.Close()
		}
		return c.put(dc)
	}
	if m == peer.Park {
		return s, s.Flush()
	}
	return s, nil
}

func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var err error
	for _, dc := range c.idle {
		err = errors.Join(err, dc.Close())
	}
	c.idle = nil
	return err
}
