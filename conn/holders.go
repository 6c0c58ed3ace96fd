package conn

import (
	"errors"
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// stallTime is how long a stream may sit on data that nobody takes before it can
// be reset to make room for others.
const stallTime = 30 * time.Second

var errNoMemory = errors.New("the server is out of memory for what has not come completely")

// evictStalled resets the stream that holds the most without having been read
// for long, where windows have used up what the connection can give: the last
// resort, after grants have shrunk.
func (c *Conn) evictStalled(now time.Time) {
	c.mu.Lock()
	if c.spareWindow() >= c.window/32 {
		c.mu.Unlock()
		return
	}
	ports := c.table.all()
	c.mu.Unlock()
	var worst *Port
	at, most := c.keeper.since(now), c.lim.InitialCredit()
	for _, p := range ports {
		held, taken := p.s.ReadProgress()
		if taken != p.takenAtTimer || p.takenSince == 0 {
			p.takenAtTimer, p.takenSince = taken, max(at, 1)
			continue
		}
		if held > most && at-p.takenSince >= int64(stallTime) {
			worst, most = p, held
		}
	}
	if worst != nil {
		worst.s.Evict("unread data for too long while others need the memory")
	}
}

// Held is how many bytes wait in this connection to be complete, to be taken by the
// application, or to be written, and what its streams keep of what opened, answered
// and ended them.
func (c *Conn) MemoryUse() int {
	unread := int64(c.creditSeen.Load()) - int64(c.returned.Load())
	c.mu.Lock()
	defer c.mu.Unlock()
	return int(max(unread, 0)+max(c.queued.Load(), 0)+c.buffered.Load()) + c.assembled + c.openBytes
}

// EvictLargest resets the stream that holds the most, for want of memory, or ends
// the connection if what has not come completely is more; it returns false if none
// holds any.
func (c *Conn) EvictLargest() bool {
	c.mu.Lock()
	ports := c.table.all()
	c.mu.Unlock()
	var worst *Port
	most := 0
	for _, p := range ports {
		if held := p.memoryUse(); held > most {
			worst, most = p, held
		}
	}
	switch {
	case int(c.buffered.Load()) > most:
		c.buffered.Store(0)
		c.Fail("read", frame.CodeResourceExhausted, errNoMemory)
	case worst != nil:
		worst.evict("the server is out of memory for what streams hold")
	default:
		return false
	}
	return true
}

// evictUnread resets a stream where the connection holds too much that is unread:
// of those that hold about as much as the largest one that nobody reads, if there
// is one. The stream that the last of it was for may be as well as any. It is called
// by the reader.
func (c *Conn) evictUnread() {
	c.mu.Lock()
	ports := c.table.all()
	c.mu.Unlock()
	type holder struct {
		p       *Port
		held    int
		stalled bool
	}
	var hs []holder
	most := 0
	for _, p := range ports {
		held, taken := p.s.ReadProgress()
		if held > 0 {
			hs = append(hs, holder{p, held, uint32(taken) == p.takenAtRead})
		}
		most, p.takenAtRead = max(most, held), uint32(taken)
	}
	var worst holder
	for _, h := range hs {
		if h.held > most/2 && (h.stalled && !worst.stalled || h.stalled == worst.stalled && h.held > worst.held) {
			worst = h
		}
	}
	if worst.p != nil {
		worst.p.s.Evict("the connection holds too much that is unread")
	}
}
