package actor

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// idleLink costs as little as a link can, so that the stream is what is measured.
type idleLink struct{ timers timers.Queue }

func (l *idleLink) ID() uint64                                 { return 1 }
func (l *idleLink) Forsake() bool                              { return false }
func (l *idleLink) FeedingChanged()                            {}
func (l *idleLink) Ready(bool)                                 {}
func (l *idleLink) ReadySoon()                                 {}
func (l *idleLink) Queued(int)                                 {}
func (l *idleLink) Unreported(int64)                           {}
func (l *idleLink) Uncounted() int                             { return countEvery }
func (l *idleLink) Beside(int)                                 {}
func (l *idleLink) Crowded() bool                              { return false }
func (l *idleLink) Bundle(bool)                                {}
func (l *idleLink) Room(bool) bool                             { return true }
func (l *idleLink) AwaitRoom()                                 {}
func (l *idleLink) AwaitFull()                                 {}
func (l *idleLink) ParentErr() error                           { return nil }
func (l *idleLink) Taken(int)                                  {}
func (l *idleLink) Assemble(int) bool                          { return true }
func (l *idleLink) Charge(int)                                 {}
func (l *idleLink) Resize(window, _ int, _ uint64) (int, bool) { return window, true }
func (l *idleLink) Shrink(int, int)                            {}
func (l *idleLink) Retire()                                    {}
func (l *idleLink) Timers() *timers.Queue                      { return &l.timers }

// dropSession releases what it is given.
type dropSession struct{ fakeSession }

func (*dropSession) Messages(_ *frame.Out, _ uint64, run pool.Queue) { run.Release() }
func (*dropSession) Fragment(_ *frame.Out, _ uint64, m pool.Message, off, n int) {
	if off+n == pool.Cost(m) {
		m.Release()
	}
}
func (*dropSession) Control(*frame.Out, *frame.Frame) {}

const endless = 1 << 30

// arrival is when messages arrive. A connection gives a time of the system's clock.
var arrival = time.Now()

func benchStream() *Stream {
	s := &Stream{}
	caps := nativeCaps
	caps.MaxFragment = 64 << 10
	s.Init(&idleLink{}, &Config{
		Caps: caps, InBuffer: 16, MaxBatch: 128, MaxReceive: 1 << 20, MaxSend: 1 << 20,
		Window: endless, MaxWindow: endless, SendCredit: endless,
	})
	return s
}

// refresh keeps the credit from running out.
func refresh(s *Stream, sess frame.Session, o *frame.Out) {
	s.Fill(sess, o, 0, false)
	_ = s.PeerGrant(s.cred.sent + endless)
}

// benchBurst is how many messages of one stream a connection reads at once here.
const benchBurst = 32

func bursts(b *testing.B, n int, f func(run *pool.Queue)) {
	p := make([]byte, n)
	b.ReportAllocs()
	b.SetBytes(int64(n))
	for i := 0; i < b.N; i += benchBurst {
		a := pool.GetArena()
		var run pool.Queue
		for range benchBurst {
			run.Push(arriving(a.Copy(p)))
		}
		pool.PutArena(a)
		f(&run)
	}
}

func BenchmarkDeliverReceive(b *testing.B) {
	for _, n := range []int{64, 1 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, sess, o, ctx := benchStream(), &dropSession{}, &frame.Out{}, context.Background()
			bursts(b, n, func(run *pool.Queue) {
				_ = s.Deliver(run, arrival)
				for range benchBurst {
					m, _ := s.Receive(ctx)
					m.Release()
				}
				refresh(s, sess, o)
			})
		})
	}
}

// What stays in In's buffer needs no goroutine.
func BenchmarkDeliverIn(b *testing.B) {
	s, sess, o := benchStream(), &dropSession{}, &frame.Out{}
	s.cfg.InBuffer = benchBurst
	in := s.In()
	bursts(b, 64, func(run *pool.Queue) {
		_ = s.Deliver(run, arrival)
		for range benchBurst {
			m := <-in
			m.Release()
		}
		refresh(s, sess, o)
	})
}

// More than the buffer holds is brought by the stream's goroutine.
func BenchmarkDeliverInBeyondItsBuffer(b *testing.B) {
	s, sess, o := benchStream(), &dropSession{}, &frame.Out{}
	in := s.In()
	bursts(b, 64, func(run *pool.Queue) {
		_ = s.Deliver(run, arrival)
		for range benchBurst {
			m := <-in
			m.Release()
		}
		refresh(s, sess, o)
	})
	s.Lost(&status.StreamError{})
}

// Small messages that arrive in bundles, as a connection makes them for who receives so.
func BenchmarkDeliverReceiveBatch(b *testing.B) {
	s, sess, o, ctx := benchStream(), &dropSession{}, &frame.Out{}, context.Background()
	p := make([]byte, 64)
	b.ReportAllocs()
	b.SetBytes(64)
	s.takeBackLent()
	for i := 0; i < b.N; i += benchBurst {
		var run pool.Queue
		for range benchBurst {
			run.PushFrame(64, p, s.cfg.Caps.Cost(64))
		}
		_ = s.Deliver(&run, arrival)
		for got := 0; got < benchBurst; {
			ps, _ := s.ReceiveBatch(ctx)
			got += len(ps)
		}
		refresh(s, sess, o)
	}
}

func BenchmarkDeliverBatches(b *testing.B) {
	s, sess, o := benchStream(), &dropSession{}, &frame.Out{}
	batches := s.Batches()
	bursts(b, 64, func(run *pool.Queue) {
		_ = s.Deliver(run, arrival)
		for got := 0; got < benchBurst; {
			batch := <-batches
			got += batch.Len()
			batch.Release()
		}
		refresh(s, sess, o)
	})
	s.Lost(&status.StreamError{})
}

func BenchmarkFragments(b *testing.B) {
	const piece = 64 << 10
	s, sess, o, ctx, p := benchStream(), &dropSession{}, &frame.Out{}, context.Background(), make([]byte, piece)
	b.ReportAllocs()
	b.SetBytes(8 * piece)
	for b.Loop() {
		for i := range 8 {
			if err := fragment(s, p, i == 0, i == 7, 8*piece, arrival); err != nil {
				b.Fatal(err)
			}
		}
		m, _ := s.Receive(ctx)
		m.Release()
		refresh(s, sess, o)
	}
}

// senders' side: hand over, then one turn for what has gathered.
func benchSend(b *testing.B, n int, send func(s *Stream, m pool.Message) error) {
	s, sess, o, p := benchStream(), &dropSession{}, &frame.Out{}, make([]byte, n)
	b.ReportAllocs()
	b.SetBytes(int64(n))
	for i := 0; i < b.N; i += benchBurst {
		for range benchBurst {
			if err := send(s, pool.Copy(p)); err != nil {
				b.Fatal(err)
			}
		}
		s.Fill(sess, o, endless, true)
		refresh(s, sess, o)
	}
}

func BenchmarkTrySendFill(b *testing.B) {
	for _, n := range []int{64, 1 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchSend(b, n, (*Stream).TrySend) })
	}
}

func BenchmarkSendFill(b *testing.B) {
	ctx := context.Background()
	benchSend(b, 64, func(s *Stream, m pool.Message) error { return s.Send(ctx, m) })
}

func BenchmarkSendCopyFill(b *testing.B) {
	s, sess, o, ctx, p := benchStream(), &dropSession{}, &frame.Out{}, context.Background(), make([]byte, 64)
	b.ReportAllocs()
	b.SetBytes(64)
	for i := 0; i < b.N; i += benchBurst {
		for range benchBurst {
			if err := s.SendCopy(ctx, p); err != nil {
				b.Fatal(err)
			}
		}
		s.Fill(sess, o, endless, true)
		refresh(s, sess, o)
	}
}

func BenchmarkSlotFill(b *testing.B) {
	benchSend(b, 64, func(s *Stream, m pool.Message) error { return (<-s.Writable()).Send(m) })
}

func BenchmarkSelectSlotFill(b *testing.B) {
	benchSend(b, 64, func(s *Stream, m pool.Message) error {
		select {
		case slot := <-s.Writable():
			return slot.Send(m)
		default:
			return ErrWouldBlock
		}
	})
}

// The hop through the goroutine behind Out.
func BenchmarkOut(b *testing.B) {
	s, sess, o, p := benchStream(), &dropSession{}, &frame.Out{}, make([]byte, 64)
	out := s.Out()
	b.ReportAllocs()
	for i := 0; i < b.N; i += benchBurst {
		for range benchBurst {
			out <- pool.Copy(p)
		}
		s.Fill(sess, o, endless, true)
		refresh(s, sess, o)
	}
	s.Lost(&status.StreamError{})
}

// A stream from its making to its end, both halves in order.
func BenchmarkLife(b *testing.B) {
	cfg := benchStream().cfg
	link, sess, o, ctx := &idleLink{}, &dropSession{}, &frame.Out{}, context.Background()
	b.ReportAllocs()
	for b.Loop() {
		s := &Stream{}
		s.Init(link, cfg)
		_ = s.TrySend(pool.New(64))
		_ = s.CloseSend(status.OK, "", nil)
		s.Fill(sess, o, endless, true)
		var run pool.Queue
		run.Push(arriving(pool.New(64)))
		_ = s.Deliver(&run, arrival)
		_ = s.PeerEnd(status.OK, "", nil)
		m, _ := s.Receive(ctx)
		m.Release()
		_, _ = s.Receive(ctx)
		s.Fill(sess, o, 0, false)
		s.PeerEnded(1)
		if !s.st.done {
			b.Fatal("not over")
		}
	}
}

// One message at a time, each with a turn of its own: what a lone request costs.
func BenchmarkLoneSendFill(b *testing.B) {
	s, sess, o, ctx, p := benchStream(), &dropSession{}, &frame.Out{}, context.Background(), make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Send(ctx, pool.Copy(p)); err != nil {
			b.Fatal(err)
		}
		s.Fill(sess, o, endless, true)
		_ = s.PeerGrant(s.cred.sent + endless)
	}
}

// And what a lone answer costs that is here when it is asked for.
func BenchmarkLoneDeliverReceive(b *testing.B) {
	s, sess, o, ctx, p := benchStream(), &dropSession{}, &frame.Out{}, context.Background(), make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		var run pool.Queue
		run.Push(arriving(pool.Copy(p)))
		_ = s.Deliver(&run, arrival)
		m, err := s.Receive(ctx)
		if err != nil {
			b.Fatal(err)
		}
		m.Release()
		s.Fill(sess, o, 0, false)
	}
}

func (l *idleLink) Pack(m pool.Message, _ pool.Compression) pool.Message  { return m }
func (l *idleLink) Unpack(m pool.Message, most int) (pool.Message, error) { return unpack(m, most) }
