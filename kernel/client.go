package kernel

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
)

// A Client is an address that streams are opened at. It makes connections as it
// needs them, again when one is lost, with a growing pause after failures. A
// stream never moves from one connection to another.
type Client struct {
	endpoint
	opts   ClientOptions
	target string // host:port
	proto  Protocol
	engine *conn.Engine

	connMu     sync.Mutex
	conns      []*Conn
	dedicated  map[*Conn]struct{}
	dialing    *dialing
	failures   int           // attempts to dial, in a row
	shortLived int           // connections that did not last, in a row
	newest     *Conn         // unless it is known whether it lasted
	made       time.Time     // when newest was
	next       time.Time     // no dial before
	last       error         // why not
	free       chan struct{} // closed when a stream has ended or a connection changed; nil if nobody waits
	closed     bool
	wg         sync.WaitGroup // connections and dials
}

// A turn is when somebody may dial.
type nextDial struct {
	at       time.Time
	last     error // what the pause until then is for
	failures int   // attempts before that
}

// dialing is one attempt that several may wait for.
type dialing struct {
	when nextDial
	done chan struct{}
	conn *Conn
	err  error
}

// NewClient returns a client like Dial's that has not connected yet.
func NewClient(target string, opts *ClientOptions) (*Client, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{opts: o, dedicated: map[*Conn]struct{}{}}
	if c.proto, c.target, err = parseTarget(target, o.Protocols); err != nil {
		return nil, err
	}
	c.endpoint.limits, c.endpoint.stream, c.endpoint.protocols = o.Limits, o.Stream, o.Protocols
	c.endpoint.checksum, c.endpoint.logger, c.endpoint.token = !o.NoChecksum, o.Logger, o.Token
	c.endpoint.away = func(*Conn) { c.changed() }
	for m, h := range o.Handlers {
		c.handle(m, entry{stream: h})
	}
	return c, nil
}

func parseTarget(target string, ps []Protocol) (Protocol, string, error) {
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok {
		return ps[0], target, checkHostPort(target)
	}
	for _, p := range ps {
		if p.Name() == scheme {
			return p, rest, checkHostPort(rest)
		}
	}
	return nil, "", fmt.Errorf("sluice: dial %s: no protocol %q among the client's", target, scheme)
}

func checkHostPort(t string) error {
	if _, _, err := net.SplitHostPort(t); err != nil {
		return fmt.Errorf("sluice: dial %s: %w", t, err)
	}
	return nil
}

// changed wakes who waits for a stream or a connection.
func (c *Client) changed() {
	c.connMu.Lock()
	defer c.connMu.Unlock()
	if c.free != nil {
		close(c.free)
		c.free = nil
	}
}

// waitLocked returns what the next change closes. The lock is held.
func (c *Client) waitLocked() <-chan struct{} {
	if c.free == nil {
		c.free = make(chan struct{})
	}
	return c.free
}

// Conns returns the connections that there are, dedicated ones among them.
func (c *Client) Conns() []*Conn {
	c.connMu.Lock()
	defer c.connMu.Unlock()
	cs := append([]*Conn(nil), c.conns...)
	for k := range c.dedicated {
		cs = append(cs, k)
	}
	return cs
}

// Caps tells what connections of the target's protocol can carry. It makes none.
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

// unused is why a connection could not be used that was made for an Open.
func (c *Client) unused(k *Conn) error {
	if err := k.c.Err(); err != nil {
		return err
	}
	return &ConnError{Addr: stringAddr(c.target), Op: "dial", Code: CodeGoingAway, Remote: true, Err: ErrGoingAway}
}

func (c *Client) errClosed() error {
	return fmt.Errorf("sluice: open at %s: %w", c.target, ErrClosed)
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

// join makes the connection one of the client's.
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
	k, err := c.attach(engine, j, func(k *Conn) {
		k.ended, k.owner = c.gone, c
		k.c.OnFree(c.changed)
	})
	if err != nil {
		c.wg.Done()
		_ = j.nc.Close()
		return nil, err
	}
	return k, nil
}

// count adds n to what Close waits for; nothing is added once Close was called.
func (c *Client) count(n int) error {
	c.connMu.Lock()
	defer c.connMu.Unlock()
	if c.closed {
		return c.errClosed()
	}
	c.wg.Add(n)
	return nil
}

// loops acquires the event loops when the first connection goes there; Close
// gives them back.
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

// gone forgets a connection that has ended.
func (c *Client) gone(k *Conn) {
	c.connMu.Lock()
	for i, x := range c.conns {
		if x == k {
			c.conns = append(c.conns[:i], c.conns[i+1:]...)
			break
		}
	}
	delete(c.dedicated, k)
	c.connMu.Unlock()
	c.changed()
	c.wg.Done()
}

// Close ends the client and its connections, and waits until they are gone.
// Streams that are open fail: see Conn.Close.
func (c *Client) Close() error {
	c.connMu.Lock()
	first := !c.closed
	c.closed = true
	conns := append([]*Conn(nil), c.conns...)
	for k := range c.dedicated {
		conns = append(conns, k)
	}
	c.connMu.Unlock()
	if !first {
		c.wg.Wait()
		return nil
	}
	c.changed()
	for _, k := range conns {
		k.shut()
	}
	c.wg.Wait()
	if c.engine != nil {
		c.engine.Release()
	}
	return nil
}
