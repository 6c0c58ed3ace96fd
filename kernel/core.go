package kernel

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/pool"
)

// actorStream is an actor.Stream that can be embedded without a name outside.
type actorStream = actor.Stream

// core joins a stream's actor to its place in the connection. It is what the
// connection sees of a stream (conn.Stream), and, through the port, what the
// actor sees of the connection (actor.Link).
type core struct {
	conn.Port
	actorStream
	conn        *Conn
	method      string
	opener      bool
	unary       bool          // a call: one message each way
	life        atomic.Uint32 // see lifePending
	x           atomic.Pointer[extra]
	acceptOnUse atomic.Pointer[Offer] // to be answered by the stream's first use
}

// The life of an offered stream, as bits of core.life.
const (
	lifePending  = 1 << iota // its offer waits: nobody has looked at it yet
	lifeServed               // its handler runs
	lifeReleased             // what is unread does not count: the handler has returned, or it was evicted
	lifeRetired              // it is in the connection's set of retired streams
)

// extra is what few streams have.
type extra struct {
	request     Message
	metadata    Metadata
	trailer     atomic.Pointer[Metadata]
	parent      context.Context
	deadline    time.Time
	deadlineOff atomic.Bool // the deadline is none any more
	timer       timers.Timer
	unwatch     atomic.Pointer[func() bool] // stops the watch on the parent
	siblings    []*core                     // opened by the same request
	offer       atomic.Pointer[Offer]       // that has the request, until somebody looks at it
}

func (c *core) more() *extra {
	if x := c.x.Load(); x != nil {
		return x
	}
	c.x.CompareAndSwap(nil, &extra{})
	return c.x.Load()
}

// Evict implements conn.Stream.
func (c *core) Evict(reason string) {
	c.actorStream.Evict(reason)
	c.closeOwnConn()
}

// Lost implements conn.Stream.
func (c *core) Lost(err error, refused bool) {
	e := &StreamError{Code: CodeConnectionLost, Cause: err}
	if refused {
		e = &StreamError{Code: CodeGoingAway, Refused: true, NotProcessed: true, Remote: true, Reason: err.Error()}
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
	if f.Kind == frame.Accept || f.Kind == frame.EOS {
		if r := c.conn.c.TooMuch(f); r != nil {
			c.abort(r.Code, r.Reason, nil)
			return frame.ErrFault
		}
	}
	switch f.Kind {
	case frame.Accept:
		c.accepted(f)
	case frame.Reject:
		for _, s := range c.siblings() {
			s.Refused(f.Code, f.Reason, f.NotProcessed)
		}
	case frame.Credit:
		return c.PeerGrant(f.Value)
	case frame.NewSettings:
		c.AddCredit(int64(f.Value))
	case frame.EOS:
		return c.PeerEnd(f.Code, f.Reason, f.Metadata)
	case frame.Ended:
		return c.PeerEnded(f.Value)
	case frame.Stop:
		c.PeerStopped(f.Code)
	case frame.Reset:
		c.PeerReset(f.Code, f.Reason)
	}
	return nil
}

// siblings are all the streams of the request, this one first.
func (c *core) siblings() []*core {
	if x := c.x.Load(); x != nil && x.siblings != nil {
		return x.siblings
	}
	return []*core{c}
}

// accepted takes the answer for every stream of the request; those that the
// peer left out are refused.
func (c *core) accepted(f *frame.Frame) {
	var reply Message
	if len(f.Payload) > 0 {
		reply = pool.Copy(f.Payload)
	}
	brought := reply.Len() + f.Metadata.Size()
	for i, s := range c.siblings() {
		if i >= len(f.Grants) {
			s.Refused(CodeFailedPrecondition, "the peer accepted fewer streams", true)
			continue
		}
		if i > 0 {
			reply = Message{}
		}
		if s.Accepted(reply, f.Metadata, f.Grants[i], f.FollowsData && i == 0) && i == 0 && brought > 0 {
			c.Keep(brought)
		}
	}
}

// abort ends the stream now: see actor.Stream.Abort.
func (c *core) abort(code Code, reason string, cause error) {
	c.Abort(code, reason, cause)
	c.closeOwnConn()
}

// closeOwnConn is called when the stream may have failed. One that has a connection of its
// own takes it along, also where the peer does not read: then a write blocks for good,
// and what would close the connection waits behind it.
func (c *core) closeOwnConn() {
	if c.conn.isOneStream() && c.Err() != nil {
		c.conn.c.EndSoon()
	}
}

// Retire implements actor.Link: the stream leaves its connection.
func (c *core) Retire() {
	unnumbered := c.opener && c.ID() == 0
	c.Port.Retire()
	x := c.x.Load()
	if x != nil {
		x.unwatchParent()
		if !x.deadline.IsZero() {
			c.Timers().Stop(&x.timer)
		}
	}
	c.conn.retired.add(c)
	if unnumbered || x != nil && c.opener && len(x.siblings) > 0 && c.Unanswered() {
		c.neverOpened(x)
	}
}

// neverOpened ends what the stream's request was for too, for nobody will answer it: a
// connection that was there for this stream alone, and the streams opened with it.
func (c *core) neverOpened(x *extra) {
	if c.conn.isOneStream() && c.ID() == 0 {
		c.conn.c.Close()
	}
	if x != nil {
		c.endSiblings(x.siblings)
	}
}

// Fed implements actor.Link: a goroutine has begun or ended to feed a channel of a
// stream that is over. While one does, the end of the stream's parent context must end it.
func (c *core) Fed() {
	for {
		fed := c.conn.retired.update(c)
		if x := c.x.Load(); x != nil && x.unwatch.Load() != nil {
			if fed {
				c.watchParent(x)
			} else {
				x.unwatchParent()
			}
		}
		if c.Feeding() == fed { // else another call may have overtaken this one
			return
		}
	}
}

// dropPending releases what a stream holds that is over and that nobody has looked at.
func (c *core) dropPending() {
	c.Drop()
	if x := c.x.Load(); x != nil {
		if o := x.offer.Load(); o != nil {
			o.dropRequest()
		}
	}
}

// watchParent has the end of the parent context end the stream, and what feeds its
// channel.
func (c *core) watchParent(x *extra) {
	stop := context.AfterFunc(x.parent, c.parentEnded)
	if old := x.unwatch.Swap(&stop); old != nil {
		(*old)()
	}
}

func (x *extra) unwatchParent() {
	if stop := x.unwatch.Load(); stop != nil {
		(*stop)()
	}
}

// endSiblings ends the streams that were to be opened with c, whose request will
// not be written, or whose answer nobody waits for: refused if c was, else cancelled.
func (c *core) endSiblings(siblings []*core) {
	var e *StreamError
	refused := errors.As(c.Err(), &e) && e.NotProcessed
	for _, s := range siblings {
		if refused {
			each := *e
			s.actorStream.Lost(&each)
			continue
		}
		s.abort(CodeCancelled, "opened with a stream that was given up", nil)
	}
}

// Expire implements timers.Owner: the stream's deadline has passed.
func (c *core) Expire(*timers.Timer, time.Time) {
	if c.x.Load().deadlineOff.Load() {
		return // while it was being stopped
	}
	c.abort(CodeDeadlineExceeded, "deadline exceeded", context.DeadlineExceeded)
}

// setDeadline notes when the stream's life ends at the latest; startDeadline
// begins to count. The first comes before anybody knows of the stream.
func (c *core) setDeadline(t time.Time) { c.more().deadline = t }

func (c *core) startDeadline() {
	if x := c.x.Load(); x != nil && !x.deadline.IsZero() {
		c.Timers().Set(&x.timer, c, x.deadline)
	}
}

// stopDeadline ends the count, where the deadline was that of the answer.
func (c *core) stopDeadline() {
	if x := c.x.Load(); x != nil && !x.deadline.IsZero() {
		x.deadlineOff.Store(true)
		c.Timers().Stop(&x.timer)
	}
}

// follow ends the stream with ctx. It is called before anybody knows of the
// stream, except for ctx.
func (c *core) follow(ctx context.Context) {
	if ctx.Done() == nil {
		if ctx != context.Background() {
			c.more().parent = ctx
		}
		return
	}
	x := c.more()
	x.parent = ctx
	c.watchParent(x)
	if c.Err() != nil { // it has ended already, and did not find unwatch
		x.unwatchParent()
	}
}

// parentEnded ends the stream, for its parent has ended.
func (c *core) parentEnded() {
	c.Orphan()
	c.closeOwnConn()
}

// ParentErr implements actor.Link.
func (c *core) ParentErr() error {
	if x := c.x.Load(); x != nil && x.parent != nil && x.parent.Err() != nil {
		return context.Cause(x.parent)
	}
	return nil
}

// config makes the configuration of the stream's actor. Streams of a kind share
// one.
func (s *core) config(o *StreamOptions, window, most int, g frame.Grant) *actor.Config {
	c := s.conn
	caps := c.caps
	caps.Early = caps.Early || s.unary || !s.opener // an acceptance comes before the data behind it
	caps.HalfClose = caps.HalfClose || s.unary      // whatever the wire, a request ends
	cfg := actor.Config{
		Method: s.method, Caps: caps,
		InBuffer: o.InBuffer, MaxBatch: o.MaxBatch, IdleTimeout: o.IdleTimeout,
		NoReceive: o.NoReceive, NoSend: g.NoReceive,
		MaxReceive: c.c.Limits().MaxMessage, MaxSend: int(c.c.PeerSettings().MaxMessage),
		Window: window, MaxWindow: most, SendLimit: o.SendLimit, SendCredit: g.Credit,
	}
	// An offer and what becomes of it take turns: two are remembered.
	last, before := c.lastConfig.Load(), c.configBefore.Load()
	switch {
	case last != nil && *last == cfg:
		return last
	case before != nil && *before == cfg:
		return before
	}
	c.configBefore.Store(last)
	last = new(actor.Config) // not &cfg: that would put every cfg on the heap
	*last = cfg
	c.lastConfig.Store(last)
	return last
}

// trailer returns what SetTrailer set.
func (c *core) trailer() Metadata {
	if x := c.x.Load(); x != nil {
		if md := x.trailer.Load(); md != nil {
			return *md
		}
	}
	return nil
}
