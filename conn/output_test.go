package conn

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/pool"
)

// sink is a transport that takes everything at once, or is full for a while.
type sink struct {
	c     *Conn
	bytes int
	full  int // how many writes take a part, or nothing
}

func (s *sink) write(v [][]byte) (n int, _ error) {
	if s.full > 0 {
		if s.full--; s.full%2 == 0 {
			return 0, errAgain
		}
		s.bytes += len(v[0]) / 2
		return len(v[0]) / 2, nil
	}
	for _, p := range v {
		n += len(p)
	}
	s.bytes += n
	return n, nil
}

// await finds that the sink can be written again, as a socket may be by then.
func (s *sink) await() {
	done := make(chan struct{})
	go func() {
		s.c.flush()
		close(done)
	}()
	<-done
}
func (s *sink) inPlace() bool    { return true }
func (s *sink) more() bool       { return false }
func (s *sink) spawn()           { s.c.flush() }
func (s *sink) closeWrite() bool { return true }
func (s *sink) close()           {}
func (s *sink) sever()           {}

// fakeStream is a stream with data for a number of turns.
type fakeStream struct {
	Port
	name   string
	size   int // of its messages
	turns  int // of data that are left
	log    *[]string
	used   int
	freed  int // calls of RoomFree
	full   int // calls of RoomGone
	onRoom func()
	onTurn func() // for control frames
	onData func() // in a turn for data
}

func (t *fakeStream) Fill(sess frame.Session, o *frame.Out, most int, data bool) (int, bool) {
	if !data {
		*t.log = append(*t.log, t.name+" control")
		if t.onTurn != nil {
			t.onTurn()
		}
		return 0, false
	}
	if t.onData != nil {
		t.onData()
	}
	n := min(t.size, most-overhead)
	var run pool.Queue
	run.Push(pool.New(n))
	sess.Messages(o, t.ID(), run)
	t.turns--
	t.used += (n + overhead)
	*t.log = append(*t.log, t.name)
	return (n + overhead), t.turns > 0
}

func (t *fakeStream) RoomFree() {
	t.freed++
	if t.onRoom != nil {
		t.onRoom()
	}
}
func (t *fakeStream) RoomGone()                                  { t.full++ }
func (t *fakeStream) Deliver(run *pool.Queue, _ time.Time) error { run.Release(); return nil }
func (t *fakeStream) Fragment(*frame.Frame, time.Time) error     { return nil }
func (t *fakeStream) Control(*frame.Frame) error                 { return nil }
func (t *fakeStream) Held() int                                  { return 0 }
func (t *fakeStream) Compact(*pool.Arena) int                    { return 0 }
func (t *fakeStream) ReadProgress() (int, uint64)                { return 0, 0 }
func (t *fakeStream) CapUse(time.Time) (int, time.Duration)      { return 0, 0 }
func (t *fakeStream) Evict(string)                               {}
func (t *fakeStream) Lost(error, bool)                           {}

// stage is a connection that writes to a sink, with streams that log their turns.
type stage struct {
	c    *Conn
	sink *sink
	log  []string
	n    uint64
}

// limits returns l with defaults.
func limits(l Limits) *Limits {
	l = WithDefaults(l)
	return &l
}

func newStage(l Limits, credit int) *stage {
	c := newConn(Config{
		Session: native.New(native.DefaultMaxFragment), Limits: limits(l), Timers: &timers.Queue{},
		Peer: frame.Settings{ConnCredit: uint64(credit), MaxStreams: 100},
	})
	s := &stage{c: c, sink: &sink{c: c}}
	c.tr = s.sink
	return s
}

func (s *stage) stream(name string, size, turns int) *fakeStream {
	t := &fakeStream{name: name, size: size, turns: turns, log: &s.log}
	s.c.PreparePeer(&t.Port, t, false)
	s.n += 2
	s.c.OpenPeer(&t.Port, s.n, 0)
	return t
}

func (s *stage) count(name string, log []string) (n int) {
	for _, l := range log {
		if l == name {
			n++
		}
	}
	return n
}

// A flush that finds the socket full leaves the output to the next flush, which may begin
// at once: nothing is written twice, and afterwards no write is marked as waiting.
func TestAFullSocketHandsTheOutputOver(t *testing.T) {
	s := newStage(Limits{}, 1<<20)
	s.sink.full = 8
	a := s.stream("a", 1000, 5)
	a.Ready(false)
	wrote := int(s.c.out.wrote.Load())
	if want := 5 * (8 + 1000); wrote < want || s.sink.bytes != wrote {
		t.Errorf("%d bytes were written of %d, %d at least", s.sink.bytes, wrote, want)
	}
	if s.c.health.waiting.Load() || s.c.out.flushing {
		t.Errorf("all is written: a write waits %v, a flush is under way %v", s.c.health.waiting.Load(), s.c.out.flushing)
	}
}

// A stream that was aborted before it had a number gets none, nor do those of the same
// request: the peer never learns of them.
func TestAnAbortedStreamGetsNoNumber(t *testing.T) {
	s := newStage(Limits{}, 1<<20)
	first, second := &fakeStream{name: "first", log: &s.log}, &fakeStream{name: "second", log: &s.log}
	s.c.OpenLocal(&first.Port, first, nil, 0)
	s.c.OpenLocal(&second.Port, second, &first.Port, 0)
	if !first.Forsake() {
		t.Fatal("it has a number before its first frame")
	}
	first.Ready(true)
	if a, b := first.ID(), second.ID(); a != 0 || b != 0 || len(s.log) > 0 {
		t.Errorf("numbers %d and %d, turns: %v", a, b, s.log)
	}
	third := &fakeStream{name: "third", log: &s.log}
	s.c.OpenLocal(&third.Port, third, nil, 0)
	third.Ready(true)
	if third.ID() == 0 || third.Forsake() {
		t.Errorf("stream %d was forsaken although it had its number", third.ID())
	}
}

// A connection is unusable before its numbers run out: one that is usable has enough for
// the largest request.
func TestNumbersRunOut(t *testing.T) {
	s := newStage(Limits{}, 1<<20)
	c := s.c
	c.cfg.Peer.MaxStreams = 1000
	for left := range uint64(2 * 256) {
		c.nextLocal = c.maxStream - 2*left
		for _, open := range []int{0, 1, 300} {
			c.localStreams = open
			usable := c.Usable()
			for _, n := range []int{1, 2, 256} {
				err := c.usable(n)
				if usable && err != nil {
					t.Fatalf("%d numbers left, %d open, said to be usable: %d more: %v", left, open, n, err)
				}
				if got, want := err == nil, uint64(open+n) <= left; got != want {
					t.Fatalf("%d numbers left, %d open: %d more: %v", left, open, n, err)
				}
			}
		}
	}
}

// Streams that a request opens get their numbers, and write data, after it. Also if the
// request comes too late for the control frames of a flush, and their data in time for
// the data of that flush.
func TestStreamsOfARequestWaitForIt(t *testing.T) {
	s := newStage(Limits{}, 1<<20)
	first := &fakeStream{name: "lead", log: &s.log}
	siblings := []*fakeStream{{name: "one", size: 10, turns: 2, log: &s.log}, {name: "two", size: 10, turns: 1, log: &s.log}}
	s.c.OpenLocal(&first.Port, first, nil, 0)
	s.c.OpenLocal(&siblings[0].Port, siblings[0], &first.Port, 0)
	s.c.OpenLocal(&siblings[1].Port, siblings[1], &siblings[0].Port, 0)
	a := s.stream("a", 10, 1)
	a.onTurn = func() {
		first.Ready(true)
		siblings[1].Ready(false)
		siblings[0].Ready(false)
	}
	a.Ready(true)
	if got := strings.Join(s.log, ", "); got != "a control, lead control, one, two, one" {
		t.Errorf("turns: %s", got)
	}
	if ids := []uint64{first.ID(), siblings[0].ID(), siblings[1].ID()}; !slices.Equal(ids, []uint64{2, 4, 6}) {
		t.Errorf("numbers %v", ids)
	}
}

// What becomes ready while a flush writes the only stream that had data is written by the
// same flush.
func TestWhatComesBesideALoneSendIsWritten(t *testing.T) {
	for name, start := range map[string]func(s *stage, p *fakeStream){
		"in place":   func(s *stage, p *fakeStream) { s.c.out.tokens = 1; p.Ready(false) },
		"by another": func(s *stage, p *fakeStream) { s.c.out.tokens = 0; p.Ready(false) },
		"uncorked":   func(s *stage, p *fakeStream) { s.c.out.cork(); p.Ready(false); s.c.uncork(0) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(Limits{}, 1<<20)
			a, b := s.stream("a", 10, 2), s.stream("b", 10, 1)
			a.onData = func() {
				if a.onData = nil; a.turns == 2 {
					b.Ready(false)
					b.Ready(true)
				}
			}
			start(s, a)
			// a has more data, so that b's turn is in the same gather, and its control
			// frame in the next one.
			got := strings.Join(s.log, ", ")
			if got != "a, b, a, b control" {
				t.Errorf("turns: %s", got)
			}
			if s.c.out.flushing || s.c.out.data.head != nil || s.c.out.control.head != nil || s.sink.bytes != int(s.c.out.wrote.Load()) {
				t.Error("the flush has left something")
			}
			s.log, a.turns, b.turns = nil, 1, 1
			a.onData = func() { b.Ready(false); b.Ready(true) }
			start(s, a)
			if got := strings.Join(s.log, ", "); got != "a, b control, b" {
				t.Errorf("turns beside a lone message: %s", got)
			}
			if s.c.out.flushing || s.c.out.data.head != nil {
				t.Error("the flush has left something")
			}
		})
	}
}

// A stream that ends while it has the turn is not put back in line.
func TestAStreamThatEndsInItsTurnIsNotPutBack(t *testing.T) {
	s := newStage(Limits{}, 0) // without credit there is no data
	o := &s.c.out
	p, q := s.stream("p", 10, 1), s.stream("q", 10, 1)
	o.flushing = true // a flush that has taken p, and then finds no credit
	p.Ready(false)
	q.Ready(false)
	if !o.takeFirst() || o.first != &p.Port {
		t.Fatal("p is not the first")
	}
	p.Retire()
	o.first = nil
	if next := s.c.stall(&p.Port); next != nil {
		t.Error("a turn was given without credit")
	}
	if !o.stalled || o.data.head != &q.Port || count(&o.data, dataLink) != 1 {
		t.Errorf("stalled: %v, in line: %d, want q alone", o.stalled, count(&o.data, dataLink))
	}
	s.c.granted.Store(1000) // just before the lock is taken
	o.putBack(o.data.popData())
	if next := s.c.stall(o.data.popData()); next != &q.Port || o.stalled {
		t.Errorf("there is credit again: the turn is %p's, want q's; stalled: %v", next, o.stalled)
	}
}

func TestStreamsTakeTurns(t *testing.T) {
	s := newStage(Limits{InFlight: Unlimited}, 1<<30)
	big, small := s.stream("big", 60<<10, 50), s.stream("small", 64, 50)
	third := s.stream("third", 1<<10, 50)
	s.c.out.cork()
	for _, p := range []*fakeStream{big, small, third} {
		p.Ready(false)
	}
	s.c.uncork(0)
	if len(s.log) != 150 {
		t.Fatalf("%d turns, want 150", len(s.log))
	}
	for i := range 50 {
		round := s.log[3*i : 3*i+3]
		for _, p := range []string{"big", "small", "third"} {
			if s.count(p, round) != 1 {
				t.Fatalf("round %d was %v", i, round)
			}
		}
	}
}

func TestControlFramesGoBeforeData(t *testing.T) {
	s := newStage(Limits{InFlight: Unlimited}, 1<<30)
	bulk, late := s.stream("bulk", 60<<10, 100), s.stream("late", 64, 1)
	s.c.out.cork()
	bulk.Ready(false)
	late.Ready(true)
	s.c.uncork(0)
	if s.log[0] != "late control" {
		t.Errorf("began with %q", s.log[0])
	}
}

// The bytes that are written and not read delay everything behind them. They are bounded,
// however much credit there is.
func TestBytesInFlightAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound = 256 << 10
		s := newStage(Limits{InFlight: bound}, 1<<30)
		s.stream("bulk", 32<<10, 1000).Ready(false)
		if s.sink.bytes > bound+bound/4 || s.sink.bytes < bound/2 {
			t.Fatalf("%d bytes written unread, the bound is %d", s.sink.bytes, bound)
		}
		before := s.sink.bytes
		s.c.in.now = time.Now()
		if err := s.c.connFrame(&frame.Frame{Kind: frame.Read, Value: uint64(before)}); err != nil {
			t.Fatal(err)
		}
		if more := s.sink.bytes - before; more < bound/2 || more > bound+bound/4 {
			t.Errorf("after all was read, %d bytes more were written", more)
		}
		if err := s.c.connFrame(&frame.Frame{Kind: frame.Read, Value: 1 << 40}); err == nil {
			t.Error("a report of more than was written is accepted")
		}
	})
}

// The bound on the bytes in flight is for the sake of other streams: one that has long
// been the only sender may have more in flight, until another one sends.
func TestAStreamAloneMayHaveMoreInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // for a slow machine would make the path long
		const bound = 256 << 10
		s := newStage(Limits{InFlight: bound}, 1<<30)
		s.stream("bulk", 32<<10, 1<<20).Ready(false)
		// flight lets the peer read everything, and returns how much is written then.
		flight := func() int {
			time.Sleep(100 * time.Microsecond)
			before := s.sink.bytes
			s.c.in.now = time.Now()
			if err := s.c.connFrame(&frame.Frame{Kind: frame.Read, Value: uint64(before)}); err != nil {
				t.Fatal(err)
			}
			return s.sink.bytes - before
		}
		for s.sink.bytes < soleAfter-2*bound {
			if n := flight(); n > bound+bound/4 {
				t.Fatalf("%d bytes in flight after %d bytes", n, s.sink.bytes)
			}
		}
		for s.sink.bytes < soleAfter+2*bound {
			flight()
		}
		if n := flight(); n < soleFactor*bound/2 || n > (soleFactor+1)*bound {
			t.Errorf("%d bytes in flight of a stream alone, want about %d", n, soleFactor*bound)
		}
		s.stream("other", 64, 1).Ready(false)
		flight()
		if n := flight(); n > bound+bound/4 {
			t.Errorf("%d bytes in flight after another stream has sent", n)
		}
	})
}

// moreSink is a sink that knows whether there is more input.
type moreSink struct {
	sink
	input bool
}

func (f *moreSink) more() bool { return f.input }

// A sender stops when its bytes are not reported as read: a report that was held back must
// be sent when there is nothing more to read.
func TestReadIsReportedWhenNoMoreIsThere(t *testing.T) {
	s := newStage(Limits{}, 1<<30)
	f := &moreSink{input: true}
	f.c, s.c.tr = s.c, f
	told := func(n int) uint64 {
		s.c.in.bytesRead += uint64(n)
		s.c.reportRead()
		s.c.uncork(0)
		return s.c.in.reported
	}
	if told(reportEvery); s.c.in.reported != reportEvery {
		t.Fatalf("%d bytes reported of %d, with other streams sending", s.c.in.reported, reportEvery)
	}
	told(2 * soleAfter) // of one stream, none other since
	from := s.c.in.reported
	for n := reportEvery; n < soleFactor*reportEvery; n += reportEvery {
		if got := told(reportEvery); got != from {
			t.Fatalf("reported after %d bytes although more is there", n)
		}
	}
	if got := told(reportEvery); got != s.c.in.bytesRead {
		t.Fatalf("reported %d bytes of %d", got-from, s.c.in.bytesRead-from)
	}
	told(reportEvery)
	f.input = false
	if got := told(0); got != s.c.in.bytesRead {
		t.Errorf("%d bytes are not reported, and no more come", s.c.in.bytesRead-got)
	}
}

func TestDataStaysWithinTheConnectionsCredit(t *testing.T) {
	s := newStage(Limits{InFlight: Unlimited}, 1000)
	a, b := s.stream("a", 300, 100), s.stream("b", 300, 100)
	a.Ready(false)
	b.Ready(false)
	if a.used+b.used > 1000 || a.used+b.used < 1000-overhead {
		t.Fatalf("used %d and %d of a credit of 1000", a.used, b.used)
	}
	if err := s.c.connCredit(5000); err != nil {
		t.Fatal(err)
	}
	if got := a.used + b.used; got > 5000 || got < 5000-overhead {
		t.Errorf("used %d of a credit of 5000", got)
	}
	if d := a.used - b.used; d > 1000 || d < -1000 {
		t.Errorf("one used %d, the other %d", a.used, b.used)
	}
	if err := s.c.connCredit(1 << 40); err == nil {
		t.Error("credit far beyond what was used was accepted")
	}
}

// RoomGone is called once for each AwaitFull, when there is no room any more. A stream
// that is over is not remembered.
func TestNoRoomIsReported(t *testing.T) {
	s := newStage(Limits{OutQueue: 1000}, 1<<30)
	a, b, over := s.stream("a", 64, 1), s.stream("b", 64, 1), s.stream("over", 64, 1)
	a.AwaitFull()
	a.AwaitFull()
	over.AwaitFull()
	over.Retire()
	if b.Queued(999); a.full != 0 {
		t.Error("there is room, and RoomGone was called")
	}
	if b.Queued(1); a.full != 1 || b.full != 0 || over.full != 0 {
		t.Errorf("calls of RoomGone: a %d, b %d, one that is over %d; want one of a", a.full, b.full, over.full)
	}
	if b.Queued(1); a.full != 1 {
		t.Error("RoomGone was called twice")
	}
	if a.AwaitFull(); a.full != 2 {
		t.Error("AwaitFull without room did not call RoomGone")
	}
	over.AwaitFull() // called late
	if n := len(s.c.out.slots.of); n > 0 {
		t.Errorf("%d streams are remembered", n)
	}
}

// RoomFree is called for waiting streams in order, as soon as there is room, whatever the
// size of the queue.
func TestRoomIsSharedInTurn(t *testing.T) {
	for _, size := range []int{1, 2, 1000} {
		s := newStage(Limits{OutQueue: size}, 1<<30)
		first := s.stream("first", 64, 1)
		first.Queued(size) // full
		if first.Room(false) {
			t.Fatalf("a queue of %d bytes has room for more than %d", size, size)
		}
		var order []string
		for _, name := range []string{"a", "b", "c"} {
			p := s.stream(name, 64, 1)
			p.onRoom = func() { order = append(order, name) }
			p.AwaitRoom()
			p.AwaitRoom() // waits already
		}
		if len(order) > 0 {
			t.Fatalf("RoomFree of %v without room", order)
		}
		first.Queued(-size)
		if n := s.c.out.waiters.Load(); n != 0 {
			t.Errorf("%d streams are counted as waiting after RoomFree", n)
		}
		if len(order) != 3 || order[0] != "a" || order[1] != "b" || order[2] != "c" {
			t.Errorf("a queue of %d bytes: RoomFree of %v, want a, b, c", size, order)
		}
		late := s.stream("late", 64, 1) // it found no room, and there is some when it asks
		if late.AwaitRoom(); late.freed != 1 {
			t.Errorf("a queue of %d bytes: %d calls of RoomFree with room, want 1", size, late.freed)
		}
	}
}

// A call that is aborted before its open could be written leaves nothing behind, however
// long the peer reads nothing.
func TestStreamsThatAreAbortedUnnumberedLeaveTheirLists(t *testing.T) {
	for name, order := range map[string][]int{"in order": {0, 1, 2, 3}, "from the end": {3, 2, 1, 0}, "from within": {1, 2, 0, 3}} {
		t.Run(name, func(t *testing.T) {
			s := newStage(Limits{}, 0) // without credit there is no room
			o := &s.c.out
			o.flushing = true // a write that does not return
			ts := make([]*fakeStream, 4)
			for i := range ts {
				ts[i] = &fakeStream{log: &s.log}
				if _, err := s.c.Reserve(1, false); err != nil {
					t.Fatal(err)
				}
				s.c.OpenLocal(&ts[i].Port, ts[i], nil, 0)
				ts[i].Ready(true)
				ts[i].Ready(false)
				ts[i].AwaitRoom()
			}
			for n, i := range order {
				ts[i].Retire()
				for line, left := range map[string]int{
					"control": count(&o.control, controlLink), "data": count(&o.data, dataLink), "room": count(&o.room, roomLink),
				} {
					if left != len(ts)-n-1 {
						t.Errorf("%d are left in the list for %s, want %d", left, line, len(ts)-n-1)
					}
				}
			}
			last := &fakeStream{log: &s.log}
			s.c.OpenLocal(&last.Port, last, nil, 0)
			last.Ready(true)
			last.Ready(false)
			if o.control.head != &last.Port || o.control.tail != &last.Port || o.data.popData() != &last.Port {
				t.Error("a later stream is not in the lists")
			}
		})
	}
}

// Streams that are over are in no list any more.
func TestStreamsThatAreOverLeaveTheirLists(t *testing.T) {
	s := newStage(Limits{}, 0) // the peer grants nothing
	o := &s.c.out
	lines := func() [2]int { return [2]int{count(&o.data, dataLink), count(&o.room, roomLink)} }
	var ts []*fakeStream
	for range 10 {
		p := s.stream("t", 10, 1)
		if p.Room(false) {
			t.Fatal("there is room")
		}
		p.Ready(false)
		p.AwaitRoom()
		ts = append(ts, p)
	}
	for i, p := range ts {
		p.Retire()
		p.Ready(false) // called late
		p.AwaitRoom()
		if left := len(ts) - i - 1; lines() != [2]int{left, left} || int(o.waiters.Load()) != left {
			t.Errorf("%v are left in the lists for data and for room, want %d each", lines(), left)
		}
	}
	if len(s.log) > 0 {
		t.Errorf("turns were given: %v", s.log)
	}
}

// eagerReader is a stream whose messages are taken as they are delivered, as by the buffer
// of In.
type eagerReader struct{ fakeStream }

func (k *eagerReader) Deliver(run *pool.Queue, _ time.Time) error {
	n := run.Bytes() + run.Len()*overhead
	run.Release()
	k.Taken(n)
	return nil
}

// Credit may return during the input that used it. What the peer has left is computed
// after that input. If it is too little for a message, nothing more comes, so that the
// returned credit must be announced at once.
func TestCreditTakenDuringAnInputIsSeen(t *testing.T) {
	const window = 4 << 10
	c, l := newDecoded(t, &acceptor{})
	c.lim = limits(Limits{ConnWindow: window})
	c.firstWindow, c.in.limit = window, window
	c.window.Store(window)
	c.advertised.Store(window)
	unread := &fakeStream{} // its messages are never returned
	c.PreparePeer(&unread.Port, unread, false)
	c.OpenPeer(&unread.Port, 1, 0)
	read := &eagerReader{}
	c.PreparePeer(&read.Port, read, false)
	c.OpenPeer(&read.Port, 3, 0)
	left := window
	send := func(id uint64, n int) {
		left -= (n + overhead)
		if !c.Input(saying(id, n)) {
			t.Fatal(c.Err())
		}
	}
	for range 30 {
		send(1, 128-overhead)
	}
	send(3, left-overhead-20)
	for _, f := range l.frames {
		if f.Kind == frame.Credit && f.Stream == 0 {
			return
		}
	}
	t.Errorf("the peer has %d of %d bytes left, too few for a message; %d were returned, %d announced",
		left, window, c.returned.Load(), c.advertised.Load())
}

func count(l *list, link func(*Port) **Port) (n int) {
	for p := l.head; p != nil; p = *link(p) {
		n++
	}
	return n
}

// overhead is the native protocol's.
const overhead = 32
