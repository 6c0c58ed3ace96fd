package kernel

import (
	"runtime/metrics"
	"sync/atomic"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/status"
)

// What is counted against Limits.Memory that conn does not know of, in bytes. TestPrices
// compares it with what there is.
const (
	handshakeSize = 24 << 10 // a connection in its handshake
	waitingSize   = 1 << 10  // an offer that waits for its handler to begin, and its stream
	handlerOwn    = conn.HandlerSize - leastStack
	leastStack    = 4 << 10  // of a handler
	mostStack     = 64 << 10 // that is believed: after a burst of goroutines there are stacks left over
	manyHandlers  = 1000     // of which the average stack is measured
)

// stacks is what the stack of a handler takes. Handlers are the program's: how much they need
// is not known before. Where there are many, and few other goroutines, it is the average.
type stacks struct{ each atomic.Int64 }

var stackMetrics = [2]string{"/memory/classes/heap/stacks:bytes", "/sched/goroutines:goroutines"}

// measure is called now and then, with the number of handlers.
func (st *stacks) measure(handlers int64) {
	if handlers < manyHandlers {
		st.each.Store(0)
		return
	}
	s := [2]metrics.Sample{{Name: stackMetrics[0]}, {Name: stackMetrics[1]}}
	metrics.Read(s[:])
	if s[0].Value.Kind() == metrics.KindUint64 && s[1].Value.Kind() == metrics.KindUint64 {
		if goroutines := int64(s[1].Value.Uint64()); goroutines <= 2*handlers {
			st.each.Store(int64(s[0].Value.Uint64()) / max(goroutines, 1))
		}
	}
}

// handlerSize is what a handler takes, bytes.
func (st *stacks) handlerSize() int {
	return handlerOwn + int(min(max(st.each.Load(), leastStack), mostStack))
}

// memory is how many bytes the connection holds, how many its messages take beside that, and
// how many it, its streams and handlers take themselves.
func (c *Conn) memory() (held, beside, own int) {
	held, beside, own = c.c.MemoryUse()
	goroutines, waiting := c.running.counts()
	own += goroutines*c.endpoint.stacks.handlerSize() + waiting*waitingSize
	return held + int(c.retired.bytes.Load()), beside + int(c.retired.own.Load()), own
}

// evict frees about n bytes, and returns how many streams have lost something for it.
func (c *Conn) evict(n int) int {
	if c.retired.evictLargest() {
		return 1
	}
	return c.c.Evict(n)
}

// refuseMore is why the peer may open no n streams more, or nil, for the sake of all of the
// server's connections. Once half of MaxTotalStreams are open, a connection is refused whose
// own, times MaxTotalStreams, are more than the square of what is left: so who has few can
// always open one more, however many others take what they can get.
func (c *Conn) refuseMore(n int) *conn.Refusal {
	ep := c.endpoint
	if c.client {
		return nil
	}
	most := ep.limits.MaxTotalStreams
	left := most - int(max(ep.opened.Load(), ep.handling.Load()))
	if left < most/2 && (left < n || c.ownStreams()*most > left*left) {
		ep.onCrowded(c)
		return &conn.Refusal{Code: status.Refused, Reason: "the server has too many streams", NotProcessed: true}
	}
	if ep.pressure.Load() >= stopOpening {
		if held, beside, own := c.memory(); int64(held+beside+own) > ep.left.Load() {
			return &conn.Refusal{Code: status.Refused, Reason: "the server is short of memory", NotProcessed: true}
		}
	}
	return nil
}

// ownStreams is how many streams count for the connection: its own and, where each stream has
// a connection of its own, those of its client.
func (c *Conn) ownStreams() int {
	if c.parent != nil {
		c = c.parent
	}
	return max(c.Streams(), int(c.running.count.Load()), c.children.count())
}
