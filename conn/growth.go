package conn

import "sync/atomic"

// A Growth is told how much more memory connections hold, so that their owner need not wait
// for its next look: 100 ms can bring more than there is. It hears of what grows alone: the
// next look finds out what there is. A nil Growth hears nothing.
type Growth struct {
	n    atomic.Int64 // bytes since the last look
	most atomic.Int64 // bytes that make it look; 0: never
	look func()
}

// growthShift is the size of the steps in which a connection tells what is unread and what
// is queued, as a power of 2: a message that is sent and read should cost nothing here.
const growthShift = 16

// growthOpens is the most that a connection's opens may bring untold, in bytes.
const growthOpens = 8 << 10

// NewGrowth returns a Growth that calls look, which must not wait, under no lock of its own,
// but under those of streams and connections.
func NewGrowth(look func()) *Growth { return &Growth{look: look} }

// Reset is called by who has looked. look is called after most more bytes.
func (g *Growth) Reset(most int64) {
	g.most.Store(most)
	g.n.Store(0)
}

// Grown is how many bytes have come since Reset.
func (g *Growth) Grown() int64 {
	if g == nil {
		return 0
	}
	return g.n.Load()
}

// Due reports whether that many bytes have come since Reset.
func (g *Growth) Due() bool { return g.n.Load() >= g.most.Load() }

// add counts n bytes. Less than none does not count.
func (g *Growth) add(n int64) {
	if g == nil || n <= 0 {
		return
	}
	if most := g.most.Load(); g.n.Add(n) >= most && most > 0 {
		g.look()
	}
}

// noteGrowth tells what is unread more than it was. The reader calls it.
func (c *Conn) noteGrowth() {
	if c.cfg.Growth == nil {
		return
	}
	n := c.unread() + int64(c.buffered.Load())
	switch d := n - c.in.grown; {
	case d >= 1<<growthShift:
		c.in.grown = n
		c.cfg.Growth.add(d)
	case d <= -1<<growthShift:
		c.in.grown = n
	}
}
