package kernel

import (
	"context"
	"fmt"
)

// openDedicated opens streams on a connection that belongs to parent; nil is one
// of the client's.
func (c *Client) openDedicated(ctx context.Context, parent *Conn, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	if parent == nil {
		var err error
		if parent, err = c.Conn(ctx); err != nil {
			return nil, err
		}
	}
	if parent.hasNumberedStreams() { // every stream has a connection of its own
		return parent.openAny(ctx, method, opts.shared(), n, each)
	}
	if err := parent.children.reserve(1, c.limits.MaxStreams); err != nil {
		return nil, fmt.Errorf("sluice: open %s at %s: dedicated connections: %w", method, c.target, err)
	}
	ss, err := c.openShort(ctx, parent, method, opts.shared(), n, each)
	if err != nil {
		parent.children.unreserve(1)
		return nil, err
	}
	parent.children.opened(ss[0].Conn())
	return ss, nil
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

// openShort opens on a connection that is closed when the streams are over. With
// a parent it belongs to that.
func (c *Client) openShort(ctx context.Context, parent *Conn, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	k, err := c.dialDedicated(ctx, parent)
	if err != nil {
		return nil, err
	}
	k.c.EndWithStreams()
	ss, err := k.openAny(ctx, method, opts, n, each)
	if err != nil {
		_ = k.Close()
	}
	return ss, err
}

// openChildren opens n streams on connections of their own, which belong to k. A
// call on k then names them.
func (c *Client) openChildren(ctx context.Context, k *Conn, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	switch {
	case method != "" || opts != nil && (!opts.Request.IsZero() || opts.Metadata != nil):
		return nil, fmt.Errorf("sluice: open %s: %w: over %s a stream is opened without a method or a request, and passed to a call",
			method, ErrNotSupported, k.protocol)
	case k.children.id == 0:
		return nil, fmt.Errorf("sluice: open at %s: %w: the server serves no streams", c.target, ErrNotSupported)
	case n < 1 || n > k.caps.MaxGroup:
		return nil, errGroup(n, k.caps.MaxGroup)
	}
	f := &k.children
	if err := f.reserve(n, c.limits.MaxStreams); err != nil {
		return nil, fmt.Errorf("sluice: open at %s: %w", c.target, err)
	}
	ss := make([]*Stream, 0, n)
	for i := range n {
		s, err := c.openChild(ctx, k, opts, each, i)
		if err != nil {
			f.unreserve(n - i)
			c.changed()
			for _, s := range ss {
				s.Abort(CodeCancelled, "opened with a stream that could not be")
			}
			return nil, err
		}
		f.opened(s.c.conn)
		ss = append(ss, s)
	}
	return ss, nil
}

func (c *Client) openChild(ctx context.Context, k *Conn, opts *OpenOptions, each []StreamOptions, i int) (*Stream, error) {
	child, err := c.dialDedicated(ctx, k)
	if err != nil {
		return nil, err
	}
	if each != nil {
		each = each[i : i+1]
	}
	ss, err := child.open(ctx, "", opts, 1, each)
	if err != nil {
		_ = child.Close()
		return nil, err
	}
	return ss[0], nil
}
