package kernel

import (
	"fmt"
	"net"
	"reflect"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// handshaken is a network connection after its handshake, before it is a Conn.
type handshaken struct {
	nc    net.Conn
	proto frame.Protocol
	sess  frame.Session
	g     *frame.Greeting
	rtt   time.Duration

	parent   *Conn    // of a client's connection; nil: it has none
	identity Identity // of a server's client
	unexpect func()   // takes back that a server expects it as a child; nil for a client
}

// discardSession ends the session of a handshake that no connection comes of.
func discardSession(sess frame.Session) {
	if !conn.IsNil(sess) {
		sess.Closed()
	}
}

// isForeign reports whether p is the program's own. Its sessions are not run on an event
// loop: there, one that waits would hold up other connections.
func isForeign(p frame.Protocol) bool {
	t := reflect.TypeOf(p)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return !strings.HasPrefix(t.PkgPath(), modulePath+"frame/")
}

// attach makes a Conn. It calls fill before anything happens on the connection.
func (ep *endpoint) attach(e *conn.Engine, j *handshaken, fill func(*Conn)) (*Conn, error) {
	c := &Conn{
		id: connIDs.Add(1), endpoint: ep, protocol: j.proto.Name(), client: j.g.Client, caps: j.sess.Caps(),
		done: make(chan struct{}), goingAway: make(chan struct{}),
		peer: Peer{Addr: conn.RemoteAddr(j.nc), Token: j.g.Peer.Token, TLS: tlsState(j.nc)}, running: runQueue{most: ep.limits.MaxStreams, starts: &ep.starts, handling: &ep.handling},
	}
	c.running.conn = c
	if most := c.caps.PeerStreams; most > 0 {
		c.running.most = most
	}
	c.running.calls.most = c.caps.PeerCalls
	if most := j.g.Peer.MaxFragment; most > 0 { // the peer has named its limit
		c.caps.MaxFragment = int(min(uint64(c.caps.MaxFragment), most))
	}
	cfg := conn.Config{
		Session: j.sess, Client: j.g.Client, Limits: (*conn.Limits)(&ep.limits), Peer: j.g.Peer, Handler: (*connHandler)(c),
		Timers: &ep.timers, Remote: c.peer.Addr, RTT: j.rtt, Lend: ep.lend,
		Fault: ep.fault(c.peer.Addr), Growth: ep.growth, Foreign: isForeign(j.proto),
		Dependent: c.caps.StreamsByID && (j.parent != nil || j.g.Parent != 0),
	}
	if c.caps.StreamsByID && !c.client && j.g.Parent != 0 {
		c.taken = make(chan struct{})
		cfg.Awaited = c.taken
	}
	var noParent error
	made := func(k *conn.Conn) {
		c.making.Lock() // whoever finds c from now on may end it at once
		defer c.making.Unlock()
		c.c = k
		fill(c)
		ep.observing.begun(&c.observed, event{conn: c})
		noParent = c.joinParent(j.g, j.parent)
	}
	if e != nil && conn.Loops(j.nc) && c.caps.Pacing != frame.Unpaced && !cfg.Foreign {
		if _, err := e.Serve(j.nc, cfg, j.g.Early, made); err != nil {
			c.endpoint.removeParent(c)
			c.leaveParent()
			discardSession(j.sess)
			ep.observing.ended(&c.observed, event{conn: c})
			return c, err
		}
	} else {
		conn.Serve(j.nc, cfg, j.g.Early, made)
	}
	if noParent != nil {
		c.c.Fail("open", status.Unavailable, noParent)
	}
	return c, nil
}

// joinParent makes c a child of its parent, if it has one. Otherwise c may become a parent
// itself. It is called before anything happens on c.
func (c *Conn) joinParent(g *frame.Greeting, parent *Conn) error {
	if parent == nil && g.Parent != 0 {
		if parent, _ = c.endpoint.parentOf(g.Parent); parent == nil {
			return errNoParent
		}
	}
	if parent != nil {
		return parent.addChild(c, g.ID)
	}
	c.children.id = g.ID
	if !c.client && c.caps.StreamsByID && g.ID != 0 {
		c.endpoint.addParent(c)
	}
	return nil
}

// connHandler is a Conn as its conn.Handler.
type connHandler Conn

// Started implements conn.Handler.
func (l *connHandler) Started(*conn.Conn) {
	c := (*Conn)(l)
	if f := c.endpoint.onConn; f != nil {
		go c.runOnConn(f)
	}
}

// runOnConn calls the program's OnConn. If that panics the connection is closed: what the
// program was about to set up is missing.
func (c *Conn) runOnConn(f func(*Conn)) {
	err := error(&hookError{"OnConn", "called runtime.Goexit"})
	defer func() {
		if err != nil {
			c.c.Fail("close", status.Internal, err)
		}
	}()
	err = c.endpoint.hook("OnConn", c.peer.Addr, func() error { f(c); return nil })
}

// GoAway implements conn.Handler.
func (l *connHandler) GoAway(*conn.Conn) {
	(*Conn)(l).setGoingAway()
	(*Conn)(l).endpoint.onGoAway((*Conn)(l))
}

// Outlived implements conn.Handler.
func (l *connHandler) Outlived(_ *conn.Conn, why error) { (*Conn)(l).drain(why) }

// Closed implements conn.Handler.
func (l *connHandler) Closed(_ *conn.Conn, err error) {
	c := (*Conn)(l)
	c.once.Do(func() {
		c.making.Lock()
		c.err = err
		c.making.Unlock()
		c.setGoingAway()
		close(c.done)
		c.running.stop()
		c.endpoint.removeParent(c)
		c.leaveParent()
		c.endChildren()
		c.endpoint.observing.ended(&c.observed, event{conn: c})
		c.onEnd(c)
	})
}

// Open implements conn.Handler.
func (l *connHandler) Open(_ *conn.Conn, f *frame.Frame) *conn.Refusal {
	c := (*Conn)(l)
	if r := c.refuseMore(len(f.Grants)); r != nil {
		return r
	}
	if c.isOneStream() {
		return c.acceptUnclaimed(f)
	}
	h, ok := c.endpoint.handlers.lookup(f.Method)
	if !ok {
		return &conn.Refusal{Code: status.Unimplemented, Reason: "no such method: " + f.Method, NotProcessed: true}
	}
	if most := c.maxReceive(&c.endpoint.stream); len(f.Payload) > most {
		return &conn.Refusal{Code: status.TooLarge, Reason: fmt.Sprintf("request of %d bytes, the limit is %d", len(f.Payload), most), NotProcessed: true}
	}
	if c.running.full(f.Unary) {
		return &conn.Refusal{Code: status.Refused, Reason: "too many handlers are running", NotProcessed: true}
	}
	o := c.offer(f)
	if f.FollowsData {
		o.follows = true
		o.streams[0].c.OnRequest(func() { c.endpoint.dispatch(o, h) })
		return nil
	}
	c.endpoint.dispatch(o, h)
	return nil
}
