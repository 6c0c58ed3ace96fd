package relay

import (
	"sync"
	"time"
)

// maxHeld bounds the bytes that are held back in each direction of a connection. With 25 ms each
// way 2.7 GB a second get through, which is more than the relay's copies do.
const maxHeld = 64 << 20

// A chunk is bytes that are due at a time.
type chunk struct {
	p   []byte
	due time.Time
}

// A hold is what is held back in one direction, first in, first out. One goroutine pushes, another
// one pops.
type hold struct {
	mu     sync.Mutex
	change sync.Cond // a chunk was pushed or popped, or it is the end
	chunks []chunk
	held   int // bytes
	ended  bool
}

func newHold() *hold {
	h := &hold{}
	h.change.L = &h.mu
	return h
}

// push waits until there is room.
func (h *hold) push(c chunk) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.held > 0 && h.held+len(c.p) > maxHeld {
		h.change.Wait()
	}
	h.held += len(c.p)
	h.chunks = append(h.chunks, c)
	h.change.Signal()
}

// pop waits for a chunk. After the last it returns false.
func (h *hold) pop() (chunk, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.chunks) == 0 && !h.ended {
		h.change.Wait()
	}
	if len(h.chunks) == 0 {
		return chunk{}, false
	}
	c := h.chunks[0]
	h.chunks[0] = chunk{}
	h.chunks = h.chunks[1:]
	h.held -= len(c.p)
	h.change.Signal()
	return c, true
}

// end says that nothing more is pushed.
func (h *hold) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	h.change.Signal()
}
