package conn

import (
	"math"
	"sync/atomic"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
)

// A Port is a stream's place in its connection: its number, its turns and what
// it may use. It is embedded in the stream.
type Port struct {
	c             *Conn
	s             Stream
	id            atomic.Uint64
	local         bool // we opened it
	inRoom        bool // these three are owned by output's lock
	inData        bool
	removed       bool        // over: no line takes it any more
	retired       bool        // retired; owned by the connection's lock
	follower      bool        // the request of another one opens it
	dataDue       bool        // with data, for that; owned by the connection's lock
	peerEnded     atomic.Bool // the peer ended its half, or reset
	sibling       *Port       // the next that the same request opens
	initialCredit uint64      // credit that our stream began with

	takenAtRead  uint32 // what was taken, its lower half, when the reader last looked for a stream to evict
	openBytes    int32  // bytes: see Keep; owned by the connection's lock
	takenAtTimer uint64 // owned by the connection's timer
	takenSince   int64  // nanoseconds since the connection began; 0: never

	nextControl, nextData, nextRoom *Port // owned by output's lock
}

// Prepare makes p the port of stream s, which the peer opens; Attach gives it its
// place.
func (c *Conn) PreparePeer(p *Port, s Stream) { p.c, p.s = c, s }

// Attach gives p its number, and counts what it keeps of its open, in bytes: see
// Keep. It is called from Handler.Open.
func (c *Conn) OpenPeer(p *Port, id uint64, openBytes int) {
	p.id.Store(id)
	c.mu.Lock()
	c.table.add(p)
	p.charge(openBytes)
	c.peer++
	c.streams.Add(1)
	c.mu.Unlock()
}

// Begin makes p the port of stream s, which we open: it was reserved, and gets
// its number when its first frame is written. mate, if not nil, is the one
// before it in a request that opens several. It returns what may be sent
// on the stream at first.
func (c *Conn) OpenLocal(p *Port, s Stream, sibling *Port) (credit uint64) {
	p.c, p.s, p.local = c, s, true
	if sibling != nil {
		sibling.sibling, p.follower = p, true
	}
	p.initialCredit = c.peerSettings.Load().InitialCredit
	return p.initialCredit
}

// Conn is the connection.
func (p *Port) Conn() *Conn { return p.c }

// ID implements actor.Link.
func (p *Port) ID() uint64 { return p.id.Load() }

// Forsake implements actor.Link.
func (p *Port) Forsake() bool {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.id.Load() != 0 {
		return false
	}
	p.retired = true
	return true
}

// Ready implements actor.Link.
func (p *Port) Ready(urgent bool) { p.c.out.schedule(p.c, p, urgent, true) }

// ReadySoon implements actor.Link.
func (p *Port) ReadySoon() { p.c.out.schedule(p.c, p, false, false) }

// Queued implements actor.Link.
func (p *Port) Queued(delta int) {
	n := p.c.queued.Add(int64(delta))
	switch {
	case delta < 0 && n <= int64(p.c.lim.OutQueue)/2:
		p.c.out.wakeRoom(p.c)
	case delta > 0 && p.c.out.slots.n.Load() > 0 && !p.c.room():
		p.c.out.withdrawSlots()
	}
}

// Room implements actor.Link.
func (p *Port) Room() bool { return p.c.room() }

func (c *Conn) room() bool {
	q := c.queued.Load()
	return q < int64(c.lim.OutQueue) && q < int64(c.granted.Load()-c.sentCost.Load())
}

// AwaitRoom implements actor.Link.
func (p *Port) AwaitRoom() { p.c.out.awaitRoom(p.c, p) }

// Taken implements actor.Link.
func (p *Port) Taken(cost int) { p.c.returnCredit(cost) }

// returned counts credit that goes back to the peer, and tells it at half the
// window. The count is the connection's own: it waits for no stream.
func (c *Conn) returnCredit(cost int) {
	n := c.returned.Add(uint64(cost))
	if c.pacing != frame.Granted {
		c.wakeReader()
		return
	}
	told := c.advertised.Load()
	if n-told >= uint64(c.window/2) || c.streams.Load() == 0 || n-told >= c.peerCredit(told) {
		c.out.requestControl(c, func(o *output) { o.credit = true })
	}
}

// peerHas is how much credit the peer has left, as far as we have seen what it
// uses. Where streams that nobody reads hold most of the window, half a window
// would never come back.
func (c *Conn) peerCredit(advertised uint64) uint64 {
	total, used := advertised+uint64(c.window), c.creditSeen.Load()
	if used > total {
		return 0
	}
	return total - used
}

// Assemble implements actor.Link.
func (p *Port) Assemble(n int) bool {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 && c.assembled+n > c.lim.AssemblyBudget {
		return false
	}
	c.assembled += n
	return true
}

// Grow implements actor.Link: a window may double while the connection has
// plenty left, and less the less there is.
func (p *Port) Grow(window, most int) int {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	more := min(window, most-window, c.spareWindow()/8)
	if more <= 0 {
		return window
	}
	c.extraWindows += more
	return window + more
}

// spare is what may still be given to windows: the half of the connection's
// window that the initial credits do not take.
func (c *Conn) spareWindow() int { return max(c.window/2-c.extraWindows, 0) }

// FirstWindow is the window for a stream whose user asked for want bytes; 0 asks
// for the default. What is beyond the initial credit is at most half of what the
// connection has left.
func (c *Conn) InitialWindow(want int) (window, most int) {
	if c.pacing != frame.Granted {
		return c.lim.SenderWindow, c.lim.SenderWindow
	}
	first := c.lim.InitialCredit()
	switch {
	case want == 0:
		return first, c.lim.StreamWindow
	case want <= first && c.caps.FixedWindow: // what was announced can't be taken back
		return first, first
	case want <= first:
		return want, want
	case want == Unlimited:
		want = math.MaxInt32
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	more := min(want-first, c.spareWindow()/2)
	c.extraWindows += more
	return first + more, want
}

// FirstUnaccepted is what a peer may have unread on a stream that nobody has
// accepted yet.
func (c *Conn) UnacceptedWindow() int {
	if c.pacing != frame.Granted {
		return c.lim.SenderWindow
	}
	return c.lim.InitialCredit()
}

// Shrink implements actor.Link.
func (p *Port) Shrink(from, to int) {
	c := p.c
	first := c.lim.InitialCredit()
	if c.pacing != frame.Granted {
		return
	}
	if over := max(from-first, 0) - max(to-first, 0); over != 0 {
		c.mu.Lock()
		c.extraWindows -= over
		c.mu.Unlock()
	}
}

// Timers implements actor.Link.
func (p *Port) Timers() *timers.Queue { return p.c.cfg.Timers }

// Retire implements actor.Link.
func (p *Port) Retire() { p.c.retire(p) }

func (c *Conn) retire(p *Port) {
	c.mu.Lock()
	p.retired = true
	p.charge(-int(p.openBytes))
	id := p.id.Load()
	if id != 0 {
		c.table.remove(id)
	}
	if p.local {
		c.local--
	} else {
		c.peer--
	}
	c.streams.Add(-1)
	last := c.noStreams()
	free := c.onFree
	c.mu.Unlock()
	c.out.remove(p, id == 0)
	if c.out.slots.n.Load() > 0 {
		c.out.forgetSlot(p)
	}
	if last {
		c.lastStreamGone()
	}
	if free != nil && p.local {
		free()
	}
}

// lastStreamGone returns all credit that is owed, and ends a connection that was
// only waiting for its streams.
func (c *Conn) lastStreamGone() {
	if c.pacing == frame.Granted && c.returned.Load() != c.advertised.Load() {
		c.out.requestControl(c, func(o *output) { o.credit = true })
	}
	c.keeper.quiet(c)
	c.mu.Lock()
	over := c.cause == nil && c.noStreams() && (c.goAway.final || c.goAway.received)
	c.mu.Unlock()
	if over {
		c.drained()
	}
}
