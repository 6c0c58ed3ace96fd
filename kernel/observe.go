package kernel

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// An Observer is told of the connections and streams of a server or client as they begin and
// end, with their figures: for metrics, logs and traces. It is told of no message.
//
// One goroutine calls it, one call at a time, for things in their order: what has ended has
// begun before, and a connection begins before its streams. The calls come after the fact,
// and hold up nothing. An Observer that panics is logged and counted as a handler is.
//
// While 16,384 calls wait, what begins then is dropped, with its end, and counted in
// Stats.ObserverDropped: memory is bounded, and every end that the Observer is told of has
// its beginning. Close and Shutdown wait until the Observer was told of everything, for 1 s
// at most; the rest is dropped then. So an Observer should not wait for them.
type Observer interface {
	// ConnBegun is called when a connection has completed its handshake.
	ConnBegun(c *Conn)
	// ConnEnded is called when it has ended; i is its last Snapshot, and Conn.Err says why.
	ConnEnded(c *Conn, i ConnInfo)
	// StreamBegun is called when a stream was opened, or the peer asks for it. One that was
	// opened may have no number yet.
	StreamBegun(s *Stream)
	// StreamEnded is called when the stream is over on both sides, was refused, reset or
	// lost; i is its last Snapshot, and Stream.Err says more. Its handler may still run.
	StreamEnded(s *Stream, i StreamInfo)
}

const (
	mostEvents   = 1 << 14     // calls that may wait when something begins
	observerTime = time.Second // for the calls that are left at the end
)

// observing is a server's or client's Observer and the calls that wait for it. The goroutine
// that makes them runs while there are any.
//
// Ends are never dropped where the beginning was not, so more calls can wait than mostEvents:
// one for each stream and connection that was open when the Observer fell behind.
type observing struct {
	o       Observer // nil: there is none
	ep      *endpoint
	dropped atomic.Uint64

	mu      sync.Mutex
	in      []event // that have come
	out     []event // that are being told, from next on
	next    int
	running bool
	warned  bool // something was dropped since nothing waited last,
	warn    bool // and that is to be logged
	over    bool
	idle    chan struct{} // closed when running is cleared; nil if nobody waits
}

// An event is one call: the begin or end of a stream, or else of a connection.
type event struct {
	conn   *Conn
	stream *Stream
	end    bool
}

// begin has the Observer told that something has begun. It returns false if that is dropped:
// then its end must be, too.
func (o *observing) begin(e event) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over || o.waiting() >= mostEvents {
		o.dropped.Add(2) // with its end
		o.warn, o.warned = o.warn || !o.warned, true
		return false
	}
	o.push(e)
	return true
}

func (o *observing) end(e event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e.end = true
	if o.over {
		o.dropped.Add(1)
		return
	}
	o.push(e)
}

// waiting is how many calls wait. The lock is held.
func (o *observing) waiting() int { return len(o.in) + len(o.out) - o.next }

func (o *observing) push(e event) {
	o.in = append(o.in, e)
	if !o.running {
		o.running = true
		go o.run()
	}
}

// run is the goroutine that calls the Observer.
func (o *observing) run() {
	ended := false
	defer func() {
		if !ended {
			go o.run() // the Observer has called runtime.Goexit
		}
	}()
	for {
		e, warn, ok := o.pop()
		if warn {
			o.ep.logger.Warn("sluice: observer is too slow", "waiting", mostEvents)
		}
		if !ok {
			break
		}
		o.tell(e)
	}
	ended = true
}

// pop returns the next call, and whether to log that some were dropped. If there is no call
// the goroutine ends.
func (o *observing) pop() (e event, warn, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	warn, o.warn = o.warn, false
	if o.next == len(o.out) {
		o.in, o.out, o.next = o.out[:0], o.in, 0
	}
	if len(o.out) == 0 {
		o.stop()
		return event{}, warn, false
	}
	e = o.out[o.next]
	o.out[o.next] = event{} // a stream must not live on for it
	o.next++
	return e, warn, true
}

// stop is called when the goroutine ends. The lock is held.
func (o *observing) stop() {
	o.in, o.out, o.next, o.running, o.warned = nil, nil, 0, false, false
	if o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}

func (o *observing) tell(e event) {
	_ = o.ep.hook("Observer", e.peer(), func() error {
		switch {
		case e.stream != nil && e.end:
			o.o.StreamEnded(e.stream, e.stream.Snapshot())
		case e.stream != nil:
			o.o.StreamBegun(e.stream)
		case e.end:
			o.o.ConnEnded(e.conn, e.conn.Snapshot())
		default:
			o.o.ConnBegun(e.conn)
		}
		return nil
	})
}

func (e *event) peer() net.Addr {
	if e.stream != nil {
		return e.stream.c.conn.peer.Addr
	}
	return e.conn.peer.Addr
}

// finish waits until the Observer was told of everything, for observerTime at most. What is
// left then is dropped.
func (o *observing) finish() {
	o.mu.Lock()
	if !o.running {
		o.mu.Unlock()
		return
	}
	if o.idle == nil {
		o.idle = make(chan struct{})
	}
	idle := o.idle
	o.mu.Unlock()
	limit := time.NewTimer(observerTime)
	defer limit.Stop()
	select {
	case <-idle:
	case <-limit.C:
		o.mu.Lock()
		defer o.mu.Unlock()
		o.over = true
		o.dropped.Add(uint64(o.waiting()))
		o.in, o.out, o.next = nil, nil, 0
	}
}

// How much of a stream or connection there is to tell, as bits of a field of its own. Its end
// is told once, by who finds both bits set.
const (
	observedBegin = 1 << (iota + 16) // the Observer is told of the begin; behind core.life's bits
	observedEnd                      // it has ended
)

// begun has the Observer told that something has begun. bits are that thing's.
func (o *observing) begun(bits *atomic.Uint32, e event) {
	if o.o != nil && o.begin(e) && bits.Or(observedBegin)&observedEnd != 0 {
		o.end(e) // it has ended meanwhile
	}
}

// ended has the Observer told that something has ended, if it is told of the begin.
func (o *observing) ended(bits *atomic.Uint32, e event) {
	if o.o != nil && bits.Or(observedEnd)&(observedBegin|observedEnd) == observedBegin {
		o.end(e)
	}
}

// Stats returns the client's counts: Conns, Panics and ObserverDropped.
func (c *Client) Stats() Stats {
	return Stats{Conns: len(c.Conns()), Panics: c.panics.Load(), ObserverDropped: c.observing.dropped.Load()}
}
