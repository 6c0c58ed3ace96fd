package conn

// A lap is the time since the window of a stream was looked at last, a round trip or more. How
// much was taken meanwhile shows what the reader and the path carry in a round trip: a window
// of twice that is large enough.
type lap struct {
	at     int64   // when it began, in nanoseconds since the connection's start
	taken  uint64  // what the reader had taken then
	window int     // of the stream
	rate   float64 // bytes a nanosecond, when the window was enlarged last, or less
}

// laps are those of the streams whose windows follow what is measured.
type laps struct {
	of    map[*Port]*lap
	sum   int  // of their windows
	short bool // one that is smaller than the mean did not get what it was to have
}

// begin begins the first lap of a stream.
func (ls *laps) begin(p *Port, window int, taken uint64, at int64) {
	if ls.of == nil {
		ls.of = map[*Port]*lap{}
	}
	ls.of[p] = &lap{at: at, taken: taken, window: window}
	ls.sum += window
}

// resize notes a stream's new window.
func (ls *laps) resize(l *lap, window int) int {
	ls.sum += window - l.window
	l.window = window
	return window
}

// end forgets a stream.
func (ls *laps) end(p *Port) {
	if l := ls.of[p]; l != nil {
		ls.sum -= l.window
		delete(ls.of, p)
	}
}

// mean is the mean of their windows, at least one of which there is.
func (ls *laps) mean() int { return ls.sum / len(ls.of) }

// A window is enlarged only if the last time has brought this much more. If it has not, the
// round trip is longer because of what waits on the path, and a larger window makes only
// that more.
const worthwhile = 1.2

// rateFades is by which part a rate that is not reached any more is forgotten in a lap.
const rateFades = 4

// tooLarge is how many times as large as what is taken in a round trip a window is before it
// is halved.
const tooLarge = 4

// lower makes a window smaller. mu is held.
func (c *Conn) lower(p *Port, l *lap, from, to int) int {
	c.giveBack(p, from-to)
	return c.laps.resize(l, to)
}

// followPath returns the next size of a window of first or more, at most most, on a path that
// is long or was taken for it. mu is held.
func (c *Conn) followPath(p *Port, window, first, most int, taken uint64, at int64) int {
	if !c.trip.isLong() {
		c.giveBack(p, window-first)
		c.laps.end(p)
		return first
	}
	l := c.laps.of[p]
	if l == nil {
		c.laps.begin(p, window, taken, at)
		return window
	}
	took, trip := at-l.at, c.trip.shortest.Load()
	if took < trip {
		return window
	}
	rate := float64(taken-l.taken) / float64(took)
	need := int(min(rate*float64(trip), float64(most)))
	l.at, l.taken = at, taken
	large := min(2*need, most)
	if rate <= worthwhile*l.rate { // it may be as large as those of others, so that they share the path evenly
		large = min(large, c.laps.mean())
	}
	mean := c.laps.mean()
	switch {
	case large > window:
		got := c.takeSpare(p, large-window, c.spareWindow()/len(c.laps.of))
		c.laps.short = c.laps.short || window+got < min(large, mean)
		l.rate = rate
		return c.laps.resize(l, window+got)
	case c.laps.short && window > max(mean, first):
		c.laps.short = false
		return c.lower(p, l, window, max(mean, window/2, first))
	case tooLarge*need < window && window > first:
		l.rate = 0
		return c.lower(p, l, window, max(window/2, first))
	case rate < l.rate/2: // the path is another one
		l.rate = 0
	case rate < l.rate:
		l.rate -= (l.rate - rate) / rateFades
	}
	return window
}
