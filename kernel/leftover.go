package kernel

import (
	"sync"
	"sync/atomic"
)

// leftovers are the streams of a connection that are over while their handlers run and
// have not read all that came: it is theirs to read, at their own pace, but what a peer
// can make us hold by resets must have a bound.
type leftovers struct {
	mu    sync.Mutex
	of    map[*core]struct{}
	bytes atomic.Int64 // held, at most
}

// Where a core is in the life of its handler.
const (
	isServed  = 1 << iota // its handler runs
	isLeft                // it is among the leftovers
	wasServed             // its handler has returned
	isUnseen              // it was offered, and nobody has looked at it
)

// beginServing says that a handler runs for the streams of an offer; endServing, that
// it has returned: what is unread then is for whoever the handler gave its stream to.
func (o *Offer) beginServing() {
	for _, s := range o.streams {
		s.c.served.Or(isServed)
	}
}

func (o *Offer) endServing() {
	for _, s := range o.streams {
		if s.c.served.Or(wasServed)&isLeft != 0 {
			o.conn.left.remove(&s.c)
		}
	}
}

// unseen says that nobody has looked at the offer: should its streams end before
// somebody does, what they hold is nobody's. noticed says that somebody is about to.
func (o *Offer) unseen() {
	for _, s := range o.streams {
		s.c.served.Or(isUnseen)
		if s.Err() != nil { // meanwhile: it did not find us
			s.c.drop()
		}
	}
}

func (o *Offer) noticed() {
	for _, s := range o.streams {
		s.c.served.And(^uint32(isUnseen))
	}
}

// drop lets go what a stream holds that is over, and that nobody has looked at.
func (c *core) drop() {
	c.a.Drop()
	if x := c.x.Load(); x != nil {
		if o := x.offer.Load(); o != nil {
			o.forget()
		}
	}
}

// leave is called when the stream has been retired. What nobody has looked at goes at
// once: its offer may wait for long.
func (l *leftovers) leave(c *core) {
	switch served := c.served.Load(); {
	case served&isUnseen != 0:
		c.drop()
		return
	case served != isServed:
		return
	}
	n := c.a.Unread()
	if n == 0 {
		return
	}
	l.mu.Lock()
	if l.of == nil {
		l.of = map[*core]struct{}{}
	}
	l.of[c] = struct{}{}
	l.bytes.Add(int64(n))
	out := l.excess(int64(c.conn.c.MaxUnread()))
	l.mu.Unlock()
	if c.served.Or(isLeft)&wasServed != 0 { // meanwhile: it did not find us
		l.remove(c)
	}
	for _, c := range out {
		c.a.Evict("too much is unread of streams that were reset")
	}
}

// excess takes out what is to be dropped so that at most most bytes are held: first the
// streams that hold the most. The lock is held.
func (l *leftovers) excess(most int64) (out []*core) {
	if l.bytes.Load() <= most {
		return nil
	}
	l.recount()
	for l.bytes.Load() > most {
		c, n := l.largest()
		if c == nil {
			break
		}
		delete(l.of, c)
		l.bytes.Add(-int64(n))
		out = append(out, c)
	}
	return out
}

// recount finds out what has been read meanwhile. The lock is held.
func (l *leftovers) recount() {
	sum := 0
	for c := range l.of {
		n := c.a.Unread()
		if n == 0 {
			delete(l.of, c)
		}
		sum += n
	}
	l.bytes.Store(int64(sum))
}

func (l *leftovers) largest() (worst *core, most int) {
	for c := range l.of {
		if n := c.a.Unread(); n > most {
			worst, most = c, n
		}
	}
	return worst, most
}

// remove forgets c, whose handler has returned.
func (l *leftovers) remove(c *core) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.of, c)
	l.recount()
}

// evictLargest drops what the stream holds that holds the most; false if none does.
func (l *leftovers) evictLargest() bool {
	l.mu.Lock()
	c, n := l.largest()
	if c != nil {
		delete(l.of, c)
		l.bytes.Add(-int64(n))
	}
	l.mu.Unlock()
	if c == nil {
		return false
	}
	c.a.Evict("the server is out of memory for what is unread of streams that were reset")
	return true
}
