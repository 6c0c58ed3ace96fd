package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// A Conn is one connection, with many streams on it. It is the same type on both
// sides; either side may open streams on it.
type Conn struct {
	c        *conn.Conn
	host     *host
	peer     Peer
	protocol string
	client   bool // we opened it
	identity Identity
	caps     frame.Caps
	parent   *Conn  // whose child it is, if any
	number   uint64 // among its parent's children
	child    *child // what the parent knows of it; nil: the parent does not have it
	children children
	owner    *Client // nil on a server

	lastConfig, configBefore atomic.Pointer[actor.Config]
	running                  handlers
	retired                  retired
	done                     chan struct{}
	err                      error // set before done is closed
	once                     sync.Once
	ended                    func(*Conn) // tells the owner
}

// Peer is what is known of the other side.
func (c *Conn) Peer() Peer { return c.peer }

// Identity is who the other side proved to be, as Authenticate said.
func (c *Conn) Identity() Identity { return c.identity }

// Protocol is the name of the wire.
func (c *Conn) Protocol() string { return c.protocol }

// Caps tells what the connection can carry.
func (c *Conn) Caps() frame.Caps { return c.caps }

// Conn returns c. It makes a connection a Caller; ctx has no effect.
func (c *Conn) Conn(context.Context) (*Conn, error) { return c, nil }

// Logger is that of the options of the server or client that c belongs to.
func (c *Conn) Logger() *slog.Logger { return c.host.logger }

// Balance is what the connection owes and is owed now, for tests and for a look at a
// program that stands still.
func (c *Conn) Balance() conn.Balance {
	b := c.c.Balance()
	b.Held += int(c.retired.bytes.Load())
	return b
}

// Streams is how many streams are open.
func (c *Conn) Streams() int { return c.c.Streams() }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, a ConnError, or nil while it has not.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Close ends the connection and waits until it is gone. Streams that are open
// fail with CodeConnectionLost, on both sides. Their In, Batches and C are closed
// on this side, also where messages wait; Receive takes those.
func (c *Conn) Close() error {
	c.shut()
	<-c.done
	return nil
}

// shut ends the connection from this side. What its streams have not handed over on
// a channel stays for Receive.
func (c *Conn) shut() {
	c.retired.endFeeding()
	c.c.Close()
}

// Open opens a stream. It returns at once: data may follow before the peer has
// accepted; Stream.Accepted waits for that. ctx bounds the stream's life: when it
// ends the stream is aborted, unless this side has written all and read the peer's
// end, and its deadline travels to the peer as time left. Where Caps.StreamsByID holds,
// the client's side makes a connection for the stream, without a method, and a call
// then names it.
// A nil opts means the defaults. Errors: ErrTooManyStreams, ErrGoingAway, the
// connection's ConnError, ErrMetadataTooLarge, ErrMetadataKey, ErrTooLarge,
// ErrLimits.
func (c *Conn) Open(ctx context.Context, method string, opts *OpenOptions) (*Stream, error) {
	ss, err := c.openAny(ctx, method, opts, 1, nil)
	if err != nil {
		return nil, err
	}
	return ss[0], nil
}

// OpenN opens len(each) streams with one request; the peer accepts or refuses them
// together. Aborting the first before it is answered aborts all.
func (c *Conn) OpenN(ctx context.Context, method string, opts *OpenOptions, each ...StreamOptions) ([]*Stream, error) {
	return c.openAny(ctx, method, opts, len(each), each)
}

// openAny opens streams on c, or, where each has a connection of its own, on some that
// belong to c.
func (c *Conn) openAny(ctx context.Context, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	call := opts != nil && opts.unary
	switch {
	case c.isOneStream():
		return nil, fmt.Errorf("sluice: open %s: %w: over %s a stream's own connection carries nothing else", method, ErrNotSupported, c.protocol)
	case c.hasNumberedStreams() && c.owner != nil && !call:
		return c.owner.openChildren(ctx, c, method, opts, n, each)
	}
	return c.open(ctx, method, opts, n, each)
}

func errGroup(n, most int) error {
	return fmt.Errorf("%w: %d streams in one request, must be 1 to %d", ErrLimits, n, most)
}

func (c *Conn) open(ctx context.Context, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	if opts == nil {
		opts = &OpenOptions{}
	}
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("sluice: open %s: %w", method, err)
	}
	if opts.Dedicated {
		if c.owner == nil {
			return nil, fmt.Errorf("sluice: open %s: %w: a server makes no connections", method, ErrNotSupported)
		}
		return c.owner.openDedicated(ctx, c, method, opts, n, each)
	}
	if !c.client && !c.caps.ServerOpens {
		return nil, fmt.Errorf("sluice: open %s: %w: over %s a server opens no streams", method, ErrNotSupported, c.protocol)
	}
	if n < 1 || n > c.caps.MaxGroup {
		return nil, errGroup(n, c.caps.MaxGroup)
	}
	if err := c.checkOpen(method, opts); err != nil {
		return nil, err
	}
	var one [1]StreamOptions
	own, err := c.streamOptions(one[:0], opts, n, each) // before a place is taken that others would wait for
	if err != nil {
		return nil, err
	}
	if err := c.c.Reserve(n, opts.alone); err != nil {
		return nil, fmt.Errorf("sluice: open %s: %w", method, err)
	}
	f := frame.GetFrame(frame.Open)
	ss := c.makeStreams(method, opts, own, f)
	return ss, c.sendOpen(ctx, ss, f, method, opts, own)
}

// mostMetadata is how many bytes of metadata can be sent to the peer.
func (c *Conn) mostMetadata() int {
	return int(min(c.c.PeerSettings().MaxMetadata, uint64(c.caps.MaxMetadata)))
}

// inlined tells whether m travels in the frame that opens or accepts n streams.
func (c *Conn) inlined(m Message, n int) bool {
	return m.Len() <= c.caps.MaxInline-c.caps.GrantSize*(n-1)
}

// checkMetadata tells why md can't be sent, in a frame with more bytes that count, or
// nil.
func (c *Conn) checkMetadata(md Metadata, more int) error {
	if n := md.Size() + more; n > c.mostMetadata() {
		return fmt.Errorf("%w: %d bytes, the peer takes %d", ErrMetadataTooLarge, n, c.mostMetadata())
	}
	if !md.Valid() {
		return ErrMetadataKey
	}
	return nil
}

func (c *Conn) checkOpen(method string, opts *OpenOptions) error {
	p := c.c.PeerSettings()
	if err := c.checkMetadata(opts.Metadata, len(method)); err != nil {
		return fmt.Errorf("sluice: open %s: %w", method, err)
	}
	if opts.Request.Len() > int(p.MaxMessage) {
		return fmt.Errorf("sluice: open %s: %w: request of %d bytes, the peer takes %d",
			method, ErrTooLarge, opts.Request.Len(), p.MaxMessage)
	}
	return nil
}

// streamOptions appends the complete options of each of the n streams of a request.
func (c *Conn) streamOptions(own []StreamOptions, opts *OpenOptions, n int, each []StreamOptions) ([]StreamOptions, error) {
	common := opts.Stream.over(&c.host.stream)
	for i := range n {
		so := common
		if each != nil {
			so = each[i].over(&common)
		}
		so, err := so.withDefaults()
		if err != nil {
			return nil, err
		}
		own = append(own, so)
	}
	return own, nil
}

// makeStreams makes the streams of one request, one for each of own, and writes their
// grants to f. The connection has a place for each. Nobody else knows them yet.
func (c *Conn) makeStreams(method string, opts *OpenOptions, own []StreamOptions, f *frame.Frame) []*Stream {
	n := len(own)
	ss := make([]*Stream, n)
	var mate *conn.Port
	for i := range ss {
		so := &own[i]
		s := &Stream{}
		ss[i] = s
		s.c.conn, s.c.method, s.c.opener, s.c.unary = c, method, true, opts.unary
		credit := c.c.Begin(&s.c.Port, &s.c, mate)
		mate = &s.c.Port
		window, most := 0, 0
		if !so.NoReceive || c.caps.FixedWindow { // what comes nevertheless is let go
			window, most = c.c.FirstWindow(so.Window)
		}
		s.c.Init(&s.c, s.c.config(so, window, most, frame.Grant{Credit: credit}))
		f.Grants = append(f.Grants, frame.Grant{Credit: s.c.Granted(), Limit: uint64(so.SendLimit), NoReceive: so.NoReceive})
	}
	if n > 1 {
		cores := make([]*core, n)
		for i, s := range ss {
			cores[i] = &s.c
			s.c.more().mates = cores
		}
	}
	return ss
}

// over completes o with what it leaves zero from base.
func (o StreamOptions) over(base *StreamOptions) StreamOptions {
	if o == (StreamOptions{}) {
		return *base
	}
	pick(&o.Window, base.Window)
	pick(&o.SendLimit, base.SendLimit)
	pick(&o.InBuffer, base.InBuffer)
	pick(&o.MaxBatch, base.MaxBatch)
	pick(&o.IdleTimeout, base.IdleTimeout)
	o.NoReceive = o.NoReceive || base.NoReceive
	if o.Context == nil {
		o.Context = base.Context
	}
	return o
}

func pick[T int | time.Duration](v *T, base T) {
	if *v == 0 {
		*v = base
	}
}

func (c *Conn) sendOpen(ctx context.Context, ss []*Stream, f *frame.Frame, method string, opts *OpenOptions, own []StreamOptions) error {
	f.Method, f.Metadata, f.Unary = method, opts.Metadata, opts.unary
	first := ss[0]
	if !opts.Request.IsZero() || opts.Metadata != nil {
		x := first.c.more()
		x.request, x.metadata = opts.Request, opts.Metadata
	}
	inline := c.inlined(opts.Request, len(ss))
	if inline {
		f.Payload = opts.Request.Bytes()
	} else {
		f.FollowsData = true
	}
	f.Deadline = timeLeft(ctx, opts, own)
	for i, s := range ss {
		life := lifeOf(ctx, opts, &own[i])
		if d, ok := life.Deadline(); ok {
			s.c.setDeadline(d)
			s.c.startDeadline()
		}
		s.c.follow(life)
	}
	first.c.SetFirst(f)
	if !inline {
		m := opts.Request.Share()
		if err := first.c.Push(m); err != nil {
			m.Release()
			return err
		}
	}
	return nil
}

// lifeOf is the context that bounds the life of a stream with the options so.
func lifeOf(ctx context.Context, opts *OpenOptions, so *StreamOptions) context.Context {
	if opts.unary || so.Context == nil {
		return ctx
	}
	return so.Context
}

// timeLeft is how long the streams of a request live at the longest, for the peer; 0 if
// one has no deadline.
func timeLeft(ctx context.Context, opts *OpenOptions, own []StreamOptions) time.Duration {
	most := time.Duration(0)
	for i := range own {
		d, ok := lifeOf(ctx, opts, &own[i]).Deadline()
		if !ok {
			return 0
		}
		most = max(most, time.Until(d), time.Microsecond)
	}
	return most
}

// Call makes a unary call: a stream with one message each way. The request
// belongs to the call if it succeeds; the reply belongs to the caller.
// Errors: what Open gives, a StreamError with the handler's status, ErrNoReply.
func (c *Conn) Call(ctx context.Context, method string, req Message, opts *CallOptions) (Message, error) {
	ctx, cancel := opts.Bound(ctx)
	defer cancel()
	s, err := c.Open(ctx, method, opts.open())
	if err != nil {
		return Message{}, err
	}
	return s.call(ctx, req)
}

func (o *CallOptions) open() *OpenOptions {
	if o == nil {
		return &OpenOptions{unary: true}
	}
	return &OpenOptions{Metadata: o.Metadata, unary: true}
}

// Bound returns ctx with the time limit that a call with these options has: Timeout,
// or 60 s if that is zero and ctx has no deadline.
func (o *CallOptions) Bound(ctx context.Context) (context.Context, context.CancelFunc) {
	d := time.Duration(defaultCallTimeout)
	if o != nil && o.Timeout != 0 {
		d = o.Timeout
	}
	_, has := ctx.Deadline()
	if asked := o != nil && o.Timeout > 0; d == Unlimited || has && !asked {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// call sends the request and waits for the one reply and the end. The request
// is its own if it succeeds.
func (s *Stream) call(ctx context.Context, req Message) (Message, error) {
	reply, err := s.exchange(ctx, req.Share())
	if err == nil {
		req.Release()
	}
	return reply, err
}

func (s *Stream) exchange(ctx context.Context, req Message) (Message, error) {
	if err := s.Send(ctx, req); err != nil {
		req.Release()
		if errors.Is(err, ErrStopped) {
			return s.answer(ctx)
		}
		return Message{}, s.giveUp(ctx, err)
	}
	_ = s.CloseSend()
	return s.answer(ctx)
}

// answer takes the one reply, and the end.
func (s *Stream) answer(ctx context.Context) (Message, error) {
	reply, err := s.Receive(ctx)
	if err != nil {
		return Message{}, s.giveUp(ctx, err)
	}
	if more, err := s.Receive(ctx); err == nil {
		more.Release()
		reply.Release()
		s.Abort(CodeCancelled, "more than one reply")
		return Message{}, fmt.Errorf("sluice: call %s: more than one reply", s.Method())
	} else if err := s.callErr(err); err != nil && !errors.Is(err, ErrNoReply) {
		reply.Release()
		return Message{}, err
	}
	return reply, nil
}

// giveUp ends a call that failed with err, and returns what its caller is told.
// Where the call's context ended, the stream may not have heard of it yet.
func (s *Stream) giveUp(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == nil:
		err = s.callErr(err)
		s.Abort(CodeCancelled, "call given up")
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		s.c.abort(CodeDeadlineExceeded, "deadline exceeded", context.Cause(ctx))
	default:
		s.c.abort(CodeCancelled, context.Cause(ctx).Error(), context.Cause(ctx))
	}
	s.c.GiveUp()
	return s.callErr(err)
}

// callErr turns the end of the stream into the call's error.
func (s *Stream) callErr(err error) error {
	if serr := s.Err(); serr != nil {
		return serr
	}
	if isEOF(err) {
		return fmt.Errorf("%w: %s", ErrNoReply, s.Method())
	}
	return err
}

// link is a Conn as its conn.Handler.
type link Conn

// Started implements conn.Handler.
func (l *link) Started(*conn.Conn) {
	c := (*Conn)(l)
	if f := c.host.onConn; f != nil {
		go c.introduce(f)
	}
}

// introduce tells the program of the connection, which does not live on if that
// panics: nobody knows what is missing then.
func (c *Conn) introduce(f func(*Conn)) {
	failed := true
	defer func() {
		if failed {
			c.c.Fail("close", CodeInternal, errHook)
		}
	}()
	failed = c.host.hook("OnConn", c.peer.Addr, func() error { f(c); return nil }) != nil
}

// GoAway implements conn.Handler.
func (l *link) GoAway(*conn.Conn) { (*Conn)(l).host.away((*Conn)(l)) }

// Closed implements conn.Handler.
func (l *link) Closed(_ *conn.Conn, err error) {
	c := (*Conn)(l)
	c.once.Do(func() {
		c.err = err
		close(c.done)
		c.running.stop()
		c.host.removeParent(c)
		c.leaveParent()
		c.endChildren()
		c.ended(c)
	})
}

// Open implements conn.Handler.
func (l *link) Open(_ *conn.Conn, f *frame.Frame) *conn.Refusal {
	c := (*Conn)(l)
	if c.isOneStream() {
		return c.acceptUnclaimed(f)
	}
	h, ok := c.host.lookup(f.Method)
	if !ok {
		return &conn.Refusal{Code: CodeUnimplemented, Reason: "no such method: " + f.Method, NotProcessed: true}
	}
	if c.running.full() {
		return &conn.Refusal{Code: CodeRefused, Reason: "too many handlers run", NotProcessed: true}
	}
	if c.host.pressure.Load() >= stopOpening {
		return &conn.Refusal{Code: CodeRefused, Reason: "the server is short of memory", NotProcessed: true}
	}
	o := c.offer(f)
	if f.FollowsData {
		o.follows = true
		o.streams[0].c.OnRequest(func() { c.host.dispatch(o, h) })
		return nil
	}
	c.host.dispatch(o, h)
	return nil
}

// offer makes the streams that the peer asks for.
func (c *Conn) offer(f *frame.Frame) *Offer {
	o := &Offer{conn: c, metadata: f.Metadata}
	o.streams, o.grants = o.one[:0], append(o.oneGrant[:0], f.Grants...)
	initial := c.c.FirstUnaccepted()
	brought := len(f.Method) + f.Metadata.Size() + len(f.Payload)
	for i, g := range f.Grants {
		s := &Stream{}
		s.c.conn, s.c.method, s.c.unary = c, f.Method, f.Unary
		s.c.life.Store(lifePending)
		so := StreamOptions{InBuffer: defaultInBuffer, MaxBatch: defaultMaxBatch}
		window := initial
		if g.Limit > 0 {
			window = min(window, max(int(min(g.Limit, 1<<30)), c.caps.MinWindow()))
		}
		c.c.Prepare(&s.c.Port, &s.c)
		s.c.Init(&s.c, s.c.config(&so, window, window, g))
		if f.Deadline > 0 {
			s.c.setDeadline(time.Now().Add(f.Deadline))
		}
		c.c.Attach(&s.c.Port, f.Stream+2*uint64(i), brought)
		brought = 0         // the first has it all
		s.c.startDeadline() // its opener may have no way to tell when it has passed
		o.streams = append(o.streams, s)
	}
	if len(f.Payload) > 0 {
		o.setRequest(pool.Copy(f.Payload))
		o.streams[0].c.more().offer.Store(o)
	}
	if f.Metadata != nil {
		o.streams[0].c.more().metadata = f.Metadata
	}
	return o
}

func (o *Offer) setRequest(m Message) {
	o.request = m
	o.streams[0].c.more().request = m
}

// addrHost is the address without the port, for limits per address.
func addrHost(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.IP.String()
	}
	return a.String()
}
