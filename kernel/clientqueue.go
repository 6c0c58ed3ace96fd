package kernel

import (
	"container/list"
	"context"
)

// Opens that find every connection full wait in Client.queue. What makes room for one stream
// wakes the Open that waits longest: thousands may wait, and all but one would wake for
// nothing. An Open that has had its turn wakes the next one, as there may be more room.

// connsChanged wakes all Opens that wait: there is another connection, or one less.
func (c *Client) connsChanged() {
	c.connMu.Lock()
	defer c.connMu.Unlock()
	c.noteStateLocked()
	c.changes++
	for c.queue.Len() > 0 {
		c.wakeLocked()
	}
}

// streamFreed wakes the Open that waits longest: a stream of k has ended, or the server allows
// more of them. Where calls and streams are counted apart, that may be no room for the Open
// that waits longest: all are woken.
func (c *Client) streamFreed(k *Conn) {
	if k.caps.StreamsByID {
		c.connsChanged()
		return
	}
	c.connMu.Lock()
	defer c.connMu.Unlock()
	c.changes++
	c.wakeLocked()
}

// wakeLocked takes the first Open out of the queue. The lock is held.
func (c *Client) wakeLocked() {
	if e := c.queue.Front(); e != nil {
		close(c.queue.Remove(e).(queued).turn)
	}
}

// A queued is an Open in Client.queue.
type queued struct {
	number uint64        // of the Open, in the order in which they came
	turn   chan struct{} // closed when it is out again
}

// mustQueue reports whether an Open of n streams on k has to wait because others came before
// it. One that asks for more than the server ever allows gets its error at once.
func (c *Client) mustQueue(k *Conn, s *search, n int) bool {
	return s.behind && s.number == 0 && !k.caps.StreamsByID && n <= k.maxStreams()
}

// queueLocked puts an Open into the queue, behind those that came before it. turn is closed when
// it is out again; leave takes it out, if it is not. The lock is held.
func (c *Client) queueLocked(s *search) (turn <-chan struct{}, leave func()) {
	if s.number == 0 {
		c.queuedLast++
		s.number = c.queuedLast
	}
	q := queued{s.number, make(chan struct{})}
	after := c.queue.Back()
	for after != nil && after.Value.(queued).number > q.number { // it had its turn, and found no room
		after = after.Prev()
	}
	var e *list.Element
	if after == nil {
		e = c.queue.PushFront(q)
	} else {
		e = c.queue.InsertAfter(q, after)
	}
	return q.turn, func() {
		c.connMu.Lock()
		defer c.connMu.Unlock()
		c.queue.Remove(e)
	}
}

// wait waits until there may be room, or ctx ends.
func (c *Client) wait(ctx context.Context, s *search) error {
	c.connMu.Lock()
	if s.changes != c.changes && ctx.Err() == nil {
		c.connMu.Unlock()
		return nil // there may be room by now
	}
	turn, leave := c.queueLocked(s)
	c.connMu.Unlock()
	select {
	case <-turn:
		s.made = nil
		return nil
	case <-ctx.Done():
		leave()
		return context.Cause(ctx)
	}
}

// passTurn ends what an Open has to do with the queue.
func (c *Client) passTurn(s *search) {
	if s.number == 0 {
		return
	}
	c.connMu.Lock()
	defer c.connMu.Unlock()
	c.wakeLocked()
}
