package pace

import (
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/hist"
)

// minSleep is the shortest sleep. Messages due closer together are released together: a
// wake-up for each would cost more than sending it.
const minSleep = 50 * time.Microsecond

// A Pacer releases messages when they are due and records how late it was.
type Pacer struct {
	// Lateness takes, for each message, when it was released less when it
	// was due.
	Lateness *hist.Recorder
	// Sleep waits; nil for the finest that the system has.
	Sleep func(time.Duration)
}

// Run calls release for every due time of s, in order, until s ends or stop is
// set; due and now are offsets from start. release must not block.
func (p *Pacer) Run(s *Schedule, start time.Time, stop *atomic.Bool, release func(due, now time.Duration)) {
	sleep := p.Sleep
	if sleep == nil {
		var done func()
		sleep, done = fineSleep()
		defer done()
	}
	now := time.Since(start)
	for n := 1; !stop.Load(); n++ {
		due, ok := s.Next()
		if !ok {
			return
		}
		if n%clockEvery == 0 {
			now = time.Since(start)
		}
		if now = p.wait(due, now, start, sleep, stop); stop.Load() {
			return
		}
		p.Lateness.Record(now - due)
		release(due, now)
	}
}

// clockEvery is how many messages are released at most by one reading of the clock, so
// that a pacer that can't keep up notices that it is late.
const clockEvery = 1000

// maxSleep bounds a sleep, so that stop is seen soon.
const maxSleep = 100 * time.Millisecond

// wait returns the time at or after due. It reads the clock only when the
// reading that it was given is not enough.
func (p *Pacer) wait(due, now time.Duration, start time.Time, sleep func(time.Duration), stop *atomic.Bool) time.Duration {
	if now >= due {
		return now
	}
	for now = time.Since(start); now < due && !stop.Load(); now = time.Since(start) {
		sleep(min(max(due-now, minSleep), maxSleep))
	}
	return now
}
