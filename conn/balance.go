package conn

import "github.com/sluicerpc/sluice/frame"

// A Balance is what a connection holds and may send at one moment. When no stream is
// open and nothing is in transit, Credit equals Window and the rest is zero: the last
// check of tests, and the first look at a program that stands still.
type Balance struct {
	Streams      int // open
	Credit       int // bytes that we may send; 0 where the protocol has no such credit
	Window       int // the most that Credit can be; likewise
	Queued       int // bytes of credit accepted and not written
	Assembled    int // bytes reserved for messages in fragments
	ExtraWindows int // bytes of windows beyond the initial ones
	OpenBytes    int // bytes of opens, answers and ends that streams keep
	Memory       int // bytes that count against the memory budget, OpenBytes among them
}

// Balance returns the connection's balance.
func (c *Conn) Balance() Balance {
	memory := c.MemoryUse()
	c.mu.Lock()
	defer c.mu.Unlock()
	b := Balance{
		Memory:       memory,
		Streams:      c.localStreams + c.peerStreams,
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
