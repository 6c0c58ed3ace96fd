package conn

import (
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// What is different where the receiver grants no credit (frame.Pacing). A peer that
// keeps to a window of its own is held to caps. One that is told nothing at all is not
// read while too much is unread here.

// senderWindows is how many streams' SenderWindow a connection holds unread.
const senderWindows = 4

// maxUnreadUnpaced is how many bytes of credit are unread on an unpaced connection when
// its reader pauses.
const maxUnreadUnpaced = 256 << 10

// maxInTransit is how many bytes of credit a peer can have sent on a stream before it
// learns that the stream has ended: a window, and where it needs no credit also the
// message of a call. mu is held.
func (c *Conn) maxInTransit() uint64 {
	if c.pacing == frame.Granted {
		return uint64(max(c.widest, c.firstWindow))
	}
	return uint64(max(c.firstWindow, c.caps.Cost(c.lim.MaxMessage+c.caps.MaxOverrun)))
}

// MaxUnread is how many bytes of credit the peer can have unread here.
func (c *Conn) MaxUnread() int {
	if c.pacing == frame.Reported {
		return senderWindows * c.lim.SenderWindow
	}
	return int(c.window.Load())
}

// unread is how many bytes of credit are unread. The reader calls it.
func (c *Conn) unread() int64 { return int64(c.in.used) - int64(c.returned.Load()) }

// pauseReading blocks the reader, on a goroutine of its own, while too much is unread
// and the protocol has no other way to slow its peer down. It returns false when the
// connection has ended.
func (c *Conn) pauseReading() bool {
	if c.pacing != frame.Unpaced {
		return true
	}
	if c.unread() >= maxUnreadUnpaced {
		c.pauseUntil(func() bool { return c.unread() < maxUnreadUnpaced/2 }, nil)
	}
	c.holdEnd()
	for c.Err() == nil {
		full := c.sess.Full()
		if full == nil {
			break
		}
		c.pauseUntil(func() bool { return closed(full) }, full)
		// After the connection's end the session stays full: Input must not be called.
		if c.Err() != nil || !c.Input(nil) {
			return false
		}
	}
	return c.Err() == nil
}

// holdTime is how long a connection whose stream is awaited is not read on at most.
const holdTime = time.Second

// holdEnd blocks the reader as Config.Awaited says.
func (c *Conn) holdEnd() {
	if c.cfg.Awaited == nil || !c.in.ended || closed(c.cfg.Awaited) {
		return
	}
	until := time.Now().Add(holdTime)
	t := time.AfterFunc(holdTime, c.pause.wake)
	defer t.Stop()
	c.pauseUntil(func() bool { return closed(c.cfg.Awaited) || !time.Now().Before(until) }, c.cfg.Awaited)
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// pauseUntil blocks the reader until done, or the connection's end. It checks again when
// something was taken, or optional is closed.
func (c *Conn) pauseUntil(done func() bool, optional <-chan struct{}) {
	c.health.frameSince.Store(0) // a frame that is incomplete is our doing
	c.pause.since.Store(c.clock())
	c.pause.on.Store(true)
	for !done() && c.Err() == nil {
		select {
		case <-c.pause.resume:
		case <-optional:
		}
	}
	c.pause.on.Store(false)
}

// brokenWhilePaused reports whether reading a paused connection would fail, as far as
// its transport can know.
func (c *Conn) brokenWhilePaused() bool {
	t, ok := c.tr.(interface{ broken() bool })
	return ok && t.broken()
}
