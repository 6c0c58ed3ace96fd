package kernel

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Dial returns a client for target: "host:port", or "unix:PATH" for a Unix socket, whose path
// may begin with "@" for one in Linux's abstract namespace. "protocol://" before that chooses
// one of ClientOptions.Protocols by its name, or by another word that it has (package
// frame/triple is grpc, triple and tri). "protocols://", the name with an s, does so with TLS,
// for which ClientOptions.TLS may be nil. Dial makes a first connection. If that fails, or ctx
// ends before, the error is a status.ConnError whose Op is "dial" or "handshake". ctx bounds
// the first connection only.
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

// Conn returns a connection that takes new streams. It makes one if there is none.
func (c *Client) Conn(ctx context.Context) (*Conn, error) {
	return c.pick(ctx, &search{})
}

// A search is what one Open knows of the client's connections.
type search struct {
	changes uint64         // Client.changes when it looked at them
	full    map[*Conn]bool // connections that allowed no more streams since then
	made    *Conn          // the connection that this Open has made
	behind  bool           // others wait
	number  uint64         // in the queue; 0: it was not there
}

// pick returns a usable connection that is not full. It dials if there is none and
// ClientOptions.Conns allows one more. It returns nil, and no error, if all connections
// are full and another one is not allowed, or dialling failed.
func (c *Client) pick(ctx context.Context, s *search) (*Conn, error) {
	for {
		c.connMu.Lock()
		if c.closed {
			c.connMu.Unlock()
			return nil, c.errClosed()
		}
		if s.changes != c.changes {
			s.changes, s.full = c.changes, nil
		}
		s.behind = c.queue.Len() > 0
		k, made := c.otherLocked(s.full), s.made
		switch {
		case k != nil || c.usableLocked() >= c.opts.Conns:
			c.connMu.Unlock()
			return k, nil
		case made != nil && len(s.full) == 0:
			c.connMu.Unlock()
			return nil, c.unusable(made)
		}
		d := c.dialLocked()
		var turn <-chan struct{}
		leave := func() {}
		if len(s.full) > 0 {
			turn, leave = c.queueLocked(s)
		}
		c.connMu.Unlock()
		select {
		case <-d.done:
			leave()
		case <-turn:
			s.made = nil
			continue
		case <-ctx.Done():
			leave()
			if len(s.full) > 0 {
				return nil, nil // the caller reports that all connections are full
			}
			return nil, c.dialCancelled(ctx, d.when)
		}
		switch {
		case d.err == nil:
			s.made = d.conn
		case len(s.full) == 0 || errors.Is(d.err, ErrClosed):
			return nil, d.err
		}
	}
}

// Open opens a stream on one of the client's connections: see Conn.Open.
//
// If there is no connection, Open tries to connect once, after the pause of
// ClientOptions.Backoff if the last attempt failed. If that fails, or the new connection
// ends at once, Open returns the status.ConnError.
//
// If every connection has as many streams as the server allows, Open makes a further
// connection where ClientOptions.Conns allows it, and waits for that or for a stream to
// end, until ctx ends. Those that wait get their streams in the order in which they came. If
// other connections exist, failing to add one is not an error.
//
// ctx bounds the stream's life too. To bound the connecting alone, call Conn first, with
// a context of its own.
func (c *Client) Open(ctx context.Context, method string, opts *OpenOptions) (*Stream, error) {
	ss, err := c.open(ctx, method, opts, 1, nil)
	if err != nil {
		return nil, err
	}
	return ss[0], nil
}

// OpenN opens len(each) streams with one request: see Conn.OpenN. It fails with
// ErrTooManyStreams, without waiting, if the server never allows that many at once.
func (c *Client) OpenN(ctx context.Context, method string, opts *OpenOptions, each ...StreamOptions) ([]*Stream, error) {
	return c.open(ctx, method, opts, len(each), each)
}

func (c *Client) open(ctx context.Context, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	for {
		ss, err := c.tryOpen(ctx, method, opts, n, each)
		switch {
		case err == nil:
			return ss, nil
		case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
			return nil, errtext.Errorf("%w: %w", err, ctx.Err())
		case opts == nil || !opts.WaitForReady || ctx.Err() != nil || !mayConnectLater(err):
			return nil, err
		}
	}
}

// mayConnectLater reports whether err is the failure of a connection that may succeed when
// it is tried again. The next attempt makes the pause.
func mayConnectLater(err error) bool {
	var ce *status.ConnError
	if !errors.As(err, &ce) || errors.Is(err, ErrClosed) {
		return false
	}
	switch ce.Code {
	case status.OK, status.ConnectionLost, status.Cancelled, status.Unavailable, status.GoingAway, status.Refused, status.ResourceExhausted,
		status.HandshakeTimeout, status.Keepalive, status.WriteStall, status.IdleTimeout:
		return true
	}
	return false
}

func (c *Client) tryOpen(ctx context.Context, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
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
	defer c.passTurn(&se)
	for {
		k, err := c.pick(ctx, &se)
		if err != nil {
			return nil, err
		}
		if k != nil && c.mustQueue(k, &se, n) {
			if _, err := k.checkOpen(nil, method, opts, n, each); err != nil {
				return nil, err // others' turns don't change it
			}
			k = nil
		}
		if k == nil {
			if c.wait(ctx, &se) != nil {
				return nil, c.errNoTurn(ctx, method)
			}
			continue
		}
		ss, err := k.openAny(ctx, method, opts, n, each)
		switch {
		case err != nil && se.number != 0 && errors.Is(err, context.Cause(ctx)):
			return nil, c.errNoTurn(ctx, method)
		case err == nil || ctx.Err() != nil:
			return ss, err
		case errors.Is(err, ErrTooManyStreams) && n > k.maxStreams():
			return nil, err // waiting would not help
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

// errNoTurn is the error of an Open that has waited for a stream until ctx ended.
func (c *Client) errNoTurn(ctx context.Context, method string) error {
	return errtext.Errorf("sluice: open %s at %s: %w: %w", method, c.target, ErrTooManyStreams, context.Cause(ctx))
}

// maxStreams is how many streams this side may have open at once.
func (c *Conn) maxStreams() int {
	if c.hasNumberedStreams() {
		return c.endpoint.limits.MaxStreams
	}
	return int(min(c.c.PeerSettings().MaxStreams, 1<<30))
}

// exclusive is o for a connection on which this side has no other stream.
func (o *OpenOptions) exclusive() *OpenOptions {
	r := OpenOptions{}
	if o != nil {
		r = *o
	}
	r.exclusively = true
	return &r
}

// openDedicated opens streams on a new connection, a child of parent. If parent is nil,
// one of the client's connections is.
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
		return nil, errtext.Errorf("sluice: open %s at %s: dedicated connections: %w", method, c.target, err)
	}
	ss, err := c.openShort(ctx, parent, method, opts.shared(), n, each)
	if err != nil {
		parent.children.unreserve(1)
		return nil, err
	}
	parent.children.opened(ss[0].Conn())
	return ss, nil
}

// shared is o without Dedicated: the connection exists already.
func (o *OpenOptions) shared() *OpenOptions {
	if o == nil || !o.Dedicated {
		return o
	}
	r := *o
	r.Dedicated = false
	return &r
}

// openShort opens streams on a new connection, which ends with them. If parent is not
// nil, it is the new connection's parent.
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

// openChildren opens n streams, each on a new connection, a child of k. A call on k then
// names them.
func (c *Client) openChildren(ctx context.Context, k *Conn, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	switch {
	case method != "" || opts != nil && (!opts.Request.IsZero() || opts.Metadata != nil):
		return nil, errtext.Errorf("sluice: open %s: %w: over %s a stream has no method and no request: open it without them and pass it to a call",
			method, ErrNotSupported, k.protocol)
	case k.children.id == 0:
		return nil, errtext.Errorf("sluice: open at %s: %w: the server serves no streams", c.target, ErrNotSupported)
	case n < 1 || n > k.caps.MaxGroup:
		return nil, errGroup(n, k.caps.MaxGroup)
	}
	cs := &k.children
	if err := cs.reserve(n, c.limits.MaxStreams); err != nil {
		return nil, errtext.Errorf("sluice: open at %s: %w", c.target, err)
	}
	ss := make([]*Stream, 0, n)
	for i := range n {
		s, err := c.openChild(ctx, k, opts, each, i)
		if err != nil {
			cs.unreserve(n - i)
			c.connsChanged()
			for _, s := range ss {
				s.Abort(status.Cancelled, "another stream of the same open failed")
			}
			return nil, err
		}
		cs.opened(s.c.conn)
		ss = append(ss, s)
	}
	return ss, nil
}

// openChild opens stream i of an open on a new connection, a child of k.
func (c *Client) openChild(ctx context.Context, k *Conn, opts *OpenOptions, each []StreamOptions, i int) (*Stream, error) {
	child, err := c.dialChild(ctx, k)
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

// dialChild makes a child of k. A server that refuses it may have had too many connections
// at that moment: it is asked up to callTries times.
func (c *Client) dialChild(ctx context.Context, k *Conn) (*Conn, error) {
	for try := 1; ; try++ {
		child, err := c.dialDedicated(ctx, k)
		var ce *status.ConnError
		if !errors.As(err, &ce) || ce.Code != status.Refused || try == callTries || k.c.Err() != nil || ctx.Err() != nil {
			return child, err
		}
		c.pause(ctx, try)
	}
}

// callTries is how often a call is made at most while the server refuses it unprocessed, and
// a stream's connection.
const callTries = 3

// Call makes a unary call: a stream with one message each way. If it succeeds, it has
// taken over req, and the reply belongs to the caller. If it fails, req still belongs to
// the caller. Call tries up to three times if the server refuses the call unprocessed,
// and never after any other failure. Errors: those of Open, a status.StreamError with the
// handler's status, ErrNoReply.
func (c *Client) Call(ctx context.Context, method string, req pool.Message, opts *CallOptions) (pool.Message, error) {
	ctx, cancel := opts.Bound(ctx)
	defer cancel()
	if opts != nil && opts.NoWait {
		return pool.Message{}, sendOnly(ctx, c, method, req, opts)
	}
	for try := 1; ; try++ {
		s, err := c.Open(ctx, method, opts.open())
		if err != nil {
			return pool.Message{}, err
		}
		reply, err := s.call(ctx, req)
		var se *status.StreamError
		again := errors.As(err, &se) && se.NotProcessed && (se.Code == status.GoingAway || se.Code == status.Refused)
		if !again || try == callTries {
			opts.report(s)
			return reply, err
		}
		c.pause(ctx, try)
	}
}

// pause waits for 5 to 15 ms times try, or until ctx ends.
func (c *Client) pause(ctx context.Context, try int) {
	d := time.Duration(try) * 10 * time.Millisecond
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
