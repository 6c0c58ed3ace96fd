package kernel

import (
	"fmt"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// An Offer is one stream, or several, that a peer asks for. It must be accepted
// or rejected; a handler that returns without doing either has rejected it.
type Offer struct {
	conn     *Conn
	request  Message
	metadata Metadata
	streams  []*Stream
	grants   []frame.Grant
	one      [1]*Stream
	oneGrant [1]frame.Grant

	requestOnce sync.Once
	acceptOnce  sync.Once
	mu          sync.Mutex
	header      Metadata
	answered    bool
	follows     bool // the request is the first stream's first message
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

// Method is the name that the peer asked for.
func (o *Offer) Method() string { return o.streams[0].Method() }

// Request is what came with the wish. It belongs to the stream: Share or Clone
// it to keep it. It is empty if the peer has given the stream up before anybody
// looked at the offer.
func (o *Offer) Request() Message {
	o.receiveRequest()
	return o.request
}

// receiveRequest hands the offer over, to its handler or to whoever asks for its request or
// accepts it: until then a long request waits unread. A short one counts as long as its
// stream is open.
func (o *Offer) receiveRequest() {
	o.requestOnce.Do(func() {
		o.clearPending()
		first := &o.streams[0].c
		if o.follows {
			o.setRequest(first.Request())
			return
		}
		if n := o.request.Len(); n > o.conn.caps.MaxInline {
			first.Keep(-n)
		}
		if !o.request.IsZero() {
			first.more().offer.Store(nil)
		}
	})
}

func (o *Offer) setRequest(m Message) {
	o.request = m
	o.streams[0].c.more().request = m
}

// dropRequest lets the request go, if nobody has looked at it.
func (o *Offer) dropRequest() {
	o.requestOnce.Do(func() {
		o.request.Release()
		o.setRequest(Message{})
	})
}

// Metadata is what came with the wish.
func (o *Offer) Metadata() Metadata { return o.metadata }

// Conn is the connection it came by.
func (o *Offer) Conn() *Conn { return o.conn }

// Peer is the other side of the connection.
func (o *Offer) Peer() Peer { return o.conn.Peer() }

// Identity is who the peer proved to be.
func (o *Offer) Identity() Identity { return o.conn.Identity() }

// Unary tells whether the peer makes a call: one message each way. It is false
// where the protocol does not tell calls from streams; sluice's own does not.
func (o *Offer) Unary() bool { return o.streams[0].c.unary }

// Streams is how many streams the peer asks for with this one request.
func (o *Offer) Streams() int { return len(o.streams) }

// Stream returns stream i of the offer, from 0 on. Before it is accepted it can be
// received from, with little credit, closed for receiving, and aborted; nothing may be
// sent on it.
func (o *Offer) Stream(i int) *Stream { return o.streams[i] }

// Accept establishes the stream and answers the request. Where the peer asked
// for several, the first is established and the others are refused. A nil opts
// means the server's defaults. Errors: ErrAnswered, ErrLimits, ErrTooLarge, or
// the stream's error if the peer has given it up.
func (o *Offer) Accept(reply Message, opts *StreamOptions) (*Stream, error) {
	ss, err := o.accept(reply, opts, 1)
	if err != nil {
		return nil, err
	}
	return ss[0], nil
}

// AcceptAll establishes every stream that the peer asked for.
func (o *Offer) AcceptAll(reply Message, opts *StreamOptions) ([]*Stream, error) {
	return o.accept(reply, opts, len(o.streams))
}

// SetHeader sets what travels with the acceptance. Errors: ErrHeaderSent,
// ErrMetadataTooLarge, ErrMetadataKey.
func (o *Offer) SetHeader(md Metadata) error { return o.setHeader(md) }

func (o *Offer) setHeader(md Metadata) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.answered {
		return ErrHeaderSent
	}
	if err := o.conn.checkMetadata(md, 0); err != nil {
		return err
	}
	o.header = md
	return nil
}

// claim makes this the answer.
func (o *Offer) claim() (Metadata, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.answered {
		return nil, ErrAnswered
	}
	o.answered = true
	return o.header, nil
}

func (o *Offer) accept(reply Message, opts *StreamOptions, n int) ([]*Stream, error) {
	switch {
	case opts == nil:
		opts = &o.conn.endpoint.stream
	case opts.Context != nil:
		return nil, errOpensOnly
	}
	so, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if most := o.conn.c.PeerSettings().MaxMessage; uint64(reply.Len()) > most {
		return nil, fmt.Errorf("%w: a reply of %d bytes, the peer takes %d", ErrTooLarge, reply.Len(), most)
	}
	header, err := o.claim()
	if err != nil {
		return nil, err
	}
	o.receiveRequest()
	first := o.streams[0]
	if err := first.Err(); err != nil {
		o.abortRest()
		return nil, err
	}
	f := frame.GetFrame(frame.Accept)
	f.Metadata = header
	inline := o.conn.inlined(reply, n)
	if inline {
		f.Payload = append([]byte(nil), reply.Bytes()...)
		reply.Release()
	} else {
		f.FollowsData = true
	}
	for i, s := range o.streams[:n] {
		f.Grants = append(f.Grants, s.c.establish(&so, o.grants[i]))
	}
	first.c.SetFirst(f)
	if !inline {
		if err := first.c.Push(reply); err != nil {
			return nil, err
		}
	}
	for _, s := range o.streams[n:] {
		s.c.Refused(CodeFailedPrecondition, "not accepted", true)
	}
	return o.streams[:n], nil
}

// abortRest ends the streams of a request whose first was given up: the answer to all
// would have come by that.
func (o *Offer) abortRest() {
	for _, s := range o.streams[1:] {
		s.Abort(CodeCancelled, "the first stream of the request was aborted")
	}
}

// establish turns an offered stream into an accepted one.
func (c *core) establish(so *StreamOptions, g frame.Grant) frame.Grant {
	if c.conn.caps.Outlives && !c.unary {
		c.stopDeadline()
	}
	window, most := 0, 0
	if !so.NoReceive {
		window, most = c.firstWindow(so.Window, g.Limit)
	}
	cfg := c.config(so, window, most, g)
	credit := c.Establish(cfg)
	return frame.Grant{Credit: credit, Limit: uint64(so.SendLimit), NoReceive: so.NoReceive}
}

// firstWindow is the window for a user who asked for want bytes, and a peer who
// wants to have limit bytes unread at most; 0 is no wish.
func (c *core) firstWindow(want int, limit uint64) (window, most int) {
	if limit == 0 {
		return c.conn.c.FirstWindow(want)
	}
	n := max(int(min(limit, 1<<30)), c.conn.caps.MinWindow())
	if want != 0 {
		want = min(want, n)
	}
	window, most = c.conn.c.FirstWindow(want)
	return min(window, n), min(most, n)
}

// Reject refuses the stream, or all of them. The peer gets ErrRefused with the
// code and the reason; CodeOK is no refusal, and becomes CodeUnknown.
func (o *Offer) Reject(code Code, reason string) {
	o.reject(&conn.Refusal{Code: failing(code), Reason: reason})
}

func (o *Offer) reject(r *conn.Refusal) {
	if _, err := o.claim(); err != nil {
		return
	}
	o.streams[0].c.SetFirst(&frame.Frame{
		Kind: frame.Reject, Code: r.Code, Reason: r.Reason[:min(len(r.Reason), 256)], NotProcessed: r.NotProcessed,
	})
	for _, s := range o.streams[1:] {
		s.c.Refused(r.Code, r.Reason, true)
	}
}

// acceptOnUse accepts for a handler that has begun to use its stream. Whoever
// comes second waits for the first: no data may overtake the acceptance.
func (o *Offer) acceptOnUse(s *Stream) {
	o.acceptOnce.Do(func() {
		_, _ = o.Accept(Message{}, nil)
		s.c.acceptOnUse.Store(nil)
	})
}

// handlerStarts says that a handler is about to run for the offer's streams;
// handlerReturned, that it has returned: what is unread then is for whoever the handler
// gave its stream to.
func (o *Offer) handlerStarts() {
	for _, s := range o.streams {
		s.c.life.And(^uint32(lifePending))
		s.c.life.Or(lifeServed)
	}
}

func (o *Offer) handlerReturned() {
	for _, s := range o.streams {
		if s.c.life.Or(lifeReleased)&lifeRetired != 0 {
			o.conn.retired.update(&s.c)
		}
	}
}

// setPending says that the offer waits for somebody to look at it: what its streams hold
// is dropped if they end before that. clearPending says that somebody does.
func (o *Offer) setPending() {
	for _, s := range o.streams {
		s.c.life.Or(lifePending)
		if s.Err() != nil { // it may have ended before the bit was set
			s.c.dropPending()
		}
	}
}

func (o *Offer) clearPending() {
	for _, s := range o.streams {
		s.c.life.And(^uint32(lifePending))
	}
}
