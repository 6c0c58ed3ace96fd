package conn

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/pool"
)

// A burst of small messages, from bytes to streams, in runs of messages of one stream.
func BenchmarkInput(b *testing.B) {
	const burst = 512
	for _, run := range []int{1, 8, burst} {
		b.Run(fmt.Sprintf("runs=%d", run), func(b *testing.B) {
			s := newStage(Limits{ConnWindow: 1 << 30}, 1<<30)
			ports := []*fakeStream{s.stream("a", 64, 0), s.stream("b", 64, 0)}
			enc := native.New(native.DefaultMaxFragment)
			var o frame.Out
			for i := range burst / run {
				var q pool.Queue
				for range run {
					q.Push(pool.New(64))
				}
				enc.Messages(&o, ports[i%2].ID(), q)
			}
			b.ReportAllocs()
			b.SetBytes(64)
			b.ResetTimer()
			for i := 0; i < b.N; i += burst {
				s.c.in.used = 0 // nobody returns credit here
				if !s.c.Input(o.Buf) {
					b.Fatal(s.c.Err())
				}
			}
		})
	}
}

// sender is a stream that has one message of 64 bytes a turn, encoded already.
type sender struct {
	fakeStream
	frame []byte
}

func (s *sender) Fill(_ frame.Session, o *frame.Out, _ int, _ bool) (int, bool) {
	o.Payload(s.frame)
	s.used += 64 + overhead
	return 64 + overhead, false
}

// answerer is a sender that sends a message for each that it receives.
type answerer struct{ sender }

func (a *answerer) Deliver(run *pool.Queue, _ time.Time) error {
	run.Release()
	a.Ready(false)
	return nil
}

// The connection's part of a message that is sent while nothing else is: from Ready to the
// transport, which takes it at once.
func BenchmarkLoneSend(b *testing.B) {
	const cost = 64 + overhead
	bench := func(name string, send func(s *stage, st *answerer)) {
		b.Run(name, func(b *testing.B) {
			s := newStage(Limits{}, 1<<30)
			st := &answerer{}
			st.frame = saying(2, 64)
			s.c.PreparePeer(&st.Port, st, false)
			s.c.OpenPeer(&st.Port, 2, 0)
			b.ReportAllocs()
			for b.Loop() {
				st.Queued(cost)
				send(s, st)
				st.Queued(-cost)
				s.c.peerRead.Store(s.c.out.wrote.Load())
				s.c.granted.Store(s.c.sentCost.Load() + 1<<30)
			}
			if want := b.N * cost; st.used < want {
				b.Errorf("%d bytes were sent, want %d", st.used, want)
			}
		})
	}
	bench("in place", func(s *stage, st *answerer) {
		s.c.out.tokens = 1
		st.Ready(false)
	})
	bench("by another", func(s *stage, st *answerer) { // the sink's flush is a call
		s.c.out.tokens = 0
		st.Ready(false)
	})
	bench("answer", func(s *stage, st *answerer) {
		s.c.in.used = 0 // nobody returns credit here
		s.c.Input(st.frame)
	})
}
