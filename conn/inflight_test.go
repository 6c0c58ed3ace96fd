package conn

import (
	"testing"
	"time"
)

// flown is a connection whose peer reads what is in flight.
type flown struct {
	c    *Conn
	read uint64
	at   time.Duration
}

func newFlown(trip int64) *flown {
	s := newStage(Limits{}, 1<<30)
	long(s.c, trip)
	return &flown{c: s.c}
}

// trip has the peer read n bytes, up to a mark, in a time. It returns the bound after that.
func (x *flown) trip(n int, took time.Duration, full bool) int64 {
	f := &x.c.flight
	f.markRead.Store(x.read)
	f.markTime.Store(int64(x.at))
	f.markFull.Store(full)
	x.read += uint64(n)
	x.at += took
	f.markAt.Store(x.read)
	x.c.in.now = x.c.began.Add(x.at)
	x.c.readMark(x.read)
	return f.bound.Load()
}

const hundred = 100 * time.Millisecond

// The bound doubles each round trip in which all of it was used and that brought more.
func TestTheFlightFollowsThePath(t *testing.T) {
	x := newFlown(int64(hundred))
	for want := 512 << 10; want <= 32<<20; want *= 2 {
		if got := x.trip(want/2, hundred, false); got != int64(want)/2 {
			t.Fatalf("%d, and it was not all in use", got)
		}
		if got := x.trip(want/2, hundred, true); got != int64(want) {
			t.Fatalf("%d, want %d", got, want)
		}
	}
	if got := x.trip(17<<20, hundred, true); got != 32<<20 {
		t.Errorf("%d: the mark was set before the bound was raised", got)
	}
	if got := x.trip(32<<20, 190*time.Millisecond, true); got > 24<<20 {
		t.Errorf("%d: twice as much brought nothing", got)
	}
}

func TestTheFlightIsSmallerAgain(t *testing.T) {
	grown := func(trip int64) *flown {
		x := newFlown(trip)
		x.trip(256<<10, time.Duration(trip), true)
		x.trip(512<<10, time.Duration(trip), true)
		if got := x.trip(1<<20, time.Duration(trip), true); got != 2<<20 {
			t.Fatalf("the bound is %d", got)
		}
		return x
	}
	x := grown(int64(hundred))
	if got := x.trip(1<<20, time.Second, false); got != 1<<20 {
		t.Errorf("%d, and the peer is slow to read", got)
	}
	if got := x.trip(100<<10, time.Millisecond, false); got != 256<<10 {
		t.Errorf("%d, and the path is short", got)
	}
	if got := x.trip(256<<10, time.Millisecond, true); got != 256<<10 {
		t.Errorf("%d: on a short path nothing is gained", got)
	}

	x = grown(int64(hundred)) // once in a while the path runs dry
	for n := range 10 * dryEvery {
		bound := x.c.flightBound() // of which the path holds 2 MiB
		if x.trip(int(bound), max(hundred, hundred*time.Duration(bound)/(2<<20)), true); x.c.flight.dry.Load() {
			if n < dryEvery/2 || x.c.flightBound() != 256<<10 {
				t.Errorf("after %d marks the bound is %d", n, x.c.flightBound())
			}
			break
		}
	}
	if !x.c.flight.dry.Load() {
		t.Fatal("the path never runs dry")
	}
	if x.trip(256<<10, hundred, true); x.c.flight.dry.Load() || x.c.flightBound() < 2<<20 {
		t.Errorf("after it has run dry the bound is %d", x.c.flightBound())
	}
}
