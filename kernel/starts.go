package kernel

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// starts paces the handlers of an endpoint as they begin. A peer can open thousands of streams
// with one packet; were each of their handlers ready to run at once, everybody else would wait
// for all of them. So few are ready at a time, and connections take turns, those with few
// handlers first. Where memory is short, those that have much of it wait.
type starts struct {
	run    func(job)    // starts a goroutine that serves the job
	ready  atomic.Int32 // handlers that may run, and have not begun
	queues atomic.Int32 // how many take turns, readable without the lock
	few    atomic.Int32 // of those, with few handlers

	since   time.Time    // of its beginning
	yielded atomic.Int64 // when a handler last did, nanoseconds after since

	swept int // owned by who sweeps

	mu    sync.Mutex
	turns [2]turns // of connections with few handlers, and of the others
}

// turns are connections with handlers that wait to be ready, in the order of their turns.
type turns []*runQueue

// readyEach is how many handlers are ready to run at a time for each processor. At 10 us each,
// one more waits 40 us; where each makes a megabyte of messages first, it is a few milliseconds.
const readyEach = 4

// mostPassed is how many connections are passed over at a time that have to wait for memory.
const mostPassed = 16

// init has run start the goroutines of handlers.
func (st *starts) init(run func(job)) { st.run, st.since = run, time.Now() }

// may reports whether one more handler of q may be ready, and counts it. While others wait for
// their turn it may not.
func (st *starts) may(q *runQueue) bool {
	switch {
	case st == nil:
		return true
	case q.hasFew() && st.few.Load() > 0, !q.hasFew() && st.queues.Load() > 0, q.waits():
		return false
	}
	return st.take()
}

// take counts one more handler that is ready. It returns false if there are enough.
func (st *starts) take() bool {
	if int(st.ready.Add(1)) > readyEach*runtime.GOMAXPROCS(0) {
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
	if st.busy() && st.yields() {
		runtime.Gosched()
	}
	st.ready.Add(-1)
	st.next()
}

// yieldEvery is how long handlers begin one after the other before one yields. Were each to
// yield, a fifth fewer streams could be opened in a second.
const yieldEvery = 500 * time.Microsecond

// yields reports whether a handler that begins should yield first, which one does now and then.
// An event loop that comes back from its system call waits where only who has yielded is: what
// a processor has made ready itself comes before that, most of the time.
func (st *starts) yields() bool {
	now, last := int64(time.Since(st.since)), st.yielded.Load()
	return now-last >= int64(yieldEvery) && st.yielded.CompareAndSwap(last, now)
}

// await gives q a turn. q calls it under its lock when the first of its handlers waits, and
// next after that.
func (st *starts) await(q *runQueue) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.push(q)
}

// push is await with the lock held.
func (st *starts) push(q *runQueue) {
	i := 1
	if q.hasFew() {
		i = 0
	}
	st.turns[i] = append(st.turns[i], q)
	st.count()
}

// count tells who has no lock how many there are. The lock is held.
func (st *starts) count() {
	st.few.Store(int32(len(st.turns[0])))
	st.queues.Store(int32(len(st.turns[0]) + len(st.turns[1])))
}

// next makes handlers ready, one of each connection in turn, while few are. It is called too
// when there may be memory again.
func (st *starts) next() {
	for st.busy() {
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

// mostSwept is how many handlers sweep looks at at a time.
const mostSwept = 1000

// sweep forgets handlers that wait for their turn and whose streams are over: of some connections,
// the next time of others.
func (st *starts) sweep() {
	st.mu.Lock()
	qs := slices.Concat(st.turns[0], st.turns[1])
	st.mu.Unlock()
	looked := 0
	for i := range qs {
		if looked += qs[(st.swept+i)%len(qs)].sweep(); looked >= mostSwept {
			st.swept += i + 1
			return
		}
	}
}

// turn returns the connection whose turn it is, and counts a handler of it as ready; nil if
// there is none, or as many as may be are ready. Those that have to wait for memory are passed
// over.
func (st *starts) turn() *runQueue {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.take() {
		return nil
	}
	defer st.count()
	for i := range st.turns {
		for range min(len(st.turns[i]), mostPassed) {
			q := st.turns[i].pop()
			if !q.waits() {
				return q
			}
			st.push(q)
		}
	}
	st.ready.Add(-1)
	return nil
}

func (ts *turns) pop() *runQueue {
	q := (*ts)[0]
	(*ts)[0] = nil
	if *ts = (*ts)[1:]; len(*ts) == 0 {
		*ts = nil
	}
	return q
}

// busy reports whether handlers wait for their turn.
func (st *starts) busy() bool { return st != nil && st.queues.Load() > 0 }
