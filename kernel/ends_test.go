package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Each half ends on its own, after everything before it, and both sides are
// done when both applications have been handed both ends.
func TestHalvesEndSeparately(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		for i := range 100 {
			w.Send(a, "%d", i)
		}
		if err := errors.Join(a.CloseSend(), a.CloseSend()); err != nil {
			t.Fatal(err)
		}
		m := text("late")
		if err := a.Send(w.Ctx, m); !errors.Is(err, kernel.ErrSendClosed) || !errors.Is(err, kernel.ErrClosed) {
			t.Errorf("Send after CloseSend: %v", err)
		}
		m.Release()
		for i := range 100 {
			w.Want(b, "%d", i)
		}
		w.WantEOF(b)
		w.Send(b, "the other half goes on")
		w.Want(a, "the other half goes on")
		wantOpen(t, "Done while a half is open", a.Done())
		wantOpen(t, "Done while a half is open", b.Done())
		w.Send(b, "the last message")
		_ = b.CloseSend()
		if w.caps.Ended { // else the peer does not say what it has taken
			wantOpen(t, "Done before all was taken", b.Done())
		}
		w.Want(a, "the last message")
		w.WantEOF(a)
		w.WantDone(a)
		w.WantDone(b)
		w.WantEOF(a) // and again for every call
		if err := errors.Join(a.Err(), b.Err()); err != nil {
			t.Error(err)
		}
	})
}

// Close from any number of goroutines ends alike, and wakes every wait
// on the stream at that very moment.
func TestCloseWakesAllWaitersAtOnce(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		for _, way := range []string{"mailbox", "In", "Batches"} {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{Window: 64, InBuffer: kernel.None})
			var in <-chan pool.Message
			var batches <-chan *actor.Batch
			switch way {
			case "In":
				in = a.In()
			case "Batches":
				batches = a.Batches()
			}
			accepted := tryAll(t, a, 4)
			var wg sync.WaitGroup
			var late atomic.Int32
			start := time.Now()
			wait := func(name string, f func() error, want error) {
				wg.Go(func() {
					if err := f(); !errors.Is(err, want) {
						t.Errorf("%s, %s: %v, want %v", way, name, err, want)
					}
					if time.Since(start) != time.Second {
						late.Add(1)
					}
				})
			}
			if in == nil && batches == nil { // else it is an error
				wait("ReceiveBatch", func() error {
					_, err := a.ReceiveBatch(w.Ctx)
					return err
				}, kernel.ErrClosed)
			}
			for range 5 {
				wait("Send", func() error {
					m := text("x")
					err := a.Send(w.Ctx, m)
					m.Release()
					return err
				}, kernel.ErrSendClosed)
				wait("Receive", func() error {
					_, err := a.Receive(w.Ctx)
					return err
				}, kernel.ErrClosed)
				wait("SendCopy", func() error { return a.SendCopy(w.Ctx, []byte("x")) }, kernel.ErrSendClosed)
				wait("Writable", func() error {
					if _, ok := <-a.Writable(); ok {
						return errors.New("a slot")
					}
					return nil
				}, nil)
				wait("SendDone", func() error { <-a.SendDone(); return nil }, nil)
				switch way {
				case "In":
					wait("In", func() error { <-in; return nil }, nil)
				case "Batches":
					wait("Batches", func() error { <-batches; return nil }, nil)
				}
				wait("Out", func() error {
					m := text("x")
					select {
					case a.Out() <- m:
						return errors.New("taken without credit")
					case <-a.SendDone():
						m.Release()
						return nil
					}
				}, nil)
			}
			time.Sleep(time.Second)
			closed := make(chan error, 10)
			for range 10 {
				go func() { closed <- a.Close(w.Ctx) }()
			}
			wg.Wait()
			if n := late.Load(); n > 0 {
				t.Errorf("%s: %d waiters were not woken at once", way, n)
			}
			w.DrainN(b, accepted)
			w.WantEOF(b)
			_ = b.CloseSend()
			for range 10 {
				if err := <-closed; err != nil {
					t.Errorf("%s: Close: %v", way, err)
				}
			}
			if err := a.Close(w.Ctx); err != nil {
				t.Errorf("%s: Close, again: %v", way, err)
			}
		}
	})
}

// Close waits until the peer's application has the end: not only until the end
// was sent.
func TestCloseWaitsForThePeersApplication(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		w.Send(a, "last words")
		start := time.Now()
		go func() {
			time.Sleep(3 * time.Second)
			w.Want(b, "last words")
			w.WantEOF(b)
		}()
		if err := a.Close(w.Ctx); err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("Close returned %v after %v", err, time.Since(start))
		}
	})
}

// Close aborts when its context ends.
func TestCloseAbortsInTheEnd(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		ctx, cancel := context.WithTimeout(w.Ctx, time.Second)
		defer cancel()
		start := time.Now()
		err := a.Close(ctx)
		wantCode(t, err, status.Cancelled)
		if time.Since(start) != time.Second {
			t.Errorf("after %v", time.Since(start))
		}
		w.Quiesce()
		w.WantEOF(b) // our half had ended in order before
		w.WantDone(b)
		wantCode(t, b.Err(), status.Cancelled)
	})
}

// After CloseReceive the peer's sends fail, what had arrived is let go, and the
// other direction goes on.
func TestCloseReceiveStopsThePeer(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		for name, use := range map[string]func(*kernel.Stream){
			"untouched": func(*kernel.Stream) {}, "In": func(s *kernel.Stream) { s.In() }, "Batches": func(s *kernel.Stream) { s.Batches() },
		} {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			use(b)
			for range 50 {
				w.SendMessage(a, sized(100, 1))
			}
			b.CloseReceive(status.OutOfRange)
			select {
			case <-a.SendDone():
			case <-w.Ctx.Done():
				t.Fatal("the peer was not told")
			}
			m := text("x")
			if err := a.Send(w.Ctx, m); !errors.Is(err, kernel.ErrStopped) {
				t.Fatalf("%s: Send: %v", name, err)
			}
			m.Release()
			if name != "In" { // its buffer's content can still be taken
				if _, err := b.Receive(w.Ctx); !errors.Is(err, kernel.ErrClosed) {
					t.Fatalf("%s: Receive: %v", name, err)
				}
			}
			for m := range b.In() {
				m.Release()
			}
			w.Send(b, "still talking")
			w.Want(a, "still talking")
			_ = b.CloseSend()
			w.WantEOF(a)
			w.WantDone(a)
			w.WantDone(b)
			if err := a.Err(); err != nil {
				t.Errorf("%s: a stop is no failure: %v", name, err)
			}
		}
	})
}

// In and Batches that are asked for after CloseReceive are closed.
func TestChannelsAfterCloseReceive(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		_, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		b.CloseReceive(status.OK)
		wantClosed(t, "In", b.In())
		_, b = w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		b.CloseReceive(status.OK)
		wantClosed(t, "Batches", b.Batches())
	})
}

// A handler that returns nil ends both halves in order, whatever input it left:
// the peer's Err stays nil, and Discarded tells what was not read.
func TestHandlerReturnsNilWithInputLeft(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		for name, use := range map[string]func(context.Context, *kernel.Stream) int{
			"Receive": func(ctx context.Context, s *kernel.Stream) int {
				m, err := s.Receive(ctx)
				if err != nil {
					return 0
				}
				m.Release()
				return 1
			},
			"Batches": func(_ context.Context, s *kernel.Stream) int {
				b := <-s.Batches()
				defer b.Release()
				return b.Len()
			},
		} {
			sent, read := make(chan struct{}), make(chan int, 1)
			w.Srv.Handle(name, func(ctx context.Context, s *kernel.Stream) error {
				read <- use(ctx, s)
				<-sent
				return s.Send(ctx, text("enough"))
			})
			s, err := w.Client.Open(w.Ctx, name, nil)
			if err != nil {
				t.Fatal(err)
			}
			const n = 20
			for i := range n {
				w.Send(s, "%d", i)
			}
			close(sent)
			w.Want(s, "enough")
			w.WantEOF(s)
			if err := s.Close(w.Ctx); err != nil {
				t.Fatal(err)
			}
			if err := s.Err(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			left := n - <-read
			if !w.caps.Ended { // the peer does not report it
				left = 0
			}
			if d := s.Discarded(); d != left {
				t.Errorf("%s: %d of %d discarded, %d were", name, d, n, left)
			}
		}
	})
}

// A handler's error comes as a status after everything that it sent.
func TestHandlerReturnsAnError(t *testing.T) {
	const app = status.FirstAppCode + 7
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		for name, c := range map[string]struct {
			err    error
			code   status.Code
			reason string
		}{
			"plain":   {errors.New("no luck"), status.Unknown, "no luck"},
			"handler": {&status.HandlerError{Code: app, Reason: "mine"}, app, "mine"},
		} {
			w.Srv.Handle(name, func(ctx context.Context, s *kernel.Stream) error {
				for i := range 100 {
					if err := s.Send(ctx, text("%d", i)); err != nil {
						return err
					}
				}
				s.SetTrailer(metadata.MD{{Key: "k", Value: "v"}})
				return c.err
			})
			s, err := w.Client.Open(w.Ctx, name, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 100 {
				w.Want(s, "%d", i)
			}
			se := w.WantErr(s, c.code)
			if se.Reason != c.reason || !se.Remote || se.Refused || s.Trailer().Get("k") != "v" {
				t.Errorf("%s: %+v, trailer %v", name, se, s.Trailer())
			}
			wantCode(t, s.Err(), c.code)
			w.WantErr(s, c.code) // for every call
			if w.stopsAtEnd() {  // else the peer does not learn that it reads no more
				wantClosed(t, name+": SendDone", s.SendDone())
			}
			_ = s.Close(w.Ctx)
			w.WantDone(s)
		}
	})
}

// A stream that the peer has reset can be read on. After Abort nothing waits to hand over
// the rest on a channel, but Receive still returns it.
func TestAbortAfterThePeersReset(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		in := b.In()
		for i := range 50 {
			w.Send(a, "%d", i)
		}
		w.Quiesce()
		a.Abort(status.Aborted, "why")
		w.Quiesce()
		b.Abort(status.Cancelled, "not wanted")
		w.Quiesce()
		n := 0
		for m := range in {
			if got := string(m.Bytes()); got != fmt.Sprint(n) {
				t.Errorf("In gave %q, want %d", got, n)
			}
			m.Release()
			n++
		}
		if n == 0 || n == 50 {
			t.Errorf("%d of 50 were in In's buffer", n)
		}
		for ; n < 50; n++ {
			w.Want(b, "%d", n)
		}
		w.WantErr(b, status.Aborted)
	})
}

// A context bounds what a stream costs here also when the peer has reset the stream,
// and its rest is not read.
func TestAContextEndsWhatAResetHasLeft(t *testing.T) {
	for name, use := range map[string]func(*kernel.Stream) (rest func() int){
		"In": func(s *kernel.Stream) func() int {
			in := s.In()
			return func() (n int) {
				for m := range in {
					m.Release()
					n++
				}
				return n
			}
		},
		"Batches": func(s *kernel.Stream) func() int {
			in := s.Batches()
			return func() (n int) {
				for b := range in {
					n += b.Len()
					b.Release()
				}
				return n
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, nil, func(t *testing.T, w *world) {
				ctx, cancel := context.WithCancel(context.Background())
				offers := w.Srv.Offers()
				s, err := w.Client.Open(ctx, "source", nil)
				if err != nil {
					t.Fatal(err)
				}
				b, err := (<-offers).Accept(pool.Message{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				rest := use(s)
				for i := range 50 {
					w.Send(b, "%d", i)
				}
				w.Quiesce()
				b.Abort(status.Aborted, "no more")
				w.Quiesce()
				wantCode(t, s.Err(), status.Aborted)
				cancel()
				w.Quiesce()
				wantCode(t, s.Err(), status.Aborted)
				if n := rest(); n > 17 { // In's buffer
					t.Errorf("%d messages of 50 were still handed over", n)
				}
				drain(s)
			})
		})
	}
}

// watchers is how many wait for the end of ctx, which is of context.WithCancel: the context
// package does not tell.
func watchers(ctx context.Context) int {
	return reflect.ValueOf(ctx).Elem().FieldByName("children").Len()
}

// A stream that has ended, and was read, is not kept by the context that it was
// opened with.
func TestAContextForgetsStreamsThatAreOver(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		offers := w.Srv.Offers()
		var ss, bs []*kernel.Stream
		for range 3 {
			s, err := w.Client.Open(ctx, "source", nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := (<-offers).Accept(pool.Message{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			ss, bs = append(ss, s), append(bs, b)
		}
		if n := watchers(ctx); n != 3 {
			t.Fatalf("%d streams watch the context, want 3", n)
		}
		in := ss[0].In()
		for i := range 50 {
			w.Send(bs[0], "%d", i)
		}
		w.Quiesce()
		go func() { _ = bs[1].Close(w.Ctx) }()
		if err := ss[1].Close(w.Ctx); err != nil {
			t.Error(err)
		}
		bs[2].Abort(status.Aborted, "no more")
		bs[0].Abort(status.Aborted, "no more")
		w.Quiesce()
		if n := watchers(ctx); n != 1 {
			t.Errorf("%d streams watch the context, want the one that is read", n)
		}
		for m := range in {
			m.Release()
		}
		w.Quiesce()
		if n := watchers(ctx); n != 0 {
			t.Errorf("%d streams watch the context, want none", n)
		}
	})
}

// A stream that did not end cleanly never looks as if it had, whatever has ended it.
func TestAFailureIsNeverAnEnd(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancelCause(context.Background())
		w.Srv.Handle("stuck", func(ctx context.Context, s *kernel.Stream) error {
			if err := s.Send(ctx, text("one")); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		s, err := w.Client.Open(ctx, "stuck", nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Want(s, "one")
		cancel(fmt.Errorf("another error: %w", io.EOF))
		w.Quiesce()
		var last error
		for _, err := range s.All(w.Ctx) {
			last = err
		}
		se := wantCode(t, last, status.Cancelled)
		if errors.Is(last, io.EOF) || !errors.Is(last, io.ErrUnexpectedEOF) || !strings.Contains(se.Reason, "another error") {
			t.Errorf("the stream ended by %v", last)
		}
	})
}

// Abort loses nothing that has arrived: In's buffer, and the mailbox through
// Receive; after that there is the error.
func TestAbortKeepsWhatArrived(t *testing.T) {
	for name, use := range map[string]func(*kernel.Stream){
		"mailbox": func(*kernel.Stream) {}, "In": func(s *kernel.Stream) { s.In() }, "Batches": func(s *kernel.Stream) { s.Batches() },
	} {
		for who := range 2 {
			t.Run([]string{"ours", "the peer's"}[who]+", "+name, func(t *testing.T) {
				inBubble(t, nil, nil, func(t *testing.T, w *world) {
					a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
					use(b)
					for i := range 50 {
						w.Send(a, "%d", i)
					}
					w.Quiesce()
					[]*kernel.Stream{b, a}[who].Abort(status.Aborted, "why")
					w.Quiesce()
					w.WantDone(a)
					w.WantDone(b)
					if bad := w.Owed(); bad != "" {
						t.Errorf("messages nobody may ever take hold the connection's credit: %s", bad)
					}
					for i := range 50 {
						w.Want(b, "%d", i)
					}
					se := w.WantErr(b, status.Aborted)
					if se.Remote != (who == 1) || se.Reason != "why" {
						t.Errorf("%+v", se)
					}
					w.WantErr(a, status.Aborted)
				})
			})
		}
	}
}

// In gives what is in its buffer at an abort, and is closed after it.
func TestAbortLeavesInItsBuffer(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{InBuffer: 4})
		in := b.In()
		for i := range 10 {
			w.Send(a, "%d", i)
		}
		w.Quiesce()
		b.Abort(status.Aborted, "why")
		n := 0
		for m := range in {
			m.Release()
			n++
		}
		if n != 4 {
			t.Errorf("In gave %d messages after the abort", n)
		}
		for i := n; i < 10; i++ {
			w.Want(b, "%d", i)
		}
		wantCode(t, b.Err(), status.Aborted)
	})
}

// Each side gets its end once, after its data, whichever side ends which half and when. It
// reads every message that the other could have sent, then exactly one end, and In and
// Done are closed once (a second close would panic).
func TestTheEndIsReportedOnceAfterAllData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldInMemory(t)
		for seed := range uint64(300) {
			rng := rand.New(rand.NewPCG(seed, 1))
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			var wg sync.WaitGroup
			hows := [2]int{rng.IntN(4), rng.IntN(4)}
			for side, s := range []*kernel.Stream{a, b} {
				n := rng.IntN(40)
				how := hows[side]
				wait := time.Duration(rng.IntN(4)) * time.Millisecond
				wg.Go(func() {
					for i := range n {
						m := text("%d", i)
						if err := s.Send(w.Ctx, m); err != nil {
							m.Release()
							return
						}
					}
					time.Sleep(wait)
					switch how {
					case 0:
						_ = s.CloseSend()
					case 1:
						_ = s.Close(w.Ctx)
					case 2:
						s.Abort(status.Aborted, "")
					case 3:
						_ = s.CloseSend()
						s.CloseReceive(status.OK)
					}
				})
				wg.Go(func() { readAll(t, w, s, hows[1-side] != 2) })
			}
			wg.Wait()
			ctx, cancel := context.WithTimeout(w.Ctx, time.Second)
			_ = a.Close(ctx)
			_ = b.Close(ctx)
			cancel()
			w.WantDone(a)
			w.WantDone(b)
		}
	})
}

func newWorldInMemory(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, kerneltest.Start, nil, nil)
	w.Bubble, w.Ctx = true, context.Background()
	return w
}

// readAll reads s to its end and checks the order of what came, and that only
// a half that was ended in order looks like it.
func readAll(t *testing.T, w *world, s *kernel.Stream, inOrder bool) {
	i := 0
	check := func(m pool.Message) {
		if got := string(m.Bytes()); got != decimal(i) {
			t.Errorf("message %d is %q", i, got)
		}
		m.Release()
		i++
	}
	for m := range s.In() {
		check(m)
	}
	for { // after an abort here the mailbox may have more
		m, err := s.Receive(w.Ctx)
		if err == nil {
			check(m)
			continue
		}
		if errors.Is(err, io.EOF) && !inOrder {
			t.Errorf("io.EOF, but the half was not ended in order: %v", s.Err())
		}
		return
	}
}

// Closing both sides at the same time is a clean end on both.
func TestBothCloseAtOnce(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		for range 100 {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			w.Send(a, "x")
			w.Send(b, "y")
			errs := make(chan error, 2)
			go func() { errs <- a.Close(w.Ctx) }()
			go func() { errs <- b.Close(w.Ctx) }()
			if err := errors.Join(<-errs, <-errs); err != nil {
				t.Fatal(err)
			}
			wantClosed(t, "Done", a.Done())
			wantClosed(t, "Done", b.Done())
		}
	})
}

// The connection fails while streams end: each stream ends once, data first, with the
// cause, and nothing hangs.
func TestTheConnectionFailsMeanwhile(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		for round := range 10 {
			var wg sync.WaitGroup
			for i := range 10 {
				a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
				for n := range 5 {
					w.Send(a, "%d", n)
					w.Send(b, "%d", n)
				}
				for _, s := range []*kernel.Stream{a, b} {
					if i%3 == 0 {
						_ = s.CloseSend()
					}
					wg.Go(func() {
						if i%2 == 0 {
							_ = s.Close(w.Ctx)
							return
						}
						readAll(t, w, s, i%3 == 0)
					})
				}
			}
			conns := w.Client.Conns()
			if round%2 == 0 {
				conns = w.Srv.Conns()
			}
			for _, c := range conns {
				_ = c.Close()
			}
			wg.Wait()
		}
	})
}

// Streams of a lost connection fail once each, with the cause.
func TestALostConnectionFailsItsStreamsWithTheCause(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		var ends []*kernel.Stream
		for range 20 {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			w.Send(a, "before")
			ends = append(ends, a, b)
		}
		for i := 1; i < len(ends); i += 2 {
			w.Want(ends[i], "before")
		}
		_ = w.Srv.Conns()[0].Close()
		for _, s := range ends {
			w.WantDone(s)
			se := w.WantErr(s, status.ConnectionLost)
			var ce *status.ConnError
			if !errors.As(se, &ce) || errors.Is(se, io.EOF) || se.NotProcessed {
				t.Errorf("the cause is %v", se.Cause)
			}
			m := text("x")
			wantCode(t, s.Send(w.Ctx, m), status.ConnectionLost)
			m.Release()
			if se2 := s.Err(); se2 != error(se) {
				t.Errorf("a second asker is told something else: %v", se2)
			}
		}
	})
}

// A half that was closed here before it was read to its end is closed, which is not its
// end, although the peer has ended it cleanly.
func TestCloseReceiveOfUnreadMessagesIsNoEnd(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		for i := range 3 {
			w.Send(a, "%d", i)
		}
		if err := a.CloseSend(); err != nil {
			t.Fatal(err)
		}
		w.Want(b, "0")
		w.Quiesce()
		b.CloseReceive(status.OK)
		for range 2 {
			if m, err := b.Receive(w.Ctx); !errors.Is(err, kernel.ErrClosed) {
				t.Errorf("Receive: %d bytes, %v", m.Len(), err)
			}
		}
		if err := b.CloseSend(); err != nil {
			t.Fatal(err)
		}
		w.WantEOF(a)
		w.WantDone(a)
		if n := a.Discarded(); n != 2 {
			t.Errorf("%d discarded, want 2", n)
		}
	})
}

// A program that has sent all it had, and read all that there was, may forget its stream
// without asking for the end: it is neither counted as open nor waited for.
func TestStreamsThatAreForgottenAreOver(t *testing.T) {
	for name, reads := range map[string]int{"nothing to read": 0, "all was read": 2} {
		t.Run(name, func(t *testing.T) {
			overNative(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 10}}, nil, func(t *testing.T, w *world) {
				w.Srv.Handle("take", func(ctx context.Context, s *kernel.Stream) error {
					for m, err := range s.All(ctx) {
						if err != nil {
							return err
						}
						m.Release()
					}
					for range reads {
						if err := s.Send(ctx, text("reply")); err != nil {
							return err
						}
					}
					return nil
				})
				for range 100 {
					s, err := w.Client.Open(w.Ctx, "take", nil)
					ok(t, err)
					w.Send(s, "all there is")
					ok(t, s.CloseSend())
					w.DrainN(s, reads)
				}
				ctx, cancel := context.WithTimeout(w.Ctx, 10*time.Second)
				defer cancel()
				ok(t, w.Srv.Shutdown(ctx))
			})
		})
	}
}

// What came in order stays so: a stream that the connection has forgotten still gives its
// end, and a status that is an error.
func TestForgottenStreamsKeepTheirEnd(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("fine", func(context.Context, *kernel.Stream) error { return nil })
		w.Srv.Handle("bad", func(ctx context.Context, s *kernel.Stream) error {
			m, err := s.Receive(ctx)
			m.Release()
			if err != nil {
				return err
			}
			return &status.HandlerError{Code: status.NotFound, Reason: "not here"}
		})
		open := func(method string) *kernel.Stream {
			s, err := w.Client.Open(w.Ctx, method, nil)
			ok(t, err)
			if err := sendOrRelease(w.Ctx, s, text("x")); err != nil && !errors.Is(err, kernel.ErrStopped) { // a handler that is fine may have returned
				t.Error(err)
			}
			ok(t, s.CloseSend())
			synctest.Wait()
			if n := s.Conn().Streams(); n != 0 {
				t.Errorf("%s: %d streams are open", method, n)
			}
			return s
		}
		fine, bad, aborted := open("fine"), open("bad"), open("fine")
		ok(t, fine.Err())
		w.WantEOF(fine)
		w.WantDone(fine)
		ok(t, fine.Err())
		_, err := bad.Receive(w.Ctx)
		wantCode(t, err, status.NotFound)
		w.WantDone(bad)
		aborted.Abort(status.DataLoss, "what came was no good")
		w.WantDone(aborted)
		wantCode(t, aborted.Err(), status.DataLoss)
		ok(t, w.Client.Close())
		ok(t, fine.Err())
	})
}

// Who waits for a stream to be over, and asks for nothing more of it, is told when both halves
// have ended, by Done and by the handler's context.
func TestWhoAsksForNoEndIsToldOfIt(t *testing.T) {
	for name, wait := range map[string]func(ctx context.Context, s *kernel.Stream){
		"Done":    func(_ context.Context, s *kernel.Stream) { <-s.Done() },
		"context": func(ctx context.Context, _ *kernel.Stream) { <-ctx.Done() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, nil, func(t *testing.T, w *world) {
				returned := make(chan error, 1)
				w.Srv.Handle("waits", func(ctx context.Context, s *kernel.Stream) error {
					err := s.CloseSend()
					wait(ctx, s)
					returned <- err
					return nil
				})
				s := w.Open("waits")
				w.WantEOF(s)
				ok(t, s.Close(w.Ctx))
				synctest.Wait()
				select {
				case err := <-returned:
					ok(t, err)
				default:
					t.Error("the handler still waits")
					s.Conn().Close()
				}
			})
		})
	}
}
