package conn

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// What ends a connection in the course of time, beside errStalled.
var (
	errSilent  = errors.New("the peer does not answer")
	errPartial = errors.New("a frame takes too long to arrive")
)

// health is when what happened, in nanoseconds since the connection's start: what
// happens on the connection leaves a time stamp here, and its timer looks at them. It
// pings a silent peer, and ends a connection whose peer does not answer or read.
type health struct {
	heardAt    atomic.Int64 // last input
	progressAt atomic.Int64 // last progress of a write that had to wait
	waiting    atomic.Bool  // a write waits for the socket
	idleSince  atomic.Int64 // end of the last stream
	probing    atomic.Bool  // a ping is out because the peer has been silent
	probedAt   atomic.Int64
	pinged     atomic.Uint64 // value of the ping that is out
	pingedAt   atomic.Int64
	drainPing  atomic.Pointer[drainPing]
	frameSince atomic.Int64 // when the incomplete frame began that is arriving; 0: none
	frameStart int64        // its position in the input; owned by the reader

	// Owned by the timer: since when reportEvery bytes and more are unread, and what
	// was read then; when the next check is due.
	unreadSince, readThen int64
	checkDue              int64
}

// drainPing is the ping of a drain, which was sent at that time: f is called when it is
// answered, or was not for long.
type drainPing struct {
	v  uint64
	f  func()
	at int64
}

// heard notes input.
func (h *health) heard(at int64) {
	h.heardAt.Store(at)
	h.probing.Store(false)
}

// writeProgressed notes that the transport has taken something.
func (h *health) writeProgressed() {
	if h.waiting.Load() {
		h.waiting.Store(false)
	}
}

// writeBlocked notes that a write may have to wait. Only the flush calls it. The timer, which
// may look at any moment, must not find a write that waits since the one before it.
func (c *Conn) writeBlocked() {
	if h := &c.health; !h.waiting.Load() {
		h.progressAt.Store(c.clock())
		h.waiting.Store(true)
	}
}

// blockedFor is for how long the transport has taken nothing of what is to be written.
func (c *Conn) blockedFor() time.Duration {
	if !c.health.waiting.Load() {
		return 0
	}
	return time.Duration(c.clock() - c.health.progressAt.Load())
}

// noteFrame checks after each input whether a frame is incomplete. Only the start of
// each frame is noted: one that trickles in gets no more time.
func (c *Conn) noteFrame() {
	h := &c.health
	at, begun := c.sess.Begun()
	switch {
	case !begun:
		if h.frameSince.Load() != 0 {
			h.frameSince.Store(0)
		}
	case at != h.frameStart || h.frameSince.Load() == 0:
		h.frameStart = at
		h.frameSince.Store(max(c.since(c.in.now), 1))
	}
}

// unreadFor is for how long the peer has had reportEvery bytes or more unread and has
// reported no progress. A peer that reads reports every reportEvery bytes.
func (c *Conn) unreadFor(t int64) int64 {
	h := &c.health
	read := int64(c.peerRead.Load())
	if !c.caps.ReadReports || int64(c.out.wrote.Load())-read < reportEvery {
		h.unreadSince = 0
		return 0
	}
	if h.unreadSince == 0 || read != h.readThen {
		h.unreadSince, h.readThen = t, read
	}
	return t - h.unreadSince
}

// mayPing reports whether a silent peer may be pinged now.
func (c *Conn) mayPing() bool { return c.caps.Ping && (c.caps.PingIdle || !c.hasNoStreams()) }

// defaultKeepalive is the interval where neither the program nor the protocol has one.
const defaultKeepalive = 30 * time.Second

// keepalive is after how long a silent peer is pinged.
func (c *Conn) keepalive() time.Duration {
	switch {
	case c.lim.KeepaliveInterval > 0:
		return max(c.lim.KeepaliveInterval, leastKeepalive)
	case c.caps.Keepalive > 0:
		return c.caps.Keepalive
	}
	return defaultKeepalive
}

// lateCheck is how late a check must be to show that this process did not run: it was
// stopped, its machine was, or had no time for it.
const lateCheck = int64(time.Second)

// forgive gives the peer the time t-checkDue that this process did not run: what the peer has
// sent meanwhile may wait in the socket.
func (h *health) forgive(t int64) {
	late := t - h.checkDue
	if late < lateCheck {
		return
	}
	for _, at := range []*atomic.Int64{&h.frameSince, &h.progressAt, &h.probedAt} {
		if old := at.Load(); old != 0 {
			at.CompareAndSwap(old, old+late) // fails if something has happened just now
		}
	}
	if h.unreadSince != 0 {
		h.unreadSince += late
	}
}

// nextCheck is how long after t the next check is due if nothing happens until then.
func (c *Conn) nextCheck(t int64) time.Duration {
	h, l := &c.health, c.lim
	due := t + int64(l.WriteStall/4) // a write may begin to wait at any time
	if h.frameSince.Load() != 0 {
		due = min(due, h.frameSince.Load()+int64(l.ReadStall))
	} else {
		due = min(due, t+int64(l.ReadStall))
	}
	switch {
	case !c.mayPing():
	case h.probing.Load():
		due = min(due, h.probedAt.Load()+int64(l.KeepaliveTimeout))
	default:
		due = min(due, h.heardAt.Load()+int64(c.keepalive()))
	}
	if !c.cfg.Client {
		due = min(due, c.lifeDue())
	}
	return max(time.Duration(due-t), time.Millisecond)
}

// check returns how the connection ends at time t because of what did not happen, or a
// nil error. It pings a silent peer.
func (c *Conn) check(t int64) (op string, code status.Code, err error) {
	h, l := &c.health, c.lim
	paced := c.pacing != frame.Unpaced // else such a peer slows us down by not reading
	if paced && h.waiting.Load() && t-h.progressAt.Load() >= int64(l.WriteStall) {
		return "write", status.WriteStall, errStalled
	}
	if at := h.frameSince.Load(); at != 0 && t-at >= int64(l.ReadStall) {
		return "read", status.DeadlineExceeded, errPartial
	}
	if c.unreadFor(t) >= int64(l.WriteStall) {
		return "write", status.WriteStall, errStalled
	}
	if !c.cfg.Client && c.checkLife(t) {
		return "close", status.GoingAway, errOld
	}
	silent := t - h.heardAt.Load()
	switch {
	case silent < int64(c.keepalive()), !c.mayPing():
	case !h.probing.Swap(true):
		h.probedAt.Store(t)
		c.ping(uint64(t))
	case t-h.probedAt.Load() >= int64(l.KeepaliveTimeout):
		return "keepalive", status.Keepalive, errSilent
	}
	return "", 0, nil
}

// ping has a ping written.
func (c *Conn) ping(v uint64) {
	c.notePing(v)
	c.requestControl(func(p *pendingControl) { p.pings = append(p.pings, v) })
}

func (c *Conn) notePing(v uint64) {
	c.health.pinged.Store(v)
	c.health.pingedAt.Store(c.since(time.Now()))
}

// receivePong takes the answer to a ping; false if there was no such ping.
func (c *Conn) receivePong(v uint64) bool {
	h := &c.health
	ours := v != 0 && h.pinged.CompareAndSwap(v, 0)
	if d := h.drainPing.Load(); d != nil && d.v == v && h.drainPing.CompareAndSwap(d, nil) {
		d.f()
		return true
	}
	if !ours {
		return false
	}
	c.addSample(c.since(c.in.now) - h.pingedAt.Load())
	return true
}
