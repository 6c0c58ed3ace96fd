package actor

import (
	"time"

	"github.com/sluicerpc/sluice/internal/timers"
)

// An idler offers the time of the last message while a stream is silent. Its
// period runs from the latest of: last message received, last taken, last
// notice taken. Its fields are owned by the stream's lock.
type idler struct {
	s       *Stream
	timer   timers.Timer
	period  time.Duration
	ch      chan time.Time
	last    time.Time // last message received, or the start
	base    time.Time // what the period runs from
	offered bool
	over    bool
}

// recheck is how often, as a part of the period, an offer is looked at again to
// see whether it was taken: a channel does not tell.
const recheck = 10

func newIdler(s *Stream, period time.Duration) *idler {
	now := time.Now()
	return &idler{s: s, period: period, last: now, base: now}
}

// start sets the timer, once somebody has asked for the channel. The queue is
// used under the stream's lock, so that a stream that ends leaves no timer.
func (i *idler) start() {
	i.ch = make(chan time.Time, 1)
	if !i.over {
		i.s.link.Timers().Set(&i.timer, i, i.base.Add(i.period))
	}
}

func (i *idler) stop() {
	i.over = true
	i.withdraw()
	i.s.link.Timers().Stop(&i.timer)
}

// traffic: a message has arrived.
func (i *idler) traffic(now time.Time) {
	i.last, i.base = now, now
	i.withdraw()
}

// taken: a message was taken from the mailbox.
func (i *idler) taken() {
	i.base = time.Now()
	i.withdraw()
}

func (i *idler) withdraw() {
	if !i.offered {
		return
	}
	i.offered = false
	select {
	case <-i.ch:
	default:
	}
}

// Expire looks whether the stream is silent, and sets the next look.
func (i *idler) Expire(_ *timers.Timer, now time.Time) {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	next := i.look(now)
	if !i.over {
		i.s.link.Timers().Set(&i.timer, i, next)
	}
}

func (i *idler) look(now time.Time) time.Time {
	soon := now.Add(max(i.period/recheck, time.Millisecond))
	if i.offered {
		if len(i.ch) > 0 {
			return soon
		}
		i.offered, i.base = false, now // it was taken
	}
	due := i.base.Add(i.period)
	if due.After(now) || i.over {
		return due
	}
	i.ch <- i.last // has room: only we send, and nothing is offered
	i.offered = true
	return soon
}
