package fleet

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/sluicerpc/sluice/internal/errtext"
)

// mostEndpoints is how many endpoints of a set count.
const mostEndpoints = 100_000

// reapTime is between two looks at what drains.
const reapTime = 100 * time.Millisecond

// A watcher is what the goroutine of a client knows that listens to the resolver.
type watcher struct {
	c        *Client
	asked    <-chan asked // the call of the resolver, under way
	sets     <-chan Set   // what it has returned
	stop     context.CancelFunc
	retry    <-chan time.Time // when to call it again
	failures int              // in a row
	picked   <-chan picked    // what Options.Filter leaves, under way
	reap     <-chan time.Time
}

// asked is what the resolver has returned.
type asked struct {
	sets <-chan Set
	err  error
}

// picked is what is left of a set.
type picked struct {
	endpoints []Endpoint
	err       string // why some are missing
}

// run listens to the resolver, and removes what has drained, until Close.
func (c *Client) run() {
	defer c.wg.Done()
	w := &watcher{c: c}
	w.ask()
	for {
		sets := w.sets
		if w.picked != nil {
			sets = nil // one after the other
		}
		select {
		case a := <-w.asked:
			w.asked, w.sets = nil, a.sets
			if a.err != nil {
				w.fail(a.err)
			}
		case s, ok := <-sets:
			if !ok {
				w.fail(errEnded)
				continue
			}
			w.failures = 0
			w.picked = c.filter(s)
		case p := <-w.picked:
			w.picked = nil
			if c.take(p) && w.reap == nil {
				w.reap = time.After(reapTime)
			}
		case <-w.retry:
			w.retry = nil
			w.ask()
		case <-w.reap:
			w.reap = nil
			if c.reap() {
				w.reap = time.After(reapTime)
			}
		case <-c.closing.Done():
			w.stop()
			return
		}
	}
}

// ask calls the resolver, in a goroutine of its own: it is the program's.
func (w *watcher) ask() {
	c := w.c
	ctx, cancel := context.WithCancel(c.closing)
	w.stop = cancel
	w.asked = aside(func() (a asked) {
		if a.sets = c.resolver(ctx, c.name, c.again); a.sets == nil {
			a.err = errNoChan
		}
		return a
	}, func(err error) asked { return asked{err: fmt.Errorf("the resolver %w", err)} })
}

// fail notes that the registry can't be asked, and when to try again.
func (w *watcher) fail(err error) {
	w.sets = nil
	w.stop()
	w.c.take(picked{err: err.Error()})
	w.retry = time.After(w.c.backoff(w.failures))
	w.failures++
}

// aside calls f, which is the program's, in a goroutine of its own: it may wait for ever,
// panic, or end the goroutine.
func aside[T any](f func() T, bad func(error) T) <-chan T {
	result := make(chan T, 1)
	go func() {
		var v T
		err := errExit
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panicked: %v", r)
			}
			if err != nil {
				v = bad(err)
			}
			result <- v
		}()
		v = f()
		err = nil
	}()
	return result
}

// filter copies a set, without what can't be an endpoint and what Options.Filter leaves out.
func (c *Client) filter(s Set) <-chan picked {
	return aside(func() picked { return sound(s, c.opts.Filter) },
		func(err error) picked { return picked{err: "Options.Filter, or the set's error, " + err.Error()} })
}

// sound returns the endpoints of a set that count.
func sound(s Set, filter func(Endpoint) bool) (p picked) {
	var bad []error
	if s.Err != nil {
		bad = append(bad, s.Err)
	}
	if len(s.Endpoints) > mostEndpoints {
		s.Endpoints, bad = s.Endpoints[:mostEndpoints], append(bad, errTooMany)
	}
	p.endpoints = make([]Endpoint, 0, len(s.Endpoints))
	seen := make(map[string]struct{}, len(s.Endpoints))
	for _, e := range s.Endpoints {
		if err := e.check(); err != nil {
			bad = append(bad, err)
			continue
		}
		if _, twice := seen[e.Addr]; twice || filter != nil && !filter(e) {
			continue
		}
		seen[e.Addr] = struct{}{}
		p.endpoints = append(p.endpoints, e)
	}
	switch {
	case len(p.endpoints) > 0 || len(bad) > 0:
	case len(s.Endpoints) == 0:
		bad = append(bad, errNoSet)
	default:
		bad = append(bad, errFiltered)
	}
	if err := firstOf(bad); err != nil {
		p.err = errtext.Quote(errtext.Clip(errtext.Of(err), mostText))
	}
	return p
}

// take makes the endpoints of a set those of the client, if there are any. It reports whether
// any are to be removed.
func (c *Client) take(p picked) (leaving bool) {
	c.mu.Lock()
	c.setErr = p.err
	if len(p.endpoints) > 0 {
		c.sets++
		c.setAt = time.Now()
		leaving = c.applyLocked(p.endpoints)
	}
	c.mu.Unlock()
	c.change()
	return leaving
}

// applyLocked makes es the endpoints. Those that have gone are left to reap.
func (c *Client) applyLocked(es []Endpoint) (leaving bool) {
	t := c.tableOf(es)
	for i := range t.endpoints {
		e := &t.endpoints[i]
		key := memberKey{e.Addr, e.Name}
		m := c.members[key]
		if m == nil {
			m = &member{fleet: c, key: key}
			c.members[key] = m
		}
		m.endpoint, m.taken, m.leaving = *e, c.sets, false
		t.members[i] = m
	}
	for key, m := range c.members {
		if m.taken == c.sets || m.leaving {
			leaving = leaving || m.leaving
			continue
		}
		if m.client.Load() == nil && m.users.CompareAndSwap(0, over) {
			delete(c.members, key)
			continue
		}
		m.leaving, m.left, leaving = true, c.now(), true
	}
	t.endpoints = nil
	if c.opts.Balancer == Ketama {
		t.makeRing()
	}
	c.table.Store(t)
	return leaving
}

// reap ends the members that were removed and have no streams any more, or had their time. It
// reports whether others are left.
func (c *Client) reap() (others bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, m := range c.members {
		if !m.leaving {
			continue
		}
		late := c.opts.Drain >= 0 && c.now()-m.left >= c.opts.Drain
		if _, n := m.streams(); !late && (n > 0 || !m.users.CompareAndSwap(0, over)) {
			others = true
			continue
		}
		delete(c.members, key)
		if k := m.end(); k != nil && !c.closed {
			c.wg.Add(1)
			go func() {
				defer c.wg.Done()
				_ = k.Close()
			}()
		}
	}
	return others
}

// A table is the endpoints that calls and streams can go to.
type table struct {
	endpoints []Endpoint // while it is made
	members   []*member  // in an order of this client's own, so that not all begin with the same one
	weights   []uint64   // of the members
	sums      []uint64   // of the weights, up to each
	ring      []uint64   // Ketama's points: a place on the ring, and below that the member's index
}

// tableOf returns a table that has its endpoints, and room for its members.
func (c *Client) tableOf(es []Endpoint) *table {
	type ranked struct {
		rank uint64
		i    int
	}
	order := make([]ranked, len(es))
	for i := range es {
		order[i] = ranked{maphash.String(c.seed, es[i].Addr), i}
	}
	slices.SortFunc(order, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	if n := c.opts.Subset; n > 0 && n < len(order) {
		order = order[:n]
	}
	n := len(order)
	t := &table{endpoints: make([]Endpoint, n), members: make([]*member, n), weights: make([]uint64, n), sums: make([]uint64, n)}
	sum := uint64(0)
	for i, o := range order {
		e := es[o.i]
		sum += uint64(e.Weight)
		t.endpoints[i], t.weights[i], t.sums[i] = e, uint64(e.Weight), sum
	}
	return t
}
