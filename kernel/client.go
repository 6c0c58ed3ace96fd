package kernel

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/status"
)

// A Client opens streams at one address. It connects when it needs to, and again when
// a connection is lost, with a growing pause after failures. A stream never moves to
// another connection.
type Client struct {
	endpoint
	opts   ClientOptions
	target address
	proto  frame.Protocol
	engine *conn.Engine

	connMu     sync.Mutex
	conns      []*Conn
	dedicated  map[*Conn]struct{}
	dialing    *dialing
	failures   int       // failed attempts to dial, in a row
	shortLived int       // short-lived connections, in a row
	newest     *Conn     // the connection made last, until it is known whether it was short-lived
	newestMade time.Time // when that was
	next       time.Time // when to dial next at the earliest
	last       error     // the failure that next is for
	changes    uint64    // counts what may make room for an Open
	queue      list.List // Opens that wait for room, first come first served: of queued
	queuedLast uint64    // the last number in it
	closed     bool
	closing    context.Context // ends with Close
	close      context.CancelFunc
	state      clientState
	wg         sync.WaitGroup // connections and dials
}

// nextDial is when the client may dial next.
type nextDial struct {
	at       time.Time
	last     error // the failure that the pause until then is for
	failures int   // failed attempts before that, in a row
}

// inPause reports whether the time to dial has not come yet.
func (n *nextDial) inPause() bool { return time.Now().Before(n.at) }

// dialing is one attempt to dial. Several Opens may wait for it.
type dialing struct {
	when nextDial
	done chan struct{}
	conn *Conn
	err  error
}

// NewClient returns a client as Dial does, but does not connect.
func NewClient(target string, opts *ClientOptions) (*Client, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{opts: o, dedicated: map[*Conn]struct{}{}}
	c.closing, c.close = context.WithCancel(context.Background())
	secured := false
	if c.proto, c.target, secured, err = parseTarget(target, o.Protocols); err != nil {
		return nil, err
	}
	if secured && c.opts.TLS == nil {
		c.opts.TLS = secure(&tls.Config{}, nil)
	}
	c.endpoint.handlers = o.Handlers.orNew(&o.Limits)
	c.endpoint.limits, c.endpoint.stream, c.endpoint.protocols = o.Limits, o.Stream, o.Protocols
	c.endpoint.checksum, c.endpoint.logger, c.endpoint.token = !o.NoChecksum, c.guardLogger(o.Logger), o.Token
	c.endpoint.onGoAway = func(*Conn) { c.connsChanged() }
	c.starts.init(c.begin)
	c.soundTLS(c.opts.TLS, nil)
	c.observing.o, c.observing.ep = o.Observer, &c.endpoint
	return c, nil
}

// Options returns the client's options, with the defaults of fields that were zero. What is
// changed in them changes nothing; their Handlers are the client's own. They hold its Token.
func (c *Client) Options() ClientOptions {
	o := c.opts
	o.Handlers = c.handlers
	return o
}

// parseTarget parses "address" or "protocol://address". A protocol's name, or another word for
// it, with an s behind it asks for TLS.
func parseTarget(target string, ps []frame.Protocol) (p frame.Protocol, a address, secured bool, err error) {
	word, rest, ok := strings.Cut(target, "://")
	if !ok || strings.HasPrefix(target, unixPrefix) {
		a, err = parseAddress("dial", target)
		return ps[0], a, false, err
	}
	if p = protocolOf(word, ps); p == nil {
		if word, ok := strings.CutSuffix(word, "s"); ok {
			p, secured = protocolOf(word, ps), true
		}
	}
	if p == nil {
		return nil, address{}, false, errtext.Errorf("sluice: dial %s: the client has no protocol %q", target, word)
	}
	a, err = parseAddress("dial", rest)
	return p, a, secured, err
}

// protocolOf returns the protocol whose name a target's scheme is, else the first that has
// it as another word; nil if none has.
func protocolOf(scheme string, ps []frame.Protocol) frame.Protocol {
	for _, p := range ps {
		if p.Name() == scheme {
			return p
		}
	}
	for _, p := range ps {
		if caps := p.Caps(); caps.HasScheme(scheme) {
			return p
		}
	}
	return nil
}

// Conns returns all connections of the client, dedicated ones included.
func (c *Client) Conns() []*Conn {
	c.connMu.Lock()
	defer c.connMu.Unlock()
	cs := append([]*Conn(nil), c.conns...)
	for k := range c.dedicated {
		cs = append(cs, k)
	}
	return cs
}

// Caps tells what the target's protocol can carry. It needs no connection.
func (c *Client) Caps() frame.Caps { return c.proto.Caps() }

// otherLocked returns a usable connection that is not full. The lock is held.
func (c *Client) otherLocked(full map[*Conn]bool) *Conn {
	for _, k := range c.conns {
		if !full[k] && k.c.Usable() {
			return k
		}
	}
	return nil
}

// unusable is why no stream can be opened on k, which was made for an Open.
func (c *Client) unusable(k *Conn) error {
	if err := k.c.Err(); err != nil {
		return err
	}
	return &status.ConnError{Addr: c.target, Op: "dial", Code: status.GoingAway, Remote: true, Err: ErrGoingAway}
}

func (c *Client) errClosed() error {
	return errtext.Errorf("sluice: open at %s: %w", c.target, ErrClosed)
}

func (c *Client) usableLocked() int {
	n := 0
	for _, k := range c.conns {
		if k.c.Usable() {
			n++
		}
	}
	return n
}

// join makes a connection of what the handshake has left.
func (c *Client) join(j *handshaken) (*Conn, error) {
	if err := c.count(1); err != nil {
		discardSession(j.sess)
		_ = j.nc.Close()
		return nil, err
	}
	engine, err := c.loops(j.nc)
	if err != nil {
		discardSession(j.sess)
		c.wg.Done()
		_ = j.nc.Close()
		return nil, err
	}
	var k *Conn
	err = c.hook("frame.Protocol", c.target, func() (err error) {
		k, err = c.attach(engine, j, func(k *Conn) {
			k.onEnd, k.owner = c.connEnded, c
			k.c.OnFree(func() { c.streamFreed(k) })
		})
		return err
	})
	if err != nil {
		c.wg.Done()
		_ = j.nc.Close()
		return nil, err
	}
	return k, nil
}

// count adds n to the connections and dials that Close waits for. It fails once Close was
// called.
func (c *Client) count(n int) error {
	c.connMu.Lock()
	defer c.connMu.Unlock()
	if c.closed {
		return c.errClosed()
	}
	c.wg.Add(n)
	return nil
}

// loops returns the event loops if nc can be served by them. The first call acquires
// them, Close releases them.
func (c *Client) loops(nc net.Conn) (*conn.Engine, error) {
	if !conn.Loops(nc) {
		return nil, nil
	}
	c.connMu.Lock()
	defer c.connMu.Unlock()
	if c.engine == nil {
		e, err := conn.Acquire()
		if err != nil {
			return nil, err
		}
		c.engine = e
	}
	return c.engine, nil
}

// connEnded forgets a connection that has ended.
func (c *Client) connEnded(k *Conn) {
	c.connMu.Lock()
	for i, x := range c.conns {
		if x == k {
			c.conns = append(c.conns[:i], c.conns[i+1:]...)
			break
		}
	}
	_, dedicated := c.dedicated[k]
	delete(c.dedicated, k)
	c.connMu.Unlock()
	if dedicated {
		c.streamFreed(k)
	} else {
		c.connsChanged()
	}
	c.wg.Done()
}

// Close closes the client and its connections, and waits until they have ended. Open
// streams fail: see Conn.Close.
func (c *Client) Close() error {
	c.connMu.Lock()
	first := !c.closed
	c.closed = true
	c.noteStateLocked()
	conns := append([]*Conn(nil), c.conns...)
	for k := range c.dedicated {
		conns = append(conns, k)
	}
	c.connMu.Unlock()
	if !first {
		c.wg.Wait()
		c.observing.finish()
		return nil
	}
	c.close()
	c.connsChanged()
	for _, k := range conns {
		k.shut(status.Cancelled, "the client was closed")
	}
	c.wg.Wait()
	c.observing.finish()
	if c.engine != nil {
		c.engine.Release()
	}
	return nil
}
