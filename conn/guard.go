package conn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluicerpc/sluice/status"
)

// A Fault is told that a function of the program's has panicked with r, or has ended its
// goroutine where r is nil, and returns what its caller is told.
type Fault func(function string, r any) error

// A Nonsense is what a Fault is told of a function that has returned what it must not.
type Nonsense string

// Guard returns nc with methods that don't panic, don't return what the contract of
// net.Conn excludes, and are not waited for when they close. What is of the standard library
// or of this package is returned as it is, and so is TLS, which is guarded below.
func Guard(nc net.Conn, fault Fault) net.Conn {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn, *tls.Conn, *pipeEnd:
		return nc
	}
	if fault == nil {
		fault = unheard
	}
	return &guarded{nc: nc, fault: fault, closed: make(chan struct{})}
}

// unheard is a Fault that tells nobody else.
func unheard(function string, r any) error {
	if r == nil {
		r = "runtime.Goexit"
	}
	return fmt.Errorf("%s: %v", function, r)
}

func (c *Conn) fault(function string, r any) error {
	if c.cfg.Fault == nil {
		return unheard(function, r)
	}
	return c.cfg.Fault(function, r)
}

// IsNil reports whether v, which a program has returned, is nil or a nil pointer.
func IsNil(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Func, reflect.Chan, reflect.Slice:
		return r.IsNil()
	}
	return false
}

// RemoteAddr is nc's remote address, never nil.
func RemoteAddr(nc net.Conn) net.Addr {
	if a := nc.RemoteAddr(); !IsNil(a) {
		return a
	}
	return noAddr{}
}

// noAddr is the address of a peer that has none.
type noAddr struct{}

// Network implements net.Addr.
func (noAddr) Network() string { return "unknown" }

// String implements net.Addr.
func (noAddr) String() string { return "unknown" }

// Exited is the error of the method of nc, if one has ended its goroutine: its caller could
// not be told.
func Exited(nc net.Conn) error {
	if tc, ok := nc.(*tls.Conn); ok {
		nc = tc.NetConn()
	}
	if g, ok := nc.(*guarded); ok {
		if err := g.exited.Load(); err != nil {
			return *err
		}
	}
	return nil
}

// guarded is a net.Conn of the program's.
type guarded struct {
	nc     net.Conn
	fault  Fault
	empty  int // reads without a byte or an error, in a row; owned by the reader
	exited atomic.Pointer[error]

	closing  sync.Once
	closed   chan struct{} // closed when nc's Close has returned
	closeErr error         // what it has returned

	addrs         sync.Once
	remote, local net.Addr
}

const (
	mostEmpty = 100                    // reads without a byte or an error, in a row
	closeTime = 100 * time.Millisecond // how long the Close of a program's is waited for
)

// call calls a method of the program's, and checks that its error can be used.
func (g *guarded) call(name string, f func() error) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		r := recover()
		if err = g.fault("net.Conn."+name, r); r == nil {
			e := err // the named result is gone with the goroutine
			g.exited.CompareAndSwap(nil, &e)
		}
	}()
	if err = f(); err != nil {
		AskError(err)
	}
	returned = true
	return err
}

// AskError calls the methods of an error of the program's that are called of it later, so that
// it panics here if it does.
func AskError(err error) {
	var se *status.StreamError
	_, _, _ = err.Error(), errors.Is(err, io.EOF), errors.As(err, &se)
}

// Read implements net.Conn.
func (g *guarded) Read(p []byte) (n int, err error) {
	err = g.call("Read", func() (err error) { n, err = g.nc.Read(p); return err })
	switch {
	case n < 0 || n > len(p):
		return 0, g.nonsense("Read", "returned %d for %d bytes", n, len(p))
	case n > 0 || err != nil || len(p) == 0:
		g.empty = 0
	case g.empty >= mostEmpty:
		return 0, g.nonsense("Read", "returned nothing and no error %d times in a row", mostEmpty)
	default:
		g.empty++
	}
	return n, err
}

// Write implements net.Conn.
func (g *guarded) Write(p []byte) (n int, err error) {
	err = g.call("Write", func() (err error) { n, err = g.nc.Write(p); return err })
	return g.written(n, len(p), err)
}

// writeAll writes v as net.Buffers does, which uses what nc has for that.
func (g *guarded) writeAll(v [][]byte) (int, error) {
	n, most := int64(0), 0
	for _, p := range v {
		most += len(p)
	}
	bufs := append(net.Buffers(nil), v...)
	err := g.call("Write", func() (err error) { n, err = bufs.WriteTo(g.nc); return err })
	return g.written(int(n), most, err)
}

// written is the result of writing most bytes: without an error it must be all of them.
func (g *guarded) written(n, most int, err error) (int, error) {
	if n >= 0 && (n == most || n < most && err != nil) {
		return n, err
	}
	return 0, g.nonsense("Write", "returned %d for %d bytes", n, most)
}

func (g *guarded) nonsense(method, format string, args ...any) error {
	return g.fault("net.Conn."+method, Nonsense(fmt.Sprintf(format, args...)))
}

// Close implements net.Conn. It does not wait for one that blocks.
func (g *guarded) Close() error {
	g.closing.Do(func() {
		go func() {
			defer close(g.closed)
			g.closeErr = g.call("Close", g.nc.Close)
		}()
	})
	limit := time.NewTimer(closeTime)
	defer limit.Stop()
	select {
	case <-g.closed:
		return g.closeErr
	case <-limit.C:
		return nil
	}
}

// CloseWrite ends the writing half, where nc can do that.
func (g *guarded) CloseWrite() error {
	w, ok := g.nc.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return g.call("CloseWrite", w.CloseWrite)
}

// SyscallConn implements syscall.Conn, where nc does.
func (g *guarded) SyscallConn() (rc syscall.RawConn, err error) {
	sc, ok := g.nc.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	err = g.call("SyscallConn", func() (err error) { rc, err = sc.SyscallConn(); return err })
	if err == nil && IsNil(rc) {
		err = errors.ErrUnsupported
	}
	return rc, err
}

// RemoteAddr implements net.Conn. The first call may wait, as long as nc's does.
func (g *guarded) RemoteAddr() net.Addr { g.findAddrs(); return g.remote }

// LocalAddr implements net.Conn.
func (g *guarded) LocalAddr() net.Addr { g.findAddrs(); return g.local }

func (g *guarded) findAddrs() {
	g.addrs.Do(func() {
		g.remote, g.local = noAddr{}, noAddr{}
		g.remote = g.addr("RemoteAddr", g.nc.RemoteAddr)
		g.local = g.addr("LocalAddr", g.nc.LocalAddr)
	})
}

// addr calls f once for an address that can be printed.
func (g *guarded) addr(name string, f func() net.Addr) net.Addr {
	var a net.Addr
	err := g.call(name, func() error {
		if a = f(); !IsNil(a) {
			_, _ = a.Network(), a.String()
		}
		return nil
	})
	if err != nil || IsNil(a) {
		return noAddr{}
	}
	return a
}

// SetDeadline implements net.Conn.
func (g *guarded) SetDeadline(t time.Time) error {
	return g.call("SetDeadline", func() error { return g.nc.SetDeadline(t) })
}

// SetReadDeadline implements net.Conn.
func (g *guarded) SetReadDeadline(t time.Time) error {
	return g.call("SetReadDeadline", func() error { return g.nc.SetReadDeadline(t) })
}

// SetWriteDeadline implements net.Conn.
func (g *guarded) SetWriteDeadline(t time.Time) error {
	return g.call("SetWriteDeadline", func() error { return g.nc.SetWriteDeadline(t) })
}
