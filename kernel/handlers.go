package kernel

import (
	"sync"
	"time"

	"github.com/sluicerpc/sluice/internal/timers"
)

// handlers counts a connection's running handlers, those of streams that have
// ended included: as many may run as streams may be open. A stream's end reaches
// the peer before its handler has quite returned, so that an honest peer's next
// open can be early; as many may wait.
type handlers struct {
	mu   sync.Mutex
	most int
	n    int
	wait []job

	// Goroutines whose handler has returned serve the next one: a new one would
	// grow its stack again, which costs more than all the rest of an open.
	idle  int      // those that wait at next and have no job there yet
	next  chan job // their jobs; one without an offer ends them
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

// full tells whether not even one more may wait.
func (q *handlers) full(most int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.most = most
	return q.n >= most && len(q.wait) >= most
}

// enter counts a handler in. Where it may not run now, it waits, and where a
// goroutine waits for it, it is given to that; else enter returns true, and the
// caller starts one.
func (q *handlers) enter(j job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.n >= q.most:
		q.wait = append(q.wait, j)
		return false
	case q.idle > 0:
		j.o.handlerStarts()
		q.n++
		q.idle--
		q.used = true
		q.next <- j // has room: see rest
		return false
	}
	j.o.handlerStarts()
	q.n++
	return true
}

// leave counts one out, unless one waits to run in its place.
func (q *handlers) leave() (j job, ok bool) {
	for {
		q.mu.Lock()
		if len(q.wait) == 0 {
			q.wait = nil
			q.n--
			q.mu.Unlock()
			return job{}, false
		}
		j, q.wait = q.wait[0], q.wait[1:]
		q.mu.Unlock()
		if j.o.streams[0].Err() == nil {
			j.o.handlerStarts()
			return j, true
		}
		j.o.abandon() // it was given up meanwhile
	}
}

// rest waits for another job, after leave found none; false if there is none to
// wait for.
func (q *handlers) rest(t *timers.Queue) (job, bool) {
	q.mu.Lock()
	if q.next == nil {
		q.next, q.queue = make(chan job, mostIdle), t
	}
	if q.over || q.idle+len(q.next) >= mostIdle {
		q.mu.Unlock()
		return job{}, false
	}
	q.idle++
	if !q.armed {
		q.armed = true
		t.Set(&q.timer, q, time.Now().Add(idleCheck))
	}
	q.mu.Unlock()
	j := <-q.next
	return j, j.o != nil
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
		q.next <- job{}
	}
}
