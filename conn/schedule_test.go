package conn

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// busySink is a sink that is full now and then, and whose flushes have goroutines of their
// own.
type busySink struct {
	sink
	writes  int // owned by the flush
	flushes sync.WaitGroup
}

func (s *busySink) write(v [][]byte) (int, error) {
	if s.writes++; s.writes%5 == 0 {
		return 0, errAgain
	}
	return s.sink.write(v)
}
func (s *busySink) await() { s.spawn() }
func (s *busySink) spawn() { s.flushes.Go(s.c.flush) }

// waitingStream is a stream whose sender waits until its message is written.
type waitingStream struct {
	fakeStream
	written, free chan struct{}
}

func (w *waitingStream) Fill(sess frame.Session, o *frame.Out, most int, data bool) (int, bool) {
	used, _ := w.fakeStream.Fill(sess, o, most, data)
	w.written <- struct{}{}
	return used, false
}

func (w *waitingStream) RoomFree() { w.free <- struct{}{} }

// However turns, full sockets, bursts of a reader, missing credit and missing room
// coincide: whoever has asked for a turn gets it, and whoever waits for room is told. In
// the first case no later event would make up for a turn or a call that was lost.
func TestNoTurnIsLost(t *testing.T) {
	const cost = 64 + overhead
	t.Run("ample credit", func(t *testing.T) {
		s := newStage(Limits{OutQueue: 3 * cost, InFlight: Unlimited}, 1<<30)
		testTurns(t, s, func() { runtime.Gosched() })
	})
	t.Run("scarce credit", func(t *testing.T) {
		s := newStage(Limits{OutQueue: 3 * cost, InFlight: Unlimited}, 10*cost)
		used := uint64(0)
		testTurns(t, s, func() { // the peer grants credit when it has seen that some was used
			if now := s.c.sentCost.Load(); now != used {
				used = now
				s.c.out.cork()
				if err := s.c.connCredit(used + 10*cost); err != nil {
					t.Error(err)
				}
				s.c.uncork(int(used % 5))
			}
			runtime.Gosched()
		})
	})
}

// testTurns has senders on streams of s, while peer is called again and again.
func testTurns(t *testing.T, s *stage, peer func()) {
	const senders, messages, size = 8, 2000, 64
	b := &busySink{sink: sink{c: s.c}}
	s.c.tr = b
	late, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	wait := func(what string, ch <-chan struct{}) bool {
		select {
		case <-ch:
			return true
		case <-late.Done():
			t.Errorf("nobody gave %s", what)
			return false
		}
	}
	stop := make(chan struct{})
	var reader, all sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				peer()
			}
		}
	})
	for i := range senders {
		w := &waitingStream{written: make(chan struct{}, 1), free: make(chan struct{}, 1)}
		w.name, w.size, w.log = "w", size, new([]string)
		s.c.PreparePeer(&w.Port, w, false)
		s.c.OpenPeer(&w.Port, uint64(2*i+2), 0)
		all.Go(func() {
			for range messages {
				for !w.Room(false) {
					if w.AwaitRoom(); !wait("room", w.free) {
						return
					}
				}
				w.Queued(size + overhead)
				w.Ready(false)
				if !wait("a turn", w.written) {
					return
				}
				w.Queued(-size - overhead)
			}
		})
	}
	all.Wait()
	close(stop)
	reader.Wait()
	b.flushes.Wait()
	o := &s.c.out
	if wrote := int(o.wrote.Load()); b.bytes != wrote || o.flushing || o.data.head != nil || o.waiters.Load() != 0 {
		t.Errorf("%d bytes written of %d, flushing: %v, waiting for room: %d", b.bytes, wrote, o.flushing, o.waiters.Load())
	}
}
