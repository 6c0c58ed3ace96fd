package kernel

import "sync"

// handlers counts a connection's running handlers, those of streams that have
// ended included: as many may run as streams may be open. A stream's end reaches
// the peer before its handler has quite returned, so that an honest peer's next
// open can be early; as many may wait.
type handlers struct {
	mu   sync.Mutex
	most int
	n    int
	wait []job
}

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

// enter counts a handler in. Where it may not run now, it waits, and enter
// returns false.
func (q *handlers) enter(j job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n >= q.most {
		q.wait = append(q.wait, j)
		return false
	}
	q.n++
	return true
}

// leave counts one out, unless one waits to run in its place.
func (q *handlers) leave() (j job, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.wait) > 0 {
		j, q.wait = q.wait[0], q.wait[1:]
		if j.o.streams[0].Err() == nil { // nobody gave it up meanwhile
			return j, true
		}
	}
	q.wait = nil
	q.n--
	return job{}, false
}
