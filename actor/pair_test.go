package actor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
	"pgregory.net/rapid"
)

// end is one side of a pair: a stream, its connection's half, and what the model
// knows of what it says.
type end struct {
	name string
	s    *Stream
	link *fakeLink
	sess *fakeSession
	out  frame.Out
	to   *end
	wire []frame.Frame // written and not delivered to the other side

	// The connection's credit, as conn counts it.
	window, granted, sent, recvd int

	arrived Volume // on the stream

	model model
}

// model is what one direction must look like: what was accepted arrives, in order, and
// the end comes once, after all of it, or the reader gets an error.
type model struct {
	accepted [][]byte // by the sender's side
	received int      // of them, taken by the reader
	closed   bool     // the sender has said that this was all
	stopped  bool     // the reader has said that it wants no more
	cut      bool     // a reset, or the connection's end: a prefix will do
	ends     int      // how often the reader was told of the end
}

func (m *model) send(p []byte) { m.accepted = append(m.accepted, p) }

func (m *model) receive(t tester, p []byte) {
	if m.ends > 0 {
		t.Fatalf("a message after the end")
	}
	if m.received == len(m.accepted) || !bytes.Equal(p, m.accepted[m.received]) {
		t.Fatalf("message %d is not what was sent: %d bytes", m.received, len(p))
	}
	m.received++
}

func (m *model) end(t tester, err error) {
	clean := errors.Is(err, io.EOF)
	switch {
	case clean && m.received < len(m.accepted) && !m.stopped:
		t.Fatalf("a clean end after %d of %d messages", m.received, len(m.accepted))
	case clean && !m.closed:
		t.Fatalf("a clean end that nobody has made")
	case !clean && !m.cut && !m.stopped:
		t.Fatalf("an end that nobody has made: %v", err)
	}
	m.ends = 1
}

type tester interface {
	Fatalf(format string, args ...any)
}

// newPair makes two streams, each with windows of its own.
func newPair(aWindow, bWindow, connWindow, fragment int) (a, b *end) {
	return newPairOf(nativeCaps, aWindow, bWindow, connWindow, fragment)
}

// reportedCaps are those of a protocol whose receiver reports what it took.
var reportedCaps = frame.Caps{
	Name: "fake", Pacing: frame.Reported, HalfClose: true, Status: true, Stop: true, Early: true, Overhead: overhead, LeastPiece: overhead + 1, SendWindow: 2 << 20, MaxStream: 1 << 62,
}

// newPairOf makes two streams of a protocol. Where it has no windows of the
// receiver's, each sender's own is the other's, and nothing arrives beyond a cap.
func newPairOf(caps frame.Caps, aWindow, bWindow, connWindow, fragment int) (a, b *end) {
	make1 := func(name string, own, peer int) *end {
		caps.MaxFragment = fragment
		limit := 0
		if caps.Pacing != frame.Granted {
			own, limit, connWindow = 1<<20, peer, 1<<30
		}
		e := &end{name: name, s: &Stream{}, link: newFakeLink(), sess: &fakeSession{caps: caps}, window: connWindow, granted: connWindow}
		e.link.spare = 4 * own
		e.s.Init(e.link, &Config{
			Method: "m", Caps: caps, InBuffer: 16, MaxBatch: 8, MaxReceive: 1 << 20, MaxSend: 1 << 20,
			Window: own, MaxWindow: 4 * own, SendCredit: uint64(max(peer, caps.MinWindow())), SendLimit: limit,
		})
		return e
	}
	a, b = make1("a", aWindow, bWindow), make1("b", bWindow, aWindow)
	a.to, b.to = b, a
	return a, b
}

// fill lets the connection write: control frames, or at most most bytes of data.
func (e *end) fill(urgent bool, most int) bool {
	if !e.link.take(urgent) {
		return false
	}
	if urgent {
		e.s.Fill(e.sess, &e.out, 0, false)
	} else {
		room := min(most, e.granted-e.sent)
		if room < overhead+1 {
			e.link.put()
			return false
		}
		used, again := e.s.Fill(e.sess, &e.out, room, true)
		e.sent += used
		if again {
			e.link.put()
		}
	}
	n := len(e.wire)
	e.wire = append(e.wire, e.sess.wrote...)
	e.sess.wrote = nil
	return len(e.wire) > n
}

// deliver takes the oldest frame off the wire to the other side.
func (e *end) deliver(t tester) bool {
	if len(e.wire) == 0 {
		return false
	}
	f := e.wire[0]
	e.wire = e.wire[1:]
	if err := e.to.take(&f); err != nil {
		t.Fatalf("%s broke a rule: %v", e.name, err)
	}
	return true
}

func (e *end) take(f *frame.Frame) error {
	s := e.s
	if f.Kind == frame.Data {
		e.recvd += cost(f)
		if e.recvd > e.to.granted {
			return fmt.Errorf("%d bytes beyond the connection's credit", e.recvd-e.to.granted)
		}
	}
	if e.link.gone() { // the connection does not know the stream any more
		if f.Kind == frame.Data {
			e.link.Taken(cost(f))
		}
		return nil
	}
	switch f.Kind {
	case frame.Data:
		e.arrived.Bytes += uint64(len(f.Payload))
		if f.Last {
			e.arrived.Messages++
		}
		if !f.First || !f.Last {
			return s.Fragment(f, time.Time{})
		}
		var q pool.Queue
		q.Push(arriving(pool.Copy(f.Payload)))
		return s.Deliver(&q, time.Time{})
	case frame.Credit:
		return s.PeerGrant(f.Value)
	case frame.EOS:
		return s.PeerEnd(f.Code, f.Reason, nil)
	case frame.Ended:
		if !s.cfg.Caps.Ended {
			return nil
		}
		return s.PeerEnded(f.Value)
	case frame.Stop:
		s.PeerStopped(f.Code)
	case frame.Reset:
		s.PeerReset(f.Code, f.Reason)
	}
	return nil
}

// regrant returns connection credit that the reader has given back, and tells
// whether there was some.
func (e *end) regrant() bool {
	was := e.to.granted
	e.to.granted = e.window + e.link.taken
	return e.to.granted > was
}

// noWait is a context for calls that must not wait.
var noWait = func() context.Context { c, cancel := context.WithCancel(context.Background()); cancel(); return c }()

// receive takes a message if there is one.
func (e *end) receive(t tester) bool {
	m, err := e.s.Receive(noWait)
	d := &e.to.model
	switch {
	case err == nil:
		d.receive(t, m.Bytes())
		m.Release()
		return true
	case errors.Is(err, context.Canceled):
		return false
	}
	first := d.ends == 0
	d.end(t, err)
	return first
}

func (e *end) trySend(t tester, p []byte) {
	m := pool.Copy(p)
	err := e.s.TrySend(m)
	if err == nil {
		e.model.send(p)
		return
	}
	m.Release()
	if errors.Is(err, ErrWouldBlock) && e.s.cred.left() > 0 && !e.link.full {
		t.Fatalf("no credit, with %d left", e.s.cred.left())
	}
}

// run does everything that can be done, until nothing is left to do.
func run(t tester, a, b *end, read bool) {
	for moved := true; moved; {
		moved = false
		for _, e := range []*end{a, b} {
			for _, step := range []bool{e.fill(true, 0), e.fill(false, 1000), e.deliver(t), read && e.receive(t), e.regrant()} {
				moved = moved || step
			}
		}
	}
}

// TestPairAgreesWithTheModel runs two streams and what lies between them in any order
// that rapid finds.
func TestPairAgreesWithTheModel(t *testing.T) {
	before := pool.Outstanding()
	defer func() {
		if n := pool.Outstanding() - before; n != 0 {
			t.Errorf("%d messages were not released", n)
		}
	}()
	for range 10 {
		rapid.Check(t, func(t *rapid.T) { pairProperty(t, nativeCaps) })
		rapid.Check(t, func(t *rapid.T) { pairProperty(t, reportedCaps) })
	}
}

func pairProperty(t *rapid.T, caps frame.Caps) {
	window := rapid.IntRange(1, 600)
	connWindow := rapid.SampledFrom([]int{100, 333, 5000}).Draw(t, "connection window")
	a, b := newPairOf(caps, window.Draw(t, "a's window"), window.Draw(t, "b's window"), connWindow,
		rapid.SampledFrom([]int{16, 64, 1000}).Draw(t, "fragment"))
	side := func(t *rapid.T) *end {
		if rapid.Bool().Draw(t, "b") {
			return b
		}
		return a
	}
	n := 0
	actions := map[string]func(*rapid.T){
		"send": func(t *rapid.T) {
			n++
			size := rapid.SampledFrom([]int{0, 1, 15, 64, 65, 200, 900}).Draw(t, "size")
			side(t).trySend(t, bytes.Repeat([]byte{byte(n)}, size))
		},
		"write data": func(t *rapid.T) { side(t).fill(false, rapid.IntRange(40, 1000).Draw(t, "most")) },
		"control":    func(t *rapid.T) { side(t).fill(true, 0) },
		"deliver":    func(t *rapid.T) { side(t).deliver(t) },
		"receive":    func(t *rapid.T) { side(t).receive(t) },
		"regrant":    func(t *rapid.T) { side(t).regrant() },
		"":           func(t *rapid.T) { check(t, a, b) },
	}
	meanwhile := endings(a, b)
	meanwhile["deliver"] = func(e *end) { e.to.deliver(t) }
	meanwhile["stopped"] = func(e *end) {
		meanwhile["close receive"](e.to)
		for e.to.fill(true, 0) || e.to.deliver(t) {
		}
	}
	meanwhile["receive"] = func(e *end) { e.receive(t) }
	names := slices.Sorted(maps.Keys(meanwhile))
	actions["write data, and meanwhile"] = func(t *rapid.T) {
		e, what := side(t), rapid.SampledFrom(names).Draw(t, "what")
		e.sess.during = func() { meanwhile[what](e) }
		e.fill(false, rapid.IntRange(40, 1000).Draw(t, "most"))
		e.sess.during = nil
	}
	for name, rare := range endings(a, b) {
		actions[name] = func(t *rapid.T) {
			if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
				rare(side(t))
			}
		}
	}
	t.Repeat(actions)
	// After a cut nobody needs to read what is left.
	finish(t, a, b, !a.model.cut || rapid.Bool().Draw(t, "read on"))
}

// endings are the ways in which a stream can end.
func endings(a, b *end) map[string]func(e *end) {
	cut := func() { a.model.cut, b.model.cut = true, true }
	return map[string]func(e *end){
		"close send": func(e *end) {
			e.model.closed = true
			_ = e.s.CloseSend(status.OK, "", nil)
		},
		"close receive": func(e *end) {
			e.to.model.stopped, e.to.model.closed = true, true
			e.s.CloseReceive(status.Cancelled)
		},
		"finish": func(e *end) {
			e.model.closed = true
			e.to.model.stopped, e.to.model.closed = true, true
			e.s.Finish(status.OK, "", nil)
		},
		"abort": func(e *end) {
			if e.s.st.retired {
				return // nothing is left to cut short
			}
			cut()
			e.s.Abort(status.Aborted, "tried", nil)
		},
		"lose the connection": func(*end) {
			cut()
			for _, e := range []*end{a, b} {
				e.wire = nil
				e.s.Lost(&status.StreamError{Code: status.ConnectionLost})
			}
		},
	}
}

// check is what must hold at any time.
func check(t *rapid.T, a, b *end) {
	for _, e := range []*end{a, b} {
		if err := e.link.broken(); err != nil {
			t.Fatalf("%s: %v", e.name, err)
		}
		if held := e.recvd - e.link.taken; held < 0 {
			t.Fatalf("%s returned %d bytes more than it received", e.name, -held)
		}
		if wrong := e.figures(); wrong != "" {
			t.Fatalf("%s: %s", e.name, wrong)
		}
	}
}

// figures says what of the stream's Info can't be.
func (e *end) figures() string {
	s := e.s
	i, to := s.Info(time.Now()), e.to.s.Info(time.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	in, senders := s.in, s.ch != nil && s.ch.senderSince() != 0
	idle := i.Queued.Messages == 0 && !senders
	switch {
	case !s.pumping && i.Mailbox != (Volume{uint64(in.Len()), uint64(in.Bytes())}):
		return fmt.Sprintf("the mailbox has %d messages, %d bytes: %+v", in.Len(), in.Bytes(), i)
	case i.Received != e.arrived:
		return fmt.Sprintf("%+v have arrived: %+v", e.arrived, i)
	case s.messagesAccepted() != uint64(len(e.model.accepted)):
		return fmt.Sprintf("%d messages were accepted: %d, %+v", len(e.model.accepted), s.messagesAccepted(), i)
	case to.Received.Messages > i.Sent.Messages || to.Received.Bytes > i.Sent.Bytes:
		return fmt.Sprintf("sent %+v, the other side has %+v", i.Sent, to.Received)
	case idle && i.Wait != WaitNone && i.Wait != WaitReader, i.Mailbox.Messages == 0 && i.Wait == WaitReader:
		return fmt.Sprintf("it waits for nothing: %+v", i)
	case i.Queued.Messages > 0 && i.SendUsed > i.SendGranted && i.Wait == WaitNone && !s.awaitsAnswer() && s.cred.eligible < s.leastCost():
		return fmt.Sprintf("it waits for credit: %+v", i)
	}
	return ""
}

// finish ends both halves in order and checks that everything is as it was: all
// messages there, all credit back, nothing reserved, everybody told once.
func finish(t *rapid.T, a, b *end, read bool) {
	run(t, a, b, read)
	for _, e := range []*end{a, b} {
		d := &e.model
		if !d.cut && !d.stopped && d.received != len(d.accepted) {
			t.Fatalf("%s: the other side got %d of %d messages and no more come", e.name, d.received, len(d.accepted))
		}
		d.closed = true
		_ = e.s.CloseSend(status.OK, "", nil)
	}
	run(t, a, b, read)
	check(t, a, b)
	for _, e := range []*end{a, b} {
		switch {
		case !e.s.st.retired, !e.s.st.done:
			t.Fatalf("%s: both halves are closed, and it stays at %v", e.name, e.s.st)
		case read && e.to.model.ends != 1:
			t.Fatalf("%s: told of the end %d times", e.name, e.to.model.ends)
		case e.recvd != e.link.taken:
			t.Fatalf("%s: received %d bytes of credit, returned %d", e.name, e.recvd, e.link.taken)
		case !e.model.cut && !e.model.stopped && e.s.sent != e.to.s.received():
			t.Fatalf("%s: sent %+v, the other side got %+v", e.name, e.s.sent, e.to.s.received())
		case e.link.reserve != 0:
			t.Fatalf("%s: %d bytes stay reserved for fragments", e.name, e.link.reserve)
		case e.link.timers.Len() != 0:
			t.Fatalf("%s: %d timers are left", e.name, e.link.timers.Len())
		}
		e.s.in.Release()
		if err := e.s.Err(); (err == nil) == e.model.cut && !bothEnded(a, b) {
			t.Fatalf("%s: cut short %v, Err is %v", e.name, e.model.cut, err)
		}
	}
}

// bothEnded: the cut came too late to matter.
func bothEnded(a, b *end) bool { return a.s.Err() == nil || b.s.Err() == nil }
