package kernel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// dialing is one attempt that several may wait for.
type dialing struct {
	done chan struct{}
	err  error
}

// dialLocked joins the dial that is under way or starts one, in a goroutine that
// ends with it.
func (c *Client) dialLocked() *dialing {
	if c.dialing != nil {
		return c.dialing
	}
	d := &dialing{done: make(chan struct{})}
	c.dialing = d
	c.judge()
	wait := time.Until(c.next)
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		err := c.dial(wait)
		c.connMu.Lock()
		defer c.connMu.Unlock()
		c.dialing = nil
		d.err = err
		c.tried(err)
		close(d.done)
	}()
	return d
}

// judge looks at the last connection when another is dialled. One that was lost
// sooner than Backoff.First after it was made is no success, or a server that accepts
// and then fails would be dialled without a pause. The first in a row may be chance.
func (c *Client) judge() {
	switch {
	case c.made.IsZero():
	case time.Since(c.made) >= c.opts.Backoff.First:
		c.brief = 0
	case c.usableLocked() == 0:
		if c.brief > 0 {
			c.delay(c.brief - 1)
		}
		c.brief++
	}
	c.made = time.Time{}
}

// tried notes how an attempt to dial went.
func (c *Client) tried(err error) {
	if err == nil {
		c.failures, c.next, c.made = 0, time.Time{}, time.Now()
		return
	}
	c.delay(c.failures)
	c.failures++
}

// delay sets when to dial next, after n+1 failures.
func (c *Client) delay(n int) {
	b := c.opts.Backoff
	d := float64(b.First)
	for range n {
		d = min(d*b.Factor, float64(b.Most))
	}
	d *= 1 + b.Jitter*(2*rand.Float64()-1)
	c.next = time.Now().Add(time.Duration(d))
}

// dial makes a connection, after wait.
func (c *Client) dial(wait time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), max(wait, 0)+2*c.limits.Handshake)
	defer cancel()
	defer c.onClose(cancel)()
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return &ConnError{Addr: stringAddr(c.target), Op: "dial", Err: context.Cause(ctx)}
		}
	}
	k, err := c.connect(ctx, nil)
	if err != nil {
		return err
	}
	c.connMu.Lock()
	closed := c.closed
	if !closed && k.Err() == nil { // else it has been forgotten already
		c.conns = append(c.conns, k)
	}
	c.connMu.Unlock()
	if closed {
		k.shut()
		return fmt.Errorf("sluice: dial %s: %w", c.target, ErrClosed)
	}
	return nil
}

// onClose has f called when the client is closed, until the returned function
// is.
func (c *Client) onClose(f func()) func() {
	done := make(chan struct{})
	go func() {
		for {
			c.connMu.Lock()
			closed, wait := c.closed, c.waitLocked()
			c.connMu.Unlock()
			if closed {
				f()
				return
			}
			select {
			case <-wait:
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// connect makes one connection: network, TLS, handshake. With a parent it is that
// one's child.
func (c *Client) connect(ctx context.Context, parent *Conn) (*Conn, error) {
	fail := func(op string, err error) (*Conn, error) {
		e := &ConnError{Addr: stringAddr(c.target), Op: op, Err: err}
		var no *frame.Refused
		if errors.As(err, &no) {
			e.Code, e.Remote = no.Code, true
		}
		return nil, e
	}
	nc, err := c.opts.Dial(ctx, "tcp", c.target)
	if err != nil {
		return fail("dial", err)
	}
	raw := nc
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	if c.opts.TLS != nil {
		tc := tls.Client(nc, c.tlsConfig())
		if err := tc.HandshakeContext(ctx); err != nil {
			_ = nc.Close()
			return fail("handshake", err)
		}
		nc = tc
	}
	g := &frame.Greeting{Client: true, Own: c.settings(c.opts.TLS == nil)}
	if parent != nil {
		g.Parent = parent.kin.family.id
	}
	start := time.Now()
	if err := nc.SetDeadline(start.Add(c.limits.Handshake + c.limits.Authenticate)); err != nil {
		return fail("handshake", err)
	}
	sess, err := c.proto.Handshake(ctx, nc, g)
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil || !stop() {
		neverBegan(sess)
		_ = nc.Close()
		return fail("handshake", errors.Join(err, context.Cause(ctx)))
	}
	return c.join(&joint{nc: nc, proto: c.proto, sess: sess, g: g, parent: parent, rtt: time.Since(start)})
}

func (c *Client) tlsConfig() *tls.Config {
	t := c.opts.TLS.Clone()
	if t.ServerName == "" {
		t.ServerName, _, _ = net.SplitHostPort(c.target)
	}
	return t
}

// dialDedicated makes a connection that is nobody's but its streams'; with a
// parent it belongs to that. It ends with the client at the latest.
func (c *Client) dialDedicated(ctx context.Context, parent *Conn) (*Conn, error) {
	if err := c.count(0); err != nil {
		return nil, err
	}
	dctx, cancel := context.WithTimeout(ctx, 2*c.limits.Handshake)
	defer cancel()
	defer c.onClose(cancel)()
	k, err := c.connect(dctx, parent)
	if err != nil {
		return nil, err
	}
	c.connMu.Lock()
	closed := c.closed
	if k.Err() == nil { // else it has been forgotten already
		c.dedicated[k] = struct{}{}
	}
	c.connMu.Unlock()
	if closed {
		_ = k.Close()
		return nil, fmt.Errorf("sluice: open at %s: %w", c.target, ErrClosed)
	}
	return k, nil
}
