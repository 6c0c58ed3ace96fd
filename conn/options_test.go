package conn

import (
	"errors"
	"testing"
	"time"
)

func TestDefaultLimitsAreInRange(t *testing.T) {
	if err := Validate(WithDefaults(Limits{})); err != nil {
		t.Error(err)
	}
}

// A peer reports what it has read every reportEvery bytes. With a lower bound a writer
// would wait for a report that never comes.
func TestBytesInFlightMustReachAReport(t *testing.T) {
	for bound, ok := range map[int]bool{4 << 10: false, reportEvery: false, 2*reportEvery - 1: false, 2 * reportEvery: true, Unlimited: true} {
		err := Validate(WithDefaults(Limits{InFlight: bound}))
		if ok != (err == nil) || !ok && !errors.Is(err, ErrLimits) {
			t.Errorf("InFlight of %d: %v", bound, err)
		}
	}
}

// The sum of several durations that are Unlimited does not overflow. A duration below
// zero is out of range.
func TestDurationsCanBeAddedUp(t *testing.T) {
	for i := range (&Limits{}).durations() {
		var l Limits
		*l.durations()[i].v = Unlimited
		l = WithDefaults(l)
		d := l.durations()[i]
		if err := Validate(l); err != nil || 4**d.v < *d.v || *d.v < 30*365*24*time.Hour {
			t.Errorf("an unlimited %s is %v: %v", d.name, *d.v, err)
		}
		*d.v = -1
		if err := Validate(l); !errors.Is(err, ErrLimits) {
			t.Errorf("a %s of -1: %v", d.name, err)
		}
	}
}

// However many streams may be open, their initial credits leave half of the connection's
// window to those that are read.
func TestInitialCreditsLeaveHalfOfTheWindow(t *testing.T) {
	for _, l := range []Limits{{}, {MaxStreams: 100}, {MaxStreams: 50_000}, {ConnWindow: 1 << 20}, {StreamWindow: 64, ConnWindow: 4 << 10, MaxStreams: 10}} {
		l = WithDefaults(l)
		n := InitialCredit(&l)
		if n*l.MaxStreams > l.ConnWindow/2 && n > 128 {
			t.Errorf("%d streams of %d take more than half of %d", l.MaxStreams, n, l.ConnWindow)
		}
		if n > l.StreamWindow || n > 64<<10 {
			t.Errorf("initial credit of %d, the window may grow to %d", n, l.StreamWindow)
		}
	}
}
