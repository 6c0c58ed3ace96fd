package kernel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	host
	opts   ClientOptions
	target string // host:port
	proto  Protocol
	engine *conn.Engine

	connMu    sync.Mutex
	conns     []*Conn
	dedicated map[*Conn]struct{}
	dialing   *dialing
	failures  int           // attempts to dial, in a row
	brief     int           // connections that did not last, in a row
	newest    *Conn         // unless it is known whether it lasted
	made      time.Time     // when newest was
	next      time.Time     // no dial before
	last      error         // why not
	free      chan struct{} // closed when a stream has ended or a connection changed; nil if nobody waits
	closed    bool
	wg        sync.WaitGroup // connections and dials
}

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
	c.host.limits, c.host.stream, c.host.protocols = o.Limits, o.Stream, o.Protocols
	c.host.checksum, c.host.logger, c.host.token = !o.NoChecksum, o.Logger, o.Token
	c.host.away = func(*Conn) { c.changed() }
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

// Conn returns a connection that takes streams, making one if there is none.
func (c *Client) Conn(ctx context.Context) (*Conn, error) {
	return c.pick(ctx, &search{})
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
			return nil, c.givenUp(ctx, d.turn)
		}
		switch {
		case d.err == nil:
			s.made = d.conn
		case len(s.full) == 0 || errors.Is(d.err, ErrClosed):
			return nil, d.err
		}
	}
}

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
func (c *Client) join(j *joint) (*Conn, error) {
	if err := c.count(1); err != nil {
		neverBegan(j.sess)
		_ = j.nc.Close()
		return nil, err
	}
	engine, err := c.loops(j.nc)
	if err != nil {
		neverBegan(j.sess)
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
		opts = opts.onItsOwn()
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
		case errors.Is(err, ErrTooManyStreams) && n > k.most():
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
func (c *Conn) most() int {
	if c.hasNumberedStreams() {
		return c.host.limits.MaxStreams
	}
	return int(min(c.c.PeerSettings().MaxStreams, 1<<30))
}

// onItsOwn is o with a connection that nobody else uses meanwhile.
func (o *OpenOptions) onItsOwn() *OpenOptions {
	r := OpenOptions{}
	if o != nil {
		r = *o
	}
	r.alone = true
	return &r
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
