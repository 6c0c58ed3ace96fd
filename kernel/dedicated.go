package kernel

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// ties are a connection's to those that are dedicated to a stream which would have
// been opened on it.
type ties struct {
	mu    sync.Mutex
	over  bool
	child map[*Conn]struct{}
	boss  *Conn // whose child it is itself
}

// openDedicated opens streams on a connection that belongs to parent; nil is one
// of the client's.
func (c *Client) openDedicated(ctx context.Context, parent *Conn, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	if parent == nil {
		var err error
		if parent, err = c.Conn(ctx); err != nil {
			return nil, err
		}
	}
	if parent.kin.family != nil { // every stream has a connection of its own
		return parent.openAny(ctx, method, opts.shared(), n, each)
	}
	return c.openShort(ctx, parent, method, opts.shared(), n, each)
}

// shared is o for a connection that there is already.
func (o *OpenOptions) shared() *OpenOptions {
	if o == nil || !o.Dedicated {
		return o
	}
	r := *o
	r.Dedicated = false
	return &r
}

func (c *Conn) openDedicated(ctx context.Context, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	if c.owner == nil {
		return nil, fmt.Errorf("sluice: open %s: %w: a server makes no connections", method, ErrNotSupported)
	}
	return c.owner.openDedicated(ctx, c, method, opts, n, each)
}

// tie makes k end with c.
func (c *Conn) tie(k *Conn) error {
	if c == nil {
		return nil
	}
	t := &c.ties
	t.mu.Lock()
	defer t.mu.Unlock()
	switch most := c.host.limits.MaxStreams; {
	case t.over:
		return fmt.Errorf("sluice: the connection that a dedicated one belongs to has ended: %w", c.err)
	case len(t.child) >= most:
		return fmt.Errorf("%w: %d connections are dedicated to some", ErrTooManyStreams, most)
	}
	if t.child == nil {
		t.child = map[*Conn]struct{}{}
	}
	t.child[k] = struct{}{}
	k.ties.mu.Lock()
	defer k.ties.mu.Unlock()
	k.ties.boss = c
	if k.ties.over { // it did not find us
		delete(t.child, k)
	}
	return nil
}

// untie is called when c has ended: it leaves the one that it belongs to, and
// takes those along that belong to it.
func (c *Conn) untie() {
	t := &c.ties
	t.mu.Lock()
	t.over = true
	boss := t.boss
	children := make([]*Conn, 0, len(t.child))
	for k := range t.child {
		children = append(children, k)
	}
	t.mu.Unlock()
	if boss != nil {
		boss.ties.mu.Lock()
		delete(boss.ties.child, c)
		boss.ties.mu.Unlock()
	}
	var ce *ConnError
	if errors.As(c.err, &ce) && ce.Remote && ce.Code == CodeOK {
		return // drained, or idle: those that belong to it are told themselves
	}
	shut := c.retired.isShut()
	for _, k := range children {
		if shut {
			k.retired.endFeeding()
		}
		k.c.Fail("close", CodeConnectionLost, fmt.Errorf("the connection that it belongs to has ended: %w", c.err))
	}
}
