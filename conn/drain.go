package conn

import (
	"cmp"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// AddChild counts one more stream that is open on another connection and belongs to
// this one: until RemoveChild the connection is neither idle nor drained.
func (c *Conn) AddChild() {
	c.mu.Lock()
	c.children++
	c.mu.Unlock()
}

// RemoveChild ends what AddChild began. A connection that was waiting for its last
// stream ends.
func (c *Conn) RemoveChild() {
	c.mu.Lock()
	c.children--
	last := c.noStreams()
	c.mu.Unlock()
	if last {
		c.lastStreamGone(c.clock())
	}
}

// EndWithStreams has the connection end with its last stream.
func (c *Conn) EndWithStreams() {
	c.mu.Lock()
	c.goAway.final = true
	c.mu.Unlock()
}

// drainPings is a bit of the values of a drain's pings: other pings are the time since the
// connection's start alone.
const drainPings = 1 << 61

// Drain ends the connection in order, in two steps. A first GOAWAY asks the peer to open
// no more streams. After a round trip a second one names the last stream that is
// served, and later ones are refused. The connection ends with its last stream, because of
// why; nil is ErrGoingAway.
func (c *Conn) Drain(why error) {
	c.mu.Lock()
	if c.goAway.sent || c.cause != nil {
		c.mu.Unlock()
		return
	}
	c.goAway.sent, c.goAway.why = true, why
	c.mu.Unlock()
	if !c.caps.Ping { // nothing would tell when the first GOAWAY was read
		c.sendFinalGoAway()
		return
	}
	now := c.clock()
	v := drainPings | uint64(now)
	c.health.drainPing.Store(&drainPing{v: v, f: c.sendFinalGoAway, at: now})
	c.notePing(v)
	c.requestControl(func(p *pendingControl) {
		if !p.dying { // the GOAWAY of an end that came meanwhile stays the last
			p.goAway = &frame.Frame{Kind: frame.GoAway, Value: c.maxStream}
			p.pings = append(p.pings, v)
		}
	})
}

// sendFinalGoAway is the second step of a drain.
func (c *Conn) sendFinalGoAway() {
	c.mu.Lock()
	c.goAway.final = true
	c.goAway.lastStream = min(c.goAway.lastStream, c.lastPeer)
	last := c.goAway.lastStream
	idle := c.noStreams()
	c.mu.Unlock()
	c.requestControl(func(p *pendingControl) {
		if !p.dying {
			p.goAway = &frame.Frame{Kind: frame.GoAway, Value: last}
		}
	})
	if idle {
		c.drained()
	}
}

// lastStreamGone returns all credit that is owed, and ends a connection that was only
// waiting for its streams. now is the time since the connection's start.
func (c *Conn) lastStreamGone(now int64) {
	if c.pacing == frame.Granted && c.owed() > 0 {
		c.requestCredit()
	}
	c.health.idleSince.Store(now)
	c.mu.Lock()
	over := c.cause == nil && c.noStreams() && (c.goAway.final || c.goAway.received)
	c.mu.Unlock()
	if over {
		c.drained()
	}
}

// drained ends a connection that takes no streams and has none left. Where its protocol
// has no pings, streams that the peer has opened meanwhile may still arrive: for a
// moment they are refused, because a closed connection would not tell why.
func (c *Conn) drained() {
	c.mu.Lock()
	wait, why := c.goAway.sent && !c.caps.Ping, c.goAway.why
	c.mu.Unlock()
	if wait {
		c.linger(lingerTime)
		return
	}
	c.Fail("close", status.OK, cmp.Or(why, ErrGoingAway))
}
