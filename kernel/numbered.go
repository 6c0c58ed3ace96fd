package kernel

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// What is here serves protocols on which every stream has a connection of its own, a
// child of the one with the calls, and a call names a stream by number
// (frame.Caps.StreamsByID).

// errNoStream is the error of a call that names a stream which it can't have.
var errNoStream = errors.New("no such stream, or another call has it")

// warnOfNames logs the patterns that no client can call, because every protocol of the server
// knows methods by numbers alone.
func (s *Server) warnOfNames() {
	for _, p := range s.protocols {
		if !p.Caps().Verbs {
			return
		}
	}
	for _, pattern := range s.handlers.patterns() {
		digits, isVerb := strings.CutPrefix(pattern, "#")
		if _, err := strconv.ParseUint(digits, 10, 64); pattern != "" && (!isVerb || err != nil) {
			s.logger.Warn("sluice: no protocol of the server can say the method's name", "method", pattern)
		}
	}
}

// errNotTheirs is the error of a connection whose parent is another client's.
var errNotTheirs = errors.New("the connection that the stream belongs to is another client's")

// isOf reports whether the client of j has c too: it has the same certificate and token, and,
// where it has no certificate, the same address or the same identity.
func (c *Conn) isOf(j *handshaken) bool {
	ours, theirs := certificate(c.peer.TLS), certificate(tlsState(j.nc))
	if !bytes.Equal(ours, theirs) || !bytes.Equal(c.peer.Token, j.g.Peer.Token) {
		return false
	}
	return ours != nil || addrHost(c.peer.Addr) == addrHost(conn.RemoteAddr(j.nc)) || equalIdentities(c.identity, j.identity)
}

// certificate is the peer's certificate; nil: there is none.
func certificate(t *tls.ConnectionState) []byte {
	if t == nil || len(t.PeerCertificates) == 0 {
		return nil
	}
	return t.PeerCertificates[0].Raw
}

// equalIdentities reports whether two values that Authenticate has returned are equal. Values
// that can't be compared are not.
func equalIdentities(a, b Identity) (equal bool) {
	defer func() { _ = recover() }()
	return a != nil && a == b
}

func (ep *endpoint) addParent(c *Conn) {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.parents == nil {
		ep.parents = map[uint64]*Conn{}
	}
	ep.parents[c.children.id] = c
	if ep.parentAdded != nil {
		close(ep.parentAdded)
		ep.parentAdded = nil
	}
}

func (ep *endpoint) removeParent(c *Conn) {
	if !c.hasNumberedStreams() {
		return
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.parents[c.children.id] == c {
		delete(ep.parents, c.children.id)
	}
}

// parentOf returns the connection with a number. If there is none it returns a channel that
// is closed when parents gets a new one.
func (ep *endpoint) parentOf(id uint64) (*Conn, <-chan struct{}) {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if c := ep.parents[id]; c != nil {
		return c, nil
	}
	if ep.parentAdded == nil {
		ep.parentAdded = make(chan struct{})
	}
	return nil, ep.parentAdded
}

// expect adds a child that a client is setting up to the connection with the number parent,
// and returns a function that removes it again. It waits for a parent that is not known
// yet, until ctx ends. The parent must be the same client's.
func (ep *endpoint) expect(ctx context.Context, j *handshaken, parent, number uint64) (undo func(), err error) {
	for {
		c, added := ep.parentOf(parent)
		if c != nil && !c.isOf(j) {
			return func() {}, errNotTheirs
		}
		if c != nil {
			cs := &c.children
			return func() { cs.remove(number, nil) }, cs.expect(number, ep.limits.MaxStreams)
		}
		select {
		case <-added:
		case <-ctx.Done():
			return func() {}, errNoParent
		}
	}
}

// countWithParent has p, which becomes a child of its client's connection, count for that
// connection, as one of its streams, and no more for the address. Where more than half of
// MaxConns are in use it counts for both: one address can't take them all.
func (s *Server) countWithParent(p *pendingConn) {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	if s.handshakes[p.nc] == p && s.total <= s.opts.Limits.MaxConns/2 {
		s.uncountAddr(p.host)
		p.host = ""
	}
}

// connsPerStream is how many children a server takes for each stream that it allows: a
// connection ends later than its stream does for the client.
const connsPerStream = 4

func (cs *children) expect(number uint64, most int) error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch {
	case cs.over:
		return errNoParent
	case len(cs.of) >= connsPerStream*most:
		return &frame.Refused{Code: status.Refused, Reason: fmt.Sprintf("%d streams are open", len(cs.of)), Cause: ErrTooManyStreams}
	}
	cs.add(number).arrived = make(chan struct{})
	return nil
}

// acceptUnclaimed accepts the one stream of a child, which then waits for the call that
// names it.
func (c *Conn) acceptUnclaimed(f *frame.Frame) *conn.Refusal {
	s, err := c.offer(f).Accept(pool.Message{}, nil)
	if err != nil {
		return nil // it has ended already
	}
	siblings := &c.parent.children
	siblings.mu.Lock()
	defer siblings.mu.Unlock()
	if k := c.child; k != nil && k.arrived != nil && !k.claimed {
		k.stream = s
		close(k.arrived)
	}
	return nil
}

// CallRef returns how a call names the stream where Caps.StreamsByID holds: by the number
// id, in a call on the connection on. On other protocols on is nil.
func (s *Stream) CallRef() (on *Conn, id uint64) {
	if c := s.c.conn; c.isOneStream() {
		return c.parent, c.number
	}
	return nil, 0
}

// TakeStream returns the stream that a call on c names as id, which is CallRef's on the
// other side. Each stream can be taken once. If the stream's connection is still being set
// up, TakeStream waits for it until ctx ends. It fails if there is no such stream, and with
// ErrTooManyStreams if four times Limits.MaxStreams streams are being served.
func (c *Conn) TakeStream(ctx context.Context, id uint64) (*Stream, error) {
	cs := &c.children
	cs.mu.Lock()
	k := cs.of[id]
	cs.mu.Unlock()
	if k == nil || k.arrived == nil {
		return nil, errNoStream
	}
	select {
	case <-k.arrived:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if k.claimed { // another call was faster, or the stream is gone
		return nil, errNoStream
	}
	if most := c.endpoint.limits.MaxStreams; cs.served >= connsPerStream*most {
		return nil, fmt.Errorf("%w: %d, or functions still serve those that have ended", ErrTooManyStreams, most)
	}
	k.claimed = true
	k.hold()
	close(k.conn.taken)
	return k.stream, nil
}

// serving counts n more functions that serve the connection's one stream. They don't count
// as handlers of the parent: its calls must not wait for streams that stay open.
func (c *Conn) serving(n int) {
	if !c.isOneStream() || c.child == nil {
		return
	}
	f := &c.parent.children
	f.mu.Lock()
	defer f.mu.Unlock()
	before := c.child.serving
	c.child.serving += n
	switch {
	case before == 0:
		f.served++
	case c.child.serving == 0:
		f.served--
	}
}
