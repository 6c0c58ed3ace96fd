package kernel

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"

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
	h, b, o := c.memoryAbove()
	return held + h, beside + b, own + o
}

// memoryAbove is the part of it that conn does not know.
func (c *Conn) memoryAbove() (held, beside, own int) {
	goroutines, waiting := c.running.counts()
	own = goroutines*c.endpoint.stacks.handlerSize() + waiting*waitingSize
	return int(c.retired.bytes.Load()), int(c.retired.own.Load()), own
}

// evict frees about n bytes, and returns how many streams have lost something for it.
func (c *Conn) evict(n int) int {
	if c.retired.evictLargest() {
		return 1
	}
	return c.c.Evict(n)
}

// refuseMore is why the peer may open no n streams more, or nil, for the sake of all of the
// server's connections.
func (c *Conn) refuseMore(n int) *conn.Refusal {
	ep := c.endpoint
	if c.client {
		return nil
	}
	most := ep.mostStreams()
	if !mayOpen(c.ownStreams(), n, ep.streamsLeft(most), most) {
		ep.onCrowded(c)
		return &conn.Refusal{Code: status.Refused, Reason: "the server has too many streams", NotProcessed: true}
	}
	if c.wantsTooMuch(stopOpening, 100) {
		return &conn.Refusal{Code: status.Refused, Reason: "the server is short of memory", NotProcessed: true}
	}
	return nil
}

// mayOpen reports whether a connection that has own streams may open n more, where left of most
// streams are not open. Once half of most are, its own, times most, may be no more than the
// square of what is left: so who has few can always open one more, however many others take
// what they can get.
func mayOpen(own, n, left, most int) bool {
	return left >= n && (left >= most/2 || own*most <= left*left)
}

// streamsLeft is how many streams peers may open until most are open. It is below zero where
// most has become less since.
func (ep *endpoint) streamsLeft(most int) int {
	return most - int(max(ep.opened.Load(), ep.handling.Load()))
}

// mostStreams is how many streams peers may have open. Its default is what a part of the memory
// is enough for, at what handlers turn out to take.
func (ep *endpoint) mostStreams() int {
	most := ep.limits.MaxTotalStreams
	if each := ep.stacks.handlerSize(); ep.streamsByMemory && each > conn.HandlerSize {
		most = min(most, max(ep.limits.Memory/conn.StreamShare/(conn.StreamSize+each), 1))
	}
	return most
}

// goMemory is how much memory the process takes. Once it is more than GOMEMLIMIT, what is in use
// and can't be freed is more than that, and each allocation waits for a garbage collection of its
// own, those of event loops too. What handlers make before they send it is in no account of the
// server's.
type goMemory struct {
	limit   int64 // GOMEMLIMIT; math.MaxInt64: none
	usual   int64 // what the process is expected to stay below
	began   time.Time
	next    atomic.Int64 // when to look again, nanoseconds since began
	inUse   atomic.Int64 // bytes, when somebody looked last
	looking atomic.Bool  // somebody does, and owns samples
	samples [2]metrics.Sample
}

const (
	// memoryPause is how long what was seen counts.
	memoryPause = 200 * time.Microsecond
	// fillingShare is from which part of the expected memory on the process's memory fills, in
	// percent.
	fillingShare = 60
)

// init is called before anything else, with Limits.Memory.
func (m *goMemory) init(memory int64) {
	m.began = time.Now()
	m.samples[0].Name, m.samples[1].Name = "/memory/classes/total:bytes", "/memory/classes/heap/released:bytes"
	m.limit = debug.SetMemoryLimit(-1) // which does not change it
	m.usual = min(m.limit, memory/conn.MemoryShare*100)
}

// measure returns how much it is, as of a moment ago.
func (m *goMemory) measure() int64 {
	now := int64(time.Since(m.began))
	if now < m.next.Load() || m.looking.Swap(true) {
		return m.inUse.Load()
	}
	metrics.Read(m.samples[:])
	if m.samples[0].Value.Kind() == metrics.KindUint64 && m.samples[1].Value.Kind() == metrics.KindUint64 {
		m.inUse.Store(int64(m.samples[0].Value.Uint64() - m.samples[1].Value.Uint64()))
	}
	m.next.Store(now + int64(memoryPause))
	m.looking.Store(false)
	return m.inUse.Load()
}

// isOver reports whether it is more than GOMEMLIMIT.
func (m *goMemory) isOver() bool {
	return m.limit > 0 && m.limit != math.MaxInt64 && m.measure() > m.limit
}

// isFilling reports whether it comes near what is expected.
func (m *goMemory) isFilling() bool { return m.measure() > m.usual/100*fillingShare }

// wantsTooMuch reports whether more than from percent of Limits.Memory are in use, and what the
// connection's streams hold of it, times Memory, is more than the square of what is left until
// percent are in use or, where they are few, all. It takes no lock.
func (c *Conn) wantsTooMuch(from, until int64) bool {
	ep := c.endpoint
	if ep.growth == nil {
		return false
	}
	memory := float64(ep.limits.Memory)
	used := memory - float64(ep.left.Load()-ep.growth.Grown()) // as of the last look, and what has come since
	if used < memory*float64(from)/100 {
		return false
	}
	if c.running.hasFew() {
		until = 100
	}
	left := max(memory*float64(until)/100-used, 0)
	streams := int64(c.running.count.Load()) * (conn.StreamSize + conn.HandlerSize) // some may be new
	return float64(max(c.used.Load(), streams))*memory > left*left
}

// ownStreams is how many streams count for the connection: its own and, where each stream has
// a connection of its own, those of its client.
func (c *Conn) ownStreams() int {
	if c.parent != nil {
		c = c.parent
	}
	return max(c.Streams(), int(c.running.count.Load()), c.children.count())
}
