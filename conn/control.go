package conn

import (
	"fmt"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// control takes any frame but Data.
func (c *Conn) control(f *frame.Frame) error {
	switch f.Kind {
	case frame.Skip:
		return nil
	case frame.Reply:
		if f.Reason == "" { // refusing a request is work, and its frame not useless
			if err := c.countUseless(); err != nil {
				return err
			}
		}
		return c.answer(answer{kind: frame.Reply, stream: f.Stream, value: f.Value, code: f.Code, reason: f.Reason})
	case frame.Hello:
		return violation(status.Protocol, "a second HELLO")
	case frame.NewSettings:
		return c.newSettings(f)
	case frame.Ready, frame.Freed:
		return c.sessionEvent(f)
	case frame.Read, frame.Ping, frame.Pong, frame.GoAway:
		if f.Stream != 0 {
			return violation(status.Protocol, "frame of the connection on stream %d", f.Stream)
		}
		return c.connFrame(f)
	case frame.Credit:
		if err := c.abuse.credit(c.sentCost.Load(), c.caps.Overhead); err != nil {
			return err
		}
		if f.Stream == 0 {
			return c.connCredit(f.Value)
		}
	case frame.Open:
		return c.open(f)
	}
	return c.streamFrame(f)
}

func (c *Conn) streamFrame(f *frame.Frame) error {
	p := c.find(f.Stream)
	if p == nil {
		switch {
		case f.Stream == 0 || f.Kind == frame.Accept || f.Kind == frame.Reject:
			return c.answerForGone(f)
		case f.Kind == frame.Credit: // of what was sent before the end: it is counted already
			return c.checkGone(f)
		}
		if err := c.countUseless(); err != nil {
			return err
		}
		return c.checkGone(f)
	}
	switch f.Kind {
	case frame.Accept, frame.Reject:
		if !p.local {
			return violation(status.Protocol, "an answer for stream %d, which the peer has opened itself", f.Stream)
		}
	case frame.Reset, frame.EOS:
		if !f.Local {
			p.marks.Or(peerEnded)
			c.in.ended = true
		}
	}
	return goesOn(p.s.Control(f))
}

func (c *Conn) connCredit(total uint64) error {
	if total > c.sentCost.Load()+1<<31 {
		return violation(status.FlowControl, "connection credit %d is too far ahead", total)
	}
	for old := c.granted.Load(); total > old; old = c.granted.Load() { // the reader has it from the peer, the flush from the session
		if !c.granted.CompareAndSwap(old, total) {
			continue
		}
		c.sendWindow.Store(max(c.sendWindow.Load(), int64(total-c.sentCost.Load())))
		c.unstall()
		c.wakeRoom()
		break
	}
	return nil
}

func (c *Conn) connFrame(f *frame.Frame) error {
	switch f.Kind {
	case frame.Read:
		if f.Value > c.out.wrote.Load() {
			return violation(status.Protocol, "more read than was written")
		}
		if err := c.abuse.read(c.out.wrote.Load()); err != nil {
			return err
		}
		if f.Value > c.peerRead.Load() {
			c.peerRead.Store(f.Value)
			c.readMark(f.Value)
			c.unstall()
		}
	case frame.Ping:
		if err := c.abuse.ping(c.in.now, c.in.messages, c.sentCost.Load()); err != nil {
			return err
		}
		return c.answer(answer{kind: frame.Pong, value: f.Value})
	case frame.Pong:
		if !c.receivePong(f.Value) {
			return c.countUseless()
		}
	case frame.GoAway:
		return c.receiveGoAway(f)
	}
	return nil
}

// open checks the peer's Open, and passes it on.
func (c *Conn) open(f *frame.Frame) error {
	id, n := f.Stream, uint64(len(f.Grants))
	if id == 0 || id&1 == c.localParity() || id+2*(n-1) > c.maxStream {
		return violation(status.Protocol, "open of %d streams from number %d", n, id)
	}
	c.mu.Lock()
	if id <= c.lastPeer {
		c.mu.Unlock()
		return violation(status.Protocol, "open of stream %d after %d", id, c.lastPeer)
	}
	c.lastPeer = id + 2*(n-1)
	refusal := c.refuse(f, int(n))
	c.mu.Unlock()
	if refusal == nil {
		refusal = c.checkOpen(f)
	}
	if refusal == nil {
		refusal = c.cfg.Handler.Open(c, f)
	}
	if refusal == nil {
		c.loseIfEnded(id, n)
		return nil
	}
	c.mu.Lock()
	c.table.endedEarly += n
	c.mu.Unlock()
	return c.answer(answer{
		kind: frame.Reject, stream: id, code: refusal.Code,
		reason: clip(refusal.Reason), notProcessed: refusal.NotProcessed,
	})
}

// loseIfEnded ends the streams that were just opened if the connection has ended
// meanwhile: end may not have found them.
func (c *Conn) loseIfEnded(id, n uint64) {
	c.mu.Lock()
	cause := c.cause
	c.mu.Unlock()
	if cause == nil {
		return
	}
	for i := range n {
		if p := c.find(id + 2*i); p != nil {
			p.s.Lost(cause, false)
		}
	}
}

// refuse is why n more streams are refused, or nil. mu is held.
func (c *Conn) refuse(f *frame.Frame, n int) *Refusal {
	switch {
	case c.cause != nil:
		return &Refusal{status.GoingAway, "connection is closing", true}
	case c.goAway.final && f.Stream > c.goAway.lastStream:
		return &Refusal{status.GoingAway, "server is shutting down", true}
	case f.Unary && c.caps.PeerCalls > 0:
		if r := c.refuseCall(); r != nil {
			return r
		}
	case c.peerStreams-c.peerCalls+n > c.maxStreams():
		return &Refusal{status.Refused, fmt.Sprintf("%d streams are open", c.peerStreams-c.peerCalls), true}
	}
	if c.openBytes >= c.lim.AssemblyBudget {
		return &Refusal{status.ResourceExhausted, "no memory left for requests and metadata", true}
	}
	return nil
}

// refuseCall is why one more call is refused where calls count for themselves, or nil. They
// wait for handlers, and what they hold meanwhile is unread. A call that waits must not lose
// what it has to those that come behind it, so those are refused while they can still be made
// again: at half of what makes streams be evicted. mu is held.
func (c *Conn) refuseCall() *Refusal {
	switch {
	case c.peerCalls >= c.caps.PeerCalls:
		return &Refusal{status.Refused, fmt.Sprintf("%d calls are open", c.peerCalls), true}
	case c.peerCalls >= c.lim.MaxStreams && c.in.used-c.returned.Load() >= uint64(c.MaxUnread())/2:
		return &Refusal{status.Refused, "too much is unread of the calls that wait", true}
	}
	return nil
}

// maxStreams is how many streams the peer may have open. Where neither side says that
// its application was handed a stream's end, a stream may be over for the peer that is
// not yet over here.
func (c *Conn) maxStreams() int {
	most := c.lim.MaxStreams
	if c.caps.PeerStreams > 0 {
		most = c.caps.PeerStreams
	}
	if !c.caps.Ended {
		return 2 * most
	}
	return most
}

func (c *Conn) checkOpen(f *frame.Frame) *Refusal {
	if r := c.CheckSize(f); r != nil {
		return r
	}
	if _, bad := f.Metadata.BadKey(); bad {
		return &Refusal{status.Protocol, "metadata with an illegal key", true}
	}
	return nil
}

// receiveGoAway takes the peer's GOAWAY. With a code other than status.OK, or with nothing
// left to serve, the error ends the connection.
func (c *Conn) receiveGoAway(f *frame.Frame) error {
	if err := c.abuse.goAway(); err != nil {
		return err
	}
	c.mu.Lock()
	if f.Value != c.maxStream && f.Value >= c.nextLocal {
		c.mu.Unlock()
		return violation(status.Protocol, "GOAWAY names stream %d, which was never opened", f.Value)
	}
	if c.goAway.received && f.Value > c.goAway.peerLastStream {
		c.mu.Unlock()
		return violation(status.Protocol, "GOAWAY raises the last stream")
	}
	c.goAway.received, c.goAway.peerLastStream = true, f.Value
	if f.Code != status.OK { // end tells every stream why
		c.mu.Unlock()
		return &goAwayError{f.Code, f.Reason}
	}
	var unserved []*Port
	for _, p := range c.table.all() {
		if p.local && p.id.Load() > f.Value {
			unserved = append(unserved, p)
		}
	}
	idle := c.localStreams+c.peerStreams == 0
	c.mu.Unlock()
	for _, p := range append(unserved, c.out.takeUnnumbered()...) {
		p.s.Lost(c.errGoingAway(), true)
	}
	c.cfg.Handler.GoAway(c)
	if idle && f.Value < c.maxStream {
		return &goAwayError{f.Code, f.Reason}
	}
	return nil
}
