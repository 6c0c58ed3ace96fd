package conn

import (
	"math"

	"github.com/sluicerpc/sluice/frame"
)

// The window of a connection: what its streams get of it, and how it is renewed.

// returnCredit returns credit to the peer, and announces it if a grant is due. The count is
// the connection's own: it waits for no stream.
func (c *Conn) returnCredit(cost int) {
	c.returned.Add(uint64(cost))
	if c.pacing != frame.Granted {
		c.pause.wake()
		return
	}
	owed := c.owed()
	if owed > 0 && (owed >= int64(frame.LeastGrant(int(c.window.Load()))) || c.streams.Load() == 0 || owed >= c.peerCredit()) {
		c.requestCredit()
	}
}

// owed is how much credit the peer may have beyond what it knows of; below 0 if the window
// has become smaller.
func (c *Conn) owed() int64 {
	return int64(c.returned.Load()) + c.window.Load() - int64(c.advertised.Load())
}

// requestCredit has the credit that was returned written to the peer.
func (c *Conn) requestCredit() {
	c.requestControl(func(p *pendingControl) { p.credit = true })
}

// peerCredit is how much credit the peer has left, according to the input so far.
// A grant would never be due where unread streams hold most of the window: so credit is
// also announced when it exceeds what the peer has left.
func (c *Conn) peerCredit() int64 {
	return max(int64(c.advertised.Load())-int64(c.creditSeen.Load()), 0)
}

// mostWindow is what the connection's window may grow to.
func (c *Conn) mostWindow() int { return max(c.firstWindow, min(2*c.lim.MaxWindow, maxLimit)) }

// windowLimit is what it may grow to on this path. mu is held.
func (c *Conn) windowLimit() int {
	if c.trip.isLong() {
		return c.mostWindow()
	}
	return int(c.window.Load())
}

// spareWindow is what windows may still grow by: the half of the connection's window
// that initial credits do not take. mu is held.
func (c *Conn) spareWindow() int { return max(c.windowLimit()/2-c.extraWindows, 0) }

// Until a window has StreamWindow it grows by growFactor each time that it is renewed, once
// the reader has taken a part of it. On a long path that can be once in a round trip, and what
// begins with 8 KiB shall have 1 MiB after two.
const (
	growFactor = 16
	growAfter  = 4 // parts
)

// resizeWindow returns the next size of the window of p's stream, at most most, whose reader
// has taken so many bytes of credit in all. Up to StreamWindow it grows as the reader takes
// something, and beyond that, on a long path, as far as what is measured shows that it keeps
// the path from carrying more. Where less is taken it becomes smaller again.
func (c *Conn) resizeWindow(p *Port, window, most int, taken uint64) int {
	first := min(most, c.lim.StreamWindow)
	some := window // of which a part is to be taken before it grows
	if p.fresh.Load() > 0 {
		some = InitialCredit(c.lim) // its sender had no more until the acceptance
	}
	if window < first && uint64(some) > growAfter*taken {
		return window
	}
	if p.fresh.Load() > 0 {
		c.mu.Lock()
		c.isRead(p)
		c.mu.Unlock()
	}
	switch {
	case window < first:
		c.mu.Lock()
		defer c.mu.Unlock()
		return window + c.takeSpare(min((growFactor-1)*window, first-window), c.spareWindow()/8)
	case most <= first: // the program's own choice
		return window
	}
	at := c.clock()
	c.probe(at)
	if !c.trip.isLong() && window == first {
		return window
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.followPath(p, window, first, most, taken, at)
}

// takeSpare takes up to n bytes for a window of a stream, at most most, and returns how much it
// got. The connection's window grows to twice what was taken, if there is memory for it. mu
// is held.
func (c *Conn) takeSpare(n, most int) int {
	n = max(min(n, most), 0)
	if more := 2*(c.extraWindows+n) - int(c.window.Load()); more > 0 {
		if c.cfg.Lend != nil && !c.cfg.Lend(more) {
			n = max(int(c.window.Load())/2-c.extraWindows, 0)
		} else {
			c.widest = max(c.widest, int(c.window.Add(int64(more))))
		}
	}
	c.extraWindows += n
	return n
}

// giveBack is the reverse of takeSpare. mu is held.
func (c *Conn) giveBack(n int) {
	c.extraWindows -= n
	window := int(c.window.Load())
	if less := window - max(2*c.extraWindows, c.firstWindow); less > 0 {
		c.window.Add(-int64(less))
		if c.cfg.Lend != nil {
			c.cfg.Lend(-less)
		}
	}
}

// shrinkWindow takes back what the window of p's stream has beyond the initial credit.
func (c *Conn) shrinkWindow(p *Port, from, to int) {
	if c.pacing != frame.Granted {
		return
	}
	initial := InitialCredit(c.lim)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isRead(p)
	if less := max(from-initial, 0) - max(to-initial, 0); less != 0 {
		c.giveBack(less)
	}
	c.laps.end(p)
}

// FirstWindow returns the first window of the stream, whose user asked for want bytes and
// whose peer for at most limit, and the most that it may grow to. A want of 0 asks for the
// defaults, and a limit of 0 is none. Beyond the initial credit a stream gets at most half of
// what the connection has to spare.
func (p *Port) FirstWindow(want, limit int) (window, most int) {
	c := p.c
	if limit == 0 {
		limit = math.MaxInt
	}
	if c.pacing != frame.Granted {
		window = min(c.lim.SenderWindow, limit)
		return window, window
	}
	initial := InitialCredit(c.lim)
	switch {
	case want == 0:
		return min(c.freshWindow(p, limit), limit), min(c.lim.MaxWindow, limit)
	case want == Unlimited:
		want = math.MaxInt32
	}
	want = min(want, limit)
	switch {
	case want <= initial && c.caps.FixedWindow: // what was announced can't be taken back
		return min(initial, limit), min(initial, limit)
	case want <= initial:
		return want, want
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return initial + c.takeSpare(want-initial, (int(c.window.Load())/2-c.extraWindows)/2), want
}

// freshCredit is the window of a stream, in bytes, until its reader has taken something. It is
// less where many streams are that nobody has read yet.
const freshCredit = 64 << 10

// freshWindow returns the first window of p's stream, at most limit but for the initial
// credit. Streams that nobody has read have a quarter of the connection's window between them,
// beside their initial credit, and each at most an eighth of what is left of that.
func (c *Conn) freshWindow(p *Port, limit int) int {
	initial := InitialCredit(c.lim)
	want := min(freshCredit, c.lim.StreamWindow, limit) - initial
	if want <= 0 || c.caps.FixedWindow { // there it would be a frame more for each stream
		return initial
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.takeSpare(want, min(c.firstWindow/4-c.freshWindows, c.spareWindow())/8)
	p.fresh.Store(int32(n))
	c.freshWindows += n
	return initial + n
}

// isRead notes that the window of p's stream is no longer as freshWindow made it, or is about
// to be: its reader has taken something, or the stream is over. mu is held.
func (c *Conn) isRead(p *Port) { c.freshWindows -= int(p.fresh.Swap(0)) }

// UnacceptedWindow is what a peer may have unread on a stream that was not accepted yet.
func (c *Conn) UnacceptedWindow() int {
	if c.pacing != frame.Granted {
		return c.lim.SenderWindow
	}
	return InitialCredit(c.lim)
}
