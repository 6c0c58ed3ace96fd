package conn

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// endingStream is a stream that records its end.
type endingStream struct {
	fakeStream
	lost        []error
	unprocessed bool // of the last
	onLost      func()
}

func (m *endingStream) Lost(err error, notProcessed bool) {
	m.lost, m.unprocessed = append(m.lost, err), notProcessed
	if f := m.onLost; f != nil {
		f()
	}
	m.Retire()
}

// acceptor accepts every stream, after a call of before.
type acceptor struct {
	refuser
	before  func(c *Conn)
	streams []*endingStream
}

func (a *acceptor) Open(c *Conn, f *frame.Frame) *Refusal {
	if a.before != nil {
		a.before(c)
	}
	for i := range f.Grants {
		m := &endingStream{}
		c.PreparePeer(&m.Port, m, false)
		c.OpenPeer(&m.Port, f.Stream+2*uint64(i), 0)
		a.streams = append(a.streams, m)
	}
	return nil
}

func (*acceptor) Closed(*Conn, error) {}

// decodingSink is a transport that decodes the frames that it is given to write.
type decodingSink struct {
	sink
	sess   *native.Session
	frames []frame.Frame
}

func (l *decodingSink) write(v [][]byte) (int, error) {
	for _, p := range v {
		for {
			var f frame.Frame
			n, err := l.sess.Next(p, &f)
			p = p[n:]
			if err != nil || f.Kind == frame.None {
				break
			}
			l.frames = append(l.frames, f)
		}
	}
	return l.sink.write(v)
}
func (l *decodingSink) spawn() { l.c.flush() }

func newDecoded(t *testing.T, h Handler) (*Conn, *decodingSink) {
	t.Helper()
	c := newConn(Config{
		Session: native.New(native.DefaultMaxFragment), Limits: limits(Limits{}), Timers: &timers.Queue{},
		Peer: frame.Settings{ConnCredit: 1 << 20, MaxStreams: 100}, Handler: h,
	})
	l := &decodingSink{sink: sink{c: c}, sess: native.New(native.DefaultMaxFragment)}
	c.tr = l
	t.Cleanup(c.finish) // and its timer
	return c, l
}

func opening(id uint64, n int) []byte {
	var o frame.Out
	native.New(0).Control(&o, &frame.Frame{Kind: frame.Open, Stream: id, Method: "m", Grants: make([]frame.Grant, n)})
	return o.Buf
}

// The connection may end while the reader handles an Open. Whichever is first, the streams
// are lost, once.
func TestStreamsOpenedWhileTheConnectionEndsAreLost(t *testing.T) {
	a := &acceptor{before: func(c *Conn) { c.Close(status.Cancelled, "closed") }}
	c, _ := newDecoded(t, a)
	c.Input(opening(1, 3))
	if len(a.streams) != 3 {
		t.Fatalf("%d streams", len(a.streams))
	}
	for i, s := range a.streams {
		if len(s.lost) != 1 {
			t.Errorf("stream %d was lost %d times: %v", i, len(s.lost), s.lost)
		}
	}
	if n := c.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

// Streams without a number are lost too. A flush that runs while the others are being
// told gives them none any more.
func TestUnopenedStreamsAreLostWithTheConnection(t *testing.T) {
	a := &acceptor{}
	c, _ := newDecoded(t, a)
	c.Input(opening(1, 1))
	unnumbered := &endingStream{}
	c.OpenLocal(&unnumbered.Port, unnumbered, nil, 0)
	c.out.cork()
	unnumbered.Ready(true)
	a.streams[0].onLost = func() { c.uncork(0) }
	c.Close(status.Cancelled, "closed")
	if len(unnumbered.lost) != 1 || unnumbered.ID() != 0 {
		t.Errorf("lost %v, number %d", unnumbered.lost, unnumbered.ID())
	}
}

// Streams opened after the connection's end are refused, and the GOAWAY, which may be
// the last frame that the peer reads, does not name them as served.
func TestGoAwayNamesNoStreamThatWasRefused(t *testing.T) {
	a := &acceptor{}
	c, l := newDecoded(t, a)
	c.Input(opening(1, 1))
	// Streams are told before the GOAWAY is made.
	a.streams[0].onLost = func() { c.Input(opening(3, 2)) }
	c.Close(status.Cancelled, "closed")
	if len(a.streams) != 1 {
		t.Errorf("%d streams were accepted", len(a.streams))
	}
	last := l.frames[len(l.frames)-1]
	if last.Kind != frame.GoAway || last.Value != 1 {
		t.Errorf("GOAWAY: %+v", last)
	}
}

// A connection that ends during a drain says why: the second GOAWAY of the drain does not
// replace the last one.
func TestADrainDoesNotReplaceTheLastGoAway(t *testing.T) {
	a := &acceptor{}
	c, l := newDecoded(t, a)
	c.Input(opening(1, 1))
	c.Drain(nil)
	ping := l.frames[len(l.frames)-1]
	if ping.Kind != frame.Ping {
		t.Fatalf("written: %+v", ping)
	}
	c.out.cork() // nothing is written yet
	c.Fail("keepalive", status.Keepalive, errSilent)
	c.sendFinalGoAway()
	c.uncork(0)
	last := l.frames[len(l.frames)-1]
	if last.Kind != frame.GoAway || last.Code != status.Keepalive {
		t.Errorf("GOAWAY: %+v", last)
	}
}

// panickingStream is a stream whose code panics.
type panickingStream struct{ fakeStream }

func (*panickingStream) Deliver(*pool.Queue, time.Time) error { panic("a secret") }

// A panic on the reader ends the connection while the output is corked. The peer is still
// sent a GOAWAY, which does not say what the panic was.
func TestAPanicOnTheReaderIsReported(t *testing.T) {
	wantPanicTold(t, func(c *Conn, p []byte) bool { return (&netConn{c: c}).input(p) })
}

// wantPanicTold has a transport pass on a message on which the program panics.
func wantPanicTold(t *testing.T, input func(c *Conn, p []byte) bool) {
	t.Helper()
	c, l := newDecoded(t, &acceptor{})
	st := &panickingStream{}
	c.PreparePeer(&st.Port, st, false)
	c.OpenPeer(&st.Port, 1, 0)
	if input(c, saying(1, 5)) {
		t.Error("the reader goes on")
	}
	if len(l.frames) != 1 {
		t.Fatalf("written: %+v", l.frames)
	}
	if f := l.frames[0]; f.Kind != frame.GoAway || f.Code != status.Internal || strings.Contains(f.Reason, "secret") {
		t.Errorf("GOAWAY: %+v", f)
	}
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "a secret") {
		t.Errorf("the error on this side is %v", err)
	}
}

// saying is a message of n bytes on stream id.
func saying(id uint64, n int) []byte {
	var o frame.Out
	var run pool.Queue
	run.Push(pool.New(n))
	native.New(native.DefaultMaxFragment).Messages(&o, id, run)
	return o.Buf
}

// The second step of a drain waits for the answer to the drain's own ping. An answer to
// another ping that comes as the drain begins says nothing about the first GOAWAY.
func TestADrainWaitsForItsOwnPong(t *testing.T) {
	c, l := newDecoded(t, &acceptor{})
	c.Input(opening(1, 1))
	c.ping(1)
	c.Drain(nil)
	pong := func(v uint64) bool {
		c.in.now = time.Now()
		if err := c.connFrame(&frame.Frame{Kind: frame.Pong, Value: v}); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.goAway.final
	}
	if pong(1) {
		t.Error("the answer to another ping began the second step")
	}
	own := l.frames[len(l.frames)-1]
	if own.Kind != frame.Ping || own.Value == 1 {
		t.Fatalf("written: %+v", l.frames)
	}
	if !pong(own.Value) {
		t.Error("the answer to the drain's ping did not begin the second step")
	}
}

// The same, with the other answer coming at the very moment.
func TestADrainBeginsAsAnotherPongComes(t *testing.T) {
	for i := range 300 {
		c, l := newDecoded(t, &acceptor{})
		c.Input(opening(1, 1))
		c.ping(1)
		start, done := make(chan struct{}), make(chan struct{})
		go func() { // the reader
			defer close(done)
			c.in.now = time.Now()
			close(start)
			for c.health.pinged.Load() == 1 {
				_ = c.connFrame(&frame.Frame{Kind: frame.Pong, Value: 1})
			}
		}()
		<-start
		for range i % 64 {
			runtime.Gosched()
		}
		c.Drain(nil)
		<-done
		c.mu.Lock()
		final := c.goAway.final
		c.mu.Unlock()
		if final {
			t.Fatalf("run %d: the answer to another ping began the second step: %+v", i, l.frames)
		}
		c.finish()
	}
}

// One ping has one answer. Further ones are counted as frames that change nothing.
func TestUnrequestedPongsAreCounted(t *testing.T) {
	c, _ := newDecoded(t, &acceptor{})
	c.ping(1)
	c.in.now = time.Now()
	n := 0
	var err error
	for ; err == nil && n < 2*uselessSpare; n++ {
		err = c.connFrame(&frame.Frame{Kind: frame.Pong, Value: 1})
	}
	if err == nil || n <= uselessSpare {
		t.Errorf("%d answers to one ping, then %v", n, err)
	}
}

// A flush may have a stream in hand when the connection ends, which does not find it then. The
// stream gets no number: it is lost with the error of the others, and no handler saw it.
func TestAStreamThatTheEndDoesNotFindIsLostForTheSameReason(t *testing.T) {
	c, _ := newDecoded(t, &acceptor{})
	s := &endingStream{}
	c.OpenLocal(&s.Port, s, nil, 0)
	c.out.cork()
	s.Ready(true)
	p, noOpens, _ := c.gatherPending()
	if p != &s.Port {
		t.Fatal("the flush has another stream, or none")
	}
	c.Fail("read", status.Checksum, errors.New("a bit was changed"))
	if c.assignNumbers(p, noOpens) || s.ID() != 0 {
		t.Errorf("it got the number %d", s.ID())
	}
	if len(s.lost) != 1 || !errors.Is(s.lost[0], &status.ConnError{Code: status.Checksum}) || !s.unprocessed {
		t.Errorf("lost %v, not processed: %v", s.lost, s.unprocessed)
	}
}
