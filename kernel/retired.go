package kernel

import (
	"sync"
	"sync/atomic"
)

// retired is the streams of a connection that are over and still hold something:
//   - messages that a running handler has not read. The handler reads them at its own
//     pace, so what a peer can make us hold by resets needs a bound;
//   - a goroutine that feeds a channel and waits for its reader. When this side closes
//     the connection there may be no reader any more.
type retired struct {
	mu    sync.Mutex
	of    map[*core]int // unread bytes that count towards the bound
	shut  bool          // this side has closed the connection: nothing is fed any more
	bytes atomic.Int64  // the sum of of; what was read since is found out by recount
}

// add takes c in, which is over, if it still holds something. It must come after the
// stream has left its connection.
func (r *retired) add(c *core) {
	switch life := c.life.Load(); {
	case life&lifePending != 0:
		c.dropPending() // its offer may wait for long
	case life == lifeServed && c.Unread() > 0, c.Feeding():
		c.Fed()
	}
}

// update looks at what c holds, and has it in the set while that is anything. It reports
// whether a goroutine feeds a channel of c.
func (r *retired) update(c *core) (fed bool) {
	r.mu.Lock()
	fed = r.look(c)
	shut := r.shut
	out := r.excess(int64(c.conn.c.MostUnread()))
	r.mu.Unlock()
	if fed && shut {
		c.GiveUp()
	}
	for _, c := range out {
		c.actorStream.Evict("too much is unread of streams that were reset")
	}
	return fed
}

// look counts again what c holds. The lock is held.
func (r *retired) look(c *core) (fed bool) {
	fed = c.Feeding()
	n := 0
	if c.life.Or(lifeRetired)&^lifeRetired == lifeServed { // a handler that returns now finds the bit, and calls update
		n = c.Unread()
	}
	r.bytes.Add(int64(n - r.of[c]))
	switch {
	case n == 0 && (!fed || r.shut):
		c.life.And(^uint32(lifeRetired))
		delete(r.of, c)
		return fed
	case r.of == nil:
		r.of = map[*core]int{}
	}
	r.of[c] = n
	return fed
}

// excess chooses what to evict so that at most most bytes stay: the streams that hold
// the most. The lock is held.
func (r *retired) excess(most int64) (out []*core) {
	if r.bytes.Load() <= most {
		return nil
	}
	for c := range r.of {
		r.look(c) // it may have been read meanwhile
	}
	for r.bytes.Load() > most {
		out = append(out, r.release(r.largest()))
	}
	return out
}

// largest is the stream with the most unread bytes; nil if none has any.
func (r *retired) largest() (worst *core) {
	most := 0
	for c, n := range r.of {
		if n > most {
			worst, most = c, n
		}
	}
	return worst
}

// release has the unread bytes of c count no more. The lock is held.
func (r *retired) release(c *core) *core {
	c.life.Or(lifeReleased)
	r.look(c)
	return c
}

// evictLargest drops what the stream with the most unread bytes holds; false if none has
// any.
func (r *retired) evictLargest() bool {
	r.mu.Lock()
	for c := range r.of {
		r.look(c)
	}
	c := r.largest()
	if c != nil {
		r.release(c)
	}
	r.mu.Unlock()
	if c == nil {
		return false
	}
	c.actorStream.Evict("the server is out of memory for what is unread of streams that were reset")
	return true
}

// endFeeding ends the goroutines that feed channels, now and from now on. What they have
// not handed over stays for Receive.
func (r *retired) endFeeding() {
	r.mu.Lock()
	r.shut = true
	var fed []*core
	for c := range r.of {
		if r.look(c) {
			fed = append(fed, c)
		}
	}
	r.mu.Unlock()
	for _, c := range fed {
		c.GiveUp()
	}
}

func (r *retired) isShut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shut
}
