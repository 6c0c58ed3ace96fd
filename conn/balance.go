package conn

import "github.com/sluicerpc/sluice/frame"

// A Balance is what a connection owes and is owed at one moment. When no stream
// is open and nothing is on its way, Credit equals Window and the rest is zero:
// the tests' last check, and a first look at a program that stands still.
type Balance struct {
	Streams      int // open
	Credit       int // bytes that we may send; 0 where the protocol has no such credit
	Window       int // bytes that the peer lets us send at most; likewise
	Queued       int // bytes of credit accepted and not written
	Assembled    int // bytes reserved for messages in fragments
	ExtraWindows int // bytes of windows beyond the initial ones
	OpenBytes    int // bytes that opens, answers and ends brought, and that streams keep
	Memory       int // bytes that count against the memory budget, Brought among them
}

// Balance returns the connection's.
func (c *Conn) Balance() Balance {
	held := c.MemoryUse()
	c.mu.Lock()
	defer c.mu.Unlock()
	b := Balance{
		Memory:       held,
		Streams:      c.local + c.peer,
		Queued:       int(c.queued.Load()),
		Assembled:    c.assembled,
		ExtraWindows: c.extraWindows,
		OpenBytes:    c.openBytes,
	}
	if c.pacing == frame.Granted {
		b.Credit = int(int64(c.granted.Load() - c.sentCost.Load()))
		b.Window = int(c.cfg.Peer.ConnCredit)
	}
	return b
}
