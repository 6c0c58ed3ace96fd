package conn

import (
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
)

// What ends a connection in the course of time.
var (
	errSilent  = errors.New("the peer does not answer")
	errStalled = errors.New("the peer does not read")
	errPartial = errors.New("a frame takes too long to arrive")
	errIdle    = errors.New("no streams for too long")
)

// keeper watches a connection over time: it asks a silent peer, and gives up one
// that does not answer or read. One timer serves it; what happens on the
// connection only leaves stamps.
type keeper struct {
	timer    timers.Timer
	start    time.Time
	heardAt  atomic.Int64 // last input, since start
	wroteAt  atomic.Int64 // last progress of a write that had to wait, since start
	waiting  atomic.Bool  // a write waits for the socket
	quietAt  atomic.Int64 // when the last stream ended, since start; -1: there are some
	asked    atomic.Bool
	askedAt  atomic.Int64
	pinged   atomic.Uint64 // value of the ping that is out
	sent     atomic.Int64  // when
	rtt      atomic.Int64  // nanoseconds, smallest seen; 0: none
	markAt   atomic.Uint64 // bytes written when the mark was set; 0: none
	markTime atomic.Int64
	over     atomic.Bool
	dead     atomic.Bool  // the goodbye has had its time
	lingers  atomic.Int64 // how long that is
	writeErr atomic.Pointer[error]
	drain    atomic.Pointer[onPong]
	bidden   atomic.Bool  // the goodbye is written
	graces   int          // how often it was given more time; owned by the timer
	partAt   atomic.Int64 // when the frame began that is arriving, since start; 0: none
	part     int64        // where it begins; owned by the reader

	fullAt, fullRead int64 // since when 64 KiB and more are unread, and what was read then; owned by the timer
}

// onPong is what waits for the answer to one ping.
type onPong struct {
	v uint64
	f func()
}

func (k *keeper) begin(c *Conn) {
	c.cfg.Timers.Set(&k.timer, c, k.start.Add(c.nextLook(0)))
	switch { // closed already: then this took the place of what that had set
	case k.over.Load():
		k.stop(c)
	case k.dead.Load():
		k.linger(c, time.Duration(k.lingers.Load()))
	}
}

func (k *keeper) since(t time.Time) int64 { return int64(t.Sub(k.start)) }

func (k *keeper) heard(now time.Time) {
	k.heardAt.Store(k.since(now))
	k.asked.Store(false)
}

func (k *keeper) blocked(c *Conn) {
	if c.pacing == frame.Unpaced {
		return // not to read is how such a peer slows us down
	}
	if !k.waiting.Swap(true) {
		k.wroteAt.Store(k.since(time.Now()))
	}
}

func (k *keeper) wrote() {
	if k.waiting.Load() {
		k.waiting.Store(false)
	}
}

// received looks, after each input, whether a frame has begun that is not
// complete. Only the start of each is noted: a frame that trickles in gets no
// more time by that.
func (k *keeper) received(c *Conn) {
	at, begun := c.sess.Begun()
	switch {
	case !begun:
		if k.partAt.Load() != 0 {
			k.partAt.Store(0)
		}
	case at != k.part || k.partAt.Load() == 0:
		k.part = at
		k.partAt.Store(max(k.since(c.in.now), 1))
	}
}

// unreadFor is for how long the peer has had more unread than it may without
// telling us of any progress. A peer that reads tells us every 64 KiB.
func (c *Conn) unreadFor(t int64) int64 {
	k := &c.keeper
	read := int64(c.peerRead.Load())
	if !c.caps.ReadReports || int64(c.out.wrote.Load())-read < reportEvery {
		k.fullAt = 0
		return 0
	}
	if k.fullAt == 0 || read != k.fullRead {
		k.fullAt, k.fullRead = t, read
	}
	return t - k.fullAt
}

// quiet notes that there are no streams.
func (k *keeper) quiet(*Conn) { k.quietAt.Store(k.since(time.Now())) }

// mostGraces is how often a goodbye that nobody has begun to write gets as much time
// again.
const mostGraces = 9

// unbidden tells whether who is to write the goodbye has not got to it: then it is this
// machine that is busy, and not the peer. Where nobody says when a write waits, it may
// always be the peer.
func (c *Conn) unbidden() bool {
	k := &c.keeper
	return c.pacing != frame.Unpaced && !k.waiting.Load() && !k.bidden.Load() && c.out.isDying()
}

// linger gives a goodbye d to be written.
func (k *keeper) linger(c *Conn, d time.Duration) {
	k.lingers.Store(int64(d))
	k.dead.Store(true)
	c.cfg.Timers.Set(&k.timer, c, time.Now().Add(d))
}

// writeFailed gives the reader a moment to find out why: the peer may have said
// goodbye before it closed. Then the write's own error will do.
func (k *keeper) writeFailed(c *Conn, err error) {
	k.writeErr.Store(&err)
	c.cfg.Timers.Set(&k.timer, c, time.Now().Add(lingerTime))
}

func (k *keeper) stop(c *Conn) {
	k.over.Store(true)
	c.cfg.Timers.Stop(&k.timer)
}

// Expire implements timers.Owner: it looks at the stamps. Others' timers wait until it
// returns, so where it finds the connection at its end there is no word more.
func (c *Conn) Expire(_ *timers.Timer, now time.Time) {
	k := &c.keeper
	if k.over.Load() {
		return
	}
	if err := k.writeErr.Load(); err != nil {
		c.tr.sever()
		c.lost("write", *err)
		return
	}
	switch {
	case k.dead.Load() && c.Err() == nil: // the peer has had its time to end it
		c.Close()
		return
	case k.dead.Load() && k.graces < mostGraces && c.unbidden():
		k.graces++
		c.cfg.Timers.Set(&k.timer, c, time.Now().Add(lingerTime))
		return
	case k.dead.Load():
		c.tr.sever()
		c.finish()
		return
	}
	if c.pause.on.Load() && c.brokenWhilePaused() {
		c.tr.sever()
		c.lost("read", syscall.ECONNRESET)
		return
	}
	t := k.since(now)
	if op, code, err := c.look(t); err != nil {
		c.Fail(op, code, err)
		return
	}
	c.evictStalled(now)
	c.cfg.Timers.Set(&k.timer, c, now.Add(c.nextLook(t)))
	switch { // set meanwhile, and for sooner
	case k.dead.Load():
		c.cfg.Timers.Set(&k.timer, c, now.Add(time.Duration(k.lingers.Load())))
	case k.writeErr.Load() != nil:
		c.cfg.Timers.Set(&k.timer, c, now.Add(lingerTime))
	}
}

// nextLook is when something is due next, should nothing happen until then.
func (c *Conn) nextLook(t int64) time.Duration {
	k, l := &c.keeper, c.lim
	due := t + int64(l.WriteStall/4) // a write may begin to wait at any time
	if k.partAt.Load() != 0 {
		due = min(due, k.partAt.Load()+int64(l.ReadStall))
	} else {
		due = min(due, t+int64(l.ReadStall))
	}
	switch {
	case !c.mayPing():
	case k.asked.Load():
		due = min(due, k.askedAt.Load()+int64(l.KeepaliveTimeout))
	default:
		due = min(due, k.heardAt.Load()+int64(c.keepalive()))
	}
	if !c.cfg.Client && c.hasNoStreams() {
		due = min(due, k.quietAt.Load()+int64(l.IdleConn))
	}
	return max(time.Duration(due-t), time.Millisecond)
}

// mayPing tells whether a silent peer may be asked now.
func (c *Conn) mayPing() bool { return c.caps.Ping && (c.caps.PingIdle || !c.hasNoStreams()) }

// defaultKeepalive is the interval where neither the program nor the protocol has one.
const defaultKeepalive = 30 * time.Second

// keepalive is after how long a silent peer is asked.
func (c *Conn) keepalive() time.Duration {
	switch {
	case c.lim.KeepaliveInterval > 0:
		return c.lim.KeepaliveInterval
	case c.caps.Keepalive > 0:
		return c.caps.Keepalive
	}
	return defaultKeepalive
}

func (c *Conn) look(t int64) (string, frame.Code, error) {
	k, l := &c.keeper, c.lim
	if k.waiting.Load() && t-k.wroteAt.Load() >= int64(l.WriteStall) {
		return "write", frame.CodeWriteStall, errStalled
	}
	if at := k.partAt.Load(); at != 0 && t-at >= int64(l.ReadStall) {
		return "read", frame.CodeDeadlineExceeded, errPartial
	}
	if c.unreadFor(t) >= int64(l.WriteStall) {
		return "write", frame.CodeWriteStall, errStalled
	}
	bare := c.hasNoStreams()
	if q := k.quietAt.Load(); bare && !c.cfg.Client && t-q >= int64(l.IdleConn) {
		return "close", frame.CodeOK, errIdle
	}
	silent := t - k.heardAt.Load()
	switch {
	case silent < int64(c.keepalive()), !c.mayPing():
	case !k.asked.Swap(true):
		k.askedAt.Store(t)
		c.ping(uint64(t))
	case t-k.askedAt.Load() >= int64(l.KeepaliveTimeout):
		return "keepalive", frame.CodeKeepalive, errSilent
	}
	return "", 0, nil
}

// ping asks the peer for a pong.
func (c *Conn) ping(v uint64) {
	c.keeper.pinged.Store(v)
	c.keeper.sent.Store(c.keeper.since(time.Now()))
	c.out.requestControl(c, func(o *output) { o.pings = append(o.pings, v) })
}

// pong takes the answer; false if nobody has asked.
func (k *keeper) pong(c *Conn, v uint64) bool {
	asked := v != 0 && k.pinged.CompareAndSwap(v, 0)
	if d := k.drain.Load(); d != nil && d.v == v && k.drain.CompareAndSwap(d, nil) {
		d.f()
		return true
	}
	if !asked {
		return false
	}
	d := k.since(c.in.now) - k.sent.Load()
	if old := k.rtt.Load(); d > 0 && (old == 0 || d < old) {
		k.rtt.Store(d)
	}
	return true
}

// Drain ends the connection in order, in two steps: the peer is told to open no
// more streams; when that has had a round trip, what comes later is refused.
// Streams that are open go on; the connection ends with the last of them.
func (c *Conn) Drain() {
	c.mu.Lock()
	if c.goAway.sent || c.cause != nil {
		c.mu.Unlock()
		return
	}
	c.goAway.sent = true
	c.mu.Unlock()
	if !c.caps.Ping { // nobody can say when the first step was read
		c.drainSecond()
		return
	}
	v := uint64(time.Now().UnixNano())
	c.keeper.drain.Store(&onPong{v, c.drainSecond})
	c.keeper.pinged.Store(v)
	c.keeper.sent.Store(c.keeper.since(time.Now()))
	c.out.requestControl(c, func(o *output) {
		if !o.dying { // it may have ended meanwhile, and that is the last word
			o.goAway = &frame.Frame{Kind: frame.GoAway, Value: c.maxStream}
			o.pings = append(o.pings, v)
		}
	})
}

func (c *Conn) drainSecond() {
	c.mu.Lock()
	c.goAway.final = true
	c.goAway.lastStream = min(c.goAway.lastStream, c.lastPeer)
	limit := c.goAway.lastStream
	idle := c.noStreams()
	c.mu.Unlock()
	c.out.requestControl(c, func(o *output) {
		if !o.dying {
			o.goAway = &frame.Frame{Kind: frame.GoAway, Value: limit}
		}
	})
	if idle {
		c.drained()
	}
}

// drained ends a connection that takes no streams and has none left. Where the
// peer can't be told so, it is given a moment: opens that are on their way are
// still refused, and have not met a connection that is gone.
func (c *Conn) drained() {
	c.mu.Lock()
	untold := c.goAway.sent && !c.caps.Ping
	c.mu.Unlock()
	if untold {
		c.keeper.linger(c, lingerTime)
		return
	}
	c.Fail("close", frame.CodeOK, ErrGoingAway)
}

// shortPath is the round trip up to which the first bound is enough: 256 KiB a
// millisecond are 2 Gbit/s. The handshake's round trip, the first that is known,
// includes the time that goroutines take to start, so that a shorter one says
// little.
const shortPath = int64(time.Millisecond)

// maxInFlight is what the bound on the bytes in flight may grow to.
const maxInFlight = 64 << 20

// mark notes when the output had reached total, to see how long the peer takes
// to read that far. One mark is out at a time.
func (k *keeper) mark(total uint64) {
	if k.markAt.Load() == 0 {
		k.markTime.Store(k.since(time.Now()))
		k.markAt.Store(total)
	}
}

// read doubles the bytes in flight if they were all in use and the peer read
// them about as soon as the path lets it: then the path holds more. On a short
// path they wait in the peer's socket instead, and more would only wait longer.
func (k *keeper) read(c *Conn, total uint64) {
	at := k.markAt.Load()
	if at == 0 || total < at {
		return
	}
	took, rtt := k.since(c.in.now)-k.markTime.Load(), k.rtt.Load()
	k.markAt.Store(0)
	bound := c.out.inFlight.Load()
	if rtt > shortPath && took < rtt+rtt/2 && c.out.isStalled() && bound < maxInFlight {
		c.out.inFlight.Store(2 * bound)
	}
}
