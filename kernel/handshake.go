package kernel

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// handshake makes a connection of p. It takes Limits.Handshake and Limits.Authenticate at
// most, and is over at once when p gives way or the server is closed.
func (s *Server) handshake(p *pendingConn) {
	var c *Conn
	err := error(&hookError{"handshake", "called runtime.Goexit"})
	defer func() { s.handshakeOver(p, c, err) }()
	l := &s.opts.Limits
	ctx, cancel := context.WithTimeout(p.ctx, l.Handshake+2*(l.Authenticate+time.Second))
	defer cancel()
	j, e := within(ctx, &s.endpoint, "handshake", p.peerAddr(), func() (*handshaken, error) { return s.establish(p) }, discard)
	if err = e; err == nil {
		err = s.hook("frame.Protocol", p.peerAddr(), func() (err error) {
			c, err = s.join(p, j)
			return err
		})
	}
	if cause := conn.Exited(p.nc); cause != nil && err != nil {
		err = cause
	}
	if cause := context.Cause(p.ctx); cause != nil && err != nil {
		err = cause
	}
}

// handshakeOver takes p out of the handshakes. A nil c means that no connection came of it.
func (s *Server) handshakeOver(p *pendingConn, c *Conn, err error) {
	if c != nil {
		s.accepted.Add(1)
	} else {
		s.failed.Add(1)
		s.logHandshake(p.peerAddr(), err)
		_ = p.nc.Close()
	}
	p.cancel(nil)
	s.connMu.Lock()
	defer s.connMu.Unlock()
	s.endHandshake(p)
	if c == nil {
		p.uncount()
	}
	s.signalIfEmpty() // the connection may have ended before the handshake was uncounted
}

var errALPN = errors.New("the client offers no application protocol (ALPN)")

func (s *Server) logHandshake(peer net.Addr, err error) {
	if errors.Is(err, errSilent) {
		s.logger.Debug("sluice: handshake failed", "peer", peer, "error", clip(err.Error()))
		return
	}
	s.logger.Info("sluice: handshake failed", "peer", peer, "error", clip(err.Error()))
}

// discard ends a handshake that no connection comes of.
func discard(j *handshaken) {
	if j.unexpect != nil {
		j.unexpect()
	}
	discardSession(j.sess)
}

// establish does the handshake of TLS and of the protocol, which it finds out.
func (s *Server) establish(pending *pendingConn) (*handshaken, error) {
	fail := func(err error) (*handshaken, error) {
		return nil, &status.ConnError{Addr: pending.peerAddr(), Op: "handshake", Err: err}
	}
	l, nc := &s.opts.Limits, pending.nc
	if !s.locate(pending) {
		return fail(errTooMany)
	}
	ctx, cancel := context.WithTimeout(pending.ctx, l.Handshake)
	defer cancel()
	if err := nc.SetDeadline(time.Now().Add(l.Handshake)); err != nil {
		return nil, err
	}
	candidates := s.protocols
	if s.opts.TLS != nil {
		tc := tls.Server(nc, s.opts.TLS)
		if err := tc.HandshakeContext(ctx); err != nil {
			return fail(err)
		}
		nc = tc
		candidates = spoken(s.protocols, tc.ConnectionState().NegotiatedProtocol)
		if len(candidates) == 0 {
			return fail(errALPN)
		}
	}
	p, first, err := s.sniff(nc, candidates)
	if err != nil {
		return fail(err)
	}
	pending.heard.Store(true)
	caps, plain := p.Caps(), s.opts.TLS == nil
	j := &handshaken{nc: nc, proto: p, g: &frame.Greeting{First: first, Secure: !plain, Own: s.settings(&caps, plain)}}
	s.greet(pending, j)
	j.sess, err = p.Handshake(ctx, nc, j.g)
	if err == nil && conn.IsNil(j.sess) {
		err = &hookError{"frame.Protocol.Handshake", "returned no session"}
	}
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil {
		discard(j)
		return fail(err)
	}
	return j, nil
}

// greet sets what a server's handshake may call.
func (s *Server) greet(pending *pendingConn, j *handshaken) {
	j.unexpect = func() {}
	g, nc, life := j.g, j.nc, pending.ctx
	if s.opts.Authenticate != nil {
		g.Authenticate = func(_ context.Context, peer *frame.Settings) (err error) {
			j.identity, err = s.authenticate(life, nc, peer)
			return err
		}
	}
	g.Guard = func(_ context.Context, hook func(context.Context) error) error {
		_, err := callHook(life, s, nc, "handshake", func(ctx context.Context) (struct{}, error) { return struct{}{}, hook(ctx) })
		return err
	}
	g.AddChild = func(ctx context.Context, parent, id uint64) (err error) {
		if j.unexpect, err = s.expect(ctx, j, parent, id); err == nil {
			s.countWithParent(pending)
		}
		return err
	}
}

// join makes a connection of what the handshake has left.
func (s *Server) join(pending *pendingConn, j *handshaken) (*Conn, error) {
	c, err := s.attach(pending.engine, j, func(c *Conn) {
		c.identity = j.identity
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
		c.drain(nil)
	}
	return c, nil
}

// authenticate calls the program's Authenticate. Of its error only what the client and the
// log are told is left: methods of the error's could panic later.
func (s *Server) authenticate(life context.Context, nc net.Conn, peer *frame.Settings) (Identity, error) {
	p := Peer{Addr: conn.RemoteAddr(nc), Token: peer.Token, TLS: tlsState(nc)}
	return callHook(life, s, nc, "Authenticate", func(ctx context.Context) (Identity, error) {
		id, err := s.opts.Authenticate(ctx, p)
		if err == nil {
			return id, nil
		}
		var he *status.HandlerError
		if errors.As(err, &he) && he.Code != status.OK {
			return nil, &frame.Refused{Code: he.Code, Reason: he.Reason}
		}
		return nil, errors.New(err.Error())
	})
}

// tlsState is the state of a connection with TLS, nil of any other.
func tlsState(nc net.Conn) *tls.ConnectionState {
	if tc, ok := nc.(*tls.Conn); ok {
		st := tc.ConnectionState()
		return &st
	}
	return nil
}

// callHook calls a hook of the program during a handshake. The hook has a time limit of its
// own, and life's end is its end.
func callHook[T any](life context.Context, s *Server, nc net.Conn, name string, hook func(ctx context.Context) (T, error)) (T, error) {
	l := s.opts.Limits.Authenticate
	ctx, cancel := context.WithTimeout(life, l)
	defer cancel()
	if err := nc.SetDeadline(time.Now().Add(l + time.Second)); err != nil {
		var none T
		return none, err
	}
	return within(ctx, &s.endpoint, name, conn.RemoteAddr(nc), func() (T, error) { return hook(ctx) }, nil)
}
