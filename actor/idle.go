package actor

import (
	"sync"
	"time"

	"github.com/sluicerpc/sluice/internal/timers"
)

// An idler offers the time of the last message while a stream is silent. Its period
// runs from the latest of three: a message arrived, the application took one, it took
// an offer. The stream's lock guards the fields.
type idler struct {
	mu      *sync.Mutex // the stream's
	link    Link
	timer   timers.Timer
	period  time.Duration
	ch      chan time.Time
	last    time.Time // last message received, or the start
	base    time.Time // what the period runs from
	offered bool
	over    bool // the stream is
}

// recheck is how many times in a period an offer is looked at again. A channel does
// not tell when its value is taken.
const recheck = 10

func newIdler(mu *sync.Mutex, link Link, period time.Duration) *idler {
	now := time.Now()
	return &idler{mu: mu, link: link, period: period, last: now, base: now}
}

// start makes the channel and sets the timer. It is called under the stream's lock, as
// stop is, so that a stream that ends leaves no timer.
func (i *idler) start() {
	i.ch = make(chan time.Time, 1)
	if !i.over {
		i.link.Timers().Set(&i.timer, i, i.base.Add(i.period))
	}
}

func (i *idler) stop() {
	i.over = true
	i.withdraw()
	i.link.Timers().Stop(&i.timer)
}

// traffic is called when a message has arrived.
func (i *idler) traffic(now time.Time) {
	i.last, i.base = now, now
	i.withdraw()
}

// taken is called when the application has taken a message.
func (i *idler) taken() {
	i.base = time.Now()
	i.withdraw()
}

// withdraw takes the offer back, if there is one.
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

// Expire implements timers.Owner.
func (i *idler) Expire(_ *timers.Timer, now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := i.look(now)
	if !i.over {
		i.link.Timers().Set(&i.timer, i, next)
	}
}

// look makes an offer if the stream is silent, and returns when to look next.
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
