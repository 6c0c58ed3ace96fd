package kernel

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/conn"
)

// A lease keeps the event loops running for the connections of one listener.
type lease struct {
	engine *conn.Engine // nil: the connections need no loops
	users  sync.WaitGroup
}

func (s *Server) lease(ln net.Listener) (ls *lease, err error) {
	ls = &lease{}
	switch ln.(type) {
	case *net.TCPListener, *net.UnixListener:
		if s.opts.TLS == nil {
			ls.engine, err = conn.Acquire()
		}
	}
	return ls, err
}

// end waits until the connections have ended, and releases the loops.
func (ls *lease) end() {
	ls.users.Wait()
	if ls.engine != nil {
		ls.engine.Release()
	}
}

// serve admits what ln accepts, and sends failed why that has ended.
func (s *Server) serve(ctx context.Context, ls *lease, ln net.Listener, failed chan<- error) {
	err := error(&hookError{"net.Listener.Accept", "called runtime.Goexit"})
	defer func() { failed <- err }()
	err = s.hook("net.Listener.Accept", nil, func() error { return s.acceptAll(ctx, ls, ln) })
}

// acceptAll admits what ln accepts, until that fails or the server is closing.
func (s *Server) acceptAll(ctx context.Context, ls *lease, ln net.Listener) error {
	var pause backoffAccept
	for {
		for s.pressure.Load() >= stopAccepting && !s.isClosing() {
			pause.sleep(ctx)
		}
		nc, err := ln.Accept()
		if err == nil && conn.IsNil(nc) {
			err = &hookError{"net.Listener.Accept", "returned no connection"}
		}
		switch {
		case err == nil:
			pause = 0
			s.admit(ls, nc)
		case s.isClosing() || !temporary(err):
			return err
		default:
			pause.sleep(ctx)
		}
	}
}

// closeTime is how long the program's listeners are waited for when they close.
const closeTime = 100 * time.Millisecond

// closeListener closes ln. It does not wait long for one that is the program's.
func (s *Server) closeListener(ln net.Listener) {
	switch ln.(type) {
	case *net.TCPListener, *net.UnixListener:
		_ = ln.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_, _ = within(ctx, &s.endpoint, "net.Listener.Close", nil, func() (struct{}, error) { return struct{}{}, ln.Close() }, nil)
}

// addrOf is the address of ln, for an error.
func (s *Server) addrOf(ln net.Listener) net.Addr {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	a, err := within(ctx, &s.endpoint, "net.Listener.Addr", nil, func() (net.Addr, error) {
		a := ln.Addr()
		if !conn.IsNil(a) {
			_, _ = a.Network(), a.String()
		}
		return a, nil
	}, nil)
	if err != nil || conn.IsNil(a) {
		return address{"unknown", "unknown"}
	}
	return a
}

// backoffAccept is the pause while accept fails. It grows from 10 ms to 1 s.
type backoffAccept time.Duration

func (b *backoffAccept) sleep(ctx context.Context) {
	d := min(max(2*time.Duration(*b), 10*time.Millisecond), time.Second)
	*b = backoffAccept(d)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
