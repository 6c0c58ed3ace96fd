package kernel

import (
	"sync"
	"sync/atomic"
)

// starts paces the handlers of an endpoint as they begin. A peer can open thousands of streams
// with one packet; were each of their handlers ready to run at once, everybody else would wait
// for all of them. So few are ready at a time, and connections take turns.
type starts struct {
	run    func(job)    // starts a goroutine that serves the job
	ready  atomic.Int32 // handlers that may run, and have not begun
	queues atomic.Int32 // len(turns), readable without the lock

	mu    sync.Mutex
	turns []*runQueue // connections with handlers that wait to be ready, in the order of their turns
}

// mostReady is how many handlers are ready to run at a time. With two processors and 10 us
// each, one more waits 160 us.
const mostReady = 32

// may reports whether one more handler may be ready, and counts it. While others wait for
// their turn it may not.
func (st *starts) may() bool {
	if st == nil {
		return true
	}
	if st.queues.Load() > 0 {
		return false
	}
	if st.ready.Add(1) > mostReady {
		st.ready.Add(-1)
		return false
	}
	return true
}

// force counts one more handler that is ready, whatever others wait.
func (st *starts) force() {
	if st != nil {
		st.ready.Add(1)
	}
}

// began is called when a handler begins that may has counted.
func (st *starts) began() {
	if st == nil {
		return
	}
	st.ready.Add(-1)
	if st.queues.Load() > 0 {
		st.next()
	}
}

// await gives q a turn. q calls it under its lock when the first of its handlers waits, and
// next after that.
func (st *starts) await(q *runQueue) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.turns = append(st.turns, q)
	st.queues.Store(int32(len(st.turns)))
}

// next makes handlers ready, one of each connection in turn, while few are.
func (st *starts) next() {
	for {
		q := st.turn()
		if q == nil {
			return
		}
		j, ok, more := q.nextReady()
		switch {
		case !ok:
			st.ready.Add(-1)
		case !q.hand(j):
			st.run(j)
		}
		if more {
			st.await(q)
		}
	}
}

// turn returns the connection whose turn it is, and counts a handler of it as ready; nil if
// there is none, or as many as may be are ready.
func (st *starts) turn() *runQueue {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.turns) == 0 || st.ready.Load() >= mostReady {
		return nil
	}
	q := st.turns[0]
	st.turns[0] = nil
	if st.turns = st.turns[1:]; len(st.turns) == 0 {
		st.turns = nil
	}
	st.queues.Store(int32(len(st.turns)))
	st.ready.Add(1)
	return q
}

// busy reports whether handlers wait for their turn.
func (st *starts) busy() bool { return st != nil && st.queues.Load() > 0 }
