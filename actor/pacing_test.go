package actor

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// paced is a stream of a protocol that does not grant credit.
type paced struct {
	t    *testing.T
	s    *Stream
	link *fakeLink
	sess *fakeSession
	out  frame.Out
}

func newPaced(t *testing.T, p frame.Pacing, set func(*Config)) *paced {
	t.Helper()
	cfg := &Config{
		Method: "m", Caps: frame.Caps{Name: "fake", Pacing: p, Early: true, Overhead: overhead, LeastPiece: overhead + 1, SendWindow: 2 << 20, MaxFragment: 64, MaxStream: 1 << 62},
		InBuffer: 16, MaxBatch: 8, MaxReceive: 1000, MaxSend: 1 << 20, Window: 2000,
	}
	if set != nil {
		set(cfg)
	}
	x := &paced{t: t, s: &Stream{}, link: newFakeLink(), sess: &fakeSession{caps: cfg.Caps}}
	x.s.Init(x.link, cfg)
	return x
}

// An announced length is believed less where many may announce and nobody is held to
// credit. What has come is worth more.
func TestAnnouncedLengths(t *testing.T) {
	for p, want := range map[frame.Pacing][]int{
		frame.Unpaced: {64 << 10, 64 << 10, 1 << 20, 4 << 20}, frame.Granted: {1 << 20, 1 << 20, 1 << 20, 4 << 20},
	} {
		x := newPaced(t, p, func(c *Config) { c.MaxReceive, c.Window = 4<<20, 8<<20 })
		var got []int
		for i, n := range []int{1, 64<<10 - 1, 1, 1 << 20} {
			if err := fragment(x.s, make([]byte, n), i == 0, false, 4<<20, time.Time{}); err != nil {
				t.Fatal(err)
			}
			_, reserve := x.link.owed()
			got = append(got, reserve)
		}
		if !slices.Equal(got, want) {
			t.Errorf("pacing %v: %d bytes are reserved, want %d", p, got, want)
		}
		x.s.Abort(status.Cancelled, "enough", nil)
	}
}

func (x *paced) trySend(n int) error {
	m := pool.New(n)
	err := x.s.TrySend(m)
	if err != nil {
		m.Release()
	}
	return err
}

// write lets the connection write everything, and returns the frames.
func (x *paced) write() []frame.Frame {
	for again := true; again; {
		again = false
		if x.link.take(true) {
			x.s.Fill(x.sess, &x.out, 0, false)
			again = true
		}
		if x.link.take(false) {
			if _, more := x.s.Fill(x.sess, &x.out, 1<<20, true); more {
				x.link.put()
			}
			again = true
		}
	}
	w := x.sess.wrote
	x.sess.wrote = nil
	return w
}

func (x *paced) arrive(sizes ...int) error {
	x.t.Helper()
	var q pool.Queue
	for _, n := range sizes {
		q.Push(arriving(pool.New(n)))
	}
	return x.s.Deliver(&q, time.Now())
}

func (x *paced) receive() {
	x.t.Helper()
	m, err := x.s.Receive(noWait)
	if err != nil {
		x.t.Fatal(err)
	}
	m.Release()
}

// end ends both halves, so that nothing is left.
func (x *paced) end() {
	x.s.Lost(&status.StreamError{Code: status.ConnectionLost})
	for {
		m, err := x.s.Receive(noWait)
		if err != nil {
			break
		}
		m.Release()
	}
	if n := x.link.timers.Len(); n != 0 {
		x.t.Errorf("%d timers are left", n)
	}
	if err := x.link.broken(); err != nil {
		x.t.Error(err)
	}
}

// reports are the Credit frames among fs.
func reports(fs []frame.Frame) (totals []uint64) {
	for _, f := range fs {
		if f.Kind == frame.Credit {
			totals = append(totals, f.Value)
		}
	}
	return totals
}

// A window of the sender's own admits whole messages while anything of it is
// left, as brpc's does.
func TestOwnWindowOvershootsByOneMessage(t *testing.T) {
	x := newPaced(t, frame.Reported, func(c *Config) { c.SendLimit = 100 })
	defer x.end()
	for range 3 {
		if err := x.trySend(40); err != nil {
			t.Fatal(err)
		}
		x.write()
	}
	if err := x.trySend(40); !errors.Is(err, ErrWouldBlock) {
		t.Fatalf("120 bytes are unread of 100: %v", err)
	}
	if err := x.s.PeerGrant(40); err != nil {
		t.Fatal(err)
	}
	if err := x.trySend(40); err != nil {
		t.Fatalf("80 bytes are unread of 100: %v", err)
	}
	x.write()
	if err := x.s.PeerGrant(40); err != nil {
		t.Fatal(err)
	}
	if err := x.trySend(0); !errors.Is(err, ErrWouldBlock) {
		t.Fatalf("a total that was told before gave credit again: %v", err)
	}
}

func TestMessageBeyondOwnWindowIsWrittenWhole(t *testing.T) {
	x := newPaced(t, frame.Reported, func(c *Config) { c.SendLimit = 100 })
	defer x.end()
	if err := x.trySend(300); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range x.write() {
		n += len(f.Payload)
	}
	if n != 300 {
		t.Fatalf("%d bytes of 300 were written", n)
	}
}

// The peer reports nothing for a message without a byte, so it must not use up
// anything for good.
func TestEmptyMessagesNeedNoReport(t *testing.T) {
	x := newPaced(t, frame.Reported, func(c *Config) { c.SendLimit = 100 })
	defer x.end()
	for i := range 10 * 100 / overhead {
		if err := x.trySend(0); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		x.write()
	}
	n := 0
	for ; x.trySend(0) == nil; n++ {
	}
	if n == 0 || n > 100 {
		t.Fatalf("%d empty messages are kept while the connection does not write", n)
	}
}

func TestReportsWhenTheQueueRunsDry(t *testing.T) {
	x := newPaced(t, frame.Reported, nil)
	defer x.end()
	if err := x.arrive(10, 20, 30); err != nil {
		t.Fatal(err)
	}
	x.receive()
	x.receive()
	if r := reports(x.write()); len(r) != 0 {
		t.Errorf("reported %v while there is more to take", r)
	}
	x.receive()
	if r := reports(x.write()); len(r) != 1 || r[0] != 60 {
		t.Errorf("reported %v, want 60", r)
	}
	if err := x.arrive(0); err != nil {
		t.Fatal(err)
	}
	x.receive()
	if r := reports(x.write()); len(r) != 0 {
		t.Errorf("reported %v for a message without a byte", r)
	}
}

func TestReportsAtLeastEverySoOften(t *testing.T) {
	x := newPaced(t, frame.Reported, func(c *Config) { c.Window, c.MaxReceive = 1<<20, 1<<20 })
	defer x.end()
	if err := x.arrive(reportEvery/2, reportEvery/2, 1); err != nil {
		t.Fatal(err)
	}
	x.receive()
	if r := reports(x.write()); len(r) != 0 {
		t.Errorf("reported %v", r)
	}
	x.receive()
	if r := reports(x.write()); len(r) != 1 || r[0] != reportEvery {
		t.Errorf("reported %v, want %d", r, reportEvery)
	}
}

// A receiver can't stop its peer over such a protocol: what it wants no more is
// dropped, and reported, so that the peer is not stuck.
func TestDroppedDataIsReported(t *testing.T) {
	x := newPaced(t, frame.Reported, nil)
	defer x.end()
	if err := x.arrive(10); err != nil {
		t.Fatal(err)
	}
	x.s.CloseReceive(status.OK)
	if r := reports(x.write()); len(r) != 1 || r[0] != 10 {
		t.Errorf("reported %v for what was dropped here, want 10", r)
	}
	if err := x.arrive(5); err != nil {
		t.Fatal(err)
	}
	if err := fragment(x.s, make([]byte, 64), true, false, frame.UnknownTotal, time.Now()); err != nil {
		t.Fatal(err)
	}
	if r := reports(x.write()); len(r) != 1 || r[0] != 79 {
		t.Errorf("reported %v for what came later, want 79", r)
	}
}

// The cap counts as a sender's window does, which is of payload: small messages take little
// more of it than of that.
func TestUnreadBeyondTheCapResetsTheStream(t *testing.T) {
	x := newPaced(t, frame.Reported, func(c *Config) { c.Window = 1000 })
	defer x.end()
	for range 10 {
		if err := x.arrive(100); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.arrive(1); !errors.Is(err, frame.ErrFault) {
		t.Fatalf("beyond the cap: %v", err)
	}
	if err := x.s.Err(); !errors.Is(err, &status.StreamError{Code: status.ResourceExhausted}) {
		t.Errorf("the stream's error is %v", err)
	}
	x.write()
	x.link.mu.Lock()
	defer x.link.mu.Unlock()
	if want := 1001 + 11*overhead; x.link.taken != want {
		t.Errorf("%d bytes of %d went back to the connection", x.link.taken, want)
	}
}

// A window's worth of messages of a byte is within the cap, if that is eight times the
// window. Messages of no bytes, which take nothing of a window, are bounded too.
func TestSmallMessagesWithinTheCap(t *testing.T) {
	const window = 1000
	for size, most := range map[int]int{0: 8 * window / messageCap, 1: 8 * window / messageCap, 2: window, 3: window} {
		x := newPaced(t, frame.Reported, func(c *Config) { c.Window = 8 * window })
		n := 0
		for ; n < most; n++ {
			if err := x.arrive(size); err != nil {
				t.Fatalf("message %d of %d bytes: %v", n, size, err)
			}
		}
		if err := x.arrive(size, size); size < 2 && !errors.Is(err, frame.ErrFault) {
			t.Errorf("message %d of %d bytes: %v", n, size, err)
		}
		x.end()
	}
}

// Where the connection's streams have too much unread at the peer, a stream may have little
// of its own unread, and goes on when that is reported. The connection's count of it is
// exact when nothing is left.
func TestStreamsShareWhatMayBeUnread(t *testing.T) {
	const least, size = 4 << 10, 1 << 10
	x := newPaced(t, frame.Reported, func(c *Config) {
		c.Caps.ConnUnreported, c.Caps.LeastUnreported, c.SendLimit = 1<<20, least, 64<<10
	})
	fill := func() (n int) {
		for x.trySend(size) == nil {
			n++
			x.write()
		}
		return n
	}
	x.link.crowded = true
	if n := fill(); n != least/size {
		t.Errorf("%d messages, want %d", n, least/size)
	}
	if err := x.s.PeerGrant(size); err != nil {
		t.Fatal(err)
	}
	if n := fill(); n != 1 {
		t.Errorf("%d messages after a report of one", n)
	}
	x.link.crowded = false
	if n := fill(); n != 64-least/size {
		t.Errorf("%d messages go when the others have less", n)
	}
	if n := x.link.unreported; n < 60<<10 || n > 64<<10+overhead {
		t.Errorf("%d bytes are counted", n)
	}
	x.end()
	if n := x.link.unreported; n != 0 {
		t.Errorf("%d bytes are counted when it is over", n)
	}
}

// Without a window of its own no stream is counted, nor held back.
func TestStreamsWithoutAWindowDoNotShareIt(t *testing.T) {
	x := newPaced(t, frame.Reported, func(c *Config) {
		c.Caps.ConnUnreported, c.Caps.LeastUnreported, c.SendLimit = 1<<20, 1000, math.MaxInt
	})
	defer x.end()
	x.link.crowded = true
	for range 100 {
		if err := x.trySend(1000); err != nil {
			t.Fatal(err)
		}
	}
	if n := x.link.unreported; n != 0 {
		t.Errorf("%d bytes are counted", n)
	}
}

func TestMessageOfUnknownLength(t *testing.T) {
	for _, c := range []struct {
		pieces []int
		want   error
	}{
		{[]int{64, 64, 10}, nil},
		{[]int{0, 0}, nil},
		{[]int{500, 500}, nil},
		{[]int{500, 501}, frame.ErrFault},
	} {
		x := newPaced(t, frame.Reported, nil)
		total := 0
		var err error
		for i, n := range c.pieces {
			last := i == len(c.pieces)-1
			err = fragment(x.s, bytes.Repeat([]byte{byte(i + 1)}, n), i == 0, last, frame.UnknownTotal, time.Now())
			total += n
		}
		if !errors.Is(err, c.want) {
			t.Fatalf("%v: %v, want %v", c.pieces, err, c.want)
		}
		if c.want == nil {
			m, err := x.s.Receive(noWait)
			if err != nil || m.Len() != total {
				t.Fatalf("%v: message of %d bytes, error %v", c.pieces, m.Len(), err)
			}
			at := 0
			for i, n := range c.pieces {
				if p := m.Bytes()[at : at+n]; !bytes.Equal(p, bytes.Repeat([]byte{byte(i + 1)}, n)) {
					t.Errorf("piece %d is %v", i, p)
				}
				at += n
			}
			m.Release()
		}
		x.end()
		if x.link.reserve != 0 {
			t.Errorf("%v: %d bytes stay reserved", c.pieces, x.link.reserve)
		}
	}
}

func TestDataWaitsForTheAnswer(t *testing.T) {
	x := newPaced(t, frame.Reported, func(c *Config) { c.Caps.Early = false })
	defer x.end()
	for range 2 {
		if err := x.trySend(10); err != nil {
			t.Fatal(err)
		}
	}
	if w := x.write(); len(w) != 0 {
		t.Fatalf("%d frames were written before the answer", len(w))
	}
	x.s.Accepted(pool.Message{}, nil, frame.Grant{}, false)
	if w := x.write(); len(w) != 2 {
		t.Fatalf("%d frames of 2 were written after the answer", len(w))
	}
}

// The request of an open is written before the answer, alone and in pieces, and
// no part of it is ever reported: the window is as it was. The rest waits, and
// takes no room of the connection's meanwhile.
func TestRequestGoesBeforeTheAnswer(t *testing.T) {
	x := newPaced(t, frame.Reported, func(c *Config) {
		c.Caps.Early = false
		c.SendLimit, c.Caps.MaxFragment = 10_000, 6_000
	})
	defer x.end()
	x.s.SetFirstFrame(frame.GetFrame(frame.Open))
	if err := x.s.Push(pool.New(15_000)); err != nil { // longer than a fragment, and than the window
		t.Fatal(err)
	}
	pieces := 0
	for _, f := range x.write() {
		if f.Kind == frame.Data {
			pieces++
		}
	}
	if pieces != 3 {
		t.Fatalf("the request was written in %d pieces, want 3", pieces)
	}
	for range 2 {
		if err := x.trySend(6_000); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.trySend(6_000); !errors.Is(err, ErrWouldBlock) {
		t.Fatalf("12,000 bytes wait of 10,000: %v", err)
	}
	if w := x.write(); len(w) > 0 || x.link.queued > 0 {
		t.Fatalf("before the answer %d frames were written, %d bytes count as ready", len(w), x.link.queued)
	}
	x.s.Accepted(pool.Message{}, nil, frame.Grant{}, false)
	if w := x.write(); len(w) != 2 {
		t.Fatalf("%d frames were written after the answer, want 2", len(w))
	}
	if err := x.s.PeerGrant(12_000); err != nil {
		t.Fatal(err)
	}
	if err := x.trySend(10_000); err != nil {
		t.Fatalf("all was taken, and there is no window: %v", err)
	}
	if w := x.write(); len(w) != 2 { // two pieces
		t.Fatalf("%d frames were written", len(w))
	}
	if err := x.trySend(1); !errors.Is(err, ErrWouldBlock) {
		t.Fatalf("10,000 bytes are unread of 10,000: %v", err)
	}
}

// Where the receiver grants credit the request is written before the answer too, as far
// as the credit goes. What is behind it waits for the answer, whatever the credit.
func TestRequestGoesBeforeTheAnswerWithinItsCredit(t *testing.T) {
	const first, size = 4_000, 15_000
	x := newPaced(t, frame.Granted, func(c *Config) {
		c.Caps.Early = false
		c.SendCredit, c.Caps.MaxFragment = first, 6_000
	})
	defer x.end()
	x.s.SetFirstFrame(frame.GetFrame(frame.Open))
	if err := x.s.Push(pool.New(size)); err != nil {
		t.Fatal(err)
	}
	written := func() (n int) {
		for _, f := range x.write() {
			if f.Kind == frame.Data {
				n += cost(&f)
			}
		}
		return n
	}
	if n := written(); n != first || x.link.queued > 0 {
		t.Fatalf("%d bytes were written with a credit of %d, %d more count as ready", n, first, x.link.queued)
	}
	if err := x.s.PeerGrant(size + overhead + 1_000); err != nil {
		t.Fatal(err)
	}
	if n := written(); n != size+overhead-first {
		t.Fatalf("%d bytes were written of the request's last %d", n, size+overhead-first)
	}
	if err := x.trySend(100); err != nil {
		t.Fatal(err)
	}
	if n := written(); n > 0 || x.link.queued > 0 {
		t.Fatalf("before the answer %d bytes were written, %d count as ready", n, x.link.queued)
	}
	x.s.Accepted(pool.Message{}, nil, frame.Grant{}, false)
	if n := written(); n != 100+overhead {
		t.Fatalf("%d bytes were written after the answer, want %d", n, 100+overhead)
	}
}

// Who reads no more, and can't say so, drops what comes and grants credit for it: the
// peer's end is behind what it has to write.
func TestGrantsGoOnWhereNobodyCanBeStopped(t *testing.T) {
	for name, c := range map[string]struct{ stop, want bool }{
		"no stop": {false, true}, "stop": {true, false},
	} {
		x := newPaced(t, frame.Granted, func(c2 *Config) { c2.Caps.HalfClose, c2.Caps.Stop = true, c.stop })
		const size = 1000 // the window is 2000
		if err := x.arrive(size - overhead); err != nil {
			t.Fatal(err)
		}
		x.s.CloseReceive(status.OK)
		var got []uint64
		got = append(got, reports(x.write())...)
		if err := x.arrive(size - overhead); err != nil {
			t.Fatal(err)
		}
		got = append(got, reports(x.write())...)
		if want := []uint64{3 * size, 4 * size}; c.want && !slices.Equal(got, want) || !c.want && got != nil {
			t.Errorf("%s: grants %d", name, got)
		}
		if taken, _ := x.link.owed(); taken != 2*size {
			t.Errorf("%s: %d bytes of the connection's credit came back, want %d", name, taken, 2*size)
		}
		x.end()
	}
}

// A protocol may show a report before it has one, to probe a window that stays full. It
// is paid back by the next that is true: SendLimit is what is unread at most, and one
// message.
func TestAReportThatIsAheadIsPaidBack(t *testing.T) {
	x := newPaced(t, frame.Reported, func(c *Config) { c.SendLimit = 100 })
	defer x.end()
	_ = x.trySend(300) // whole: 200 more than the window
	x.write()
	if err := x.trySend(7); !errors.Is(err, ErrWouldBlock) {
		t.Fatalf("300 bytes are unread of 100: %v", err)
	}
	if err := x.s.PeerGrant(201); err != nil {
		t.Fatal(err)
	}
	if err := x.trySend(7); err != nil {
		t.Fatal(err)
	}
	x.write()
	if err := x.trySend(7); !errors.Is(err, ErrWouldBlock) {
		t.Fatalf("a byte of credit admitted two messages: %v", err)
	}
	if err := x.s.PeerGrant(307); err != nil { // all of it: nothing is unread
		t.Fatal(err)
	}
	n := 0
	for ; x.trySend(10) == nil; n++ {
		x.write()
	}
	if n != 10 {
		t.Errorf("%d bytes are unread at the peer, of 100", 10*n)
	}
}

// Of a protocol that says nothing, what bounds a stream is what it has accepted
// and not written.
func TestUnpacedWindowIsWhatIsUnwritten(t *testing.T) {
	x := newPaced(t, frame.Unpaced, func(c *Config) { c.SendLimit = 200 })
	defer x.end()
	fill := func() (n int) {
		for ; x.trySend(68) == nil; n++ {
		}
		return n
	}
	for range 3 {
		if n := fill(); n != 2 {
			t.Fatalf("%d messages of 100 bytes with 200 of credit", n)
		}
		x.write()
	}
	sent := make(chan error, 1)
	fill()
	m := pool.New(1)
	go func() { sent <- x.s.Send(context.Background(), m) }()
	for {
		x.s.mu.Lock()
		waits := x.s.ch != nil && !x.s.ch.waiters.empty()
		x.s.mu.Unlock()
		if waits {
			break
		}
		time.Sleep(time.Millisecond)
	}
	x.write()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	x.write()
}

func TestClosingOutWhereAHalfCannotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newPaced(t, frame.Reported, nil)
		close(x.s.Out())
		synctest.Wait()
		if err := x.s.Err(); !errors.Is(err, ErrNotSupported) {
			t.Errorf("Err is %v", err)
		}
		if w := x.write(); len(w) != 0 {
			t.Errorf("%d frames were written for it", len(w))
		}
		x.end()
	})
}

// Where the protocol has no ENDED, a stream is over once both ends are written and our
// application has seen the peer's.
func TestEndsWithoutAcknowledgement(t *testing.T) {
	x := newPaced(t, frame.Reported, func(c *Config) { c.Caps.HalfClose = true })
	defer x.end()
	if err := x.s.CloseSend(status.OK, "", nil); err != nil {
		t.Fatal(err)
	}
	x.write()
	if err := x.s.PeerEnd(status.OK, "", nil); err != nil {
		t.Fatal(err)
	}
	if x.s.st.done {
		t.Error("done before the application has seen the end")
	}
	_, _ = x.s.Receive(noWait)
	x.write()
	if !x.s.st.done || !x.s.st.retired {
		t.Errorf("it stays at %v", x.s.st)
	}
}
