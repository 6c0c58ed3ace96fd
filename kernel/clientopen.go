package kernel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Dial returns a client for target: "host:port", or "protocol://host:port" for a
// protocol of the options other than the first. It makes a first connection, so
// that an error tells what is wrong: a ConnError whose Op is "dial" or
// "handshake", also where ctx ends first. ctx bounds that only.
func Dial(ctx context.Context, target string, opts *ClientOptions) (*Client, error) {
	c, err := NewClient(target, opts)
	if err != nil {
		return nil, err
	}
	if _, err := c.Conn(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Conn returns a connection that takes streams, making one if there is none.
func (c *Client) Conn(ctx context.Context) (*Conn, error) {
	return c.pick(ctx, &search{})
}

// A search is what one Open knows of the client's connections.
type search struct {
	watch   bool            // what changes is noted: there was no stream to be had
	changed <-chan struct{} // closed when something has, since before the first of full was
	full    map[*Conn]bool  // those without a stream for us
	made    *Conn           // what its one attempt to connect gave
}

// freed is closed when one of those that are full may take a stream again; nil if there
// are none.
func (s *search) freed() <-chan struct{} {
	if len(s.full) == 0 {
		return nil
	}
	return s.changed
}

// pick returns a usable connection other than those that are full, nil if there is
// none and there may be no more. While some are full, they are waited for too: then to
// dial may fail, or take its time.
func (c *Client) pick(ctx context.Context, s *search) (*Conn, error) {
	for {
		c.connMu.Lock()
		if c.closed {
			c.connMu.Unlock()
			return nil, c.errClosed()
		}
		if s.watch && len(s.full) == 0 {
			s.changed = c.waitLocked()
		}
		k, made := c.otherLocked(s.full), s.made
		switch {
		case k != nil || c.usableLocked() >= c.opts.Conns:
			c.connMu.Unlock()
			return k, nil
		case made != nil && len(s.full) == 0:
			c.connMu.Unlock()
			return nil, c.unused(made)
		}
		d := c.dialLocked()
		c.connMu.Unlock()
		select {
		case <-d.done:
		case <-s.freed():
			return nil, nil
		case <-ctx.Done():
			if len(s.full) > 0 {
				return nil, nil // there are connections: what is wanted is a stream
			}
			return nil, c.givenUp(ctx, d.when)
		}
		switch {
		case d.err == nil:
			s.made = d.conn
		case len(s.full) == 0 || errors.Is(d.err, ErrClosed):
			return nil, d.err
		}
	}
}

// Open opens a stream on one of the client's connections: see Conn.Open. Where
// there is none it makes one attempt to connect, after the pause of
// ClientOptions.Backoff if the last one failed, and gives its ConnError, also where
// the connection is made and ends at once. It waits, as long as ctx lets it, for one of
// the streams that the server allows to be free, or for a further connection where
// ClientOptions.Conns allows one: while there are some, to make one more may fail.
// To bound the connecting and not the stream, call Conn first, with another context.
func (c *Client) Open(ctx context.Context, method string, opts *OpenOptions) (*Stream, error) {
	ss, err := c.open(ctx, method, opts, 1, nil)
	if err != nil {
		return nil, err
	}
	return ss[0], nil
}

// OpenN opens len(each) streams with one request: see Conn.OpenN. More than may ever be
// open at once are ErrTooManyStreams, and not waited for.
func (c *Client) OpenN(ctx context.Context, method string, opts *OpenOptions, each ...StreamOptions) ([]*Stream, error) {
	return c.open(ctx, method, opts, len(each), each)
}

func (c *Client) open(ctx context.Context, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	switch {
	case c.opts.ConnType == ConnShort:
		return c.openShort(ctx, nil, method, opts.shared(), n, each)
	case opts != nil && opts.Dedicated:
		return c.openDedicated(ctx, nil, method, opts, n, each)
	}
	if c.opts.ConnType == ConnPooled {
		opts = opts.exclusive()
	}
	var se search
	for {
		k, err := c.pick(ctx, &se)
		switch {
		case err != nil:
			return nil, err
		case k == nil && se.changed == nil:
			se.watch = true
			continue
		case k == nil:
			select {
			case <-se.changed:
			case <-ctx.Done():
				return nil, fmt.Errorf("sluice: open %s at %s: %w: %w", method, c.target, ErrTooManyStreams, context.Cause(ctx))
			}
			se.full, se.made = nil, nil
			continue
		}
		ss, err := k.openAny(ctx, method, opts, n, each)
		switch {
		case err == nil || ctx.Err() != nil:
			return ss, err
		case errors.Is(err, ErrTooManyStreams) && n > k.maxStreams():
			return nil, err // however long we wait
		case errors.Is(err, ErrTooManyStreams) && !se.watch:
			se.watch = true // from now on: what ends meanwhile must not be missed
		case errors.Is(err, ErrTooManyStreams):
			if se.full == nil {
				se.full = map[*Conn]bool{}
			}
			se.full[k] = true
		case errors.Is(err, ErrGoingAway) || k.c.Err() != nil:
			// Another connection will do.
		default:
			return nil, err
		}
	}
}

// most is how many streams of ours there may be at once.
func (c *Conn) maxStreams() int {
	if c.hasNumberedStreams() {
		return c.endpoint.limits.MaxStreams
	}
	return int(min(c.c.PeerSettings().MaxStreams, 1<<30))
}

// onItsOwn is o with a connection that nobody else uses meanwhile.
func (o *OpenOptions) exclusive() *OpenOptions {
	r := OpenOptions{}
	if o != nil {
		r = *o
	}
	r.exclusively = true
	return &r
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

// callTries is how often a call is made again that was refused unprocessed.
const callTries = 3

// Call makes a unary call: a stream with one message each way. The request
// belongs to the call if it succeeds; the reply belongs to the caller. A call that
// the server refused unprocessed is made again, a few times; nothing else is.
// Errors: what Open gives, a StreamError with the handler's status, ErrNoReply.
func (c *Client) Call(ctx context.Context, method string, req Message, opts *CallOptions) (Message, error) {
	ctx, cancel := opts.Bound(ctx)
	defer cancel()
	for try := 1; ; try++ {
		s, err := c.Open(ctx, method, opts.open())
		if err != nil {
			return Message{}, err
		}
		reply, err := s.call(ctx, req)
		var se *StreamError
		again := errors.As(err, &se) && se.NotProcessed && (se.Code == CodeGoingAway || se.Code == CodeRefused)
		if !again || try == callTries {
			return reply, err
		}
		c.pause(ctx, try)
	}
}

// pause waits a little, more each time, with jitter.
func (c *Client) pause(ctx context.Context, try int) {
	d := time.Duration(try) * 10 * time.Millisecond
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
