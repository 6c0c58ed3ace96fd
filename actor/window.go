package actor

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// window is the receiver's side of a stream's credit. All totals are absolute
// and count from the stream's start.
type window struct {
	recvd    uint64 // arrived
	taken    uint64 // handed to the application, or let go
	payload  uint64 // of it, without the messages' overhead, where that is reported
	granted  uint64 // told to the peer: what it may send, or the payload taken
	size     int    // how far granted runs ahead of taken
	most     int    // what size may grow to
	gathered int32  // of taken, what the connection was not told of; settled: what is unread
	settled  bool   // the stream is over, and all credit went back
}

func (w *window) init(c *Config) {
	w.size = max(c.Window, c.Caps.MinWindow())
	w.most = max(c.MaxWindow, w.size)
	if c.NoReceive && !c.Caps.FixedWindow || !c.granted() {
		w.size, w.most = 0, 0
	}
	w.granted = uint64(w.size)
}

// arrive counts bytes in; false if the peer had no credit for them.
func (w *window) arrive(cost int) bool {
	w.recvd += uint64(cost)
	return w.recvd <= w.granted
}

// due tells whether the peer must be told of new credit: at half the window.
func (w *window) due() bool {
	return w.size > 0 && int64(w.taken)+int64(w.size)-int64(w.granted) >= int64(w.size+1)/2
}

// renew grants the peer a window again, if it is due.
func (s *Stream) renew() {
	w := &s.win
	if !w.due() {
		return
	}
	if s.st.recv == recvOpen {
		s.grow()
	}
	w.granted = w.taken + uint64(w.size)
	s.ask(wantCredit)
}

// renewUnread is renew where we read no more and can't say so: the peer has to get to its
// end, and what comes before that is dropped.
func (s *Stream) renewUnread() {
	if s.st.recv == recvStopped && !s.cfg.Caps.Stop {
		s.renew()
	}
}

// grow widens the window of a stream that is read.
func (s *Stream) grow() {
	if w := &s.win; w.size < w.most {
		w.size = s.link.Grow(w.size, w.most)
	}
}

// credit is the sender's side. Totals are absolute; admitted runs at most one
// message ahead of granted.
type credit struct {
	granted  uint64 // by the peer
	admitted uint64 // accepted from the application
	sent     uint64 // written
	eligible int    // accepted, not written, and covered by granted
}

func (c *credit) init(cfg *Config) {
	c.granted = cfg.SendCredit
	if !cfg.granted() {
		c.granted = ownWindow(cfg)
		return
	}
	c.relimit(cfg)
}

// relimit keeps what is unread at the peer within our own limit. The peer was
// told of it and counts from there; where it can't be told there is none, or it would
// not know that we wait.
func (c *credit) relimit(cfg *Config) {
	switch {
	case !cfg.granted():
		c.granted = max(ownWindow(cfg), c.admitted)
	case cfg.SendLimit > 0 && !cfg.Caps.FixedWindow:
		c.granted = min(c.granted, uint64(max(cfg.SendLimit, cfg.Caps.MinWindow())))
	}
}

// left is the credit that the application can use.
func (c *credit) left() int64 { return int64(c.granted) - int64(c.admitted) }

// grant takes a total from the peer; a lower one is stale.
func (c *credit) grant(total uint64) { c.granted = max(c.granted, total) }

// drop forgets what was admitted and not sent.
func (c *credit) drop() { c.admitted = c.sent }

// wholeCounts is how much of a stream's messages counts as ready to be written,
// at most, where a message is written whole: one of many megabytes must not take
// all the room that the connection's streams share.
const wholeCounts = 256 << 10

// update recalculates eligible and returns its change. With whole a message is
// written as soon as it is accepted, though it is longer than the credit.
func (c *credit) update(whole bool) int {
	e := min(int(int64(c.admitted)-int64(c.sent)), wholeCounts)
	if !whole {
		e = max(int(int64(min(c.admitted, c.granted))-int64(c.sent)), 0)
	}
	return c.set(e)
}

func (c *credit) set(eligible int) int {
	d := eligible - c.eligible
	c.eligible = eligible
	return d
}

// An assembly is a message that is arriving in fragments. While no other such
// message waits in the mailbox, its fragments return their credit as they
// arrive, against the connection's budget: without that, a message longer than
// the window could never complete (models/).
type assembly struct {
	m       pool.Message // being filled; grown as the bytes arrive
	total   int
	got     int
	cost    int          // of it that has not been returned
	whole   int          // cost of all that has arrived
	paying  bool         // fragments return their credit as they arrive
	active  bool         // a message is arriving
	reserve int          // taken of the budget
	paid    pool.Message // complete in the mailbox, its credit returned
	owed    int          // what that would be
}

// reserveFirst is how much memory a message's announced length is believed for
// at once.
const reserveFirst = 1 << 20

// reserveUnpaced is that where the receiver grants no credit and can't tell its peer
// how much it has room for: there are many such streams before one is not read.
const reserveUnpaced = 64 << 10

func (s *Stream) believed() int {
	if s.cfg.Caps.Pacing == frame.Unpaced {
		return reserveUnpaced
	}
	return reserveFirst
}

// growFactor is by how much the memory of a message grows whose bytes have
// arrived so far. The copy that goes with it holds the event loop up, so it is
// better done once: a message of 16 MiB is copied when it is 1 MiB.
const growFactor = 16

// unknownGrowth is growFactor where nobody said how long the message will be: less,
// for what is too much stays with the message. 128 KiB become 1 MiB.
const unknownGrowth = 8
