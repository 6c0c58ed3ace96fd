package fleet

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/sluicerpc/sluice/status"
)

// acquire returns a member that is connected, and holds it. If there is none it has some
// connect, and waits for the first of them. at is for Ketama. patient says not to give up before
// ctx ends.
func (c *Client) acquire(ctx context.Context, at uint64, patient bool) (*member, error) {
	if m, _ := c.pick(at); m != nil {
		return m, nil
	}
	w := wait{c: c, patient: patient, failed: c.failed.Load()}
	for {
		changed, closed := c.changes()
		if closed {
			return nil, c.errClosed()
		}
		m, owner := c.pick(at)
		if m != nil {
			return m, nil
		}
		next, err := w.step(owner)
		if err != nil {
			return nil, err
		}
		timer := time.NewTimer(next)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, w.cancelled(ctx)
		}
		timer.Stop()
	}
}

// A wait is one call or open that finds no endpoint connected.
type wait struct {
	c       *Client
	patient bool
	failed  uint64 // Client.failed when it began
}

// longest is how long a wait sleeps at most before it looks again, when nothing changes.
const longest = time.Minute

// step has an endpoint connect if it is time for that: owner, if that is what the call waits for.
// It returns how long nothing is to be done, or why to give up.
func (w *wait) step(owner *member) (time.Duration, error) {
	c := w.c
	t := c.table.Load()
	switch {
	case t == nil:
		return longest, w.noSet()
	case owner != nil:
		owner.wake()
		return dialDelay, nil
	}
	due, next := t.anyDue(c)
	dialing := c.dials.Load() > 0
	tries := c.failed.Load() - w.failed
	if due == nil && !dialing || tries >= mostTries {
		if err := c.lastErr.Load(); err != nil && (!w.patient || !mayPass(*err)) {
			return 0, *err
		}
	}
	if due == nil {
		return min(next, longest), nil
	}
	c.mu.Lock()
	next = c.tokens.take(c.now(), dialing)
	c.mu.Unlock()
	if next == 0 {
		due.wake()
		next = dialDelay
	}
	return next, nil
}

// noSet is why there are no endpoints at all, if that is known.
func (w *wait) noSet() error {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if text := w.c.setErr; text != "" && !w.patient {
		return w.c.unavailable(text)
	}
	return nil
}

func (w *wait) cancelled(ctx context.Context) error {
	err := w.c.lastErr.Load()
	if err == nil || w.c.failed.Load() == 0 {
		return &status.ConnError{Addr: address(w.c.target), Op: "dial", Err: context.Cause(ctx)}
	}
	return &status.ConnError{Addr: address(w.c.target), Op: "dial", Err: &cancelledError{context.Cause(ctx), *err}}
}

// anyDue returns a member that may be dialled now, in turn, or else how long none may.
func (t *table) anyDue(c *Client) (due *member, next time.Duration) {
	next = longest
	now := c.now()
	from := int(c.turns.Add(1) % uint64(len(t.members)))
	for i := range t.members {
		m := t.members[(from+i)%len(t.members)]
		at := time.Duration(m.next.Load())
		switch {
		case m.dialing.Load():
		case at <= now:
			return m, 0
		default:
			next = min(next, at-now)
		}
	}
	return nil, next
}

// While no endpoint is connected, a client dials two at once, if the first has failed or has
// not answered within dialDelay, and then one in about dialGap: where all clients have lost all
// connections, not all of them try everything at once.
const (
	dialDelay = 250 * time.Millisecond
	dialGap   = time.Second
	dialBurst = 2
)

// tokens are what dials cost while no endpoint is connected.
type tokens struct {
	n    int           // that are left, of dialBurst
	next time.Duration // when there is one more
	last time.Duration // when a dial began
}

// take takes one and returns 0, or returns how long there is none. dialing says that a dial is
// under way.
func (b *tokens) take(now time.Duration, dialing bool) time.Duration {
	for b.n < dialBurst && now >= b.next {
		b.n++
		b.next += dialGap + rand.N(dialGap/4)
	}
	switch {
	case dialing && now-b.last < dialDelay:
		return dialDelay - (now - b.last)
	case b.n == 0:
		return b.next - now
	case b.n == dialBurst:
		b.next = now + dialGap + rand.N(dialGap/4)
	}
	b.n--
	b.last = now
	return 0
}
