package conn

import (
	"sync/atomic"
	"time"
)

// longPath is the round trip, in nanoseconds, beyond which windows follow what is measured.
// On shorter paths StreamWindow is enough: 1 MiB in 5 ms are 200 MB/s.
const longPath = int64(5 * time.Millisecond)

// firstSamples is how many samples there must be before a path counts as long: the first
// ones come while goroutines start, or both processes.
const firstSamples = 3

// sampleSpan is for how long a sample counts at least, in nanoseconds, and not more than
// twice as long: a path may become longer. A queue that we have filled ourselves makes it
// longer too, so that windows must not grow by the round trip alone.
const sampleSpan = int64(500 * time.Millisecond)

// A roundTrip is the shortest round trip of late. Its samples are the handshake, pings, and
// how long the peer takes to report what it has read.
type roundTrip struct {
	shortest atomic.Int64 // nanoseconds; 0: no sample
	samples  atomic.Int32 // up to firstSamples
	near     atomic.Bool  // isShort, as of the last sample

	// Owned by the reader: the shortest of this span and of the one before, 0 for none, and
	// when this one began, since the connection's start.
	now, before, began int64
	least              int64 // of all samples
}

// add takes a sample of d nanoseconds, at a time since the connection's start.
func (r *roundTrip) add(d, at int64) {
	d = max(d, 1) // in memory it can take no time
	if at-r.began >= sampleSpan {
		r.before, r.now, r.began = r.now, 0, at
	}
	r.now, r.least = shorter(r.now, d), shorter(r.least, d)
	r.shortest.Store(shorter(r.before, r.now))
	if near := r.isShort(); near != r.near.Load() {
		r.near.Store(near)
	}
	if n := r.samples.Load(); n < firstSamples {
		r.samples.Store(n + 1)
	}
}

// isShort reports whether more in flight would only wait longer. A path that was once short is
// so still, unless it has become long: a busy machine makes a round trip of some milliseconds.
// The reader calls it.
func (r *roundTrip) isShort() bool {
	now := r.shortest.Load()
	return now <= shortPath || r.least > 0 && r.least <= shortPath && now <= longPath
}

// shorter is the shorter of two round trips, of which 0 is not known.
func shorter(a, b int64) int64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// isNear is isShort for others than the reader, and false before there is a sample.
func (r *roundTrip) isNear() bool { return r.near.Load() }

// isLong reports whether the path is long, as far as that is known.
func (r *roundTrip) isLong() bool {
	return r.shortest.Load() > longPath && r.samples.Load() >= firstSamples
}

// addSample takes a sample of the round trip. The reader calls it.
func (c *Conn) addSample(d int64) {
	early := c.trip.samples.Load() < firstSamples
	c.trip.add(d, c.since(c.in.now))
	switch {
	case !early:
	case c.trip.isLong(): // and no queue of ours has made it so
		c.flight.bound.Store(longFactor * int64(c.lim.InFlight))
	case c.trip.shortest.Load() > longPath && c.caps.Ping && c.caps.PingIdle:
		c.ping(uint64(c.clock()))
	}
}

// probeEvery is how often the round trip of a short path is measured while it carries much, in
// nanoseconds. That of a long path is measured once in a round trip.
const probeEvery = int64(100 * time.Millisecond)

// mostProbes is how many pings are written at once for the first samples: in memory a round trip
// can take no time, which is no sample.
const mostProbes = 2 * firstSamples

// probe has the round trip measured, if it is time to: a ping is written with the next frames
// of the connection. at is the time.
func (c *Conn) probe(at int64) {
	h := &c.health
	measured := c.trip.samples.Load() >= firstSamples || c.probes.Load() >= mostProbes
	every := probeEvery
	switch {
	case !measured:
		every = 0
	case c.trip.isLong():
		every = c.trip.shortest.Load()
	}
	if !c.caps.Ping || h.pinged.Load() != 0 || every > 0 && at-h.pingedAt.Load() < every {
		return
	}
	if !measured {
		c.probes.Add(1)
	}
	c.probing.Store(true)
}
