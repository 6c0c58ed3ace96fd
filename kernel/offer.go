package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	request    pool.Message
	unreadable error // why the request could not be read: no handler runs
	follows    bool  // the request is the first stream's first message
	metadata   metadata.MD
	streams    []*Stream
	grants     []frame.Grant
	one        [1]*Stream     // behind streams, if there is one
	oneGrant   [1]frame.Grant // behind grants, likewise

	requestOnce sync.Once   // for Request, and for dropping the request
	acceptOnce  sync.Once   // see acceptOnUse
	taken       atomic.Bool // by Stream.Offer
	mu          sync.Mutex  // owns what follows
	header      metadata.MD
	answered    bool
}

// offer makes the streams that the peer asks for with an Open frame.
func (c *Conn) offer(f *frame.Frame) *Offer {
	o := &Offer{conn: c, metadata: f.Metadata}
	o.streams, o.grants = o.one[:0], append(o.oneGrant[:0], f.Grants...)
	initial := c.c.UnacceptedWindow()
	size := len(f.Method) + f.Metadata.Size() + len(f.Payload)
	for i, g := range f.Grants {
		s := &Stream{}
		s.c.conn, s.c.method, s.c.unary = c, f.Method, f.Unary
		s.c.life.Store(lifePending)
		so := StreamOptions{InBuffer: defaultInBuffer, MaxBatch: defaultMaxBatch}
		window := initial
		if g.Limit > 0 {
			window = min(window, max(int(min(g.Limit, 1<<30)), c.caps.MinWindow()))
		}
		c.c.PreparePeer(&s.c.Port, &s.c)
		s.c.Init(&s.c, s.c.config(&so, window, window, g))
		s.c.HoldSends()
		if f.Deadline > 0 {
			s.c.setDeadline(time.Now().Add(f.Deadline))
		}
		c.c.OpenPeer(&s.c.Port, f.Stream+2*uint64(i), size)
		size = 0            // it is counted for the first stream
		s.c.startDeadline() // the opener's protocol may not tell us when it aborts
		o.streams = append(o.streams, s)
	}
	if len(f.Payload) > 0 {
		o.setRequest(pool.Copy(f.Payload))
		o.streams[0].c.more().offer.Store(o)
	}
	if f.Metadata != nil {
		o.streams[0].c.more().metadata = f.Metadata
	}
	for _, s := range o.streams {
		c.endpoint.observing.begun(&s.c.life, event{stream: s})
	}
	return o
}

// Method is the method that the peer asked for.
func (o *Offer) Method() string { return o.streams[0].Method() }

// Request is the message that came with the open. It belongs to the stream: Share or
// Clone it to keep it. It is empty if the stream ended before Request or Accept was
// called.
func (o *Offer) Request() pool.Message {
	o.receiveRequest()
	return o.request
}

// receiveRequest gives the request to the program. It is called before the handler runs,
// by Request, and by Accept. Until then a long request counts as unread. A short one
// counts as held while its stream is open. It returns why there is none that can be read.
func (o *Offer) receiveRequest() error {
	o.requestOnce.Do(func() {
		o.clearPending()
		first := &o.streams[0].c
		if o.follows {
			var m pool.Message
			m, o.unreadable = first.Request()
			o.setRequest(m)
			return
		}
		if n := o.request.Len(); n > o.conn.caps.MaxInline {
			first.Charge(-n)
		}
		if !o.request.IsZero() {
			first.more().offer.Store(nil)
		}
	})
	return o.unreadable
}

func (o *Offer) setRequest(m pool.Message) {
	o.request = m
	o.streams[0].c.more().request = m
}

// dropRequest releases the request, unless receiveRequest was called.
func (o *Offer) dropRequest() {
	o.requestOnce.Do(func() {
		o.request.Release()
		o.setRequest(pool.Message{})
	})
}

// Metadata is the metadata that came with the open.
func (o *Offer) Metadata() metadata.MD { return o.metadata }

// Conn is the connection that the offer came by.
func (o *Offer) Conn() *Conn { return o.conn }

// Peer is the other side of the connection.
func (o *Offer) Peer() Peer { return o.conn.Peer() }

// Identity is what Authenticate returned for the peer.
func (o *Offer) Identity() Identity { return o.conn.Identity() }

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
	return o.streams[i]
}

// Accept accepts the stream. reply travels with the acceptance; Accept takes it over if it
// succeeds. If the peer asked for several streams, the first is accepted and the others are
// refused. Nil opts are the server's defaults. Errors: ErrAnswered, ErrLimits, ErrTooLarge,
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

// SetHeader adds metadata to what travels with the acceptance. Errors: ErrHeaderSent if the
// offer was answered, ErrMetadataTooLarge, ErrMetadataKey.
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
		s.c.Refused(status.FailedPrecondition, "not accepted", true)
	}
	return o.streams[:n], nil
}

// answer establishes the first n streams and returns the frame that accepts them. A reply
// that fits is in it, and released. What answer takes on the stack must not be there when
// the frame is written: a handler's stack would not stay within 4 KiB.
func (o *Offer) answer(reply pool.Message, opts *StreamOptions, n int) (*frame.Frame, error) {
	switch {
	case opts == nil:
		opts = o.conn.streamDefaults(o.Unary())
	case opts.Context != nil:
		return nil, errOpensOnly
	}
	so, err := opts.withDefaults()
	if err == nil {
		err = o.conn.checkCompression(so.Compression, o.Unary())
	}
	if err == nil {
		err = o.conn.checkCompression(pool.CompressionOf(reply), o.Unary())
	}
	if err != nil {
		return nil, err
	}
	if most := o.conn.c.PeerSettings().MaxMessage; uint64(reply.Len()) > most {
		return nil, fmt.Errorf("%w: a reply of %d bytes, the peer takes %d", ErrTooLarge, reply.Len(), most)
	}
	header, err := o.beginAnswer()
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
	if o.conn.inlined(reply, n) {
		f.Payload = append([]byte(nil), reply.Bytes()...)
		reply.Release()
	} else {
		f.FollowsData = true
	}
	for i, s := range o.streams[:n] {
		f.Grants = append(f.Grants, s.c.establish(&so, o.grants[i]))
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

// firstWindow is the receive window, and what it may grow to, where the user asked for want
// bytes and the peer for at most limit unread bytes; 0 is the default of either.
func (c *core) firstWindow(want int, limit uint64) (window, most int) {
	if limit == 0 {
		return c.conn.c.InitialWindow(want)
	}
	n := max(int(min(limit, 1<<30)), c.conn.caps.MinWindow())
	if want != 0 {
		want = min(want, n)
	}
	window, most = c.conn.c.InitialWindow(want)
	return min(window, n), min(most, n)
}

// Reject refuses all streams of the offer. The peer's error is ErrRefused, with the code
// and the reason, which is cut to 256 bytes. status.OK becomes status.Unknown. Reject does
// nothing if the offer was answered.
func (o *Offer) Reject(code status.Code, reason string) {
	o.reject(&conn.Refusal{Code: cmp.Or(code, status.Unknown), Reason: reason})
}

func (o *Offer) reject(r *conn.Refusal) {
	if _, err := o.beginAnswer(); err != nil {
		return
	}
	o.streams[0].c.SetFirstFrame(&frame.Frame{
		Kind: frame.Reject, Code: r.Code, Reason: errtext.Clip(r.Reason, 256), NotProcessed: r.NotProcessed,
	})
	for _, s := range o.streams[1:] {
		s.c.Refused(r.Code, r.Reason, true)
	}
	for _, s := range o.streams {
		s.c.Drop() // nobody will read what has arrived
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
// stream. It reports whether it has: a header, a trailer and details travel with an
// acceptance and its end.
func (o *Offer) refuseUnused(s *Stream, err error) (refused bool) {
	var he *status.HandlerError
	if s.c.trailer() != nil || o.hasHeader() || errors.As(err, &he) && len(he.Details) > 0 {
		return false
	}
	o.acceptOnce.Do(func() {
		code, reason := status.Of(err)
		o.Reject(code, reason)
		s.c.acceptOnUse.Store(nil)
		refused = true
	})
	return refused
}

// hasHeader reports whether the program has set a header. What package rpc has added is none
// of the program's.
func (o *Offer) hasHeader() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.header, func(f metadata.Field) bool { return !strings.HasPrefix(f.Key, reservedPrefix) })
}

// reservedPrefix is what the keys begin with that package rpc adds.
const reservedPrefix = "sluice-"

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
			s.c.dropPending()
		}
	}
}

func (o *Offer) clearPending() {
	for _, s := range o.streams {
		s.c.life.And(^uint32(lifePending))
	}
}
