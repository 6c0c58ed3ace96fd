package conn

import (
	"testing"
	"time"
)

const ms = int64(time.Millisecond)

// The shortest round trip of late counts, and a path is long when several agree.
func TestRoundTrip(t *testing.T) {
	for name, c := range map[string]struct {
		samples [][2]int64 // when, and how long
		want    int64
		long    bool
	}{
		"none":                          {nil, 0, false},
		"one is not enough":             {[][2]int64{{0, 50 * ms}}, 50 * ms, false},
		"two neither":                   {[][2]int64{{0, 50 * ms}, {50, 60 * ms}}, 50 * ms, false},
		"three are":                     {[][2]int64{{0, 50 * ms}, {50, 60 * ms}, {100, 70 * ms}}, 50 * ms, true},
		"not if one is short":           {[][2]int64{{0, 50 * ms}, {50, 60 * ms}, {100, ms}, {150, 60 * ms}}, ms, false},
		"no time is a short one":        {[][2]int64{{0, 50 * ms}, {50, 0}, {100, 60 * ms}}, 1, false},
		"the short one is remembered":   {[][2]int64{{0, ms}, {490, 50 * ms}, {510, 50 * ms}, {900, 50 * ms}}, ms, false},
		"but not for ever":              {[][2]int64{{0, ms}, {510, 50 * ms}, {700, 60 * ms}, {1020, 70 * ms}}, 50 * ms, true},
		"a path may become shorter too": {[][2]int64{{0, 50 * ms}, {50, 50 * ms}, {100, 50 * ms}, {200, 4 * ms}}, 4 * ms, false},
	} {
		var r roundTrip
		for _, s := range c.samples {
			r.add(s[1], s[0]*ms)
		}
		if got := r.shortest.Load(); got != c.want || r.isLong() != c.long {
			t.Errorf("%s: %v, long %v; want %v, %v", name, time.Duration(got), r.isLong(), time.Duration(c.want), c.long)
		}
	}
}

// lapped is a connection on a path of 100 ms whose reader takes things.
type lapped struct {
	c      *Conn
	p      *Port
	window int
	taken  uint64
	at     int64
}

func newLapped(lim Limits, n int) []*lapped {
	s := newStage(lim, 1<<30)
	long(s.c, 100*ms)
	var ls []*lapped
	for range n {
		k := &fakeStream{}
		s.c.PreparePeer(&k.Port, k, false)
		l := &lapped{c: s.c, p: &k.Port, at: 1}
		s.c.mu.Lock()
		l.window = InitialCredit(s.c.lim) + s.c.takeSpare(l.p, s.c.lim.StreamWindow-InitialCredit(s.c.lim), s.c.spareWindow())
		s.c.mu.Unlock()
		ls = append(ls, l)
		l.lap(0, 0)
	}
	return ls
}

func long(c *Conn, rtt int64) {
	c.trip.shortest.Store(rtt)
	c.trip.samples.Store(firstSamples)
}

// lap has the reader take n bytes in a time.
func (l *lapped) lap(n int, ns int64) int {
	l.taken += uint64(n)
	l.at += ns
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.window = l.c.followPath(l.p, l.window, min(l.c.lim.StreamWindow, l.c.lim.MaxWindow), l.c.lim.MaxWindow, l.taken, l.at)
	return l.window
}

// check compares what the connection has given with the windows.
func check(t *testing.T, ls ...*lapped) {
	t.Helper()
	c, sum := ls[0].c, 0
	for _, l := range ls {
		sum += l.window - InitialCredit(c.lim)
	}
	if c.extraWindows != sum || int(c.window.Load()) != max(c.firstWindow, 2*sum) || c.window.Load() > int64(c.mostWindow()) {
		t.Errorf("windows have %d bytes beyond the initial ones, %d are counted, and the connection's is %d", sum, c.extraWindows, c.window.Load())
	}
}

// The window of a stream that keeps the path from carrying more doubles with each round trip,
// until that brings nothing more.
func TestAWindowFollowsThePath(t *testing.T) {
	l := newLapped(Limits{}, 1)[0]
	for want := 2 << 20; want <= 16<<20; want *= 2 {
		if got := l.lap(l.window, 50*ms); got != want/2 {
			t.Fatalf("%d after half a round trip", got)
		}
		if got := l.lap(0, 50*ms); got != want {
			t.Fatalf("%d after a round trip, want %d", got, want)
		}
		check(t, l)
	}
	for range 20 { // the path carries 9 MiB in 100 ms, and what we send waits on it
		long(l.c, 178*ms)
		if got := l.lap(16<<20, 178*ms); got != 16<<20 {
			t.Fatalf("%d, and it brings nothing", got)
		}
	}
	check(t, l)
}

func TestAWindowEndsAtItsLimit(t *testing.T) {
	for most, lim := range map[int]Limits{
		32 << 20: {},
		4 << 20:  {MaxWindow: 4 << 20},
		1 << 20:  {MaxWindow: 1 << 20},
	} {
		l := newLapped(lim, 1)[0]
		for range 10 {
			l.lap(l.window, 100*ms)
		}
		if l.window > most || l.window < most*9/10 {
			t.Errorf("%d of %d", l.window, most)
		}
		if l.c.lim.MaxWindow >= 8<<20 {
			check(t, l)
		}
	}
}

// A reader that stalls, or takes little, has a smaller window after that, and one that
// wakes up has it back.
func TestAWindowShrinksWhenItsReaderStalls(t *testing.T) {
	l := newLapped(Limits{}, 1)[0]
	for range 4 {
		l.lap(l.window, 100*ms)
	}
	for want := 8 << 20; want >= 1<<20; want /= 2 {
		if got := l.lap(l.window, 10*int64(time.Second)); got != want {
			t.Fatalf("%d after ten seconds for a window, want %d", got, want)
		}
		check(t, l)
	}
	if got := l.lap(0, int64(time.Second)); got != 1<<20 {
		t.Fatalf("%d, less than StreamWindow", got)
	}
	for want := 2 << 20; want <= 16<<20; want *= 2 {
		if got := l.lap(l.window, 100*ms); got != want {
			t.Fatalf("%d after a round trip, want %d", got, want)
		}
	}
	check(t, l)
}

// A path that turns out to be short takes back what it got.
func TestAMisjudgedPathIsMended(t *testing.T) {
	l := newLapped(Limits{}, 1)[0]
	for range 3 {
		l.lap(l.window, 100*ms)
	}
	long(l.c, ms)
	if got := l.lap(l.window, 100*ms); got != 1<<20 || len(l.c.laps.of) != 0 {
		t.Errorf("the window is %d, and %d are measured", got, len(l.c.laps.of))
	}
	check(t, l)
}

func TestStreamsGrowEvenly(t *testing.T) {
	const n = 8
	ls := newLapped(Limits{}, n)
	for range 10 {
		for _, l := range ls {
			l.lap(l.window, 100*ms)
		}
	}
	least, most := 1<<30, 0
	for _, l := range ls {
		least, most = min(least, l.window), max(most, l.window)
	}
	if most > 2*least || least < 2<<20 {
		t.Errorf("windows of %d to %d", least, most)
	}
	check(t, ls...)
}

// Beyond ConnWindow memory is asked for, and comes back.
func TestWindowsAskForMemory(t *testing.T) {
	l := newLapped(Limits{}, 1)[0]
	lent, most := 0, 4<<20
	l.c.cfg.Lend = func(n int) bool {
		if lent+n > most {
			return false
		}
		lent += n
		return true
	}
	for range 10 {
		l.lap(l.window, 100*ms)
		if lent > most || l.c.window.Load() != int64(l.c.firstWindow+lent) {
			t.Fatalf("%d of %d lent, the connection's window is %d", lent, most, l.c.window.Load())
		}
	}
	if l.window < 8<<20 || l.window > 11<<20 {
		t.Errorf("the window is %d", l.window)
	}
	l.c.shrinkWindow(l.p, l.window, 0)
	if lent != 0 || l.c.window.Load() != int64(l.c.firstWindow) || l.c.extraWindows != 0 {
		t.Errorf("%d are lent, the connection's window is %d", lent, l.c.window.Load())
	}
}
