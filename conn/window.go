package conn

import (
	"math"

	"github.com/sluicerpc/sluice/frame"
)

// The window of a connection: what its streams get of it, and how it is renewed.

// returnCredit returns credit to the peer, and announces it at half the window. The
// count is the connection's own: it waits for no stream.
func (c *Conn) returnCredit(cost int) {
	n := c.returned.Add(uint64(cost))
	if c.pacing != frame.Granted {
		c.pause.wake()
		return
	}
	advertised := c.advertised.Load()
	if n-advertised >= uint64(c.window/2) || c.streams.Load() == 0 || n-advertised >= c.peerCredit(advertised) {
		c.requestCredit()
	}
}

// requestCredit has the credit that was returned written to the peer.
func (c *Conn) requestCredit() {
	c.requestControl(func(p *pendingControl) { p.credit = true })
}

// peerCredit is how much credit the peer has left, according to the input so far.
// Half a window would never come back where unread streams hold most of the window:
// so credit is also announced when it exceeds what the peer has left.
func (c *Conn) peerCredit(advertised uint64) uint64 {
	total, used := advertised+uint64(c.window), c.creditSeen.Load()
	if used > total {
		return 0
	}
	return total - used
}

// spareWindow is what windows may still grow by: the half of the connection's window
// that initial credits do not take. Conn.mu is held.
func (c *Conn) spareWindow() int { return max(c.window/2-c.extraWindows, 0) }

// growWindow returns the next size of a stream's window, at most most. A window may
// double while the connection has plenty to spare, and grows by less the less there is.
func (c *Conn) growWindow(window, most int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	more := min(window, most-window, c.spareWindow()/8)
	if more <= 0 {
		return window
	}
	c.extraWindows += more
	return window + more
}

// shrinkWindow takes back what a window has beyond the initial credit.
func (c *Conn) shrinkWindow(from, to int) {
	if c.pacing != frame.Granted {
		return
	}
	initial := InitialCredit(c.lim)
	if less := max(from-initial, 0) - max(to-initial, 0); less != 0 {
		c.mu.Lock()
		c.extraWindows -= less
		c.mu.Unlock()
	}
}

// InitialWindow returns the first window of a stream whose user asked for want bytes,
// and the most that it may grow to. A want of 0 asks for the defaults. Beyond the
// initial credit a stream gets at most half of what the connection has to spare.
func (c *Conn) InitialWindow(want int) (window, most int) {
	if c.pacing != frame.Granted {
		return c.lim.SenderWindow, c.lim.SenderWindow
	}
	initial := InitialCredit(c.lim)
	switch {
	case want == 0:
		return initial, c.lim.StreamWindow
	case want <= initial && c.caps.FixedWindow: // what was announced can't be taken back
		return initial, initial
	case want <= initial:
		return want, want
	case want == Unlimited:
		want = math.MaxInt32
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	more := min(want-initial, c.spareWindow()/2)
	c.extraWindows += more
	return initial + more, want
}

// UnacceptedWindow is what a peer may have unread on a stream that was not accepted yet.
func (c *Conn) UnacceptedWindow() int {
	if c.pacing != frame.Granted {
		return c.lim.SenderWindow
	}
	return InitialCredit(c.lim)
}
