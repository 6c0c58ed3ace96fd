package actor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// An end takes no credit: it is written even if other streams have used up the connection's
// credit. Data before it is written first, and may have to wait.
func TestAnEndWaitsForNoCredit(t *testing.T) {
	closeSend := func(a, _ *end) { _ = a.s.CloseSend(status.OK, "", nil) }
	fail := func(a, _ *end) { _ = a.s.CloseSend(status.NotFound, "no", metadata.MD{{Key: "k", Value: "v"}}) }
	for name, c := range map[string]struct {
		before int // messages
		end    func(a, b *end)
		want   error
	}{
		"alone":               {0, closeSend, io.EOF},
		"with a status":       {0, fail, &status.StreamError{Code: status.NotFound}},
		"the reader wants it": {3, func(_, b *end) { b.s.CloseReceive(status.OK) }, ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newPair(1<<16, 1<<16, 1<<20, 1000)
			a.granted, b.window = 0, 0 // the connection has none
			for range c.before {
				a.trySend(t, []byte("x"))
			}
			c.end(a, b)
			run(t, a, b, false)
			if !(b.s.st.recv != recvOpen && b.s.st.recv != recvStopped) {
				t.Fatal("the end has not come")
			}
			if _, err := b.s.Receive(noWait); !errors.Is(err, c.want) {
				t.Errorf("it ended with %v", err)
			}
			a.s.CloseReceive(status.OK)
			_ = b.s.CloseSend(status.OK, "", nil)
			run(t, a, b, false)
			if !a.s.st.retired || !b.s.st.retired {
				t.Errorf("closed both ways, they stay at %v and %v", a.s.st, b.s.st)
			}
		})
	}
}

// Data before an end is written first, whatever it waits for.
func TestAnEndComesAfterTheData(t *testing.T) {
	a, b := newPair(1<<16, 1<<16, 1<<20, 16)
	a.granted, b.window = 0, 0
	for _, n := range []int{10, 100, 10} { // the second in fragments
		a.trySend(t, make([]byte, n))
	}
	a.model.closed = true
	_ = a.s.CloseSend(status.OK, "", nil)
	for granted := 0; granted <= 3*overhead+120; granted += 7 {
		a.granted, b.window = granted, granted
		run(t, a, b, true) // which checks that the end comes after all of it
		if over := a.model.received == 3; (b.s.st.recv != recvOpen && b.s.st.recv != recvStopped) != over {
			t.Fatalf("with a credit of %d, %d of 3 messages have come; the end has: %v", granted, a.model.received, (b.s.st.recv != recvOpen && b.s.st.recv != recvStopped))
		}
	}
	a.granted, b.window = 1<<10, 1<<10
	run(t, a, b, true)
	if a.model.received != 3 || a.model.ends != 1 {
		t.Errorf("%d messages have come, %d ends", a.model.received, a.model.ends)
	}
}

// CloseSend while the last data is being encoded: the end is written once.
func TestAnEndBehindTheLastPieceIsWrittenOnce(t *testing.T) {
	for name, meanwhile := range map[string]func(a *end){
		"close send":          func(a *end) { _ = a.s.CloseSend(status.OK, "", nil) },
		"closed before":       func(a *end) { _ = a.s.PeerGrant(1 << 17) },
		"stopped, and closed": func(a *end) { a.s.PeerStopped(status.OK); _ = a.s.CloseSend(status.OK, "", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := newPair(1<<16, 1<<16, 1<<20, 16)
			a.trySend(t, make([]byte, 40))
			if name == "closed before" {
				_ = a.s.CloseSend(status.OK, "", nil)
			}
			for range 3 {
				a.fill(false, overhead+16)
				a.sess.during = func() { meanwhile(a) }
			}
			a.sess.during = nil
			for range 3 {
				a.fill(true, 0)
				a.fill(false, 1000)
			}
			ends := 0
			for i, f := range a.wire {
				if f.Kind != frame.EOS {
					continue
				}
				if ends++; i != len(a.wire)-1 {
					t.Errorf("frame %d of %d is the end", i+1, len(a.wire))
				}
			}
			if wrong := a.figures(); wrong != "" {
				t.Error(wrong)
			}
			if ends != 1 || a.s.st.send != sendEnded {
				t.Errorf("%d ends were written, it is at %v", ends, a.s.st)
			}
			if err := a.link.broken(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A deadline that passes when this side has finished changes nothing: what has ended in order
// stays so, also while the peer has not said that its application knows.
func TestADeadlineDoesNotOvertakeAnEnd(t *testing.T) {
	for name, c := range map[string]struct {
		before func(a, b *end)
		fails  bool
	}{
		"open":       {func(a, b *end) {}, true},
		"we ended":   {func(a, b *end) { _ = a.s.CloseSend(status.OK, "", nil) }, true},
		"peer ended": {func(a, b *end) { _ = b.s.CloseSend(status.OK, "", nil) }, true},
		"both ended": {func(a, b *end) {
			_ = a.s.CloseSend(status.OK, "", nil)
			_ = b.s.CloseSend(status.OK, "", nil)
		}, false},
		"both ended, and the peer has not read all": {func(a, b *end) {
			_ = a.s.TrySend(pool.New(10))
			_ = a.s.CloseSend(status.OK, "", nil)
			_ = b.s.CloseSend(status.OK, "", nil)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newPair(1<<16, 1<<16, 1<<20, 1000)
			c.before(a, b)
			run(t, a, b, false)
			_, _ = a.s.Receive(noWait) // takes the end, if it has come; b's application takes nothing
			a.s.DeadlinePassed()
			if err := a.s.Err(); (err != nil) != c.fails || err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("failed with %v", err)
			}
		})
	}
}

// What has ended in order stays so: a further CloseSend, Finish or Close changes nothing, also
// when the parent context has ended meanwhile.
func TestASecondEndChangesNothing(t *testing.T) {
	for name, again := range map[string]func(s *Stream){
		"CloseSend": func(s *Stream) { _ = s.CloseSend(status.Aborted, "too late", nil) },
		"Finish":    func(s *Stream) { s.Finish(status.Aborted, "too late", nil) },
		"Close":     func(s *Stream) { _, _ = s.closeHalves() },
	} {
		for _, parent := range []error{nil, context.Canceled} {
			for _, written := range []bool{false, true} {
				t.Run(fmt.Sprint(name, ", ", parent, ", ", written), func(t *testing.T) {
					a, b := newPair(1<<16, 1<<16, 1<<20, 1000)
					_ = a.s.CloseSend(status.OK, "", nil)
					_ = b.s.CloseSend(status.OK, "", nil)
					if written {
						run(t, a, b, false)
						_, _ = a.s.Receive(noWait)
					}
					a.link.parent = parent
					again(a.s)
					run(t, a, b, false)
					if err := a.s.Err(); err != nil {
						t.Errorf("it has failed: %v", err)
					}
					if _, err := b.s.Receive(noWait); err != io.EOF {
						t.Errorf("the peer is told %v", err)
					}
				})
			}
		}
	}
}

// A stream that was aborted is not lost with its connection.
func TestALostConnectionLeavesTheReasonOfAnAbort(t *testing.T) {
	a, _ := newPair(1<<16, 1<<16, 1<<20, 1000)
	a.s.Abort(status.Aborted, "enough", nil)
	a.s.Lost(&status.StreamError{Code: status.ConnectionLost})
	if err := a.s.Err(); !errors.Is(err, &status.StreamError{Code: status.Aborted}) {
		t.Errorf("it has failed with %v", err)
	}
}

// Who ends its half when the peer's end is here, and asks for nothing more, is done.
func TestAnEndBehindThePeersIsTheLast(t *testing.T) {
	for name, reads := range map[string]bool{"the peer reads": true, "the peer reads no more": false} {
		a, b := newPair(1<<16, 1<<16, 1<<20, 1000)
		if !reads {
			b.s.CloseReceive(status.OK)
		}
		_ = b.s.CloseSend(status.OK, "", nil)
		run(t, a, b, false)
		early := a.s.st.done
		_ = a.s.CloseSend(status.OK, "", nil)
		run(t, a, b, false)
		if early || !a.s.st.done || !b.s.st.done {
			t.Errorf("%s: done before the end: %v; behind it: %v, %v", name, early, a.s.st, b.s.st)
		}
	}
}
