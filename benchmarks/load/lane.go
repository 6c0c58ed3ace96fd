package load

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// A TrySender is a peer.Stream that can say why a message can't go now. In the
// open model the harness asks it first and then waits in Send.
type TrySender interface {
	// TrySend sends p, from Buf, if it can do so without waiting, and
	// otherwise returns what it would wait for: "credit", "mailbox" or
	// "socket". p stays valid for Send then.
	TrySend(p []byte) (wait string, err error)
}

// A lane is the life of one stream, or of one place for a stream where they
// come and go. Its fields belong to the goroutine that runs it, save those
// marked otherwise.
type lane struct {
	r    *run
	link *link
	mode peer.Mode
	size *Sizes
	bulk bool // in the background: not measured

	// The sender's. In a duplex echo that is a goroutine of its own.
	s     peer.Stream
	try   TrySender // s, if it is one
	id    uint32
	sent  uint64 // on s
	bytes uint64 // sent in all, one way; received in all, for echoes
	q     *queue // pacer -> sender; nil in the closed model

	// The receiver's.
	check *peer.Checker
	got   uint64 // on s
	want  []byte // churn: the message that must come back

	times  []stamp       // ring: sender -> receiver, by sequence
	tokens chan struct{} // receiver -> sender: one for each message that may go

	sentBefore, gotBefore uint64 // on earlier streams of this lane

	// Published for the sampler, now and then.
	pubSent, pubGot, pubBytes atomic.Uint64
	// What the sender is at: idle (0), in Send since that time (> 0), or
	// waiting for a reason (< 0). For the pacer.
	state atomic.Int64

	// The stream's standing between faults.
	conn     peer.Conn          // that it was opened on
	opened   int64              // when, as run.now tells it
	reopened bool               // it is not the lane's first
	cancel   context.CancelFunc // ends it, if it was reopened
	broken   *fault             // what ended the stream before it; nil once that is made good
	brokeAt  int64              // when that stream ended

	current atomic.Pointer[peer.Stream]
	ended   atomic.Bool // nothing more to wait for
	_       [64]byte    // lanes are polled by the sampler: no shared cache lines
}

// A stamp says when a message was due and sent. It is atomic because not every
// library's way from sender to receiver orders memory.
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

// patience is how long Send may take before a message counts as deferred by it.
const patience = 100 * time.Microsecond

// open opens the lane's first or next stream.
func (l *lane) open(ctx context.Context, c peer.Conn) error {
	s, err := l.link.open(ctx, c, l.mode)
	if err != nil {
		return err
	}
	l.adopt(s)
	l.conn, l.opened = c, l.r.now()
	return s.Flush() // what opens the stream may have been kept back
}

func (l *lane) adopt(s peer.Stream) {
	l.s, l.id = s, l.r.ids.Add(1)
	l.try, _ = s.(TrySender)
	l.check = peer.NewChecker(l.id)
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
			l.settle()
			return
		}
		if !l.recover(err) {
			return
		}
	}
}

// dropRest accounts for what is due still when the lane ends.
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
	case l.bulk, c.Workload == OneWay && !c.Open():
		return l.pour()
	case c.Workload == OneWay:
		return l.drip()
	case c.duplex():
		return l.duplex()
	case c.Open():
		return l.finishEcho(l.serveQueue(l.roundTrip))
	}
	return l.finishEcho(l.echo())
}

// publish shows the counters to the sampler.
func (l *lane) publish() {
	l.pubSent.Store(l.sentBefore + l.sent)
	l.pubGot.Store(l.gotBefore + l.got)
	l.pubBytes.Store(l.bytes)
}

// next makes the next message.
func (l *lane) next() []byte {
	p := l.s.Buf(l.size.At(l.sent))
	peer.Stamp(p, l.id, l.sent)
	l.sent++
	return p
}

// sampled reports whether message seq is one whose latency is measured.
func (l *lane) sampled(seq uint64) bool {
	return l.r.sampling && seq&l.r.sampleMask == 0
}

// pour sends one way as fast as it goes. The stop flag and the counters are
// looked after once a burst: beside 64 bytes they would cost more than the
// message.
func (l *lane) pour() error {
	burst := min(max(64<<10/int(l.size.Mean()), 1), 64)
	for !l.r.stop.Load() {
		for range burst {
			if err := l.put(); err != nil {
				return err
			}
		}
		l.publish()
		l.madeGood()
	}
	return l.finishOneWay()
}

// put sends the next message one way.
func (l *lane) put() error {
	measure := !l.bulk && l.sampled(l.sent)
	p := l.next()
	l.bytes += uint64(len(p))
	if !measure {
		return l.s.Send(p)
	}
	start := l.r.now()
	err := l.s.Send(p)
	l.r.service(l, l.r.now()-start)
	return err
}

// drip sends one way what is due.
func (l *lane) drip() error {
	for batch := l.q.take(); len(batch) > 0; batch = l.q.take() {
		for i, it := range batch {
			if l.r.stop.Load() {
				l.r.drop(l, batch[i:])
				break
			}
			if err := l.putDue(it); err != nil {
				l.r.drop(l, batch[i+1:])
				return err
			}
		}
		if err := l.flush(); err != nil {
			return err
		}
		l.publish()
		l.madeGood()
	}
	return l.finishOneWay()
}

func (l *lane) putDue(it item) error {
	start, measure := l.r.now(), l.sampled(l.sent)
	p := l.next()
	l.bytes += uint64(len(p))
	if err := l.sendDue(p, it, start); err != nil || !measure {
		return err
	}
	end := l.r.now()
	l.r.service(l, end-start)
	l.r.response(l, end-it.due())
	return nil
}

// sendDue sends p, counting it as deferred if it has to wait.
func (l *lane) sendDue(p []byte, it item, now int64) error {
	if l.try != nil {
		wait, err := l.try.TrySend(p)
		if wait == "" || err != nil {
			l.r.deferredBy(it)
			return err
		}
		l.r.deferredBy(it.because(reasonOf(wait)))
		l.state.Store(-int64(reasonOf(wait)))
		defer l.state.Store(0)
		return l.s.Send(p)
	}
	l.state.Store(max(now, 1))
	err := l.s.Send(p)
	l.state.Store(0)
	if l.r.now()-now > int64(patience) {
		it = it.because(blocked)
	}
	l.r.deferredBy(it)
	return err
}

// flush sends what the library kept back, under the pacer's eyes.
func (l *lane) flush() error {
	l.state.Store(max(l.r.now(), 1))
	defer l.state.Store(0)
	return l.s.Flush()
}

// echo keeps Outstanding echoes under way, with one goroutine: what is kept
// back goes out when Recv would wait.
func (l *lane) echo() error {
	outstanding := uint64(l.r.cfg.Outstanding)
	for range outstanding {
		if err := l.ping(0); err != nil {
			return err
		}
	}
	every := max(outstanding/4, 1)
	for !l.r.stop.Load() {
		if err := l.pong(); err != nil {
			return err
		}
		if err := l.ping(0); err != nil {
			return err
		}
		if l.got%every == 0 {
			l.publish()
		}
	}
	return nil
}

// ping sends the next message of an echo.
func (l *lane) ping(due int64) error {
	l.stampTimes(due)
	return l.s.Send(l.next())
}

func (l *lane) stampTimes(due int64) {
	if l.sampled(l.sent) {
		t := &l.times[l.sent&uint64(len(l.times)-1)]
		t.due.Store(due)
		t.sent.Store(l.r.now())
	}
}

// pong receives one message and checks it.
func (l *lane) pong() error {
	p, err := l.s.Recv()
	if err != nil {
		return err
	}
	l.receive(p)
	return nil
}

func (l *lane) receive(p []byte) {
	if l.r.faulty {
		l.r.stalled()
		l.madeGood()
	}
	l.got++
	l.bytes += uint64(len(p))
	if !l.check.Check(p) {
		return
	}
	if seq := binary.LittleEndian.Uint64(p[8:]); l.sampled(seq) {
		t := &l.times[seq&uint64(len(l.times)-1)]
		now := l.r.now()
		l.r.service(l, now-t.sent.Load())
		if due := t.due.Load(); l.q != nil {
			l.r.response(l, now-due)
		}
	}
}

// finishEcho ends our half and receives to the end of the other.
func (l *lane) finishEcho(err error) error {
	if err != nil {
		return err
	}
	if err := l.s.CloseSend(); err != nil {
		return err
	}
	for {
		switch err := l.pong(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// finishOneWay ends our half and takes the server's word for what came.
func (l *lane) finishOneWay() error {
	if err := errors.Join(l.s.Flush(), l.s.CloseSend()); err != nil {
		return err
	}
	p, err := l.s.Recv()
	if err != nil {
		return err
	}
	sum, err := peer.ParseSummary(p)
	if err != nil {
		return err
	}
	l.r.check(checksOf(sum, l.sent))
	l.check = nil // the server's word is in
	l.mended(l.opened)
	return nil
}

// checksOf turns a receiver's findings into the report's. What never came
// intact is lost, unless it came damaged: that counts once.
func checksOf(s peer.Summary, sent uint64) report.Checks {
	c := report.Checks{
		Messages: sent, Duplicated: s.Duplicated, Reordered: s.Reordered, Corrupted: s.Corrupt + s.Misrouted,
	}
	if intact := s.Messages - s.Duplicated - c.Corrupted; sent > intact {
		c.Lost = sent - intact
		c.Lost -= min(c.Lost, s.Corrupt)
	}
	return c
}

// roundTrip is one due echo, with nothing else under way.
func (l *lane) roundTrip(due int64) error {
	if err := l.ping(due); err != nil {
		return err
	}
	return l.pong()
}

// cycle opens a stream, gets one echo and closes it. due is when it should
// have begun.
func (l *lane) cycle(due int64) error {
	start := l.r.now()
	s, err := l.link.open(l.r.ctx, l.link.current(), l.mode)
	if err != nil {
		return err
	}
	l.current.Store(&s)
	l.sent++
	if err := l.echoOnce(s); err != nil {
		_ = s.Close() // it broke already
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	l.got++
	end := l.r.now()
	if l.sampled(l.got) {
		l.r.service(l, end-start)
	}
	if l.q != nil && l.sampled(l.got) {
		l.r.response(l, end-due)
	}
	return nil
}

func (l *lane) echoOnce(s peer.Stream) error {
	p := s.Buf(l.size.At(l.sent))
	peer.Stamp(p, l.r.ids.Add(1), 0)
	l.want = append(l.want[:0], p...)
	if err := s.Send(p); err != nil {
		return err
	}
	if err := errors.Join(s.Flush(), s.CloseSend()); err != nil {
		return err
	}
	checks := report.Checks{Messages: 1}
	for n := 0; ; n++ {
		p, err := s.Recv()
		if errors.Is(err, io.EOF) {
			if n == 0 {
				checks.Lost++
			}
			l.r.check(checks)
			return nil
		}
		if err != nil {
			return err
		}
		l.bytes += uint64(len(p))
		if string(p) != string(l.want) {
			checks.Corrupted++
		} else if n > 0 {
			checks.Duplicated++
		}
	}
}

// repeat does f until the run stops.
func (l *lane) repeat(f func(due int64) error) error {
	for !l.r.stop.Load() {
		if err := f(0); err != nil {
			return err
		}
		l.publish()
	}
	return nil
}

// serveQueue does f for all that is due, one at a time.
func (l *lane) serveQueue(f func(due int64) error) error {
	for batch := l.q.take(); len(batch) > 0; batch = l.q.take() {
		for i, it := range batch {
			if l.r.stop.Load() {
				l.r.drop(l, batch[i:])
				return nil
			}
			if i > 0 { // the one before it was still under way when it was due
				it = it.because(inFlight)
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

// duplex sends from a goroutine of its own, so that the two directions can't
// wait for each other.
func (l *lane) duplex() error {
	limit := l.r.cfg.Outstanding
	if l.q != nil {
		limit = l.r.cfg.InFlight
	}
	l.tokens = make(chan struct{}, limit)
	for range limit {
		l.tokens <- struct{}{}
	}
	dead := make(chan struct{}) // receiver -> sender: the stream failed
	var sendErr error
	var sender sync.WaitGroup
	sender.Go(func() {
		if sendErr = l.sendAll(dead); sendErr != nil {
			peer.Break(l.s) // so that the receiver learns of it
		}
	})
	err := l.receiveAll()
	if err != nil {
		close(dead)
		peer.Break(l.s) // so that a sender inside Send learns of it
	}
	sender.Wait()
	return errors.Join(sendErr, err)
}

func (l *lane) receiveAll() error {
	for {
		err := l.pong()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		l.pubGot.Store(l.gotBefore + l.got)
		l.pubBytes.Store(l.bytes)
		select {
		case l.tokens <- struct{}{}:
		default: // a message that came twice: nobody waits for this token
		}
	}
}

// sendAll sends what the model asks for until the run stops, then ends our
// half.
func (l *lane) sendAll(dead <-chan struct{}) (err error) {
	if l.q == nil {
		err = l.sendClosed(dead)
	} else {
		err = l.sendOpen(dead)
	}
	if err != nil {
		return err
	}
	return errors.Join(l.s.Flush(), l.s.CloseSend())
}

func (l *lane) sendClosed(dead <-chan struct{}) error {
	for !l.r.stop.Load() {
		if ok, err := l.token(dead); !ok || err != nil {
			return err
		}
		if err := l.ping(0); err != nil {
			return err
		}
		l.pubSent.Store(l.sentBefore + l.sent)
	}
	return nil
}

func (l *lane) sendOpen(dead <-chan struct{}) error {
	for batch := l.q.take(); len(batch) > 0; batch = l.q.take() {
		for i, it := range batch {
			if l.r.stop.Load() {
				l.r.drop(l, batch[i:])
				break
			}
			if err := l.pingDue(it, dead); err != nil {
				l.r.drop(l, batch[i+1:])
				return err
			}
		}
		if err := l.flush(); err != nil {
			return err
		}
		l.pubSent.Store(l.sentBefore + l.sent)
	}
	return nil
}

func (l *lane) pingDue(it item, dead <-chan struct{}) error {
	select {
	case <-l.tokens:
	default:
		l.state.Store(-int64(inFlight))
		ok, err := l.token(dead)
		l.state.Store(0)
		if !ok || err != nil {
			l.r.drop(l, []item{it})
			return err
		}
		it = it.because(inFlight)
	}
	l.stampTimes(it.due())
	return l.sendDue(l.next(), it, l.r.now())
}

// token waits for the right to send one more; ok is false if the run stops
// first.
func (l *lane) token(dead <-chan struct{}) (ok bool, err error) {
	select {
	case <-l.tokens:
		return true, nil
	default:
	}
	if err := l.s.Flush(); err != nil {
		return false, err
	}
	select {
	case <-l.tokens:
		return true, nil
	case <-l.r.stopped:
		return false, nil
	case <-dead:
		return false, errDead
	}
}

var errDead = errors.New("the receiving side of the stream failed")
