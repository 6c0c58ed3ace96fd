package kernel

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/internal/timers"
)

// handlers counts a connection's running handlers, those of streams that have
// ended included: as many may run as streams may be open. A stream's end reaches
// the peer before its handler has quite returned, so that an honest peer's next
// open can be early; as many may wait.
type handlers struct {
	most  int          // that may run, and again that may wait
	count atomic.Int32 // n and len(wait), for who holds no lock

	mu   sync.Mutex
	n    int // that run
	wait []job

	// Goroutines whose handler has returned serve the next one: a new one would
	// grow its stack again, which costs more than all the rest of an open.
	idle  int      // those that wait at jobs and have none there yet
	jobs  chan job // one without an offer ends a goroutine
	used  bool     // one of them got a job since the timer was last due
	armed bool
	over  bool // the connection has ended
	timer timers.Timer
	queue *timers.Queue
}

const (
	mostIdle  = 64          // goroutines that wait for a job, with those that are being given one
	idleCheck = time.Second // they end when none of them had any for so long
)

// A job is an offer and what is to serve it.
type job struct {
	o *Offer
	e entry
}

// entry is one registered handler: one of the two.
type entry struct {
	stream func(ctx context.Context, s *Stream) error
	offer  func(ctx context.Context, o *Offer) error
}

// full tells whether not even one more may wait.
func (q *handlers) full() bool { return int(q.count.Load()) >= 2*q.most }

// recount follows a change of n or wait. The lock is held.
func (q *handlers) recount() { q.count.Store(int32(q.n + len(q.wait))) }

// enter counts a handler in. Where it may not run now, it waits, and where a
// goroutine waits for it, it is given to that; else enter returns true, and the
// caller starts one.
func (q *handlers) enter(j job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer q.recount()
	if q.n >= q.most {
		q.wait = append(q.wait, j)
		return false
	}
	j.o.handlerStarts()
	q.n++
	if q.idle == 0 {
		return true
	}
	q.idle--
	q.used = true
	q.jobs <- j // has room: see mayIdle
	return false
}

// next counts a handler out, and returns what its goroutine runs next: a job that waited,
// or the next one to come. It returns false if the goroutine is to end.
func (q *handlers) next(t *timers.Queue) (job, bool) {
	j, ok, idle := q.leave(t)
	if idle {
		j = <-q.jobs
		ok = j.o != nil
	}
	return j, ok
}

// leave counts a handler out, unless a job waits to run in its place. Where none does
// and t is given, it tells whether the goroutine may wait for one.
func (q *handlers) leave(t *timers.Queue) (j job, ok, idle bool) {
	for {
		q.mu.Lock()
		if len(q.wait) == 0 {
			q.wait = nil
			q.n--
			q.recount()
			idle = t != nil && q.mayIdle(t)
			q.mu.Unlock()
			return job{}, false, idle
		}
		j, q.wait = q.wait[0], q.wait[1:]
		q.recount()
		q.mu.Unlock()
		if j.o.streams[0].Err() == nil {
			j.o.handlerStarts()
			return j, true, false
		}
		j.o.abortRest() // it was given up meanwhile
	}
}

// mayIdle counts one more goroutine that waits for a job, if it may. The lock is held.
func (q *handlers) mayIdle(t *timers.Queue) bool {
	if q.jobs == nil {
		q.jobs, q.queue = make(chan job, mostIdle), t
	}
	if q.over || q.idle+len(q.jobs) >= mostIdle {
		return false
	}
	q.idle++
	if !q.armed {
		q.armed = true
		t.Set(&q.timer, q, time.Now().Add(idleCheck))
	}
	return true
}

// Expire implements timers.Owner: goroutines that had nothing to do end.
func (q *handlers) Expire(_ *timers.Timer, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.armed = q.used && !q.over
	q.used = false
	if q.armed {
		q.queue.Set(&q.timer, q, now.Add(idleCheck))
		return
	}
	q.dismiss()
}

// stop ends those that wait, with the connection.
func (q *handlers) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
	q.dismiss()
	if q.queue != nil {
		q.queue.Stop(&q.timer)
	}
}

func (q *handlers) dismiss() {
	for ; q.idle > 0; q.idle-- {
		q.jobs <- job{}
	}
}
