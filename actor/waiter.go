package actor

import (
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/pool"
)

// A waiter is a sender that waits for credit.
type waiter struct {
	next       *waiter
	m          pool.Message
	creditOnly bool // has no message yet
	since      timers.Stamp
	ready      chan error // gets one value; nil: the message was accepted
}

// waiters are the senders that wait for credit, in order. The zero value is empty.
type waiters struct {
	head, tail *waiter
	spare      *waiter // the last that was used, to be used again
	bytes      int     // of their messages
}

// get returns a waiter for one use. A stream keeps its own: a pool shared by all
// would carry the channel from one synctest bubble into another.
func (l *waiters) get() *waiter {
	if w := l.spare; w != nil {
		l.spare = nil
		w.since = stampNow()
		return w
	}
	return &waiter{ready: make(chan error, 1), since: stampNow()}
}

// put takes w back.
func (l *waiters) put(w *waiter) {
	*w = waiter{ready: w.ready}
	l.spare = w
}

func (l *waiters) empty() bool { return l.head == nil }

func (l *waiters) push(w *waiter) {
	l.bytes += w.m.Len()
	if l.tail == nil {
		l.head = w
	} else {
		l.tail.next = w
	}
	l.tail = w
}

// pop returns the first, or nil.
func (l *waiters) pop() *waiter {
	w := l.head
	if w == nil {
		return nil
	}
	if l.head = w.next; l.head == nil {
		l.tail = nil
	}
	w.next = nil
	l.bytes -= w.m.Len()
	return w
}

// remove reports whether w was in the list.
func (l *waiters) remove(w *waiter) bool {
	var prev *waiter
	for x := l.head; x != nil; prev, x = x, x.next {
		if x != w {
			continue
		}
		if prev == nil {
			l.head = w.next
		} else {
			prev.next = w.next
		}
		if l.tail == w {
			l.tail = prev
		}
		l.bytes -= w.m.Len()
		return true
	}
	return false
}
