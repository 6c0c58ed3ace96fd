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
// 256 KiB a millisecond are 2 Gbit/s.
const shortPath = int64(time.Millisecond)

// maxInFlight is what the bound on the bytes in flight may grow to.
const maxInFlight = 64 << 20

// flight is what bounds the bytes that are written and not yet read by the peer. The peer's
// reading of a mark is timed, one at a time.
type flight struct {
	bound    atomic.Int64
	dry      atomic.Bool   // the path is let run dry, to measure it
	markAt   atomic.Uint64 // 0: there is no mark
	markFull atomic.Bool   // as many bytes were in flight as the bound allows
	markTime atomic.Int64
	markRead atomic.Uint64

	older, newer mark // owned by the flush: the last two that could be

	// Owned by the reader.
	rate   float64 // bytes a nanosecond when the bound was raised last, or less
	before int64   // the bound before that, until it shows whether it was worthwhile; else 0
	tried  int64   // with before: how many bytes in flight show it
	laps   int     // full marks since the path ran dry
}

// A mark is a position in the output.
type mark struct {
	at   uint64 // bytes written
	time int64  // when that was, since the connection's start
	read uint64 // bytes that the peer had read then
}

// hasSoleSender reports whether one stream has been the only one to send for long.
func (o *output) hasSoleSender() bool { return o.wrote.Load()-o.soleFrom.Load() >= soleAfter }

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
	bound := c.flightBound()
	unread := int64(o.wrote.Load()) + int64(o.o.Len()) - int64(c.peerRead.Load())
	return int(min(credit, max(bound-unread, 0)))
}

// flightBound is the bound on the bytes in flight as it is now.
func (c *Conn) flightBound() int64 {
	bound, first := c.flight.bound.Load(), int64(c.lim.InFlight)
	switch {
	case c.flight.dry.Load():
		return first
	case c.out.hasSoleSender() && bound < maxInFlight:
		return max(bound, soleFactor*first)
	}
	return bound
}

// markFlight notes that the output has reached total, to measure how long the peer takes to
// read that far. The peer reports at once that it has read a mark, for at least reportEvery
// has been written behind it. full says that no more may be in flight: only then it shows
// what the path carries. The flush calls it.
func (c *Conn) markFlight(total uint64, full bool) {
	f := &c.flight
	if total-f.newer.at >= reportEvery {
		f.older, f.newer = f.newer, mark{total, c.clock(), c.peerRead.Load()}
	}
	if f.older.at <= c.peerRead.Load() || f.markAt.Load() != 0 && (!full || f.markFull.Load()) {
		return
	}
	f.markTime.Store(f.older.time)
	f.markRead.Store(f.older.read)
	f.markFull.Store(full)
	f.markAt.Store(f.older.at)
}

// How the bound is adjusted.
const (
	queueing     = 1.25 // how many times what the path carries in a round trip may be in flight
	stalledTrips = 4    // after how many round trips the peer is slow to read
	dryEvery     = 128  // full marks after which the path is let run dry
	longFactor   = 4    // how many times as large the bound is at first on a path that is long
)

// readMark adjusts the bound when the peer has read as far as the mark.
func (c *Conn) readMark(peerRead uint64) {
	f := &c.flight
	at := f.markAt.Load()
	if at == 0 || peerRead < at {
		return
	}
	took := max(c.since(c.in.now)-f.markTime.Load(), 1)
	rate := float64(peerRead-f.markRead.Load()) / float64(took)
	full, marked := f.markFull.Load(), int64(at-f.markRead.Load())
	f.markAt.Store(0)
	c.addSample(took)
	trip, first := c.trip.shortest.Load(), int64(c.lim.InFlight)
	switch {
	case c.trip.isShort(): // it may have been taken for a longer one
		f.bound.Store(first)
		f.rate, f.before = 0, 0
		f.dry.Store(false)
	case f.dry.Swap(false): // that was to measure it
		f.rate, f.before = 0, 0
	case took > stalledTrips*trip:
		f.bound.Store(max(f.bound.Load()/2, first))
		f.rate, f.before = 0, 0
	case full && (f.before == 0 || marked >= f.tried): // else it was set before the bound was raised
		c.adjustFlight(took, trip, rate, first)
	}
}

// adjustFlight raises the bound on the bytes in flight if they were all in use, the peer has
// read them about as soon as the path allows, and they brought more than fewer had: then the
// path holds more. If the last time has brought nothing they only wait: on a short path in the
// peer's socket, else in a queue that our own bytes have made, and that makes the round trip
// look longer. Once in a while the path is let run dry, to find out.
func (c *Conn) adjustFlight(took, trip int64, rate float64, first int64) {
	f := &c.flight
	bound := c.flightBound()
	worth := rate > worthwhile*f.rate && c.trip.samples.Load() >= firstSamples // a first sample has no other to be compared with
	carries := int64(queueing * rate * float64(trip))
	if f.before != 0 && !worth {
		f.bound.Store(min(f.bound.Load(), max(f.before, carries)))
	}
	f.before = 0
	switch {
	case worth && took < trip+trip/2 && bound < maxInFlight:
		f.before, f.tried, f.rate = f.bound.Load(), bound+bound/4, rate
		f.bound.Store(2 * bound)
		return
	case rate < f.rate/2: // the path is another one
		f.rate = 0
	case rate < f.rate:
		f.rate -= (f.rate - rate) / rateFades
	}
	if float64(took) > queueing*float64(trip) {
		f.bound.Store(min(f.bound.Load(), max(carries, first)))
	}
	if f.laps++; f.laps >= dryEvery && f.bound.Load() > first {
		f.laps = 0
		f.dry.Store(true)
	}
}
