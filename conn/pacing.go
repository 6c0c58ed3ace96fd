package conn

import (
	"sync/atomic"

	"github.com/sluicerpc/sluice/frame"
)

// What is different where the receiver does not grant credit (frame.Pacing). A
// peer that keeps to a window of its own is held to caps; one that is told
// nothing at all is not read while too much waits here.

// senderWindows is how many streams' SenderWindow a connection holds unread.
const senderWindows = 4

// unpacedMost is how many bytes of credit wait unread on a connection before it
// stops reading.
const maxUnreadUnpaced = 256 << 10

// onItsWay is how many bytes of credit a peer can have sent on a stream that ended
// meanwhile: a window where it needs credit, else also the message of a call.
func (c *Conn) maxInTransit() uint64 {
	if c.pacing == frame.Granted {
		return uint64(c.window)
	}
	return uint64(max(c.window, c.caps.Cost(c.lim.MaxMessage+c.caps.MaxOverrun)))
}

// MostUnread is how many bytes of credit the peer can have unread here.
func (c *Conn) MaxUnread() int {
	if c.pacing == frame.Reported {
		return senderWindows * c.lim.SenderWindow
	}
	return c.window
}

// beyond is called when more is unread than in.limit says, as far as is known. It
// looks again, and says what becomes of data that is too much.
func (c *Conn) overLimit() error {
	in := &c.in
	switch c.pacing {
	case frame.Granted:
		if in.limit = c.advertised.Load() + uint64(c.window); in.used > in.limit {
			return violation(frame.CodeFlowControl, "%d bytes beyond the connection's credit", in.used-in.limit)
		}
	case frame.Reported:
		if in.limit = c.returned.Load() + uint64(c.MaxUnread()); in.used > in.limit {
			c.evictUnread()
		}
	case frame.Unpaced:
		in.limit = 1 << 63
	}
	return nil
}

// A pause is a reader that waits for what it has read to be taken.
type pause struct {
	resume chan struct{} // holds one word; nil where readers never wait
	on     atomic.Bool
}

// unread is how many bytes of credit wait to be taken. It is called by the reader.
func (c *Conn) unread() int64 { return int64(c.in.used) - int64(c.returned.Load()) }

// awaitRoom waits, on the reader's own goroutine, while the protocol has no other
// way to slow its peer down than not to read. It returns false when the connection
// has ended.
func (c *Conn) pauseReading() bool {
	if c.pacing != frame.Unpaced {
		return true
	}
	if c.unread() >= maxUnreadUnpaced {
		c.pauseUntil(func() bool { return c.unread() < maxUnreadUnpaced/2 }, nil)
	}
	for c.Err() == nil {
		full := c.sess.Full()
		if full == nil {
			break
		}
		c.pauseUntil(func() bool { return closed(full) }, full)
		// After the connection's end the session stays full: nothing is handed to it.
		if c.Err() != nil || !c.Input(nil) {
			return false
		}
	}
	return c.Err() == nil
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// wait blocks the reader until done, or the connection's end. It looks again when
// something was taken, or also is closed.
func (c *Conn) pauseUntil(done func() bool, optional <-chan struct{}) {
	c.keeper.partAt.Store(0) // a frame that is not complete is our doing
	c.pause.on.Store(true)
	for !done() && c.Err() == nil {
		select {
		case <-c.pause.resume:
		case <-optional:
		}
	}
	c.pause.on.Store(false)
}

// brokenPaused tells of a connection that is not read at the moment whether
// reading would fail, as far as its transport can know.
func (c *Conn) brokenWhilePaused() bool {
	t, ok := c.tr.(interface{ broken() bool })
	return ok && t.broken()
}

// wakeReader has a reader that waits look again.
func (c *Conn) wakeReader() {
	if c.pause.on.Load() {
		select {
		case c.pause.resume <- struct{}{}:
		default:
		}
	}
}
