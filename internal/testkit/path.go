package testkit

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// A Path is a listener whose connections have a delay, and carry so much and no more. It holds
// whatever is under way. It is for a bubble, whose time costs nothing.
type Path struct {
	*kerneltest.Listener
	rate  int
	delay atomic.Int64
	ends  chan net.Conn
}

// NewPath makes a path with a round trip and a rate, in bytes a second each way; 0 is no
// limit.
func NewPath(rtt time.Duration, rate int) *Path {
	p := &Path{Listener: kerneltest.Listen(), rate: rate, ends: make(chan net.Conn, 1)}
	p.SetRoundTrip(rtt)
	return p
}

// SetRoundTrip changes the round trip of what is sent from now on.
func (p *Path) SetRoundTrip(rtt time.Duration) { p.delay.Store(int64(rtt / 2)) }

// Dial connects; it is for kernel.ClientOptions.Dial.
func (p *Path) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	inner, err := p.Listener.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	there, back := make(chan piece, 1<<20), make(chan piece, 1<<20)
	done := &closer{c: make(chan struct{})}
	p.ends <- &pathEnd{Conn: inner, path: p, in: there, out: back, done: done}
	return &pathEnd{Conn: inner, path: p, in: back, out: there, done: done}, nil
}

// Accept returns the far end of a connection.
func (p *Path) Accept() (net.Conn, error) {
	if _, err := p.Listener.Accept(); err != nil {
		return nil, err
	}
	return <-p.ends, nil
}

// piece is a piece of what is under way.
type piece struct {
	bytes []byte
	due   time.Time
}

// closer is the end of a connection, by either side.
type closer struct {
	once sync.Once
	c    chan struct{}
}

// pathEnd is one end of a connection.
type pathEnd struct {
	net.Conn
	path    *Path
	in, out chan piece
	rest    []byte
	sent    time.Time // when all that was written has left
	done    *closer
}

func (e *pathEnd) Write(b []byte) (int, error) {
	if now := time.Now(); e.sent.Before(now) {
		e.sent = now
	}
	if e.path.rate > 0 {
		e.sent = e.sent.Add(time.Duration(len(b)) * time.Second / time.Duration(e.path.rate))
	}
	select {
	case <-e.done.c:
		return 0, net.ErrClosed
	case e.out <- piece{append([]byte(nil), b...), e.sent.Add(time.Duration(e.path.delay.Load()))}:
		return len(b), nil
	}
}

func (e *pathEnd) Read(b []byte) (int, error) {
	if len(e.rest) == 0 {
		select {
		case <-e.done.c:
			return 0, io.EOF
		case next := <-e.in:
			time.Sleep(time.Until(next.due))
			e.rest = next.bytes
		}
	}
	n := copy(b, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func (e *pathEnd) Close() error {
	e.done.once.Do(func() { close(e.done.c) })
	return e.Conn.Close()
}

func (e *pathEnd) SetDeadline(time.Time) error      { return nil }
func (e *pathEnd) SetReadDeadline(time.Time) error  { return nil }
func (e *pathEnd) SetWriteDeadline(time.Time) error { return nil }
