package kernel

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// An Offer is a peer's request to open one stream, or several. It must be accepted or
// rejected. If its handler returns without doing either, it is rejected.
type Offer struct {
	conn       *Conn
	inline     int   // bytes of the request, if it came in the Open frame
	follows    bool  // the request is the first stream's first message
	unreadable error // why the request could not be read: no handler runs
	// peerUnpacks is how the peer unpacks messages, where each open says so.
	peerUnpacks pool.Compressions
	metadata    metadata.MD
	streams     []*Stream
	grants      []frame.Grant
	one         [1]*Stream     // behind streams, if there is one
	oneGrant    [1]frame.Grant // behind grants, likewise

	requestOnce sync.Once   // see readRequest
	acceptOnce  sync.Once   // see acceptOnUse
	taken       atomic.Bool // by Stream.Offer
	mu          sync.Mutex  // owns what follows
	header      metadata.MD
	answered    bool
}

// offer makes the streams that the peer asks for with an Open frame.
func (c *Conn) offer(f *frame.Frame) *Offer {
	o := &Offer{conn: c, metadata: f.Metadata, peerUnpacks: f.Unpacks}
	o.streams, o.grants = o.one[:0], append(o.oneGrant[:0], f.Grants...)
	initial := c.c.UnacceptedWindow()
	size := len(f.Method) + f.Metadata.Size() + len(f.Payload)
	for i, g := range f.Grants {
		s := &Stream{}
		s.c.conn, s.c.method, s.c.unary = c, f.Method, f.Unary
		s.c.life.Store(lifePending)
		so := StreamOptions{InBuffer: defaultInBuffer, MaxBatch: defaultMaxBatch, MaxReceive: c.endpoint.stream.MaxReceive}
		window := initial
		if g.Limit > 0 {
			window = min(window, max(int(min(g.Limit, 1<<30)), c.caps.MinWindow()))
		}
		c.c.PreparePeer(&s.c.Port, &s.c, f.Unary)
		s.c.Init(&s.c, s.c.config(&so, 0, window, g.NoReceive))
		s.c.BeginWith(window, g.Credit)
		s.c.HoldSends()
		if f.Unsettled {
			s.c.AllowEarly()
		}
		if f.Deadline > 0 {
			s.c.setDeadline(time.Now().Add(f.Deadline))
		}
		if i == 0 {
			o.hold(s, f)
		}
		c.endpoint.opened.Add(1)
		c.c.OpenPeer(&s.c.Port, f.Stream+2*uint64(i), size)
		size = 0            // it is counted for the first stream
		s.c.startDeadline() // the opener's protocol may not tell us when it aborts
		o.streams = append(o.streams, s)
	}
	for _, s := range o.streams {
		c.endpoint.observing.begun(&s.c.life, event{stream: s})
	}
	return o
}

// hold keeps in the first stream what came with its Open frame. Nobody else knows the stream
// yet: its deadline may pass, and its connection end, as soon as they do.
func (o *Offer) hold(s *Stream, f *frame.Frame) {
	// Where no data comes before the answer, a request that is not there is an empty one.
	if len(f.Payload) > 0 || !o.conn.caps.Early && !f.Unary && !f.FollowsData {
		var m pool.Message
		if o.inline = len(f.Payload); o.inline > 0 {
			m = pool.Copy(f.Payload)
		}
		s.c.HoldRequest(m)
	}
	if f.Metadata != nil {
		s.c.more().metadata = f.Metadata
	}
}

// Method is the method that the peer asked for.
func (o *Offer) Method() string { return o.streams[0].Method() }

// Request waits for the request and returns it: see Stream.Request. The offer can be answered
// before or after that.
func (o *Offer) Request(ctx context.Context) (pool.Message, error) {
	if err := o.readRequest(); err != nil {
		return pool.Message{}, err
	}
	return o.streams[0].Request(ctx)
}

// readRequest takes the request that came with the open out of what counts as unread. It is
// called before the handler runs, before anybody has the stream, and by Accept. Until then
// a long request counts as unread. A short one counts as held while its stream is open.
// readRequest returns why there is none that can be read.
func (o *Offer) readRequest() error {
	o.requestOnce.Do(func() {
		o.clearPending()
		first := &o.streams[0].c
		switch {
		case o.follows:
			o.unreadable = first.ReadRequest()
		case o.inline > o.conn.caps.MaxInline:
			first.Charge(-o.inline)
		}
	})
	return o.unreadable
}

// Metadata is the metadata that came with the open.
func (o *Offer) Metadata() metadata.MD { return o.metadata }

// Conn is the connection that the offer came by.
func (o *Offer) Conn() *Conn { return o.conn }

// Unary reports whether the peer makes a call: one message each way. It is always false on
// protocols that don't tell calls from streams, sluice's own among them.
func (o *Offer) Unary() bool { return o.streams[0].c.unary }

// Streams is the number of streams that the peer asks for.
func (o *Offer) Streams() int { return len(o.streams) }

// Stream returns stream i of the offer, from 0 on. Before the offer is accepted, the stream
// has little credit, and is there to be received from, closed for receiving, or aborted.
// Send, TrySend, CloseSend and Close fail with ErrNotAccepted until then, and Out and
// Writable wait.
func (o *Offer) Stream(i int) *Stream {
	o.clearPending()
	_ = o.readRequest() // Receive does not give it; an error is the stream's
	return o.streams[i]
}

// Accept accepts the stream. reply travels with the acceptance, and is the reply of a call;
// Accept takes it over if it succeeds. If the peer asked for several streams, the first is
// accepted and the others are refused. Nil opts are the server's defaults. Errors: ErrAnswered, ErrLimits, ErrTooLarge,
// ErrNotSupported for a Compression that the peer does not unpack, or the stream's error if
// it has ended.
func (o *Offer) Accept(reply pool.Message, opts *StreamOptions) (*Stream, error) {
	ss, err := o.accept(reply, opts, 1)
	if err != nil {
		return nil, err
	}
	return ss[0], nil
}

// AcceptAll is Accept for all streams that the peer asked for.
func (o *Offer) AcceptAll(reply pool.Message, opts *StreamOptions) ([]*Stream, error) {
	return o.accept(reply, opts, len(o.streams))
}

// SetHeader adds metadata to what travels with the acceptance, or with the refusal. Errors:
// ErrHeaderSent if the offer was answered, ErrMetadataTooLarge, ErrMetadataKey, and
// ErrNotSupported if the protocol carries no metadata.
func (o *Offer) SetHeader(md metadata.MD) error { return o.setHeader(md) }

func (o *Offer) setHeader(md metadata.MD) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.answered {
		return ErrHeaderSent
	}
	header := append(slices.Clip(o.header), md...)
	if err := o.conn.checkMetadata(header, 0); err != nil {
		return err
	}
	o.header = header
	return nil
}

// beginAnswer returns the header for the answer. Only the first call succeeds.
func (o *Offer) beginAnswer() (metadata.MD, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.answered {
		return nil, ErrAnswered
	}
	o.answered = true
	return o.header, nil
}

func (o *Offer) accept(reply pool.Message, opts *StreamOptions, n int) ([]*Stream, error) {
	f, err := o.answer(reply, opts, n)
	if err != nil {
		return nil, err
	}
	first, inline := o.streams[0], !f.FollowsData
	first.c.SetFirstFrame(f)
	if !inline {
		if err := first.c.Push(reply); err != nil {
			return nil, err
		}
	}
	for _, s := range o.streams[1:n] {
		s.c.AllowSends()
	}
	for _, s := range o.streams[n:] {
		s.c.Refused(status.FailedPrecondition, "not accepted", true, nil)
	}
	return o.streams[:n], nil
}

// answer establishes the first n streams and returns the frame that accepts them. A reply
// that fits is in it, and released. What answer takes on the stack must not be there when
// the frame is written: a handler's stack would not stay within 4 KiB.
func (o *Offer) answer(reply pool.Message, opts *StreamOptions, n int) (*frame.Frame, error) {
	switch {
	case opts == nil:
		opts = o.conn.streamDefaults(o.unpacks())
	case opts.Context != nil:
		return nil, errOpensOnly
	}
	so, err := opts.withDefaults()
	if err == nil {
		err = o.conn.checkCompression(so.Compression, o.unpacks())
	}
	if err == nil {
		err = o.conn.checkCompression(pool.CompressionOf(reply), o.unpacks())
	}
	named := pool.Compression(0)
	if err == nil {
		named, err = o.conn.named(so.Compression, pool.CompressionOf(reply))
	}
	if err != nil {
		return nil, err
	}
	if most := o.conn.maxSend(&so); reply.Len() > most {
		return nil, fmt.Errorf("%w: a reply of %d bytes, the limit is %d", ErrTooLarge, reply.Len(), most)
	}
	header, err := o.beginAnswer()
	if err != nil {
		return nil, err
	}
	_ = o.readRequest() // an error is the stream's
	first := o.streams[0]
	if err := first.Err(); err != nil {
		o.abortRest()
		return nil, err
	}
	f := frame.GetFrame(frame.Accept)
	f.Metadata, f.Compression = header, named
	if o.conn.inlined(reply, n) {
		f.Payload = append([]byte(nil), reply.Bytes()...)
		reply.Release()
	} else {
		f.FollowsData = true
	}
	for i, s := range o.streams[:n] {
		f.Grants = append(f.Grants, s.c.establish(&so, named, o.grants[i]))
		s.c.NoteAccepted(false)
	}
	return f, nil
}

// abortRest aborts the other streams of a request whose first stream has ended: the answer
// to all of them would have been sent on that one.
func (o *Offer) abortRest() {
	for _, s := range o.streams[1:] {
		s.Abort(status.Cancelled, "the first stream of the request was aborted")
	}
}

// establish makes an offered stream an accepted one, and returns what the peer may send.
func (c *core) establish(so *StreamOptions, named pool.Compression, g frame.Grant) frame.Grant {
	if c.conn.caps.Outlives && !c.unary {
		c.stopDeadline()
	}
	window, most := 0, 0
	if !so.NoReceive {
		window, most = c.firstWindow(so.Window, g.Limit)
	} else {
		c.NoWindow()
	}
	cfg := c.config(so, named, most, g.NoReceive)
	credit := c.Establish(cfg, window)
	return frame.Grant{Credit: credit, Limit: uint64(so.SendLimit), NoReceive: so.NoReceive}
}

// firstWindow is the receive window, and what it may grow to, where the user asked for want
// bytes and the peer for at most limit unread bytes; 0 is the default of either.
func (c *core) firstWindow(want int, limit uint64) (window, most int) {
	n := int(min(limit, 1<<30))
	if n > 0 {
		n = max(n, c.conn.caps.MinWindow())
	}
	return c.FirstWindow(want, n)
}

// Reject refuses all streams of the offer. The peer's error is ErrRefused too, with the
// status that status.Of gives for err. The reason is cut to 256 bytes; a nil err is
// status.Unknown. The peer finds what SetHeader and Stream.SetTrailer have set, and the Details
// of a HandlerError, in the error's Details. Reject does nothing if the offer was answered.
func (o *Offer) Reject(err error) {
	code, reason := status.Of(err)
	o.reject(&conn.Refusal{Code: cmp.Or(code, status.Unknown), Reason: reason}, err)
}

// reject refuses the offer. The details of err, which may be nil, travel with the refusal.
func (o *Offer) reject(r *conn.Refusal, err error) {
	header, answered := o.beginAnswer()
	if answered != nil {
		return
	}
	first := &o.streams[0].c
	first.SetFirstFrame(&frame.Frame{
		Kind: frame.Reject, Code: r.Code, Reason: errtext.Clip(r.Reason, 256), NotProcessed: r.NotProcessed,
		Metadata: first.refusalMetadata(header, err),
	})
	for _, s := range o.streams[1:] {
		s.c.Refused(r.Code, r.Reason, true, nil)
	}
	for _, s := range o.streams {
		s.c.dropUnread() // nobody will read what has arrived
	}
}

// acceptOnUse accepts the stream of a handler that has begun to use it. Concurrent callers
// wait: no data may be sent before the acceptance.
func (o *Offer) acceptOnUse(s *Stream) {
	o.acceptOnce.Do(func() {
		_, _ = o.Accept(pool.Message{}, nil)
		s.c.acceptOnUse.Store(nil)
	})
}

// refuseUnused refuses the stream of a handler that has failed with err before it used the
// stream. It reports whether it has. A handler that has the request has begun to serve the
// stream, which then ends with the error, unless an end can't say it.
func (o *Offer) refuseUnused(s *Stream, err error) (refused bool) {
	if s.c.life.Load()&lifeRequested != 0 && s.c.endsWithStatus() {
		return false
	}
	o.acceptOnce.Do(func() {
		o.Reject(err)
		s.c.acceptOnUse.Store(nil)
		refused = true
	})
	return refused
}

// handlerStarts is called before a handler runs for the offer's streams; handlerReturned,
// after it has. What is unread then belongs to others, whom the handler may have given its
// streams to, and does not count any more.
func (o *Offer) handlerStarts() {
	for _, s := range o.streams {
		for { // in one step: the stream may end, and be looked at, meanwhile
			life := s.c.life.Load()
			if s.c.life.CompareAndSwap(life, life&^uint32(lifePending)|lifeServed) {
				break
			}
		}
	}
}

func (o *Offer) handlerReturned() {
	for _, s := range o.streams {
		if s.c.life.Or(lifeReleased)&lifeRetired != 0 {
			o.conn.retired.update(&s.c)
		}
	}
}

// setPending is called when the offer begins to wait in Offers. What its streams hold is
// dropped if they end before Request is called, which clearPending notes.
func (o *Offer) setPending() {
	for _, s := range o.streams {
		s.c.life.Or(lifePending)
		if s.Err() != nil { // it may have ended before the bit was set
			s.c.dropUnread()
		}
	}
}

func (o *Offer) clearPending() {
	for _, s := range o.streams {
		s.c.life.And(^uint32(lifePending))
	}
}
