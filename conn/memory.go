package conn

import (
	"errors"
	"time"

	"github.com/sluicerpc/sluice/status"
)

// stallTime is how long a stream may hold unread data that nobody takes before it can
// be evicted to make room for others.
const stallTime = 30 * time.Second

// chargeEvicts is the smallest charge, in bytes, for which a stream is evicted: every
// stream is charged with its method.
const chargeEvicts = 1 << 10

var errNoMemory = errors.New("the server is out of memory for what is incomplete")

// MemoryUse is how many bytes the connection holds: what is incomplete, unread or not
// yet written, and what its streams are charged with.
func (c *Conn) MemoryUse() int {
	unread := int64(c.creditSeen.Load()) - int64(c.returned.Load())
	c.mu.Lock()
	defer c.mu.Unlock()
	answers := int64(c.out.answers.Load()) * answerSize
	return int(max(unread, 0)+max(c.queued.Load(), 0)+c.buffered.Load()+answers) + c.assembled + c.openBytes
}

// memoryUse is how many bytes the end of the stream would free.
func (p *Port) memoryUse() int {
	n, _ := p.s.ReadProgress()
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.openBytes >= chargeEvicts {
		n += int(p.openBytes)
	}
	return n
}

// EvictLargest frees memory: it resets the stream that holds the most, or ends the
// connection if its incomplete input is more than that. It returns false if there is
// neither.
func (c *Conn) EvictLargest() bool {
	c.mu.Lock()
	ports := c.table.all()
	c.mu.Unlock()
	var largest *Port
	most := 0
	for _, p := range ports {
		if n := p.memoryUse(); n > most {
			largest, most = p, n
		}
	}
	switch {
	case int(c.buffered.Load()) > most:
		c.buffered.Store(0)
		c.Fail("read", status.ResourceExhausted, errNoMemory)
	case largest != nil:
		largest.s.Evict("the server is out of memory for what streams hold")
		c.mu.Lock()
		largest.charge(-int(largest.openBytes)) // not counted while the peer is told, which may take a while
		c.mu.Unlock()
	default:
		return false
	}
	return true
}

// evictStalled resets the stream that holds the most and was not read for stallTime, if
// windows have used up what the connection can give: the last resort, when windows grow
// no more. Where nobody has read for 49 days, it may come a minute and a half late: the stamp
// starts again from 0.
func (c *Conn) evictStalled(now time.Time) {
	c.mu.Lock()
	if c.spareWindow() >= c.window/32 {
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

// evictUnread resets a stream where the connection holds too much that is unread: one
// that holds more than half of what the largest does, and rather one that nobody has
// read since the last time. It may be the stream of the data at hand. The reader calls
// it.
func (c *Conn) evictUnread() {
	c.mu.Lock()
	ports := c.table.all()
	c.mu.Unlock()
	type candidate struct {
		p       *Port
		unread  int
		stalled bool
	}
	var cs []candidate
	most := 0
	for _, p := range ports {
		unread, taken := p.s.ReadProgress()
		if unread > 0 {
			cs = append(cs, candidate{p, unread, uint32(taken) == p.takenAtRead})
		}
		most, p.takenAtRead = max(most, unread), uint32(taken)
	}
	var worst candidate
	for _, x := range cs {
		if x.unread > most/2 && (x.stalled && !worst.stalled || x.stalled == worst.stalled && x.unread > worst.unread) {
			worst = x
		}
	}
	if worst.p != nil {
		worst.p.s.Evict("the connection holds too much that is unread")
	}
}
