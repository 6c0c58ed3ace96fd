package seastar

import "sync"

// A budget is a weighted semaphore, first come first served: the memory that the calls of
// all connections may take together. It is not used without a limit.
type budget struct {
	mu      sync.Mutex
	max     int64 // 0: no limit
	used    int64
	waiters []*waiter
}

// A waiter is a call that waits for memory.
type waiter struct {
	cost  int64
	ready chan struct{} // closed when the cost was acquired
}

// acquire acquires cost, or returns a waiter for it.
func (b *budget) acquire(cost int64) *waiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiters) == 0 && b.used+cost <= b.max {
		b.used += cost
		return nil
	}
	t := &waiter{cost, make(chan struct{})}
	b.waiters = append(b.waiters, t)
	return t
}

// release returns cost.
func (b *budget) release(cost int64) {
	if cost == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= cost
	b.wake()
}

// wake wakes the first waiters, as many as there is room for.
func (b *budget) wake() {
	for len(b.waiters) > 0 && b.used+b.waiters[0].cost <= b.max {
		t := b.waiters[0]
		b.waiters[0], b.waiters = nil, b.waiters[1:]
		b.used += t.cost
		close(t.ready)
	}
}

// cancel removes a waiter, or returns its cost if that was acquired.
func (b *budget) cancel(t *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, o := range b.waiters {
		if o == t {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			b.wake()
			return
		}
	}
	b.used -= t.cost
	b.wake()
}
