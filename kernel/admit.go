package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/conn"
)

// A pendingConn is an accepted connection before it is a Conn.
type pendingConn struct {
	engine  *conn.Engine
	nc      net.Conn // guarded
	uncount func()   // takes it out of the server's counts; the server's lock is held
	ctx     context.Context
	cancel  context.CancelCauseFunc
	number  uint64                   // in the order in which they came,
	since   time.Time                // and when its handshake began; the server's lock owns it
	heard   atomic.Bool              // it has said what it speaks
	addr    atomic.Pointer[net.Addr] // its peer's, once that is known
	host    string                   // see addrHost; "" before it is known. The server's lock owns it
}

// peerAddr is the peer's address, for errors and the log.
func (p *pendingConn) peerAddr() net.Addr {
	if a := p.addr.Load(); a != nil {
		return *a
	}
	return address{"unknown", "unknown"}
}

func (p *pendingConn) setAddr(a net.Addr) { p.addr.Store(&a) }

var (
	errTooMany = errors.New("too many connections from this address")
	// errReplaced is why a handshake is over that has given way to a newer one. Where the
	// client had not said anything there is as little to log as of one that goes away.
	errReplaced       = errors.New("too many handshakes: a newer one has taken its place")
	errSilentReplaced = fmt.Errorf("%w: %w", errReplaced, errSilent)
)

// admit starts the handshake of an accepted connection, or closes it if a limit is
// reached.
func (s *Server) admit(ls *lease, nc net.Conn) {
	p := &pendingConn{engine: ls.engine}
	p.nc = conn.Guard(nc, func(function string, r any) error { return s.faultedIn(soon, function, p.peerAddr(), r) })
	p.ctx, p.cancel = context.WithCancelCause(s.ctx)
	if p.nc == nc { // else the program's code says where it is from, which may take its time
		p.setAddr(conn.RemoteAddr(nc))
		p.host = addrHost(p.peerAddr())
	}
	ls.users.Add(1)
	p.uncount = sync.OnceFunc(func() {
		s.uncount(p.host)
		ls.users.Done()
	})
	if !s.reserve(p) {
		ls.users.Done()
		s.refused.Add(1)
		p.cancel(nil)
		_ = p.nc.Close()
		return
	}
	go s.handshake(p)
}

// grace is how long a handshake lasts at least before it gives way to another: those of a
// client that opens many connections at once are over before.
const grace = time.Second

// reserve counts p: in total, for its address, among the handshakes. Where a limit is reached
// another handshake may give way to it; if none may, reserve returns false. While there are
// too many handshakes reserve waits until one is over or may give way, or for grace: those who
// come then wait in the system's queue.
func (s *Server) reserve(p *pendingConn) bool {
	for {
		ok, over, wait := s.tryReserve(p)
		if wait == 0 {
			return ok
		}
		t := time.NewTimer(wait)
		select {
		case <-over:
		case <-t.C:
		case <-s.draining:
		}
		t.Stop()
	}
}

// tryReserve is reserve without waiting. If wait is not 0 it is to be called again when over
// is closed, or after wait.
func (s *Server) tryReserve(p *pendingConn) (ok bool, over <-chan struct{}, wait time.Duration) {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	l := &s.opts.Limits
	same := s.perAddr[p.host] >= l.MaxConnsPerAddr
	crowded := len(s.handshakes) >= l.MaxHandshakes
	switch {
	case s.closing:
		return false, nil, 0
	case same || crowded || s.total >= l.MaxConns:
		v := s.givesWay(p, same)
		if crowded && !same {
			if wait = s.graceOf(v); wait > 0 {
				if s.handshakeEnds == nil {
					s.handshakeEnds = make(chan struct{})
				}
				return false, s.handshakeEnds, wait
			}
		}
		if v == nil {
			return false, nil, 0
		}
		s.replace(v)
	}
	s.arrived++
	p.number, p.since = s.arrived, time.Now()
	s.total++
	if p.host != "" {
		s.perAddr[p.host]++
	}
	s.handshakes[p.nc] = p
	return true, nil, 0
}

// graceOf is what is left of v's grace or, if v is nil, of the youngest handshake's. The lock
// is held.
func (s *Server) graceOf(v *pendingConn) (left time.Duration) {
	if v != nil {
		return max(grace-time.Since(v.since), 0)
	}
	for _, q := range s.handshakes {
		left = max(left, grace-time.Since(q.since))
	}
	return left
}

// A candidate is a handshake that may give way to another.
type candidate struct {
	p    *pendingConn
	rank int // see givesWay; the lowest goes first
	held int // handshakes of its address
}

// goesBefore reports whether a gives way before b.
func (a *candidate) goesBefore(b *candidate) bool {
	switch {
	case b.p == nil || a.rank != b.rank:
		return b.p == nil || a.rank < b.rank
	case a.held != b.held:
		return a.held > b.held
	}
	return a.p.number < b.p.number
}

// givesWay returns the handshake that gives way to p, nil if there is none. same says that
// it must be from p's address. The first of these that there is goes, of the address that has
// the most of them, and of those the oldest:
//
//	0: silent, of an address with more handshakes than p's
//	1: any, of an address with at least two more
//	2: silent, of p's own
//
// So no address keeps out another that has fewer, and what is silent keeps out nobody. The
// lock is held.
func (s *Server) givesWay(p *pendingConn, same bool) *pendingConn {
	held := map[string]int{}
	for _, q := range s.handshakes {
		if q.host != "" { // peers without an address are not one peer
			held[q.host]++
		}
	}
	own, first := held[p.host], candidate{}
	for _, q := range s.handshakes {
		c := candidate{p: q, held: max(held[q.host], 1)}
		silent, ours := !q.heard.Load(), p.host != "" && q.host == p.host
		switch {
		case same && !ours:
			continue
		case silent && c.held > own:
			c.rank = 0
		case c.held > own+1:
			c.rank = 1
		case silent && ours:
			c.rank = 2
		default:
			continue
		}
		if c.goesBefore(&first) {
			first = c
		}
	}
	return first.p
}

// replace ends the handshake of p. The lock is held.
func (s *Server) replace(p *pendingConn) {
	s.endHandshake(p)
	p.uncount()
	if p.heard.Load() {
		p.cancel(errReplaced)
	} else {
		p.cancel(errSilentReplaced)
	}
}

// endHandshake takes p out of the handshakes, and wakes who waits for that. The lock is held.
func (s *Server) endHandshake(p *pendingConn) {
	delete(s.handshakes, p.nc)
	if s.handshakeEnds != nil {
		close(s.handshakeEnds)
		s.handshakeEnds = nil
	}
}

// locate finds out the address of p, whose net.Conn is the program's, and counts p for it. It
// returns false if there are too many.
func (s *Server) locate(p *pendingConn) bool {
	if p.addr.Load() != nil {
		return true
	}
	p.setAddr(conn.RemoteAddr(p.nc))
	host := addrHost(p.peerAddr())
	s.connMu.Lock()
	defer s.connMu.Unlock()
	if host == "" || s.handshakes[p.nc] != p {
		return true
	}
	if s.perAddr[host] >= s.opts.Limits.MaxConnsPerAddr {
		return false
	}
	p.host = host
	s.perAddr[host]++
	return true
}

// noteHello notes that the client on nc has begun with TLS.
func (s *Server) noteHello(nc net.Conn) {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	if p := s.handshakes[nc]; p != nil {
		p.heard.Store(true)
	}
}
