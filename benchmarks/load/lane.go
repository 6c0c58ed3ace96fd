package load

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// A TrySender is a peer.Stream that can say why a message can't be sent now. In the open
// model the harness calls TrySend first, and then waits in Send.
type TrySender interface {
	// TrySend sends p, from Buf, if it can do so without waiting, and
	// otherwise returns what it would wait for: "credit", "mailbox" or
	// "socket". p stays valid for Send then.
	TrySend(p []byte) (wait string, err error)
}

// A lane runs one stream, or one after the other where streams are short or break. Its
// fields belong to the goroutine that runs it, except as noted.
type lane struct {
	r     *run
	link  *link
	mode  peer.Mode
	size  *Sizes
	bulk  bool // in the background: not measured
	index int  // among the measured ones

	// The sender's. In a duplex echo that is a goroutine of its own.
	s       peer.Stream
	try     TrySender // s, if it is one
	id      uint32
	sent    uint64        // on s
	bytes   uint64        // sent in all, one way; received in all, for echoes
	q       *queue        // pacer -> sender; nil in the closed model
	failed  uint64        // calls that the service answered with an error
	scratch []byte        // a service's next message
	rng     *rand.ChaCha8 // for it

	// The receiver's.
	check checker
	got   uint64 // on s
	want  []byte // churn: the message that must come back

	times  []stamp       // ring: sender -> receiver, by sequence
	tokens chan struct{} // receiver -> sender: one for each message that may go

	sentBefore, gotBefore uint64 // on earlier streams of this lane

	// Published for the sampler, now and then.
	pubSent, pubGot, pubBytes atomic.Uint64
	// What the sender does, for the pacer: nothing (0), Send since that time (> 0),
	// or waiting, with the reason (< 0).
	state atomic.Int64

	// For recovery from faults.
	conn     peer.Conn          // that the stream was opened on
	opened   int64              // when, by run.now
	reopened bool               // it is not the lane's first
	cancel   context.CancelFunc // ends it, if it was reopened
	broken   *fault             // what broke the stream before it; nil once the lane has recovered
	brokeAt  int64              // when that stream broke

	current atomic.Pointer[peer.Stream]
	ended   atomic.Bool // run has returned
	_       [64]byte    // no cache line shared with another lane: the sampler polls them
}

// A stamp says when a message was due and sent. It is atomic because not every library
// synchronizes sender and receiver.
type stamp struct{ due, sent atomic.Int64 }

// A reason is why a message was deferred.
type reason int64

const (
	inFlight reason = iota + 1
	credit
	mailbox
	socket
	blocked
	dropped
	reasons
)

func reasonOf(wait string) reason {
	switch wait {
	case "credit":
		return credit
	case "mailbox":
		return mailbox
	case "socket":
		return socket
	}
	return blocked
}

// blockedAfter is how long Send may take before a message counts as deferred by it.
const blockedAfter = 100 * time.Microsecond

// open opens the lane's first or next stream.
func (l *lane) open(ctx context.Context, c peer.Conn) error {
	s, err := l.link.open(ctx, c, l.mode)
	if err != nil {
		return err
	}
	l.setStream(s)
	l.conn, l.opened = c, l.r.now()
	return s.Flush() // the library may have buffered what opens the stream
}

func (l *lane) setStream(s peer.Stream) {
	l.s, l.id = s, l.r.ids.Add(1)
	l.try, _ = s.(TrySender)
	l.check = l.r.newChecker(l.id)
	l.sentBefore, l.gotBefore = l.sentBefore+l.sent, l.gotBefore+l.got
	l.sent, l.got = 0, 0
	l.current.Store(&s)
}

// run keeps the lane busy until the run stops; after a fault it reconnects.
func (l *lane) run() {
	defer l.ended.Store(true)
	if l.q != nil {
		defer l.dropRest()
	}
	for {
		err := l.work()
		l.publish()
		if err == nil {
			l.takeChecks()
			return
		}
		if !l.recover(err) {
			return
		}
	}
}

func (l *lane) closeStream() {
	if s := l.current.Swap(nil); s != nil && l.r.cfg.Workload != Churn {
		_ = (*s).Close() // the figures are in
	}
}

// dropRest accounts for messages still due when the lane ends.
func (l *lane) dropRest() {
	batch, _ := l.q.tryTake()
	l.r.drop(l, batch)
}

func (l *lane) work() error {
	c := &l.r.cfg
	switch {
	case c.Workload == Churn && c.Open():
		return l.serveQueue(l.cycle)
	case c.Workload == Churn:
		return l.repeat(l.cycle)
	case c.Workload == Call && c.Open():
		return l.serveQueue(l.call)
	case c.Workload == Call:
		return l.repeat(l.call)
	case l.bulk, c.Workload == OneWay && !c.Open():
		return l.oneWayClosed()
	case c.Workload == OneWay:
		return l.oneWayOpen()
	case c.duplex():
		return l.duplex()
	case c.Open():
		return l.finishEcho(l.serveQueue(l.roundTrip))
	}
	return l.finishEcho(l.echo())
}

// publish shows the counters to the sampler.
func (l *lane) publish() {
	l.pubSent.Store(l.sentBefore + l.sent - l.failed)
	l.pubGot.Store(l.gotBefore + l.got)
	l.pubBytes.Store(l.bytes)
}

// next makes the next message.
func (l *lane) next() []byte {
	if l.r.cfg.Payload != nil {
		return l.nextPayload()
	}
	p := l.s.Buf(l.size.At(l.sent))
	peer.Stamp(p, l.id, l.sent)
	l.sent++
	return p
}

// sampled reports whether message seq is one whose latency is measured.
func (l *lane) sampled(seq uint64) bool {
	return l.r.sampling && seq&l.r.sampleMask == 0
}

// sendDue sends p, counting it as deferred if it has to wait.
func (l *lane) sendDue(p []byte, it item, now int64) error {
	if l.try != nil {
		wait, err := l.try.TrySend(p)
		if wait == "" || err != nil {
			l.r.deferredBy(it)
			return err
		}
		l.r.deferredBy(it.withReason(reasonOf(wait)))
		l.state.Store(-int64(reasonOf(wait)))
		defer l.state.Store(0)
		return l.s.Send(p)
	}
	l.state.Store(max(now, 1))
	err := l.s.Send(p)
	l.state.Store(0)
	if l.r.now()-now > int64(blockedAfter) {
		it = it.withReason(blocked)
	}
	l.r.deferredBy(it)
	return err
}

// flush sends what the library has buffered. Its time counts as that of Send.
func (l *lane) flush() error {
	l.state.Store(max(l.r.now(), 1))
	defer l.state.Store(0)
	return l.s.Flush()
}

// checksOf turns a receiver's summary into the report's counters. A message that did not
// come intact is lost, unless it came damaged: then it is corrupted only.
func checksOf(s peer.Summary, sent uint64) report.Checks {
	c := report.Checks{
		Messages: sent, Duplicated: s.Duplicated, Reordered: s.Reordered, Corrupted: s.Corrupt + s.Misrouted,
	}
	intact := s.Messages - s.Duplicated - c.Corrupted
	if sent > intact {
		c.Lost = sent - intact
		c.Lost -= min(c.Lost, s.Corrupt)
	} else {
		c.Duplicated += intact - sent // a service's: a stamped message that is too much was counted already
	}
	return c
}

// repeat calls f until the run stops.
func (l *lane) repeat(f func(due int64) error) error {
	for !l.r.stop.Load() {
		if err := f(0); err != nil {
			return err
		}
		l.publish()
	}
	return nil
}

// serveQueue calls f for every due message, one at a time.
func (l *lane) serveQueue(f func(due int64) error) error {
	for batch := l.q.take(); len(batch) > 0; batch = l.q.take() {
		for i, it := range batch {
			if l.r.stop.Load() {
				l.r.drop(l, batch[i:])
				return nil
			}
			if i > 0 { // the one before it was still in flight when it was due
				it = it.withReason(inFlight)
			}
			l.r.deferredBy(it)
			l.state.Store(-int64(inFlight))
			err := f(it.due())
			l.state.Store(0)
			if err != nil {
				l.r.drop(l, batch[i+1:])
				return err
			}
			l.publish()
		}
	}
	return nil
}
