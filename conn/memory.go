package conn

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// stallTime is how long a stream may hold unread data that nobody takes before it can
// be evicted to make room for others.
const stallTime = 30 * time.Second

// leastEvicted is what a stream holds at least that is evicted, in bytes: that of others
// would free next to nothing.
const leastEvicted = 1 << 10

// mostEvicted is how many streams are evicted at a time. Each has a handler to wake, and others
// wait for all of those.
const mostEvicted = 32

var errNoMemory = errors.New("the server is out of memory for what is incomplete")

// What connections and streams take of memory themselves, in bytes: measured, and compared
// with what there is by TestPrices.
const (
	ConnSize   = 6 << 10  // a connection that an event loop reads
	ReaderSize = 4 << 10  // what one has more that is read by a goroutine: its stack
	BufferSize = 32 << 10 // what that reads into, if it is neither a socket nor TLS
	TLSSize    = 26 << 10 // what one has more with TLS, with what it is read into
	StreamSize = 1 << 10  // an open stream, without its handler
	// HandlerSize is a handler that waits, with a stack of 4 KiB, beside its stream.
	HandlerSize = 5 << 10
)

// MemoryUse is how many bytes the connection holds: what is incomplete, unread or not
// yet written, what its streams are charged with; what messages take beside that; and what it
// and its streams take themselves.
func (c *Conn) MemoryUse() (held, beside, own int) {
	unread := int64(c.creditSeen.Load()) - int64(c.returned.Load())
	c.mu.Lock()
	defer c.mu.Unlock()
	answers := int64(c.out.answers.Load()) * answerSize
	held = int(max(unread, 0)+max(c.queued.Load(), 0)+c.buffered.Load()+c.unwritten.Load()+answers) + c.assembled + c.openBytes
	return held, int(c.beside.Load()), c.size + int(c.streams.Load())*StreamSize
}

// Size is how many bytes the connection takes itself, without streams.
func (c *Conn) Size() int { return c.size }

// memoryUse is how many bytes the end of the stream would free: none of one that was evicted,
// which may wait for its peer to read.
func (p *Port) memoryUse() int {
	n := p.s.Held()
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.evicted {
		return 0
	}
	return n + int(p.openBytes)
}

// Compact has the streams copy messages out of memory that little else is in. It returns how many
// streams there are.
func (c *Conn) Compact(a *pool.Arena) int {
	c.mu.Lock()
	ports := c.table.all()
	c.mu.Unlock()
	for _, p := range ports {
		p.s.Compact(a)
	}
	return len(ports)
}

// Evict frees about n bytes of memory: it resets the streams that hold the most, or ends the
// connection if what is incomplete, or what its socket does not take, is more than the
// largest of them. Streams that hold little stay. Evict returns how many streams it has reset
// or, if it has ended the connection, 1.
func (c *Conn) Evict(n int) (evicted int) {
	c.mu.Lock()
	ports := c.table.all()
	c.mu.Unlock()
	uses := make([]capUse, 0, len(ports))
	for _, p := range ports {
		if use := p.memoryUse(); use >= leastEvicted {
			uses = append(uses, capUse{p: p, bytes: use})
		}
	}
	slices.SortFunc(uses, func(x, y capUse) int { return y.bytes - x.bytes })
	most := 0
	if len(uses) > 0 {
		most = uses[0].bytes
	}
	switch rest := int(max(c.buffered.Load(), c.unwritten.Load())); {
	case rest < leastEvicted, rest < most:
	case c.Err() != nil:
		return 0
	default:
		c.buffered.Store(0)
		c.Fail("read", status.ResourceExhausted, errNoMemory)
		return 1
	}
	for _, u := range uses {
		if n <= 0 || evicted == mostEvicted {
			break
		}
		n -= u.bytes
		evicted++
		u.p.s.Evict("the server is out of memory for what streams hold")
		c.mu.Lock()
		c.markEvicted(u.p)
		u.p.charge(-int(u.p.openBytes)) // not counted while the peer is told, which may take a while
		c.mu.Unlock()
	}
	return evicted
}

// EvictNewest resets the n streams that the peer has opened last, and returns how many there
// were.
func (c *Conn) EvictNewest(n int) int {
	c.mu.Lock()
	ports := slices.DeleteFunc(c.table.all(), func(p *Port) bool { return p.local || p.evicted })
	slices.SortFunc(ports, func(x, y *Port) int { return cmp.Compare(y.id.Load(), x.id.Load()) })
	ports = ports[:min(n, len(ports))]
	for _, p := range ports {
		c.markEvicted(p)
	}
	c.mu.Unlock()
	for _, p := range ports {
		p.s.Evict("the server has too many streams, and this connection has the most")
	}
	return len(ports)
}

// markEvicted notes that p is evicted, which may have to wait for its peer to read. The lock is
// held.
func (c *Conn) markEvicted(p *Port) {
	if !p.evicted && !p.retired {
		p.evicted = true
		c.evictedStreams++
	}
}

// KeptStreams is how many streams are open and were not evicted.
func (c *Conn) KeptStreams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.localStreams + c.peerStreams - c.evictedStreams
}

// evictStalled resets the stream that holds the most and was not read for stallTime, if
// windows have used up what the connection can give: the last resort, when windows grow
// no more. Where nobody has read for 49 days, it may come a minute and a half late: the stamp
// starts again from 0.
func (c *Conn) evictStalled(now time.Time) {
	c.mu.Lock()
	if c.spareWindow() >= c.windowLimit()/32 {
		c.mu.Unlock()
		return
	}
	ports := c.table.all()
	c.mu.Unlock()
	var largest *Port
	at, most := stamp(c.since(now)), InitialCredit(c.lim)
	for _, p := range ports {
		unread, taken := p.s.ReadProgress()
		if uint32(taken) != p.takenAtTimer || p.takenSince == 0 {
			p.takenAtTimer, p.takenSince = uint32(taken), at
			continue
		}
		if unread > most && p.takenSince.Until(at) >= stallTime {
			largest, most = p, unread
		}
	}
	if largest != nil {
		largest.s.Evict("unread data for too long while others need the memory")
	}
}

// evictUnread resets streams where the connection holds too much that is unread: those that
// hold much and that nobody has read for long, and who is read at last. It may be the stream
// of the data at hand. The reader calls it when the peer has used more credit than in.limit,
// and it sets that anew: credit counts more than the cap does.
func (c *Conn) evictUnread() {
	c.mu.Lock()
	ports := c.table.all()
	c.mu.Unlock()
	uses := make([]capUse, 0, len(ports))
	sum := 0
	for _, p := range ports {
		if n, unreadFor := p.s.CapUse(c.in.now); n > 0 {
			// For more than a second is not worse than for a second, or it would be those
			// that hold little.
			uses = append(uses, capUse{p, n, n * int(1+min(unreadFor, time.Second).Milliseconds())})
			sum += n
		}
	}
	slices.SortFunc(uses, func(x, y capUse) int { return y.weight - x.weight })
	for _, x := range uses {
		if sum <= c.MaxUnread() {
			break
		}
		sum -= x.bytes
		x.p.s.Evict("the connection holds too much that is unread")
	}
	c.in.limit = c.in.used + uint64(max(c.MaxUnread()-sum, checkUnreadEvery, checkUnreadEach*len(ports)))
}

// capUse is what a stream takes of the cap on what a connection holds unread, and how much
// it deserves to be reset for that.
type capUse struct {
	p             *Port
	bytes, weight int
}

// checkUnreadEvery is after how much credit the cap is looked at again where the connection
// is close to it, in bytes, or checkUnreadEach for each of its streams if that is more: a look
// asks each of them.
const (
	checkUnreadEvery = 64 << 10
	checkUnreadEach  = 32
)
