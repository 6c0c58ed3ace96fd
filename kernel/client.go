package kernel

import (
	"context"
	"crypto/tls"
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
	made      time.Time     // the last connection, unless it is known whether it lasted
	next      time.Time     // no dial before
	free      chan struct{} // closed when a stream has ended or a connection changed; nil if nobody waits
	closed    bool
	wg        sync.WaitGroup // connections and dials
}

// dialing is one attempt that several may wait for.
type dialing struct {
	done chan struct{}
	err  error
}

// Dial returns a client for target: "host:port", or "protocol://host:port" for a
// protocol of the options other than the first. It makes a first connection, so
// that an error tells what is wrong: a ConnError whose Op is "dial" or
// "handshake". ctx bounds that only.
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
	c.host.encoding = o.Encoding
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
	k, _, err := c.pick(ctx, nil, false)
	return k, err
}

// pick returns a usable connection other than those that are full. With watch it
// also returns what is closed when trying again makes sense.
func (c *Client) pick(ctx context.Context, full map[*Conn]bool, watch bool) (*Conn, <-chan struct{}, error) {
	for {
		c.connMu.Lock()
		if c.closed {
			c.connMu.Unlock()
			return nil, nil, fmt.Errorf("sluice: open at %s: %w", c.target, ErrClosed)
		}
		var wait <-chan struct{}
		if watch {
			wait = c.waitLocked()
		}
		for _, k := range c.conns {
			if !full[k] && k.c.Usable() {
				c.connMu.Unlock()
				return k, wait, nil
			}
		}
		if c.usableLocked() >= c.opts.Conns {
			c.connMu.Unlock()
			return nil, wait, nil
		}
		d := c.dialLocked()
		c.connMu.Unlock()
		select {
		case <-d.done:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("sluice: dial %s: %w", c.target, context.Cause(ctx))
		}
		if d.err != nil {
			return nil, nil, d.err
		}
	}
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
		return nil, err
	}
	return k, nil
}

// count adds n to what Close waits for; nothing is added once Close was called.
func (c *Client) count(n int) error {
	c.connMu.Lock()
	defer c.connMu.Unlock()
	if c.closed {
		return fmt.Errorf("sluice: open at %s: %w", c.target, ErrClosed)
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

func (c *Client) tlsConfig() *tls.Config {
	t := c.opts.TLS.Clone()
	if t.ServerName == "" {
		t.ServerName, _, _ = net.SplitHostPort(c.target)
	}
	return t
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
// ClientOptions.Backoff if the last one failed, and gives its ConnError; it waits,
// as long as ctx lets it, for one of the streams that the server allows to be free.
// To bound the connecting and not the stream, call Conn first, with another context.
func (c *Client) Open(ctx context.Context, method string, opts *OpenOptions) (*Stream, error) {
	ss, err := c.open(ctx, method, opts, 1, nil)
	if err != nil {
		return nil, err
	}
	return ss[0], nil
}

// OpenN opens several streams with one request, which are accepted or refused
// together: one for each of each. Their answer comes by the first: who gives that up
// before it gives them all up.
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
	var full map[*Conn]bool
	var changed <-chan struct{} // since before the first of full was found full
	watch := false
	for {
		k, wait, err := c.pick(ctx, full, watch)
		if full == nil {
			changed = wait
		}
		switch {
		case err != nil:
			return nil, err
		case k == nil && changed == nil:
			watch = true
			continue
		case k == nil:
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, fmt.Errorf("sluice: open %s at %s: %w: %w", method, c.target, ErrTooManyStreams, context.Cause(ctx))
			}
			full = nil
			continue
		}
		ss, err := c.openOn(ctx, k, method, opts, n, each)
		switch {
		case err == nil || ctx.Err() != nil:
			return ss, err
		case errors.Is(err, ErrTooManyStreams) && !watch:
			watch = true // from now on: what ends meanwhile must not be missed
		case errors.Is(err, ErrTooManyStreams):
			if full == nil {
				full = map[*Conn]bool{}
			}
			full[k] = true
		case errors.Is(err, ErrGoingAway) || k.c.Err() != nil:
			// Another connection will do.
		default:
			return nil, err
		}
	}
}

func (c *Client) openOn(ctx context.Context, k *Conn, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	if k.kin.family != nil && (opts == nil || !opts.unary) {
		return c.openChildren(ctx, k, method, opts, n, each)
	}
	return k.open(ctx, method, opts, n, each)
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

// openShort opens on a connection that is closed when the streams are over. With
// a parent it belongs to that.
func (c *Client) openShort(ctx context.Context, parent *Conn, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	k, err := c.dialDedicated(ctx, nil)
	if err != nil {
		return nil, err
	}
	k.c.EndWithStreams()
	var ss []*Stream
	if err = parent.tie(k); err == nil {
		ss, err = c.openOn(ctx, k, method, opts, n, each)
	}
	if err != nil {
		_ = k.Close()
	}
	return ss, err
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

// callTries is how often a call is made again that was refused unprocessed.
const callTries = 3

// Call makes a unary call: a stream with one message each way. The request
// belongs to the call if it succeeds; the reply belongs to the caller. A call that
// the server refused unprocessed is made again, a few times; nothing else is.
// Errors: what Open gives, a StreamError with the handler's status, ErrNoReply.
func (c *Client) Call(ctx context.Context, method string, req Message, opts *CallOptions) (Message, error) {
	ctx, cancel := opts.bound(ctx)
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
