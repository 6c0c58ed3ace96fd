package conn

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketBuffer is what a socket is read with, bytes.
const socketBuffer = 64 << 10

var socketBuffers = sync.Pool{New: func() any { return new([socketBuffer]byte) }}

// A socketReader reads a socket. It has a buffer only while there is something to read: an idle
// connection has none.
type socketReader struct {
	nc  net.Conn
	raw syscall.RawConn
	try func(fd uintptr) bool // readFD, made once

	buf *[socketBuffer]byte // of the last read
	n   int
	err error
}

// newSocketReader returns false if nc is no socket.
func newSocketReader(nc net.Conn) (source, bool) {
	var sc syscall.Conn
	switch c := nc.(type) {
	case *net.TCPConn:
		sc = c
	case *net.UnixConn:
		sc = c
	default:
		return nil, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, false
	}
	r := &socketReader{nc: nc, raw: raw}
	r.try = r.readFD
	return r, true
}

// read implements source.
func (r *socketReader) read() ([]byte, error) {
	if err := r.raw.Read(r.try); err != nil {
		return nil, err
	}
	switch {
	case r.err != nil:
		return nil, &net.OpError{
			Op: "read", Net: r.nc.RemoteAddr().Network(), Source: r.nc.LocalAddr(), Addr: r.nc.RemoteAddr(),
			Err: os.NewSyscallError("read", r.err),
		}
	case r.n == 0:
		return nil, io.EOF
	}
	return r.buf[:r.n], nil
}

// readFD reads once; false if there is nothing.
func (r *socketReader) readFD(fd uintptr) bool {
	r.buf = socketBuffers.Get().(*[socketBuffer]byte)
	for {
		r.n, r.err = unix.Read(int(fd), r.buf[:])
		switch r.err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			r.release()
			return false
		}
		return true
	}
}

// release implements source.
func (r *socketReader) release() {
	if r.buf != nil {
		socketBuffers.Put(r.buf)
		r.buf = nil
	}
}

func (r *socketReader) close() {}
