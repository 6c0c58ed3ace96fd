package conn

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// What a net.Conn that is no socket is read with, bytes, and TLS, which gives one record at a time.
const (
	netReadBuffer = 32 << 10
	tlsReadBuffer = 16 << 10
)

// Serve runs a connection on nc with a goroutine of its own that reads: TLS, the
// in-memory pipe, any other net.Conn. early is what was read of nc already. Serve calls
// made with the connection before anything happens on it, and returns at once. nc
// belongs to the connection from now on.
func Serve(nc net.Conn, cfg Config, early []byte, made func(*Conn)) *Conn {
	c := newConn(cfg)
	t := &netConn{c: c, nc: nc}
	c.tr = t // before anybody can close it
	c.size += ReaderSize
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
	case *tls.Conn:
		c.size += TLSSize
	default:
		c.size += BufferSize
	}
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn, *pipeEnd:
	default:
		c.flusher = c.flushGuarded
	}
	if cfg.Foreign {
		c.flusher = c.flushGuarded
	}
	made(c)
	c.start()
	go t.read(early)
	return c
}

// netConn is the transport of a connection on a net.Conn.
type netConn struct {
	c      *Conn
	nc     net.Conn
	passes bool // input is being passed on; owned by the reader
}

// read is the connection's reader; it ends with the net.Conn.
func (t *netConn) read(early []byte) {
	returned := false
	defer func() {
		if !returned { // the goroutine ends, and nothing else may
			t.c.lost("read", t.failed(recover()))
		}
	}()
	t.readAll(early)
	returned = true
}

// failed is the error of what the reader has called and has panicked with r, or has ended
// the goroutine, where nothing has made an error of that yet.
func (t *netConn) failed(r any) error {
	if t.passes {
		return t.c.fault("frame.Session", r)
	}
	if err := Exited(t.nc); err != nil {
		return err
	}
	return t.c.fault("net.Conn.Read", r)
}

func (t *netConn) readAll(early []byte) {
	t.c.cfg.Handler.Started(t.c)
	// Even if early is empty: a connection can begin with an event of its session.
	if !t.input(early) {
		t.drain()
		return
	}
	src := newSource(t.nc)
	defer src.close()
	for {
		p, err := src.read()
		ok := len(p) == 0 || t.input(p)
		src.release()
		if !ok {
			t.drain()
			return
		}
		if err != nil {
			t.c.lost("read", err)
			return
		}
		if !t.c.pauseReading() {
			t.drain()
			return
		}
	}
}

// A source is where a connection's bytes come from.
type source interface {
	// read returns what has come, as soon as there is something. It is good until release. With an
	// error there can be bytes too.
	read() ([]byte, error)
	release()
	// close gives back what the source itself holds.
	close()
}

func newSource(nc net.Conn) source {
	if s, ok := newSocketReader(nc); ok {
		return s
	}
	size := netReadBuffer
	if _, ok := nc.(*tls.Conn); ok {
		size = tlsReadBuffer
	}
	return &connReader{nc, pool.New(size)}
}

// A connReader reads any net.Conn, with a buffer of its own.
type connReader struct {
	nc  net.Conn
	buf pool.Message
}

// read implements source.
func (r *connReader) read() ([]byte, error) {
	p := r.buf.Bytes()
	n, err := r.nc.Read(p)
	return p[:n], err
}

func (r *connReader) release() {}

func (r *connReader) close() { r.buf.Release() }

// drain waits for the end after a GOAWAY, and reads what still comes: closing with
// unread bytes would reset the connection before the peer reads the GOAWAY.
func (t *netConn) drain() {
	p := make([]byte, 4<<10)
	for {
		if _, err := t.nc.Read(p); err != nil {
			t.c.lost("read", err)
			return
		}
	}
}

func (t *netConn) input(p []byte) (ok bool) {
	defer func() {
		if r := recover(); r != nil {
			t.c.panicked(r)
			ok = false
		}
	}()
	t.passes = true
	ok = t.c.Input(p)
	t.passes = false
	return ok
}

func (t *netConn) write(v [][]byte) (int, error) {
	if t.c.pacing != frame.Unpaced {
		if err := t.nc.SetWriteDeadline(time.Now().Add(t.c.lim.WriteStall)); err != nil {
			return 0, err
		}
	}
	t.c.writeBlocked()
	t.c.noteUnwritten(v)
	if len(v) == 1 {
		return t.nc.Write(v[0])
	}
	if g, ok := t.nc.(*guarded); ok {
		return g.writeAll(v)
	}
	bufs := append(net.Buffers(nil), v...)
	n, err := bufs.WriteTo(t.nc)
	return int(n), err
}

func (t *netConn) more() bool { return false }

func (t *netConn) await() {}

func (t *netConn) inPlace() bool { return false }

func (t *netConn) spawn() { go t.c.flusher() }

func (t *netConn) closeWrite() bool {
	w, ok := t.nc.(interface{ CloseWrite() error })
	return ok && w.CloseWrite() == nil
}

func (t *netConn) close() { _ = t.nc.Close() }

// sever closes what is below TLS. TLS itself would try for 5 s to notify a peer that may
// not read.
func (t *netConn) sever() {
	if tc, ok := t.nc.(*tls.Conn); ok {
		_ = tc.NetConn().Close()
	}
}
