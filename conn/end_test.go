package conn

import (
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/internal/timers"
)

// mortal is a stream that notes its end.
type mortal struct {
	talker
	lost   []error
	onLost func()
}

func (m *mortal) Lost(err error, _ bool) {
	m.lost = append(m.lost, err)
	if f := m.onLost; f != nil {
		f()
	}
	m.Retire()
}

// acceptor takes every stream, after before.
type acceptor struct {
	nobody
	before  func(c *Conn)
	streams []*mortal
}

func (a *acceptor) Open(c *Conn, f *frame.Frame) *Refusal {
	if a.before != nil {
		a.before(c)
	}
	for i := range f.Grants {
		m := &mortal{}
		c.Prepare(&m.Port, m)
		c.Attach(&m.Port, f.Stream+2*uint64(i), 0)
		a.streams = append(a.streams, m)
	}
	return nil
}

func (*acceptor) Closed(*Conn, error) {}

// listener is a transport that reads what it is given to write.
type listener struct {
	sink
	sess  *native.Session
	heard []frame.Frame
}

func (l *listener) write(v [][]byte) (int, error) {
	for _, p := range v {
		for {
			var f frame.Frame
			n, err := l.sess.Next(p, &f)
			p = p[n:]
			if err != nil || f.Kind == frame.None {
				break
			}
			l.heard = append(l.heard, f)
		}
	}
	return l.sink.write(v)
}
func (l *listener) spawn() { l.c.flush() }

func newMeeting(t *testing.T, h Handler) (*Conn, *listener) {
	t.Helper()
	c := newConn(Config{
		Session: native.New(native.DefaultMaxFragment), Limits: limits(Limits{}), Timers: &timers.Queue{},
		Peer: frame.Settings{ConnCredit: 1 << 20, MaxStreams: 100}, Handler: h,
	})
	l := &listener{sink: sink{c: c}, sess: native.New(native.DefaultMaxFragment)}
	c.tr = l
	t.Cleanup(c.finish) // and its timer
	return c, l
}

func opening(id uint64, n int) []byte {
	var o frame.Out
	native.New(0).Control(&o, &frame.Frame{Kind: frame.Open, Stream: id, Method: "m", Grants: make([]frame.Grant, n)})
	return o.Buf
}

// The end may come from anybody while the reader takes an open. Whichever is
// first, the streams hear of it, once.
func TestStreamsOpenedWhileTheConnectionEndsAreLost(t *testing.T) {
	a := &acceptor{before: func(c *Conn) { c.Close() }}
	c, _ := newMeeting(t, a)
	c.Input(opening(1, 3))
	if len(a.streams) != 3 {
		t.Fatalf("%d streams", len(a.streams))
	}
	for i, s := range a.streams {
		if len(s.lost) != 1 {
			t.Errorf("stream %d was told of the end %d times: %v", i, len(s.lost), s.lost)
		}
	}
	if n := c.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

// Streams without a number hear of the end too, also where a flush comes by while the
// others are told: it gives them none any more.
func TestUnopenedStreamsAreLostWithTheConnection(t *testing.T) {
	a := &acceptor{}
	c, _ := newMeeting(t, a)
	c.Input(opening(1, 1))
	unborn := &mortal{}
	c.Begin(&unborn.Port, unborn, nil)
	c.out.hold()
	unborn.Ready(true)
	a.streams[0].onLost = func() { c.out.release(c, 0) }
	c.Close()
	if len(unborn.lost) != 1 || unborn.ID() != 0 {
		t.Errorf("told %v, number %d", unborn.lost, unborn.ID())
	}
}

// What comes once the connection ends is refused, and its goodbye, which may be
// the last that the peer reads, does not name it as served.
func TestTheGoodbyeNamesNoStreamThatWasRefused(t *testing.T) {
	a := &acceptor{}
	c, l := newMeeting(t, a)
	c.Input(opening(1, 1))
	// Streams hear of the end before the goodbye is made.
	a.streams[0].onLost = func() { c.Input(opening(3, 2)) }
	c.Close()
	if len(a.streams) != 1 {
		t.Errorf("%d streams were taken", len(a.streams))
	}
	last := l.heard[len(l.heard)-1]
	if last.Kind != frame.GoAway || last.Value != 1 {
		t.Errorf("the goodbye: %+v", last)
	}
}

// A connection that ends in the midst of a drain says why: the drain's second
// goodbye does not take the place of the last one.
func TestADrainDoesNotReplaceTheLastWord(t *testing.T) {
	a := &acceptor{}
	c, l := newMeeting(t, a)
	c.Input(opening(1, 1))
	c.Drain()
	ping := l.heard[len(l.heard)-1]
	if ping.Kind != frame.Ping {
		t.Fatalf("heard %+v", ping)
	}
	c.out.hold() // nothing is written yet
	c.Fail("keepalive", frame.CodeKeepalive, errSilent)
	c.drainSecond()
	c.out.release(c, 0)
	last := l.heard[len(l.heard)-1]
	if last.Kind != frame.GoAway || last.Code != frame.CodeKeepalive {
		t.Errorf("the goodbye: %+v", last)
	}
}
