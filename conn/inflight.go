package conn

import (
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// A stream that has been the only one to send for soleAfter bytes delays no other: it
// may have soleFactor times as much in flight.
const (
	soleAfter  = 32 << 20
	soleFactor = 4
)

// shortPath is the round trip, in nanoseconds, up to which the first bound is enough:
// 256 KiB a millisecond are 2 Gbit/s. A round trip measured by the handshake is the
// first that is known. It includes the start of goroutines, so that a shorter one says
// little.
const shortPath = int64(time.Millisecond)

// maxInFlight is what the bound on the bytes in flight may grow to.
const maxInFlight = 64 << 20

// flight is what bounds the bytes that are written and not yet read by the peer.
type flight struct {
	bound    atomic.Int64
	rtt      atomic.Int64  // nanoseconds, the smallest seen; 0: none
	markAt   atomic.Uint64 // bytes written when the mark was set; 0: none
	markTime atomic.Int64  // since the connection's start
}

// hasSoleSender reports whether one stream has been the only one to send for long.
func (o *output) hasSoleSender() bool { return o.wrote.Load()-o.soleFrom >= soleAfter }

// allowance is how many bytes of credit data may use now: bounded by what the peer
// granted the connection, and by the bytes in flight.
func (c *Conn) allowance() int {
	o := &c.out
	credit := int64(c.granted.Load() - c.sentCost.Load())
	switch {
	case c.pacing != frame.Granted:
		return gatherBytes
	case !c.caps.ReadReports: // the system bounds what waits unsent
		return int(credit)
	}
	bound := c.flight.bound.Load()
	if o.hasSoleSender() && bound < maxInFlight {
		bound *= soleFactor
	}
	unread := int64(o.wrote.Load()) + int64(o.o.Len()) - int64(c.peerRead.Load())
	return int(min(credit, max(bound-unread, 0)))
}

// markFlight notes when the output has reached total, to measure how long the peer
// takes to read that far. One mark is out at a time.
func (c *Conn) markFlight(total uint64) {
	f := &c.flight
	if f.markAt.Load() == 0 {
		f.markTime.Store(c.clock())
		f.markAt.Store(total)
	}
}

// growFlight doubles the bound on the bytes in flight if they were all in use and the
// peer has read them about as soon as the path allows: then the path holds more. On a
// short path they wait in the peer's socket instead, and more would only wait longer.
func (c *Conn) growFlight(peerRead uint64) {
	f := &c.flight
	at := f.markAt.Load()
	if at == 0 || peerRead < at {
		return
	}
	took, rtt := c.since(c.in.now)-f.markTime.Load(), f.rtt.Load()
	f.markAt.Store(0)
	bound := f.bound.Load()
	if rtt > shortPath && took < rtt+rtt/2 && c.out.isStalled() && bound < maxInFlight {
		f.bound.Store(2 * bound)
	}
}
