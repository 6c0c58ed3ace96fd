package load

import "sync"

// An item is a due message: its due time, and why it was not sent then, if that is known.
type item int64

const reasonBits = 3

func newItem(due int64, why reason) item { return item(due<<reasonBits | int64(why)) }

func (i item) due() int64  { return int64(i) >> reasonBits }
func (i item) why() reason { return reason(i & (1<<reasonBits - 1)) }

// because returns i with a reason, if it has none yet.
func (i item) withReason(why reason) item {
	if i.why() != 0 {
		return i
	}
	return newItem(i.due(), why)
}

// backlog bounds what one stream may have due and unsent.
const backlog = 1 << 18

// A queue hands due messages from the pacer to a sender. The pacer never
// waits; the sender takes all there is at once.
type queue struct {
	mu     sync.Mutex
	items  []item
	spare  []item // the sender's last batch, for reuse
	closed bool
	wake   chan struct{} // pacer -> sender; holds one
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// push reports whether there was room.
func (q *queue) push(i item) bool {
	q.mu.Lock()
	ok := len(q.items) < backlog
	if ok {
		q.items = append(q.items, i)
	}
	first := len(q.items) == 1
	q.mu.Unlock()
	if first {
		q.signal()
	}
	return ok
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// close ends take once the queue is empty.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

// tryTake returns what is due, perhaps nothing. The batch is valid until the
// next take; open is false once no more will come.
func (q *queue) tryTake() (batch []item, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch = q.items
	q.items, q.spare = q.spare[:0], batch
	return batch, !q.closed
}

// take waits until something is due; an empty batch is the end.
func (q *queue) take() []item {
	for {
		batch, open := q.tryTake()
		if len(batch) > 0 || !open {
			return batch
		}
		<-q.wake
	}
}
