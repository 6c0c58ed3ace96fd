package kernel

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluicerpc/sluice/pool"
)

// retired is the set of a connection's streams that are over and still hold something:
//   - messages that a running handler has not read. It may read them at its own pace, so
//     they need a bound: a peer could make us hold any number of them by resets;
//   - a goroutine that feeds a channel, and waits for its reader. When this side closes
//     the connection there may be no reader any more.
type retired struct {
	mu    sync.Mutex
	of    map[*core]retiredUse // as of the last look
	shut  bool                 // this side has closed the connection: channels are fed no more
	bytes atomic.Int64         // the sums of of
	own   atomic.Int64
}

// retiredUse is the unread bytes of a stream that count towards the bound, and what its
// messages take beside that.
type retiredUse struct{ bytes, own int }

// add adds c, which is over, if it still holds something. Its port must have been retired
// before.
func (r *retired) add(c *core) {
	switch life := c.life.Load(); {
	case life&lifePending != 0:
		c.dropUnread() // its offer may wait for any time
	case life&lifeOfHandler == lifeServed && c.hasUnread(), c.Feeding():
		c.FeedingChanged()
	}
}

func (c *core) hasUnread() bool {
	n, _ := c.Unread()
	return n > 0
}

// update looks at what c holds, and adds it to the set or removes it. It reports whether a
// goroutine feeds a channel of c. It must follow every change of what c holds, other than
// reading.
func (r *retired) update(c *core) (fed bool) {
	r.mu.Lock()
	fed = r.look(c)
	shut := r.shut
	out := r.excess(int64(c.conn.c.MaxUnread()))
	r.mu.Unlock()
	if fed && shut {
		c.StopFeeding()
	}
	for _, c := range out {
		c.actorStream.Evict("too many unread bytes of streams that are over")
	}
	return fed
}

// look is update with the lock held. It evicts nothing.
func (r *retired) look(c *core) (fed bool) {
	fed = c.Feeding()
	n, own := 0, 0
	if c.life.Or(lifeRetired)&lifeOfHandler == lifeServed { // a handler that returns now sees the bit and calls update
		n, own = c.Unread()
	}
	was := r.of[c]
	r.bytes.Add(int64(n - was.bytes))
	r.own.Add(int64(own - was.own))
	switch {
	case n == 0 && (!fed || r.shut):
		c.life.And(^uint32(lifeRetired))
		delete(r.of, c)
		return fed
	case r.of == nil:
		r.of = map[*core]retiredUse{}
	}
	r.of[c] = retiredUse{n, own}
	return fed
}

// excess returns the streams to evict so that at most most bytes stay: those with the most
// unread bytes. The lock is held.
func (r *retired) excess(most int64) (out []*core) {
	if r.bytes.Load() <= most {
		return nil
	}
	for c := range r.of {
		r.look(c) // some may have been read meanwhile
	}
	for r.bytes.Load() > most {
		out = append(out, r.release(r.largest()))
	}
	return out
}

// largest is the stream with the most unread bytes, or nil. The lock is held.
func (r *retired) largest() (worst *core) {
	most := 0
	for c, u := range r.of {
		if n := u.bytes + u.own; n > most {
			worst, most = c, n
		}
	}
	return worst
}

// release stops counting the unread bytes of c, which is to be evicted. The lock is held.
func (r *retired) release(c *core) *core {
	c.life.Or(lifeReleased)
	r.look(c)
	return c
}

// evictLargest evicts the stream with the most unread bytes. It returns false if none has
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
	c.actorStream.Evict("the server is out of memory for unread bytes of streams that are over")
	return true
}

// compact has the streams copy messages out of memory that little else is in. It returns how
// many streams there are.
func (r *retired) compact(a *pool.Arena) int {
	r.mu.Lock()
	cs := slices.Collect(maps.Keys(r.of))
	r.mu.Unlock()
	for _, c := range cs {
		c.Compact(a)
	}
	return len(cs)
}

// endFeeding stops the goroutines that feed channels, and those that will. What was not
// taken from the channels stays for Receive.
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
		c.StopFeeding()
	}
}

func (r *retired) isShut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shut
}
