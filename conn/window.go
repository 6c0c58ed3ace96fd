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

// requestCredit has the credit that was returned written to the peer. Until that is written all
// that is returned asks for it, and takes no lock for it.
func (c *Conn) requestCredit() {
	if c.granting.Load() || c.granting.Swap(true) {
		return
	}
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

// Until a window has StreamWindow it grows by a factor each time that it is renewed, once
// the reader has taken a part of it. On a long path that can be once in a round trip, and what
// begins with 8 KiB shall have 1 MiB after two. On a short path many streams grow at the same
// time, and shall get about the same.
const (
	growFactor     = 16
	growFactorNear = 2
	growAfter      = 4 // parts
)

// resizeWindow returns the next size of the window of p's stream, at most most, whose reader
// has taken so many bytes of credit in all. Up to StreamWindow it grows as the reader takes
// something, and beyond that, on a long path, as far as what is measured shows that it keeps
// the path from carrying more. Where less is taken it becomes smaller again.
func (c *Conn) resizeWindow(p *Port, window, most int, taken uint64) int {
	first := min(most, c.lim.StreamWindow)
	some := window // of which a part is to be taken before it grows
	if p.fresh() > 0 {
		some = InitialCredit(c.lim) // its sender had no more until the acceptance
	}
	if window < first && uint64(some) > growAfter*taken {
		return window
	}
	if p.fresh() > 0 {
		c.mu.Lock()
		c.isRead(p)
		c.mu.Unlock()
	}
	switch {
	case window < first:
		factor := growFactor
		if c.trip.isNear() {
			factor = growFactorNear
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return window + c.takeSpare(p, min((factor-1)*window, first-window), c.spareWindow()/8)
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

// takeSpare takes up to n bytes for the window of p's stream, at most most, and returns how much
// it got: nothing if the stream is over. mu is held.
func (c *Conn) takeSpare(p *Port, n, most int) int {
	if p.retired {
		return 0
	}
	n = c.takeExtra(min(n, most))
	p.extra.Add(int32(n))
	return n
}

// takeExtra takes up to n bytes for windows, and returns how much it got. The connection's window
// grows to twice what was taken, if there is memory for it. mu is held.
func (c *Conn) takeExtra(n int) int {
	n = max(n, 0)
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

// giveBack returns n bytes of what p's stream has, which is no fresh one. mu is held.
func (c *Conn) giveBack(p *Port, n int) {
	p.extra.Add(-int32(n))
	c.returnExtra(n)
}

// returnExtra is the reverse of takeExtra. mu is held.
func (c *Conn) returnExtra(n int) {
	if n == 0 {
		return
	}
	c.extraWindows -= n
	window := int(c.window.Load())
	if less := window - max(2*c.extraWindows, c.firstWindow); less > 0 {
		c.window.Add(-int64(less))
		if c.cfg.Lend != nil {
			c.cfg.Lend(-less)
		}
	}
}

// shrinkWindow takes back what the window of p's stream has beyond the initial credit, and no
// longer needs. What a stream that is over had is back already.
func (c *Conn) shrinkWindow(p *Port, from, to int) {
	if c.pacing != frame.Granted {
		return
	}
	initial := InitialCredit(c.lim)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isRead(p)
	c.giveBack(p, min(max(from-initial, 0)-max(to-initial, 0), int(p.extra.Load())))
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
	if want == 0 {
		p.keepFresh(max(limit-initial, 0))
		return min(initial+p.fresh(), limit), min(c.lim.MaxWindow, limit)
	}
	p.keepFresh(0)
	if want == Unlimited {
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
	return initial + c.takeSpare(p, want-initial, (int(c.window.Load())/2-c.extraWindows)/2), want
}

// NoWindow is called in place of FirstWindow for a stream that receives nothing.
func (p *Port) NoWindow() { p.keepFresh(0) }

// freshCredit is the window of a stream, in bytes, until its reader has taken something. It is
// less where many streams are that nobody has read yet.
const freshCredit = 64 << 10

// takeFresh takes what each of n new streams may have beyond the initial credit before it is read.
// Streams that nobody has read have a quarter of the connection's window between them, beside
// their initial credit, and each at most an eighth of what is left of that. mu is held.
func (c *Conn) takeFresh(n int) int {
	if c.pacing != frame.Granted || c.caps.FixedWindow { // there it would be a frame more for each stream
		return 0
	}
	want := min(freshCredit, c.lim.StreamWindow) - InitialCredit(c.lim)
	each := min(want, min(c.firstWindow/4-c.freshWindows, c.spareWindow())/(8*n))
	if each <= 0 {
		return 0
	}
	got := c.takeExtra(n * each)
	c.returnExtra(got % n)
	c.freshWindows += got - got%n
	return got / n
}

// haveFresh notes what a new stream has of takeFresh.
func (p *Port) haveFresh(n int) { p.extra.Store(-int32(n)) }

// fresh is how many bytes the stream has as a fresh one.
func (p *Port) fresh() int { return max(-int(p.extra.Load()), 0) }

// keepFresh returns what the stream has as a fresh one but for most bytes. It is not read yet.
func (p *Port) keepFresh(most int) {
	if p.fresh() <= most {
		return
	}
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	n := max(p.fresh()-most, 0) // it may be over
	p.extra.Add(int32(n))
	p.c.freshWindows -= n
	p.c.returnExtra(n)
}

// isRead notes that the window of p's stream is no longer that of a fresh one, or is about
// to be: its reader has taken something, or the stream is over. mu is held.
func (c *Conn) isRead(p *Port) {
	if n := p.fresh(); n > 0 {
		c.freshWindows -= n
		p.extra.Store(int32(n))
	}
}

// UnacceptedWindow is what a peer may have unread on a stream that was not accepted yet.
func (c *Conn) UnacceptedWindow() int {
	if c.pacing != frame.Granted {
		return c.lim.SenderWindow
	}
	return InitialCredit(c.lim)
}
