package kernel

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// actorStream lets core embed an actor.Stream in a field that is not exported.
type actorStream = actor.Stream

// core joins a stream's actor to its connection. The connection sees it as a conn.Stream,
// most of whose methods are the actor's own. The actor sees it as an actor.Link, most of
// whose methods are the port's.
type core struct {
	conn.Port
	actorStream
	conn        *Conn
	method      string
	opener      bool
	unary       bool          // a call: one message each way
	life        atomic.Uint32 // see lifePending
	x           atomic.Pointer[extra]
	acceptOnUse atomic.Pointer[Offer] // the first use of the stream accepts it
}

// The life of an offered stream, as bits of core.life.
const (
	lifePending  = 1 << iota // nobody has looked at its offer yet
	lifeServed               // its handler has begun
	lifeReleased             // its handler has returned, or its messages were evicted
	lifeRetired              // it is in the connection's set of retired streams

	lifeHolds        // see holdOutput
	lifeAsksUrgently // Ready(true) was called meanwhile
	lifeAsks         // Ready(false) was called meanwhile

	lifeRequested // its handler has asked for the request, and has not used the stream

	lifeLeft // it no longer counts in endpoint.opened

	lifeOfHandler = lifePending | lifeServed | lifeReleased
)

// extra is what only some streams need.
type extra struct {
	metadata    metadata.MD
	trailer     atomic.Pointer[metadata.MD]
	parent      soundContext // of is nil: there is none
	deadline    time.Time
	deadlineOff atomic.Bool // the deadline no longer applies
	timer       timers.Timer
	unwatch     atomic.Pointer[func()] // stops watching parent
	siblings    []*core                // all streams of the same request
}

// stream returns the stream that c is the core of. Each core is the whole of a Stream, so the
// two have one address, and no core has to keep it.
func (c *core) stream() *Stream { return (*Stream)(unsafe.Pointer(c)) }

func (c *core) more() *extra {
	if x := c.x.Load(); x != nil {
		return x
	}
	c.x.CompareAndSwap(nil, &extra{})
	return c.x.Load()
}

// holdOutput delays calls of Ready until releaseOutput, so that what the stream has to
// write meanwhile is written at once.
func (c *core) holdOutput() { c.life.Or(lifeHolds) }

func (c *core) releaseOutput() {
	asked := c.life.And(^uint32(lifeHolds | lifeAsksUrgently | lifeAsks))
	if asked&lifeAsksUrgently != 0 {
		c.Port.Ready(true)
	}
	if asked&lifeAsks != 0 {
		c.Port.Ready(false)
	}
}

// Ready implements actor.Link.
func (c *core) Ready(urgent bool) {
	ask := uint32(lifeAsks)
	if urgent {
		ask = lifeAsksUrgently
	}
	for life := c.life.Load(); life&lifeHolds != 0; life = c.life.Load() {
		if c.life.CompareAndSwap(life, life|ask) { // releaseOutput calls Port.Ready
			return
		}
	}
	c.Port.Ready(urgent)
}

// Evict implements conn.Stream.
func (c *core) Evict(reason string) {
	c.actorStream.Evict(reason)
	c.leaveOpened()
	c.closeOwnConn()
}

// leaveOpened counts the stream no longer as one that a peer has open. One that was evicted
// doesn't count while its end waits for its peer to read: others would be refused for it.
func (c *core) leaveOpened() {
	if !c.opener && c.life.Or(lifeLeft)&lifeLeft == 0 {
		c.conn.endpoint.opened.Add(-1)
	}
}

// Lost implements conn.Stream.
func (c *core) Lost(err error, refused bool) {
	e := &status.StreamError{Code: status.ConnectionLost, Cause: err}
	if refused {
		e = &status.StreamError{Code: status.GoingAway, Refused: true, NotProcessed: true, Remote: true, Reason: err.Error(), Cause: err}
		for _, s := range c.siblings() {
			each := *e
			s.actorStream.Lost(&each)
		}
		return
	}
	c.actorStream.Lost(e)
}

// Control implements conn.Stream.
func (c *core) Control(f *frame.Frame) error {
	if f.Kind == frame.Accept || f.Kind == frame.EOS || f.Kind == frame.Reject {
		if r := c.conn.c.CheckSize(f); r != nil {
			c.abort(r.Code, r.Reason, nil)
			return frame.ErrFault
		}
	}
	switch f.Kind {
	case frame.Accept:
		c.accepted(f)
	case frame.Reject:
		for _, s := range c.siblings() {
			s.Refused(f.Code, f.Reason, f.NotProcessed, f.Metadata)
		}
	case frame.Credit:
		return c.PeerGrant(f.Value)
	case frame.Ready:
		c.PeerReady()
	case frame.NewSettings:
		c.AddCredit(int64(f.Value))
	case frame.EOS:
		if f.Local {
			c.EndedHere()
		}
		return c.PeerEnd(f.Code, f.Reason, f.Metadata)
	case frame.Ended:
		return c.PeerEnded(f.Value)
	case frame.Stop:
		c.PeerStopped(f.Code)
	case frame.Reset:
		c.PeerReset(c.resetCode(f), f.Reason)
	}
	return nil
}

// siblings are all streams of the request, the first one first.
func (c *core) siblings() []*core {
	if x := c.x.Load(); x != nil && x.siblings != nil {
		return x.siblings
	}
	return []*core{c}
}

// accepted applies the answer to every stream of the request. The peer has refused those
// that the answer does not mention.
func (c *core) accepted(f *frame.Frame) {
	var reply pool.Message
	if len(f.Payload) > 0 {
		reply = pool.Copy(f.Payload)
	}
	size := reply.Len() + f.Metadata.Size()
	for i, s := range c.siblings() {
		if i >= len(f.Grants) {
			s.Refused(status.FailedPrecondition, "the peer accepted fewer streams", true, nil)
			continue
		}
		if i > 0 {
			reply = pool.Message{}
		}
		s.NoteAccepted(true) // before it can be noticed
		if f.Later {
			s.HoldData()
		}
		if s.Accepted(reply, f.Metadata, f.Grants[i], f.FollowsData && i == 0) && i == 0 && size > 0 {
			c.Charge(size)
		}
	}
}

// abort is actor.Stream.Abort. It closes a connection that is this stream's alone, too.
func (c *core) abort(code status.Code, reason string, cause error) {
	c.Abort(code, reason, cause)
	c.closeOwnConn()
}

// closeOwnConn is called when the stream may have failed. If the connection is this
// stream's alone, it is closed a moment later. Its session can't do that while the peer
// does not read, because a write blocks then.
func (c *core) closeOwnConn() {
	if c.conn.isOneStream() && c.Err() != nil {
		c.conn.c.EndSoon()
	}
}

// Retire implements actor.Link: the stream leaves its connection.
func (c *core) Retire() {
	unnumbered := c.opener && c.ID() == 0
	c.Port.Retire()
	c.leaveOpened()
	x := c.x.Load()
	if x != nil {
		x.unwatchParent()
		if !x.deadline.IsZero() {
			c.Timers().Stop(&x.timer)
		}
	}
	c.conn.retired.add(c)
	c.conn.endpoint.observing.ended(&c.life, event{stream: c.stream()})
	if unnumbered || x != nil && c.opener && len(x.siblings) > 0 && c.AbortedUnanswered() {
		c.neverOpened(x)
	}
}

// neverOpened is called when the stream's request will not be written, or nobody waits for
// the answer. It closes a connection that is this stream's alone, and ends the streams
// that were opened with it.
func (c *core) neverOpened(x *extra) {
	if c.conn.isOneStream() && c.ID() == 0 {
		c.conn.c.Close(status.Cancelled, "the stream was not opened")
	}
	if x != nil {
		c.endSiblings(x.siblings)
	}
}

// FeedingChanged implements actor.Link: a goroutine has begun to feed a channel of this stream, which
// is over, or has stopped. While one does, the end of the parent context must stop it.
func (c *core) FeedingChanged() {
	for {
		fed := c.conn.retired.update(c)
		if x := c.x.Load(); x != nil && x.unwatch.Load() != nil {
			if fed {
				c.watchParent(x)
			} else {
				x.unwatchParent()
			}
		}
		if c.Feeding() == fed { // else another call has overtaken this one
			return
		}
	}
}

// dropUnread releases what a stream holds that nobody will look at.
func (c *core) dropUnread() {
	c.Drop()
	if m, ok := c.TakeRequest(); ok {
		m.Release()
	}
}

// watchParent has the end of the parent context end the stream, and the goroutine that
// feeds its channel.
func (c *core) watchParent(x *extra) {
	stop := x.parent.watch(c.parentEnded)
	if old := x.unwatch.Swap(&stop); old != nil {
		(*old)()
	}
}

func (x *extra) unwatchParent() {
	if stop := x.unwatch.Load(); stop != nil {
		(*stop)()
	}
}

// endSiblings ends the streams that were opened with c. They are refused if c was, and
// cancelled otherwise.
func (c *core) endSiblings(siblings []*core) {
	var e *status.StreamError
	refused := errors.As(c.Err(), &e) && e.NotProcessed
	for _, s := range siblings {
		if refused {
			each := *e
			s.actorStream.Lost(&each)
			continue
		}
		s.abort(status.Cancelled, "the first stream of the request was aborted", nil)
	}
}

// Expire implements timers.Owner: the stream's deadline has passed.
func (c *core) Expire(*timers.Timer, time.Time) {
	if c.x.Load().deadlineOff.Load() {
		return // stopDeadline was too late to stop the timer
	}
	c.DeadlinePassed()
	c.closeOwnConn()
}

// setDeadline sets when the stream is aborted. It is called before anybody else knows the
// stream, or one of the same request. startDeadline starts the timer.
func (c *core) setDeadline(t time.Time) { c.more().deadline = t }

func (c *core) startDeadline() {
	x := c.x.Load()
	if x == nil || x.deadline.IsZero() {
		return
	}
	c.Timers().Set(&x.timer, c, x.deadline)
	if c.Err() != nil { // it ended before: nobody else stops the timer
		c.Timers().Stop(&x.timer)
	}
}

// resetCode is why the peer has reset the stream. A cancellation at its deadline is the
// peer's timer, which was the earlier one.
func (c *core) resetCode(f *frame.Frame) status.Code {
	x := c.x.Load()
	if f.Code == status.Cancelled && x != nil && !x.deadline.IsZero() && !x.deadlineOff.Load() && !time.Now().Before(x.deadline) {
		return status.DeadlineExceeded
	}
	return f.Code
}

// stopDeadline removes the deadline, which was that of the answer alone.
func (c *core) stopDeadline() {
	if x := c.x.Load(); x != nil && !x.deadline.IsZero() {
		x.deadlineOff.Store(true)
		c.Timers().Stop(&x.timer)
	}
}

// setParent has the end of ctx end the stream. It is called before anybody else knows the
// stream.
func (c *core) setParent(ctx context.Context) {
	if ctx.Done() == nil {
		if ctx != context.Background() {
			c.more().parent.of = ctx
		}
		return
	}
	x := c.more()
	x.parent.of = ctx
	c.watchParent(x)
	if c.Err() != nil { // ctx had ended: the stream was retired before unwatch was set
		x.unwatchParent()
	}
}

// parentEnded ends the stream because its parent context has ended.
func (c *core) parentEnded() {
	returned := false
	defer func() {
		if !returned {
			go c.parentEnded() // the context has ended the goroutine, and is not asked again
		}
	}()
	c.ParentEnded()
	returned = true
	c.closeOwnConn()
}

// ParentErr implements actor.Link.
func (c *core) ParentErr() error {
	if x := c.x.Load(); x != nil && x.parent.of != nil {
		return x.parent.cause()
	}
	return nil
}

// config returns the configuration of the stream's actor. Streams with the same one share
// it. named is the compression that the open or answer names, most what the window may grow to.
func (s *core) config(o *StreamOptions, named pool.Compression, most int, noSend bool) *actor.Config {
	c := s.conn
	unpacks := c.unpacks(s.unary)
	if c.caps.StreamCompression {
		unpacks = pool.CompressionsOf(named)
	}
	caps := c.caps
	caps.Early = caps.Early || s.unary || !s.opener // the acceptance is written before any data
	caps.HalfClose = caps.HalfClose || s.unary      // on every protocol a call's request ends before its reply
	cfg := actor.Config{
		Method: s.method, Caps: caps,
		InBuffer: o.InBuffer, MaxBatch: o.MaxBatch, IdleTimeout: o.IdleTimeout,
		CountLate: o.CountLate, NoReceive: o.NoReceive, NoSend: noSend, OwnConn: c.isOneStream(),
		MaxReceive: c.maxReceive(o), MaxSend: c.maxSend(o),
		Window: most, MaxWindow: most, SendLimit: o.SendLimit,
		Compression: o.Compression, Unpacks: unpacks,
	}
	if caps.Pacing != frame.Granted { // no credit of the peer's bounds what waits here
		cfg.MaxUnsent = c.c.Limits().OutQueue
	}
	// Offers and the streams accepted from them alternate: two are remembered.
	last, before := c.lastConfig.Load(), c.configBefore.Load()
	switch {
	case last != nil && *last == cfg:
		return last
	case before != nil && *before == cfg:
		return before
	}
	c.configBefore.Store(last)
	last = new(actor.Config) // with &cfg, every cfg would be allocated
	*last = cfg
	c.lastConfig.Store(last)
	return last
}

// endsWithStatus reports whether the end of the stream's half carries a status and a trailer.
func (c *core) endsWithStatus() bool {
	caps := &c.conn.caps
	return caps.Status && !(caps.AnswerStatus && c.opener) || c.unary
}

// trailerFor is the trailer of an end with err: what SetTrailer set, and the details of
// err, as far as they can be sent.
func (c *core) trailerFor(err error) metadata.MD {
	return c.withDetails(c.trailer(), err, c.endsWithStatus())
}

// refusalMetadata is what a refusal with err carries: the header, what SetTrailer set, and
// the details of err, as far as they can be sent.
func (c *core) refusalMetadata(header metadata.MD, err error) metadata.MD {
	md, can := c.trailer(), c.conn.c.PeerSettings().RefusalMetadata
	if len(header) > 0 {
		md = slices.Concat(header, md)
	}
	if len(md) > 0 && (!can || c.conn.checkMetadata(md, 0) != nil) {
		c.conn.endpoint.logger.Error("sluice: a refusal's header and trailer can't be sent", "method", c.method, "peer", c.conn.peer.Addr)
		md = nil
	}
	return c.withDetails(md, err, can)
}

// withDetails is md with the details of err behind it, if they can be sent.
func (c *core) withDetails(md metadata.MD, err error, can bool) metadata.MD {
	if err == nil {
		return md
	}
	var he *status.HandlerError
	if !errors.As(err, &he) || len(he.Details) == 0 {
		return md
	}
	all := append(md[:len(md):len(md)], he.Details...)
	why := ErrNotSupported
	if can {
		why = c.conn.checkMetadata(all, 0)
	}
	if why != nil {
		c.conn.endpoint.logger.Error("sluice: a handler error's details can't be sent", "method", c.method, "peer", c.conn.peer.Addr, "error", why.Error())
		return md
	}
	return all
}

// trailer returns what SetTrailer set.
func (c *core) trailer() metadata.MD {
	if x := c.x.Load(); x != nil {
		if md := x.trailer.Load(); md != nil {
			return *md
		}
	}
	return nil
}
