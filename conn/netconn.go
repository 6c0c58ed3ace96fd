package conn

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// netReadBuffer is what a net.Conn is read with, bytes.
const netReadBuffer = 32 << 10

// Serve runs a connection on nc with a goroutine of its own that reads: TLS, the
// in-memory pipe, any other net.Conn. early is what was read of nc already. Serve calls
// made with the connection before anything happens on it, and returns at once. nc
// belongs to the connection from now on.
func Serve(nc net.Conn, cfg Config, early []byte, made func(*Conn)) *Conn {
	c := newConn(cfg)
	t := &netConn{c: c, nc: nc}
	c.tr = t // before anybody can close it
	made(c)
	c.start()
	go t.read(early)
	return c
}

// netConn is the transport of a connection on a net.Conn.
type netConn struct {
	c  *Conn
	nc net.Conn
}

// read is the connection's reader; it ends with the net.Conn.
func (t *netConn) read(early []byte) {
	t.c.cfg.Handler.Started(t.c)
	// Even if early is empty: a connection can begin with an event of its session.
	if !t.input(early) {
		t.drain()
		return
	}
	buf := pool.New(netReadBuffer)
	defer buf.Release()
	p := buf.Bytes()
	for {
		n, err := t.nc.Read(p)
		if n > 0 && !t.input(p[:n]) {
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
	return t.c.Input(p)
}

func (t *netConn) write(v [][]byte) (int, error) {
	if t.c.pacing != frame.Unpaced {
		if err := t.nc.SetWriteDeadline(time.Now().Add(t.c.lim.WriteStall)); err != nil {
			return 0, err
		}
	}
	t.c.writeBlocked()
	if len(v) == 1 {
		return t.nc.Write(v[0])
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
