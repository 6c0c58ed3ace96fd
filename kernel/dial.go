package kernel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// dialLocked returns the dial that is under way, or starts one in a goroutine of its
// own. The lock is held.
func (c *Client) dialLocked() *dialing {
	if c.dialing != nil {
		return c.dialing
	}
	c.noteShortLived()
	d := &dialing{when: c.nextDialLocked(), done: make(chan struct{})}
	c.dialing = d
	c.noteStateLocked()
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		k, err := c.dial(context.Background(), d.when, nil, false)
		c.connMu.Lock()
		defer c.connMu.Unlock()
		c.dialing = nil
		c.noteStateLocked()
		d.conn, d.err = k, err
		close(d.done)
	}()
	return d
}

func (c *Client) nextDialLocked() nextDial {
	return nextDial{at: c.next, last: c.last, failures: c.failures}
}

// noteShortLived looks at the connection made last when another one is needed. If it was
// lost within Backoff.First of being made, it counts as a failure. Otherwise a server
// that accepts and then fails would be dialled without a pause. The first in a row is
// forgiven.
func (c *Client) noteShortLived() {
	switch {
	case c.newest == nil:
	case time.Since(c.newestMade) >= c.opts.Backoff.First:
		c.shortLived = 0
	case !c.newest.c.Usable():
		if c.shortLived > 0 {
			c.delay(c.shortLived-1, c.unusable(c.newest))
		}
		c.shortLived++
	}
	c.newest = nil
}

// noteAttempt notes the result of an attempt to dial. Of several at once only one counts.
func (c *Client) noteAttempt(t nextDial, err error) {
	switch {
	case err == nil:
		c.failures, c.next, c.last = 0, time.Time{}, nil
	case t.failures == c.failures:
		c.delay(c.failures, err)
		c.failures++
	}
}

// delay sets when to dial next, after n+1 failures, the last of which was err.
func (c *Client) delay(n int, err error) {
	b := c.opts.Backoff
	d, most := float64(b.First), float64(b.Most)
	for i := 0; i < n && d < most && b.Factor > 1; i++ {
		d *= b.Factor
	}
	d = min(d, most) * (1 + b.Jitter*(2*rand.Float64()-1))
	c.next, c.last = time.Now().Add(time.Duration(d)), err
}

// dial makes a connection at the time t: one that the client's streams share, or a
// dedicated one. An attempt that ctx has ended tells nothing about the server.
func (c *Client) dial(ctx context.Context, t nextDial, parent *Conn, dedicated bool) (*Conn, error) {
	k, err := c.attempt(ctx, t, parent)
	c.connMu.Lock()
	closed := c.closed
	if err == nil || ctx.Err() == nil {
		c.noteAttempt(t, err)
		c.noteStateLocked()
	}
	switch {
	case err != nil || closed:
	case dedicated:
		if k.Err() == nil { // else connEnded has run already
			c.dedicated[k] = struct{}{}
		}
	default:
		c.newest, c.newestMade = k, time.Now()
		if k.Err() == nil {
			c.conns = append(c.conns, k)
			c.noteStateLocked()
		}
	}
	c.connMu.Unlock()
	if closed {
		if k != nil {
			k.shut(status.Cancelled, "the client was closed")
		}
		return nil, c.errClosed()
	}
	return k, err
}

// attempt waits until the time t, and connects.
func (c *Client) attempt(ctx context.Context, t nextDial, parent *Conn) (*Conn, error) {
	wait := max(time.Until(t.at), 0)
	ctx, cancel := context.WithTimeout(sound(ctx), wait+2*c.limits.Handshake+c.limits.Authenticate)
	defer cancel()
	defer context.AfterFunc(c.closing, cancel)()
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, c.dialCancelled(ctx, t)
		}
		c.connsChanged() // the pause is over
	}
	return c.connect(ctx, parent)
}

// dialCancelled is the error of an Open whose ctx ended before the attempt did. If that
// was during the pause, it includes the failure that the pause is for.
func (c *Client) dialCancelled(ctx context.Context, t nextDial) error {
	err := context.Cause(ctx)
	if t.last != nil && time.Now().Before(t.at) {
		err = fmt.Errorf("%w, in the pause after a failure: %w", err, t.last)
	}
	return &status.ConnError{Addr: c.target, Op: "dial", Err: err}
}

// connect makes one connection: network, TLS, handshake. If parent is not nil, the new
// connection is its child. When ctx ends it returns at once, whatever the functions of the
// program's do; what they return later is closed.
func (c *Client) connect(ctx context.Context, parent *Conn) (*Conn, error) {
	nc, err := within(ctx, &c.endpoint, "ClientOptions.Dial", c.target, func() (net.Conn, error) { return c.dialNet(ctx) }, closeLate)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = errors.Join(err, cause)
		}
		return nil, c.dialFailed("dial", err)
	}
	nc = conn.Guard(nc, c.fault(c.target))
	j, err := within(ctx, &c.endpoint, "handshake", c.target, func() (*handshaken, error) { return c.shake(ctx, nc, parent) }, discard)
	if err != nil {
		_ = nc.Close()
		if cause := conn.Exited(nc); cause != nil {
			err = cause
		}
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = errors.Join(err, cause)
		}
		return nil, c.dialFailed("handshake", err)
	}
	return c.join(j)
}

// dialFailed is the error of a connection that could not be made.
func (c *Client) dialFailed(op string, err error) error {
	e := &status.ConnError{Addr: c.target, Op: op, Err: err}
	var no *frame.Refused
	if errors.As(err, &no) {
		e.Code, e.Remote = no.Code, true
	}
	return e
}

// dialNet calls the program's Dial.
func (c *Client) dialNet(ctx context.Context) (net.Conn, error) {
	nc, err := c.opts.Dial(ctx, c.target.network, c.target.addr)
	if err == nil && conn.IsNil(nc) {
		err = &hookError{"ClientOptions.Dial", "returned no connection"}
	}
	return nc, err
}

// closeLate closes a connection that nobody waits for any more.
func closeLate(nc net.Conn) { _ = nc.Close() }

// shake does the handshake of TLS and of the protocol.
func (c *Client) shake(ctx context.Context, nc net.Conn, parent *Conn) (*handshaken, error) {
	raw := nc
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	if c.opts.TLS != nil {
		tc := tls.Client(nc, c.tlsConfig())
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		nc = tc
	}
	caps, plain := c.proto.Caps(), c.opts.TLS == nil
	g := &frame.Greeting{Client: true, Authority: c.target.authority(), Secure: !plain, Own: c.settings(&caps, plain)}
	if parent != nil {
		g.Parent = parent.children.id
	}
	start := time.Now()
	if err := nc.SetDeadline(start.Add(c.limits.Handshake + c.limits.Authenticate)); err != nil {
		return nil, err
	}
	sess, err := c.proto.Handshake(ctx, nc, g)
	if err == nil && conn.IsNil(sess) {
		err = &hookError{"frame.Protocol.Handshake", "returned no session"}
	}
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil || !stop() {
		discardSession(sess)
		return nil, errors.Join(err, context.Cause(ctx))
	}
	_ = conn.RemoteAddr(nc) // here it may take its time
	return &handshaken{nc: nc, proto: c.proto, sess: sess, g: g, parent: parent, rtt: time.Since(start)}, nil
}

func (c *Client) tlsConfig() *tls.Config {
	t := c.opts.TLS.Clone()
	if name := c.proto.Caps().ALPN; len(t.NextProtos) == 0 && name != "" {
		t.NextProtos = []string{name}
	}
	if t.ServerName == "" {
		t.ServerName = c.target.host()
	}
	return t
}

// dialDedicated makes a connection that other streams don't share. If parent is not nil,
// the new connection is its child. It ends with the client at the latest.
func (c *Client) dialDedicated(ctx context.Context, parent *Conn) (*Conn, error) {
	c.connMu.Lock()
	closed, t := c.closed, c.nextDialLocked()
	c.connMu.Unlock()
	if closed {
		return nil, c.errClosed()
	}
	return c.dial(ctx, t, parent, true)
}
