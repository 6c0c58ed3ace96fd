package conn

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/status"
)

// An Info is a connection's figures at one moment. When no stream is open and nothing is in
// transit, SendGranted exceeds SendUsed by SendWindow, or by less, but no less than the peer's
// RecvWindow, if that has become smaller; and what is queued, assembled or held is zero.
type Info struct {
	State     string
	Code      status.Code // that it has ended with
	Age, Idle time.Duration
	RTT       time.Duration // the shortest round trip; 0: not known
	Loop      int           // number of its event loop; -1: it has a goroutine that reads
	Streams   int           // open

	MessagesSent, MessagesReceived uint64
	BytesSent, BytesReceived       uint64

	// Bytes of credit since the connection's start, and the most by which a total that
	// is granted can exceed the one that is used. 0 where the protocol has no such credit.
	SendGranted, SendUsed, SendWindow int64
	RecvGranted, RecvUsed, RecvWindow int64

	Block    Block
	BlockFor time.Duration

	InFlight     int // bytes written that the peer has not read; 0 where it does not say
	Queued       int // bytes of credit accepted and not written
	Unread       int // bytes of credit that have arrived and were not taken
	Assembled    int // bytes reserved for messages in fragments
	ExtraWindows int // bytes of windows beyond the initial ones
	OpenBytes    int // bytes of opens, answers and ends that streams keep
	Memory       int // bytes that count against the memory budget, OpenBytes among them,
	Own          int // and those that the connection, its streams and their messages take beside what they carry
	Traces       int // calls of Trace under way
}

// A Block is what keeps output from being written, or a reader from reading.
type Block uint8

// What can block.
const (
	BlockNone   Block = iota
	BlockCredit       // the peer has granted the connection no more
	BlockQueue        // as much was accepted as Limits.OutQueue allows
	BlockSocket       // the socket takes no more, or the peer has not read what is written
	BlockReader       // the reader pauses until what it has read is taken
)

// A LoopInfo is an event loop at one moment.
type LoopInfo struct {
	Conns   int    // connections that it reads
	Wakeups uint64 // times that it had something to do for one of them: to read it, open it or close it
	// Lag is how long it took just now until a task that was given to the loop ran: how late
	// the loop is for a connection that can be read. A loop that does not run at all within
	// 100 ms has a Lag of that, and of more each time that one asks.
	Lag time.Duration
}

// Info returns the connection's figures. now is the time.
func (c *Conn) Info(now time.Time) Info {
	i, at := c.lockedInfo(c.since(now))
	i.Age, i.Idle = time.Duration(max(at, 0)), time.Duration(max(at-c.health.heardAt.Load(), 0))
	i.RTT, i.Loop = time.Duration(c.trip.shortest.Load()), int(c.loop.Load())
	i.BytesSent = c.out.wrote.Load()
	held, beside, own := c.MemoryUse()
	i.Memory, i.Own, i.Queued = held+beside+own, beside+own, int(c.queued.Load())
	if ts := c.traces.of.Load(); ts != nil {
		i.Traces = len(*ts)
	}
	i.Unread = int(max(int64(c.creditSeen.Load()-c.returned.Load()), 0))
	if c.pacing == frame.Granted {
		i.SendGranted, i.SendUsed, i.SendWindow = int64(c.granted.Load()), int64(c.sentCost.Load()), c.sendWindow.Load()
		i.RecvGranted, i.RecvWindow = int64(c.advertised.Load()), c.window.Load()
		i.RecvUsed = int64(c.creditSeen.Load())
	}
	if c.caps.ReadReports {
		i.InFlight = int(max(int64(i.BytesSent-c.peerRead.Load()), 0))
	}
	since := c.outputInfo(&i)
	if i.Block == BlockNone && c.pause.on.Load() {
		i.Block, since = BlockReader, c.pause.since.Load()
	}
	if i.Block != BlockNone {
		i.BlockFor = time.Duration(max(at-since, 0))
	}
	return i
}

// lockedInfo is what mu guards of Info, and at, or when the connection has ended.
func (c *Conn) lockedInfo(at int64) (Info, int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := Info{
		State: "open", Streams: c.localStreams + c.peerStreams,
		Assembled: c.assembled, ExtraWindows: c.extraWindows, OpenBytes: c.openBytes,
	}
	switch {
	case c.cause != nil:
		i.State, i.Code = "closed", c.cause.Code
		return i, c.endedAt
	case c.goAway.sent || c.goAway.received:
		i.State = "draining"
	}
	return i, at
}

// outputInfo is what the output's lock guards of Info, and since when Block is so.
func (c *Conn) outputInfo(i *Info) (since int64) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	i.MessagesSent, i.MessagesReceived, i.BytesReceived = o.messages, o.recvMessages, o.recvBytes
	i.Block, since = c.outputBlock()
	if o.data.head == nil && !c.health.waiting.Load() {
		i.Block = BlockNone // the streams that waited are gone
	}
	return since
}

// outputBlock returns what keeps data from being written, and since when. The lock of the
// output is held.
func (c *Conn) outputBlock() (Block, int64) {
	o := &c.out
	switch {
	case c.health.waiting.Load():
		return BlockSocket, c.health.progressAt.Load()
	case !o.stalled:
		return BlockNone, 0
	case int64(c.granted.Load()-c.sentCost.Load()) < int64(c.caps.LeastPiece):
		return BlockCredit, o.stalledAt
	}
	return BlockSocket, o.stalledAt
}

// RoomBlock is why the connection takes no more data from a stream that has credit.
func (c *Conn) RoomBlock() Block {
	switch q := c.queued.Load(); {
	case q >= int64(c.granted.Load()-c.sentCost.Load()):
		return BlockCredit
	case q >= int64(c.lim.OutQueue):
		return BlockQueue
	}
	return BlockNone
}

// TurnBlock is what keeps the accepted messages of p's stream from being written, and for
// how long.
func (p *Port) TurnBlock(now time.Time) (Block, time.Duration) {
	c := p.c
	c.out.mu.Lock()
	b, since := c.outputBlock()
	due := p.dueAt
	c.out.mu.Unlock()
	if b == BlockNone {
		return b, 0
	}
	at := c.since(now)
	return b, min(time.Duration(max(at-since, 0)), due.Until(stamp(at)))
}

// stamp is a time since the connection's start.
func stamp(at int64) timers.Stamp { return timers.StampAt(time.Duration(at)) }

// A span32 is a duration in 32 bits, to seven digits. 0 is not known.
type span32 struct{ bits atomic.Uint32 }

func (s *span32) set(ns int64)    { s.bits.Store(math.Float32bits(float32(max(ns, 1)))) }
func (s *span32) get() (ns int64) { return int64(math.Float32frombits(s.bits.Load())) }

// An age is when a stream began, in nanoseconds since the connection's start. Once the stream
// is over it is how old it has become, as a negative number.
type age struct{ v atomic.Int64 }

func (a *age) begin(now int64) { a.v.Store(now) }
func (a *age) end(now int64)   { a.v.Store(-max(a.at(now), 1)) }

// at is how old the stream is now, or has become.
func (a *age) at(now int64) int64 {
	v := a.v.Load()
	if v < 0 {
		return -v
	}
	return max(now-v, 0)
}

// Times returns how old p's stream is, or has become, and how long it took until it was
// accepted, 0 if it is not. now is the time.
func (p *Port) Times(now time.Time) (age, latency time.Duration) {
	return time.Duration(p.age.at(p.c.since(now))), time.Duration(p.latency.get())
}

// NoteAccepted notes that p's stream is accepted: by the peer, as the input at hand says, or
// by this side.
func (p *Port) NoteAccepted(byPeer bool) {
	at := p.c.health.heardAt.Load()
	if !byPeer {
		at = p.c.clock()
	}
	if p.latency.get() == 0 { // only one party accepts
		p.latency.set(p.age.at(at))
	}
}

// Each calls f with every stream until f returns false. It may miss one that is getting its
// number at this moment.
func (c *Conn) Each(f func(Stream) bool) {
	unnumbered := c.out.unnumbered()
	for _, p := range unnumbered {
		if !f(p.s) {
			return
		}
	}
	c.mu.Lock()
	ports := c.table.all()
	c.mu.Unlock()
	var was map[*Port]bool
	if len(unnumbered) > 0 { // hardly ever
		was = make(map[*Port]bool, len(unnumbered))
	}
	for _, p := range unnumbered {
		was[p] = true
	}
	for _, p := range ports {
		if !was[p] && !f(p.s) { // it may have got its number meanwhile
			return
		}
	}
}

// unnumbered returns the streams that wait for their number.
func (o *output) unnumbered() (ps []*Port) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for p := o.control.head; p != nil; p = p.nextControl {
		if p.follower {
			continue
		}
		for q := p; q != nil && q.local && q.id.Load() == 0; q = q.sibling {
			ps = append(ps, q)
		}
	}
	return ps
}

// Stream returns the stream with a number, or nil.
func (c *Conn) Stream(id uint64) Stream {
	if p := c.find(id); p != nil {
		return p.s
	}
	return nil
}
