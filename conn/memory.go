package conn

import (
	"errors"
	"slices"
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
	c.in.limit = c.in.used + uint64(max(c.MaxUnread()-sum, checkUnreadEvery))
}

// capUse is what a stream takes of the cap on what a connection holds unread, and how much
// it deserves to be reset for that.
type capUse struct {
	p             *Port
	bytes, weight int
}

// checkUnreadEvery is after how much credit the cap is looked at again where the connection
// is close to it, in bytes.
const checkUnreadEvery = 64 << 10
