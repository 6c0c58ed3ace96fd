package actor

import (
	"math"

	"github.com/sluicerpc/sluice/frame"
)

// A window is what the peer may send on a stream. All totals count bytes of credit
// from the stream's start.
type window struct {
	recvd    uint64 // arrived
	taken    uint64 // given to the application, or dropped
	payload  uint64 // of taken, the messages' bytes alone; where the receiver reports them
	granted  uint64 // told to the peer: how much it may send, or the payload taken
	size     int32  // by how much granted runs ahead of taken
	most     int32  // limit of size
	gathered int32  // of taken, what the connection does not know yet; once returned is set, what is unread
	early    uint16 // how much more the peer may send that does not know our settings yet
	returned bool   // the stream is over, and the connection has all its credit back
	near     bool   // the peer is so near that half a window at a time keeps it busy
}

// begin makes the window what the peer may send on a new stream.
func (w *window) begin(c *Config, first int) {
	if c.granted() && (!c.NoReceive || c.Caps.FixedWindow) {
		w.set(c, first)
	}
	w.granted = uint64(w.size)
}

// set makes the window first bytes long, and what c says it may grow to. What is more than 2 GiB
// is cut: the window of a connection is at most 1 GiB.
func (w *window) set(c *Config, first int) {
	size := max(first, c.Caps.MinWindow())
	w.size = int32(min(size, math.MaxInt32))
	w.most = int32(min(max(c.MaxWindow, size), math.MaxInt32))
}

// arrive counts bytes in. It reports false if the peer had no credit for them.
func (w *window) arrive(cost int) bool {
	w.recvd += uint64(cost)
	return w.recvd <= w.granted+uint64(w.early)
}

// due reports whether so much of the window, and of what may come ahead of it, is owed that it
// is time to grant more. The first grant comes early: with it the window grows.
func (w *window) due(ahead int) bool {
	owed := int64(w.taken) + int64(w.size) + int64(ahead) - int64(w.granted)
	return w.size > 0 && (owed >= int64(w.leastGrant()) || owed >= firstGrant && w.granted < uint64(w.size)+firstGrant)
}

// leastGrant is how many bytes are owed when a grant is due. A grant costs as much as some messages.
func (w *window) leastGrant() int {
	if w.near {
		return (int(w.size) + 1) / 2
	}
	return frame.LeastGrant(int(w.size))
}

// resize asks the connection for the window that its reader can use.
func (w *window) resize(l Link) {
	size, near := l.Resize(int(w.size), int(w.most), w.taken)
	w.size, w.near = int32(size), near
}

// firstGrant is how many bytes are owed, unless LeastGrant is less, when a stream is granted
// something for the first time after its open or acceptance.
const firstGrant = 4 << 10

// A credit is what we may send on a stream, in bytes of credit from the stream's
// start. admitted runs at most one message ahead of granted.
type credit struct {
	granted  int64  // by the peer; below 0 where it has taken back more than it gave
	admitted uint64 // accepted from the application
	sent     uint64 // written
	eligible int    // accepted, not written, and covered by granted
}

func (c *credit) init(cfg *Config) {
	c.granted = int64(cfg.SendCredit)
	if !cfg.granted() {
		c.granted = ownWindow(cfg)
		return
	}
	c.relimit(cfg)
}

// relimit applies our own limit of what may be unread at the peer. Our open or answer
// has told the peer the limit, and its grants start from there.
func (c *credit) relimit(cfg *Config) {
	switch {
	case !cfg.granted():
		c.granted = max(ownWindow(cfg), int64(c.admitted))
	case cfg.SendLimit > 0 && !cfg.Caps.FixedWindow: // a peer that isn't told would not know that we wait
		c.granted = min(c.granted, int64(max(cfg.SendLimit, cfg.Caps.MinWindow())))
	}
}

// noWindow is a window without a bound.
const noWindow = 1 << 62

// ownWindow is how many bytes a stream may have unwritten, or unread at the peer,
// where the peer grants no credit.
func ownWindow(cfg *Config) int64 {
	switch {
	case cfg.SendLimit == math.MaxInt:
		return noWindow
	case cfg.SendLimit > 0:
		return int64(cfg.SendLimit)
	}
	return int64(cfg.Caps.SendWindow)
}

// left is the credit that the application can use.
func (c *credit) left() int64 { return c.granted - int64(c.admitted) }

// grant takes a total from the peer. A lower one than before is stale.
func (c *credit) grant(total uint64) { c.granted = max(c.granted, int64(min(total, 1<<62))) }

// drop forgets what was admitted and not sent.
func (c *credit) drop() { c.admitted = c.sent }

// wholeCounts is the most that counts as eligible, in bytes, where a message is
// written whole. A message of many megabytes must not fill the queue that the
// connection's streams share.
const wholeCounts = 256 << 10

// update computes eligible again and returns by how much it changed. With whole, a
// message may be written as soon as it is accepted, even if it exceeds the credit.
func (c *credit) update(whole bool) int {
	e := min(int(int64(c.admitted)-int64(c.sent)), wholeCounts)
	if !whole {
		e = max(int(min(int64(c.admitted), c.granted)-int64(c.sent)), 0)
	}
	return c.set(e)
}

func (c *credit) set(eligible int) int {
	d := eligible - c.eligible
	c.eligible = eligible
	return d
}
