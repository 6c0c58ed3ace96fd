package kernel

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/internal/timers"
)

// A runQueue counts a connection's running handlers, those of ended streams included. As
// many may run as streams may be open. A stream's end reaches the peer a moment before its
// handler has returned, so an honest peer may open the next stream too early: as many
// offers may wait.
//
// Where a peer is not told how many calls it may have open, calls count for themselves: as many
// may run beside the handlers of streams, and many more may wait. Were they to stand in one
// queue, or were the connection not to be read, a call could wait for what comes by a stream
// behind it.
type runQueue struct {
	most     int           // how many may run, and how many may wait; of calls, how many may run
	calls    callQueue     // of those that count for themselves
	starts   *starts       // nil: handlers begin at once
	conn     *Conn         // whose memory counts; nil: nobody's
	handling *atomic.Int64 // the sum of count of all connections; nil: nobody asks
	count    atomic.Int32  // how many run or wait, calls among them; readable without the lock

	mu   sync.Mutex
	n    int // how many run
	wait []job
	turn []job // of those that run, those that wait for their turn: see starts

	// Of the jobs of ordered methods one is in turn: it runs, or is in wait.
	inTurn bool
	behind []job // those that come after it

	// A goroutine whose handler has returned waits for the next job. A new goroutine
	// would grow its stack again, which costs more than the rest of an open.
	idle  int      // goroutines that wait at jobs and were given none
	jobs  chan job // a job without an offer ends a goroutine
	used  bool     // a waiting goroutine got a job since the timer last fired
	armed bool
	over  bool // the connection has ended
	timer timers.Timer
	queue *timers.Queue
}

// A callQueue is what a runQueue has of the calls that count for themselves.
type callQueue struct {
	most  int          // how many there may be, running or waiting; 0: calls are as streams
	count atomic.Int32 // how many there are, also those of ordered methods; readable without the lock

	asked int // since those that wait were looked at; the reader owns it

	// Owned by runQueue.mu. Those of ordered methods are among the streams' handlers: one of them
	// runs at most.
	n    int
	wait []job
}

const (
	mostIdle  = 64          // goroutines that wait for a job, or have one waiting for them
	idleCheck = time.Second // waiting goroutines end when none has got a job for so long
)

// A job is an offer and its handler.
type job struct {
	o *Offer
	e *entry
}

func (j job) ordered() bool { return j.e != nil && j.e.ordered }

// full reports whether not even one more offer may wait. The connection's reader calls it.
func (q *runQueue) full(call bool) bool {
	if call && q.calls.most > 0 {
		q.sweepCalls()
		return int(q.calls.count.Load()) >= q.calls.most
	}
	return int(q.count.Load()-q.calls.count.Load()) >= 2*q.most
}

// counted reports whether j is a call that counts for itself.
func (q *runQueue) counted(j job) bool { return q.calls.most > 0 && j.o.Unary() }

// isCall reports whether j runs, or waits, among the calls.
func (q *runQueue) isCall(j job) bool { return q.counted(j) && !j.ordered() }

// hasFew reports whether the connection has few handlers.
func (q *runQueue) hasFew() bool { return q.count.Load() <= fewStreams }

// waits reports whether its handlers have to wait for memory.
func (q *runQueue) waits() bool {
	return q.conn != nil && (!q.hasFew() && q.conn.endpoint.process.isOver() || q.conn.wantsTooMuch(stopStarting, stopWaiting))
}

// recount updates count after a change of what it counts. The lock is held.
func (q *runQueue) recount() {
	n := int32(q.n + len(q.wait) + len(q.behind) + q.calls.n + len(q.calls.wait))
	if d := n - q.count.Swap(n); d != 0 && q.handling != nil {
		q.handling.Add(int64(d))
	}
}

// counts returns how many goroutines there are for handlers, and how many offers wait.
func (q *runQueue) counts() (goroutines, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting = len(q.wait) + len(q.behind) + len(q.turn) + len(q.calls.wait)
	return q.n + q.calls.n - len(q.turn) + q.idle, waiting
}

// enter counts a job in. If enter returns true, the caller starts a goroutine for it.
// Otherwise a waiting goroutine has got the job, or the job waits until it may run.
func (q *runQueue) enter(j job) bool {
	start, waits := q.admit(j)
	if waits { // those who are ready may all have begun meanwhile
		q.starts.next()
	}
	return start
}

// admit is enter; waits says that the job waits for its turn.
func (q *runQueue) admit(j job) (start, waits bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer q.recount()
	if q.counted(j) {
		q.calls.count.Add(1)
	}
	if j.ordered() {
		if q.inTurn {
			q.behind = append(q.behind, j)
			return false, false
		}
		q.inTurn = true
	}
	n, wait := q.among(j)
	if *n >= q.most {
		*wait = append(*wait, j)
		return false, false
	}
	*n++
	if !q.starts.may(q) {
		if q.turn = append(q.turn, j); len(q.turn) == 1 {
			q.starts.await(q)
		}
		return false, true
	}
	j.o.handlerStarts()
	return !q.handLocked(j), false
}

// among returns how many run of what j is one of, and those of it that wait. The lock is held.
func (q *runQueue) among(j job) (n *int, wait *[]job) {
	if q.isCall(j) {
		return &q.calls.n, &q.calls.wait
	}
	return &q.n, &q.wait
}

// sweepCalls takes out calls that wait and whose streams are over, such as those that have
// waited until their deadlines: handlers that are stuck would keep them. It looks at all of
// them each time that as many have come as may run.
func (q *runQueue) sweepCalls() {
	c := &q.calls
	if int(c.count.Load()) <= q.most {
		return
	}
	if c.asked++; c.asked < q.most {
		return
	}
	c.asked = 0
	q.mu.Lock()
	all := c.wait
	c.wait = nil
	q.mu.Unlock()
	live := all[:0]
	for _, j := range all {
		if j.o.streams[0].Err() == nil {
			live = append(live, j)
		}
	}
	clear(all[len(live):])
	q.mu.Lock()
	c.count.Add(int32(len(live) - len(all)))
	if q.over {
		c.count.Add(-int32(len(live)))
		live = nil
	}
	// The reader alone adds to those that wait. Who found none of them to run next has left room.
	begin := live[:min(len(live), max(q.most-c.n, 0))]
	c.wait = live[len(begin):]
	c.n += len(begin)
	q.recount()
	q.mu.Unlock()
	for _, j := range begin {
		j.o.handlerStarts()
		q.starts.force()
		q.starts.run(j)
	}
}

// sweep takes out jobs that wait for their turn and whose streams are over. Where memory is
// short that may take long, and they would count meanwhile. It returns how many there were.
func (q *runQueue) sweep() (looked int) {
	q.mu.Lock()
	turn := slices.Clone(q.turn)
	q.mu.Unlock()
	looked = len(turn)
	over := turn[:0]
	for _, j := range turn {
		if j.o.streams[0].Err() != nil {
			over = append(over, j)
		}
	}
	for _, j := range over {
		q.drop(j)
	}
	return looked
}

// drop takes j out of turn, unless its turn has come meanwhile, and counts it out.
func (q *runQueue) drop(j job) {
	q.mu.Lock()
	i := slices.Index(q.turn, j)
	if i > 0 { // nextReady has the first
		q.turn = slices.Delete(q.turn, i, i+1)
	}
	q.mu.Unlock()
	if i > 0 {
		j.o.abortRest()
		if j, ok, _ := q.leave(nil, j); ok {
			q.starts.force()
			q.starts.run(j)
		}
	}
}

// nextReady returns the job whose turn it is, to be begun; ok is false if it was not worth
// that any more. more says that others wait.
func (q *runQueue) nextReady() (j job, ok, more bool) {
	q.mu.Lock()
	j = q.turn[0]
	q.turn[0] = job{}
	if q.turn = q.turn[1:]; len(q.turn) == 0 {
		q.turn = nil
	}
	more = q.turn != nil
	q.mu.Unlock()
	if j.o.streams[0].Err() == nil {
		j.o.handlerStarts()
		return j, true, more
	}
	j.o.abortRest() // the peer has ended it meanwhile
	j, ok, _ = q.leave(nil, j)
	return j, ok, more
}

// hand gives j to a goroutine that waits for one. It returns false if none does.
func (q *runQueue) hand(j job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.handLocked(j)
}

func (q *runQueue) handLocked(j job) bool {
	if q.idle == 0 {
		return false
	}
	q.idle--
	q.used = true
	q.jobs <- j // has room: see mayIdle
	return true
}

// next counts the handler of last out and returns the job that its goroutine does next, for
// which it may wait. It returns false if the goroutine must end.
func (q *runQueue) next(t *timers.Queue, last job) (job, bool) {
	j, ok, idle := q.leave(t, last)
	switch {
	case idle:
		j = <-q.jobs
		if ok = j.o != nil; ok {
			q.starts.began()
		}
	case ok && q.starts.busy():
		runtime.Gosched() // others wait longer
	}
	return j, ok
}

// leave returns a job that has waited, to run in place of last, whose handler has returned.
// If there is none, leave counts the handler out, and idle reports whether the goroutine
// may wait for a job; with a nil t it may not.
func (q *runQueue) leave(t *timers.Queue, last job) (j job, ok, idle bool) {
	for {
		q.mu.Lock()
		if q.counted(last) {
			q.calls.count.Add(-1)
		}
		if last.ordered() {
			q.nextTurn()
		}
		n, wait := q.among(last)
		if len(*wait) == 0 {
			*wait = nil
			*n--
			q.recount()
			idle = t != nil && q.mayIdle(t)
			q.mu.Unlock()
			return job{}, false, idle
		}
		j, (*wait)[0] = (*wait)[0], job{}
		*wait = (*wait)[1:]
		q.recount()
		q.mu.Unlock()
		if j.o.streams[0].Err() == nil {
			j.o.handlerStarts()
			return j, true, false
		}
		j.o.abortRest() // the peer has ended it meanwhile
		last = j
	}
}

// nextTurn lets the next job of an ordered method wait for its goroutine. The lock is held.
func (q *runQueue) nextTurn() {
	if q.inTurn = len(q.behind) > 0; !q.inTurn {
		q.behind = nil
		return
	}
	q.wait = append(q.wait, q.behind[0])
	q.behind[0] = job{}
	q.behind = q.behind[1:]
}

// mayIdle counts the goroutine among those that wait for a job, unless there are enough
// of them. The lock is held.
func (q *runQueue) mayIdle(t *timers.Queue) bool {
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

// Expire implements timers.Owner. It ends the waiting goroutines if none has got a job
// since the last time.
func (q *runQueue) Expire(_ *timers.Timer, now time.Time) {
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

// stop ends the waiting goroutines, because the connection has ended.
func (q *runQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
	q.dismiss()
	q.calls.count.Add(-int32(len(q.calls.wait))) // they are over, and handlers that are stuck would keep them
	q.calls.wait = nil
	q.recount()
	if q.queue != nil {
		q.queue.Stop(&q.timer)
	}
}

func (q *runQueue) dismiss() {
	for ; q.idle > 0; q.idle-- {
		q.jobs <- job{}
	}
}
