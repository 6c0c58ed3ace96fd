package conn

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a socket is read with, bytes. The larger buffer is for those whose smaller one was full:
// most read little, and there may be many at once.
const (
	socketBuffer = 16 << 10
	bulkBuffer   = readBuffer
)

var (
	socketBuffers = newReadBuffers(socketBuffer)
	bulkBuffers   = newReadBuffers(bulkBuffer)
)

// A readInto is what one read fills. It goes back where it is from.
type readInto struct {
	p    []byte
	from *sync.Pool
}

func newReadBuffers(size int) *sync.Pool {
	p := &sync.Pool{}
	p.New = func() any { return &readInto{make([]byte, size), p} }
	return p
}

// A socketReader reads a socket. It has a buffer only while there is something to read: an idle
// connection has none.
type socketReader struct {
	nc  net.Conn
	raw syscall.RawConn
	try func(fd uintptr) bool // readFD, made once

	// Of the last read.
	buf  *readInto
	n    int
	err  error
	full bool // its buffer
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
	r.full = r.n == len(r.buf.p)
	return r.buf.p[:r.n], nil
}

// readFD reads once; false if there is nothing.
func (r *socketReader) readFD(fd uintptr) bool {
	from := socketBuffers
	if r.full {
		from = bulkBuffers
	}
	r.buf = from.Get().(*readInto)
	for {
		r.n, r.err = unix.Read(int(fd), r.buf.p)
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
		r.buf.from.Put(r.buf)
		r.buf = nil
	}
}

func (r *socketReader) close() {}
