// Package timers runs any number of timers on one runtime timer, which sleeps
// until the next of them is due. There is no goroutine while nothing is due and
// no runtime timer while nothing is set, so that idle streams cost neither.
package timers

import (
	"sync"
	"time"
)

// An Owner is told when its timer is due, in the queue's own goroutine. It must
// not block; it may set timers.
type Owner interface {
	Expire(t *Timer, now time.Time)
}

// A Timer is one entry, embedded in what it belongs to. The zero Timer is not
// set.
type Timer struct {
	owner Owner
	due   time.Time
	index int // in the heap, from 1; 0: not set
}

// A Queue is a set of timers. The zero Queue is ready to use.
type Queue struct {
	mu    sync.Mutex
	heap  []*Timer
	alarm *time.Timer
	at    time.Time // when the alarm goes off
	armed bool
}

// Set makes t due at due, whatever it was set to before.
func (q *Queue) Set(t *Timer, o Owner, due time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t.owner, t.due = o, due
	if t.index == 0 {
		q.heap = append(q.heap, t)
		t.index = len(q.heap)
	}
	q.fix(t.index)
	q.arm()
}

// Hasten makes t due at due, if it is set and would be due later.
func (q *Queue) Hasten(t *Timer, due time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.index != 0 && due.Before(t.due) {
		t.due = due
		q.fix(t.index)
		q.arm()
	}
}

// Stop unsets t. Its owner may be being told at this very moment.
func (q *Queue) Stop(t *Timer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.index != 0 {
		q.remove(t)
	}
	if len(q.heap) == 0 && q.armed {
		q.armed = false
		q.alarm.Stop()
	}
}

// Len is the number of timers that are set.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.heap)
}

// arm makes sure that the alarm goes off no later than the first timer is due.
// An alarm that is early by then is let go off: re-arming costs more.
func (q *Queue) arm() {
	first := q.heap[0].due
	if q.armed && !first.Before(q.at) {
		return
	}
	q.armed, q.at = true, first
	// Never 0: in a synctest bubble Go 1.26 runs such a timer inside Reset, which under
	// the race detector crashes now and then.
	d := max(time.Until(first), 1)
	if q.alarm == nil {
		q.alarm = time.AfterFunc(d, q.expire)
		return
	}
	q.alarm.Reset(d)
}

func (q *Queue) expire() {
	now := time.Now()
	q.mu.Lock()
	q.armed = false
	for len(q.heap) > 0 && !q.heap[0].due.After(now) {
		t := q.heap[0]
		q.remove(t)
		o := t.owner
		q.mu.Unlock()
		o.Expire(t, now)
		q.mu.Lock()
	}
	if len(q.heap) > 0 {
		q.arm()
	}
	q.mu.Unlock()
}

func (q *Queue) remove(t *Timer) {
	i, last := t.index, len(q.heap)
	q.swap(i, last)
	q.heap[last-1] = nil
	q.heap = q.heap[:last-1]
	t.index = 0
	if i < last {
		q.fix(i)
	}
}

func (q *Queue) swap(i, j int) {
	h := q.heap
	h[i-1], h[j-1] = h[j-1], h[i-1]
	h[i-1].index, h[j-1].index = i, j
}

func (q *Queue) less(i, j int) bool { return q.heap[i-1].due.Before(q.heap[j-1].due) }

// fix moves the entry at i to where it belongs.
func (q *Queue) fix(i int) {
	for i > 1 && q.less(i, i/2) {
		q.swap(i, i/2)
		i /= 2
	}
	for {
		c := 2 * i
		if c > len(q.heap) {
			return
		}
		if c < len(q.heap) && q.less(c+1, c) {
			c++
		}
		if !q.less(c, i) {
			return
		}
		q.swap(i, c)
		i = c
	}
}
