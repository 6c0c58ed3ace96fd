package conn

import (
	"cmp"
	"net"
	"syscall"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/status"
)

// maxExtensions is how often a connection that lingers gets as much time again because
// its GOAWAY is not written yet.
const maxExtensions = 9

// Expire implements timers.Owner: it checks the connection's health, and ends one that
// has lingered. Other timers wait until it returns, so it writes nothing where it finds
// the connection at its end.
func (c *Conn) Expire(_ *timers.Timer, now time.Time) {
	e := &c.ending
	switch {
	case e.finished.Load():
		return
	case e.writeErr.Load() != nil:
		c.tr.sever()
		c.lost("write", *e.writeErr.Load())
		return
	case e.lingers.Load():
		c.lingered()
		return
	case c.pause.on.Load() && c.brokenWhilePaused():
		c.tr.sever()
		c.lost("read", syscall.ECONNRESET)
		return
	}
	t := c.since(now)
	c.health.forgive(t)
	if op, code, err := c.check(t); err != nil {
		c.Fail(op, code, err)
		return
	}
	c.evictStalled(now)
	next := c.nextCheck(t)
	c.health.checkDue = t + int64(next)
	c.cfg.Timers.Set(&c.timer, c, now.Add(next))
	switch { // another goroutine may have set it for sooner, and this Set has replaced that
	case e.lingers.Load():
		c.cfg.Timers.Set(&c.timer, c, now.Add(time.Duration(e.lingerFor.Load())))
	case e.writeErr.Load() != nil:
		c.cfg.Timers.Set(&c.timer, c, now.Add(lingerTime))
	}
}

// lingered ends a connection whose time to linger is over.
func (c *Conn) lingered() {
	e := &c.ending
	switch {
	case c.Err() == nil: // the peer has not ended it
		c.mu.Lock()
		why := c.goAway.why
		c.mu.Unlock()
		c.Fail("close", status.OK, cmp.Or(why, net.ErrClosed))
	case e.extensions < maxExtensions && c.goAwayUnsent():
		e.extensions++
		c.cfg.Timers.Set(&c.timer, c, time.Now().Add(lingerTime))
	default:
		c.tr.sever()
		c.finish()
	}
}

// goAwayUnsent reports whether our flush has not reached the GOAWAY yet: the delay is
// then ours. Without pacing a write may wait for the peer unnoticed: the answer is no.
func (c *Conn) goAwayUnsent() bool {
	return c.pacing != frame.Unpaced && !c.health.waiting.Load() &&
		!c.ending.goAwayWritten.Load() && c.out.isDying()
}
