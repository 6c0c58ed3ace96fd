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
)

// admit takes a fresh connection if the limits allow, and starts its handshake.
func (s *Server) admit(ls *lease, nc net.Conn) {
	host := addrHost(nc.RemoteAddr())
	if !s.reserve(nc, host) {
		s.refused.Add(1)
		_ = nc.Close()
		return
	}
	ls.users.Add(1)
	go s.greet(&pendingConn{engine: ls.engine, nc: nc, leave: sync.OnceFunc(func() {
		s.leave(host)
		ls.users.Done()
	})})
}

// A guest is a connection from being accepted to being one of the server's.
type pendingConn struct {
	engine *conn.Engine
	nc     net.Conn
	leave  func() // uncounts it; the server's lock is held
}

// reserve counts nc in: total, per address, handshakes at once.
func (s *Server) reserve(nc net.Conn, host string) bool {
	select {
	case s.slots <- struct{}{}:
	default:
		return false
	}
	s.connMu.Lock()
	defer s.connMu.Unlock()
	if s.closing || s.total >= s.opts.Limits.MaxConns || s.perAddr[host] >= s.opts.Limits.MaxConnsPerAddr {
		<-s.slots
		return false
	}
	s.total++
	s.perAddr[host]++
	s.handshakes[nc] = struct{}{}
	return true
}

// greet does the handshake: TLS, first bytes, hello, authentication. It ends
// within the limits' time.
func (s *Server) greet(g *pendingConn) {
	c, err := s.welcome(g)
	<-s.slots
	if err == nil {
		s.accepted.Add(1)
	} else {
		s.failed.Add(1)
		s.logHandshake(g.nc.RemoteAddr(), err)
		_ = g.nc.Close()
	}
	s.connMu.Lock()
	defer s.connMu.Unlock()
	delete(s.handshakes, g.nc)
	if c == nil {
		g.leave()
	}
	s.settle() // the connection may have ended before its handshake was counted out
}

var errALPN = errors.New("the client names no application protocol")

func (s *Server) logHandshake(peer net.Addr, err error) {
	if errors.Is(err, errSilent) {
		s.logger.Debug("sluice: handshake failed", "peer", peer, "error", err)
		return
	}
	s.logger.Info("sluice: handshake failed", "peer", peer, "error", clip(err.Error()))
}

func (s *Server) welcome(guest *pendingConn) (*Conn, error) {
	l, nc := &s.opts.Limits, guest.nc
	ctx, cancel := context.WithTimeout(context.Background(), l.Handshake)
	defer cancel()
	if err := nc.SetDeadline(time.Now().Add(l.Handshake)); err != nil {
		return nil, err
	}
	candidates := s.protocols
	if s.opts.TLS != nil {
		tc := tls.Server(nc, s.opts.TLS)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, &ConnError{Addr: nc.RemoteAddr(), Op: "handshake", Err: err}
		}
		nc = tc
		candidates = spoken(s.protocols, tc.ConnectionState().NegotiatedProtocol)
		if len(candidates) == 0 {
			return nil, &ConnError{Addr: nc.RemoteAddr(), Op: "handshake", Err: errALPN}
		}
	}
	p, first, err := s.sniff(nc, candidates)
	if err != nil {
		return nil, &ConnError{Addr: nc.RemoteAddr(), Op: "handshake", Err: err}
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
	forget := func() {}
	g.Guard = func(_ context.Context, hook func(context.Context) error) error {
		_, err := ask(s, nc, "handshake", func(ctx context.Context) (struct{}, error) { return struct{}{}, hook(ctx) })
		return err
	}
	g.Adopt = func(ctx context.Context, parent, id uint64) (err error) {
		forget, err = s.expect(ctx, parent, id)
		return err
	}
	sess, err := p.Handshake(ctx, nc, g)
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil {
		forget() // the welcome may have been for nobody
		discardSession(sess)
		return nil, &ConnError{Addr: nc.RemoteAddr(), Op: "handshake", Err: err}
	}
	return s.join(guest, &handshaken{nc: nc, proto: p, sess: sess, g: g}, id)
}

// join makes the connection one of the server's.
func (s *Server) join(guest *pendingConn, j *handshaken, id Identity) (*Conn, error) {
	c, err := s.attach(guest.engine, j, func(c *Conn) {
		c.identity = id
		c.onEnd = func(c *Conn) { s.gone(c, guest.leave) }
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
	// It may not be among those that were told. Streams may have been opened on it
	// already, so a drain lets it drain.
	s.connMu.Lock()
	closing, cut := s.closing, s.cut
	s.connMu.Unlock()
	switch {
	case cut:
		c.shut()
	case closing:
		c.drain()
	}
	return c, nil
}

// authenticate asks the program who the peer is.
func (s *Server) authenticate(nc net.Conn, peer *frame.Settings) (Identity, error) {
	p := Peer{Addr: nc.RemoteAddr(), Token: peer.Token}
	if tc, ok := nc.(*tls.Conn); ok {
		st := tc.ConnectionState()
		p.TLS = &st
	}
	id, err := ask(s, nc, "Authenticate", func(ctx context.Context) (Identity, error) { return s.opts.Authenticate(ctx, p) })
	var he *HandlerError
	if errors.As(err, &he) && he.Code != CodeOK {
		return nil, &frame.Refused{Code: he.Code, Reason: he.Reason}
	}
	return id, err
}

// ask calls a hook of the program's during a handshake, within a time of its own.
func ask[T any](s *Server, nc net.Conn, name string, hook func(ctx context.Context) (T, error)) (T, error) {
	l := s.opts.Limits.Authenticate
	ctx, cancel := context.WithTimeout(s.life, l)
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

// within runs f, and gives up on it when ctx ends: a hook that ignores its
// context holds up nobody but itself.
func within[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	c := make(chan result, 1)
	go func() {
		r := result{err: errHook}
		defer func() { c <- r }() // also when f is left by Goexit
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
