package kernel

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// admit starts the handshake of an accepted connection, or closes it if a limit is reached.
// It waits while there are too many handshakes: those who come then wait in the system's
// queue.
func (s *Server) admit(ls *lease, nc net.Conn) {
	p := &pendingConn{engine: ls.engine, nc: nc, host: addrHost(nc.RemoteAddr())}
	if !s.reserve(p) {
		s.refused.Add(1)
		_ = nc.Close()
		return
	}
	ls.users.Add(1)
	p.uncount = sync.OnceFunc(func() {
		s.uncount(p.host)
		ls.users.Done()
	})
	go s.handshake(p)
}

// A pendingConn is an accepted connection before it is a Conn.
type pendingConn struct {
	engine  *conn.Engine
	nc      net.Conn
	uncount func() // takes it out of the server's counts; the server's lock is held
	host    string // that it counts for, "" for none; the server's lock owns it
}

// reserve counts p: in total, for its address, among the handshakes. It returns false if
// a limit is reached, or the server closes while reserve waits for another handshake.
func (s *Server) reserve(p *pendingConn) bool {
	select {
	case s.slots <- struct{}{}:
	case <-s.draining:
		return false
	}
	s.connMu.Lock()
	defer s.connMu.Unlock()
	if s.closing || s.total >= s.opts.Limits.MaxConns || s.perAddr[p.host] >= s.opts.Limits.MaxConnsPerAddr {
		<-s.slots
		return false
	}
	s.total++
	if p.host != "" {
		s.perAddr[p.host]++
	}
	s.handshakes[p.nc] = struct{}{}
	return true
}

// handshake makes a connection of p. It takes Limits.Handshake and Limits.Authenticate at
// most.
func (s *Server) handshake(p *pendingConn) {
	c, err := s.establish(p)
	<-s.slots
	if err == nil {
		s.accepted.Add(1)
	} else {
		s.failed.Add(1)
		s.logHandshake(p.nc.RemoteAddr(), err)
		_ = p.nc.Close()
	}
	s.connMu.Lock()
	defer s.connMu.Unlock()
	delete(s.handshakes, p.nc)
	if c == nil {
		p.uncount()
	}
	s.signalIfEmpty() // the connection may have ended before the handshake was uncounted
}

var errALPN = errors.New("the client offers no application protocol (ALPN)")

func (s *Server) logHandshake(peer net.Addr, err error) {
	if errors.Is(err, errSilent) {
		s.logger.Debug("sluice: handshake failed", "peer", peer, "error", err)
		return
	}
	s.logger.Info("sluice: handshake failed", "peer", peer, "error", clip(err.Error()))
}

// establish does the handshake of TLS and of the protocol, which it finds out.
func (s *Server) establish(pending *pendingConn) (*Conn, error) {
	l, nc := &s.opts.Limits, pending.nc
	ctx, cancel := context.WithTimeout(context.Background(), l.Handshake)
	defer cancel()
	if err := nc.SetDeadline(time.Now().Add(l.Handshake)); err != nil {
		return nil, err
	}
	candidates := s.protocols
	if s.opts.TLS != nil {
		tc := tls.Server(nc, s.opts.TLS)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, &status.ConnError{Addr: nc.RemoteAddr(), Op: "handshake", Err: err}
		}
		nc = tc
		candidates = spoken(s.protocols, tc.ConnectionState().NegotiatedProtocol)
		if len(candidates) == 0 {
			return nil, &status.ConnError{Addr: nc.RemoteAddr(), Op: "handshake", Err: errALPN}
		}
	}
	p, first, err := s.sniff(nc, candidates)
	if err != nil {
		return nil, &status.ConnError{Addr: nc.RemoteAddr(), Op: "handshake", Err: err}
	}
	var id Identity
	caps, plain := p.Caps(), s.opts.TLS == nil
	g := &frame.Greeting{First: first, Secure: !plain, Own: s.settings(&caps, plain)}
	if s.opts.Authenticate != nil {
		g.Authenticate = func(_ context.Context, peer *frame.Settings) error {
			id, err = s.authenticate(nc, peer)
			return err
		}
	}
	unexpect := func() {}
	g.Guard = func(_ context.Context, hook func(context.Context) error) error {
		_, err := callHook(s, nc, "handshake", func(ctx context.Context) (struct{}, error) { return struct{}{}, hook(ctx) })
		return err
	}
	g.AddChild = func(ctx context.Context, parent, id uint64) (err error) {
		if unexpect, err = s.expect(ctx, parent, id); err == nil {
			s.countWithParent(pending, parent)
		}
		return err
	}
	sess, err := p.Handshake(ctx, nc, g)
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil {
		unexpect()
		discardSession(sess)
		return nil, &status.ConnError{Addr: nc.RemoteAddr(), Op: "handshake", Err: err}
	}
	return s.join(pending, &handshaken{nc: nc, proto: p, sess: sess, g: g}, id)
}

// join makes a connection of what the handshake has left.
func (s *Server) join(pending *pendingConn, j *handshaken, id Identity) (*Conn, error) {
	c, err := s.attach(pending.engine, j, func(c *Conn) {
		c.identity = id
		c.onEnd = func(c *Conn) { s.connEnded(c, pending.uncount) }
		s.connMu.Lock()
		s.conns[c] = struct{}{}
		s.connMu.Unlock()
	})
	if err != nil {
		s.connMu.Lock()
		delete(s.conns, c)
		s.connMu.Unlock()
		return nil, err
	}
	// Close or Shutdown may have been called before the connection was in conns. Streams
	// may have been opened on it already: Shutdown lets them end.
	s.connMu.Lock()
	closing, closed := s.closing, s.closed
	s.connMu.Unlock()
	switch {
	case closed:
		c.shut(status.Unavailable, serverClosed)
	case closing:
		c.drain()
	}
	return c, nil
}

// authenticate calls the program's Authenticate.
func (s *Server) authenticate(nc net.Conn, peer *frame.Settings) (Identity, error) {
	p := Peer{Addr: nc.RemoteAddr(), Token: peer.Token}
	if tc, ok := nc.(*tls.Conn); ok {
		st := tc.ConnectionState()
		p.TLS = &st
	}
	id, err := callHook(s, nc, "Authenticate", func(ctx context.Context) (Identity, error) { return s.opts.Authenticate(ctx, p) })
	var he *status.HandlerError
	if errors.As(err, &he) && he.Code != status.OK {
		return nil, &frame.Refused{Code: he.Code, Reason: he.Reason}
	}
	return id, err
}

// callHook calls a hook of the program during a handshake. The hook has a time limit of its
// own.
func callHook[T any](s *Server, nc net.Conn, name string, hook func(ctx context.Context) (T, error)) (T, error) {
	l := s.opts.Limits.Authenticate
	ctx, cancel := context.WithTimeout(s.ctx, l)
	defer cancel()
	if err := nc.SetDeadline(time.Now().Add(l + time.Second)); err != nil {
		var none T
		return none, err
	}
	return within(ctx, func() (v T, err error) {
		err = s.hook(name, nc.RemoteAddr(), func() error {
			v, err = hook(ctx)
			return err
		})
		return v, err
	})
}

// within runs f in a goroutine and returns its result, or an error when ctx ends. A hook
// that ignores its context holds up nothing but its goroutine.
func within[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	c := make(chan result, 1)
	go func() {
		r := result{err: errHook}
		defer func() { c <- r }() // also if f calls runtime.Goexit
		r.v, r.err = f()
	}()
	select {
	case r := <-c:
		return r.v, r.err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}
