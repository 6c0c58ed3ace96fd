package kernel_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// overhead is what a message costs of the credit beside its length.
const overhead = 32

// tryAll sends messages of n bytes until there is no credit and returns how
// many went.
func tryAll(t *testing.T, s *kernel.Stream, n int) int {
	t.Helper()
	for i := 0; ; i++ {
		m := sized(n, byte(i))
		err := s.TrySend(m)
		if err != nil {
			m.Release()
			if !errors.Is(err, kernel.ErrWouldBlock) {
				t.Fatal(err)
			}
			return i
		}
	}
}

// slotAll does the same through Writable.
func slotAll(t *testing.T, s *kernel.Stream, n int) int {
	t.Helper()
	for i := 0; ; i++ {
		select {
		case slot := <-s.Writable():
			if err := slot.Send(sized(n, byte(i))); err != nil {
				t.Fatal(err)
			}
		default:
			return i
		}
	}
}

// Each way of asking for credit accepts exactly what the window admits, no
// matter which side asked for it and how goroutines are scheduled: a message is
// accepted while less than the window is used.
func TestCreditIsExact(t *testing.T) {
	const window = 256
	for name, c := range map[string]struct {
		so       *kernel.ServerOptions
		opener   kernel.StreamOptions
		acceptor kernel.StreamOptions
		toOpener bool
	}{
		"opener's Window":        {opener: kernel.StreamOptions{Window: window, InBuffer: kernel.None}, toOpener: true},
		"acceptor's Window":      {acceptor: kernel.StreamOptions{Window: window, InBuffer: kernel.None}, so: &kernel.ServerOptions{Limits: kernel.Limits{StreamWindow: window}}},
		"server's StreamWindow":  {so: &kernel.ServerOptions{Limits: kernel.Limits{StreamWindow: window}}},
		"opener's SendLimit":     {opener: kernel.StreamOptions{SendLimit: window}},
		"acceptor's SendLimit":   {acceptor: kernel.StreamOptions{SendLimit: window}, toOpener: true},
		"limits of both":         {opener: kernel.StreamOptions{SendLimit: window}, acceptor: kernel.StreamOptions{Window: 4 * window}},
		"limits of both, turned": {opener: kernel.StreamOptions{SendLimit: 4 * window}, acceptor: kernel.StreamOptions{Window: window}, so: &kernel.ServerOptions{Limits: kernel.Limits{StreamWindow: window}}},
	} {
		t.Run(name, func(t *testing.T) {
			// A message that goes in pieces has its credit returned as they
			// arrive: one at a time, until it is taken.
			overAll(t, c.so, nil, func(t *testing.T, w *world) {
				overhead := w.caps.Overhead
				for _, n := range []int{0, 4, 32, 96, window - overhead} {
					for how, try := range map[string]func(*testing.T, *kernel.Stream, int) int{"TrySend": tryAll, "Writable": slotAll} {
						a, b := w.Pair(c.opener, c.acceptor)
						if c.toOpener {
							a, b = b, a
						}
						want := (window + n + overhead - 1) / (n + overhead)
						if got := try(t, a, n); got != want {
							t.Fatalf("%s accepted %d messages of %d bytes, the window admits %d", how, got, n, want)
						}
						// All taken: all of it again, and not a message more.
						for range want {
							m, err := b.Receive(w.Ctx)
							if err != nil {
								t.Fatal(err)
							}
							m.Release()
						}
						got := 0
						w.Eventually("credit to come back", func() bool {
							got += try(t, a, n)
							return got >= want-want/2
						})
						most := want
						if rest := window % (n + overhead); rest > 0 && rest >= w.caps.LeastPiece {
							most++ // one that crossed the window's edge in pieces
						}
						if got > most {
							t.Errorf("%s: %d messages after all were taken, at most %d", how, got, most)
						}
						w.DrainN(b, got)
					}
				}
			})
		})
	}
}

// Without credit: TrySend says so, Writable offers nothing, Send waits; and
// there is credit again, at no later than half the window, when messages were
// taken. All in a bubble, so that "nothing" means never.
func TestWithoutCreditNothingIsAccepted(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{Window: 4 * 64, InBuffer: kernel.None}, kernel.StreamOptions{})
		a, b = b, a // the opener's window bounds the acceptor
		if n := tryAll(t, a, 32); n != 4 {
			t.Fatalf("%d messages went", n)
		}
		slots := a.Writable()
		ctx, cancel := context.WithTimeout(w.Ctx, time.Second)
		defer cancel()
		start := time.Now()
		m := text("late")
		if err := a.Send(ctx, m); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Fatalf("Send returned %v after %v", err, time.Since(start))
		}
		wantOpen(t, "Writable", slots)
		w.DrainN(b, 1)
		w.Quiesce()
		wantOpen(t, "Writable after a quarter was taken", slots)
		w.DrainN(b, 1)
		w.Quiesce()
		select {
		case slot := <-slots:
			slot.Cancel()
		default:
			t.Fatal("half the window was taken, and there is no credit")
		}
		if err := a.Send(w.Ctx, m); err != nil { // its message was still ours
			t.Fatal(err)
		}
		if n := tryAll(t, a, 32); n != 2 {
			t.Errorf("%d messages went into the rest of half a window, want 2", n)
		}
		w.DrainN(b, 5)
	})
}

// Send's context ends that one wait: the stream, and the order of the others
// that wait, are as before.
func TestACanceledSendAffectsNoOther(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		b, a := w.Pair(kernel.StreamOptions{Window: 64, InBuffer: kernel.None}, kernel.StreamOptions{})
		tryAll(t, a, 32)
		ctx, cancel := context.WithCancelCause(w.Ctx)
		cause := errors.New("changed my mind")
		errs := make(chan error, 3)
		for i, c := range []context.Context{w.Ctx, ctx, w.Ctx} {
			m := text("%d", i)
			go func() {
				err := a.Send(c, m)
				if err != nil {
					m.Release()
				}
				errs <- err
			}()
			w.Quiesce()
		}
		cancel(cause)
		if err := <-errs; !errors.Is(err, cause) {
			t.Fatalf("the first to return gave %v", err)
		}
		w.DrainN(b, 1)
		w.Want(b, "0")
		w.Want(b, "2")
		if err := errors.Join(<-errs, <-errs); err != nil {
			t.Error(err)
		}
	})
}

// A message is counted as taken when it leaves the mailbox: with InBuffer None
// that is when the program has it.
func TestCreditReturnsOnTaking(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		for name, c := range map[string]struct {
			inBuffer int
			extra    int // messages that In holds, so that they count as taken
		}{"None": {kernel.None, 0}, "2": {2, 2}} {
			b, a := w.Pair(kernel.StreamOptions{Window: 4 * 64, InBuffer: c.inBuffer}, kernel.StreamOptions{})
			in := b.In()
			w.Quiesce()
			sent := 0
			for {
				n := tryAll(t, a, 32)
				w.Quiesce()
				if n == 0 {
					break
				}
				sent += n
			}
			if sent != 4+c.extra {
				t.Errorf("InBuffer %s: %d messages went to a reader that takes none, want %d", name, sent, 4+c.extra)
			}
			for range 2 {
				(<-in).Release()
				w.Quiesce()
			}
			if n := tryAll(t, a, 32); n != 2 {
				t.Errorf("InBuffer %s: %d messages went after two were taken", name, n)
			}
			a.Abort(status.Cancelled, "enough")
			for m := range in {
				m.Release()
			}
			drain(b)
		}
	})
}

// A message is never too large for a window: it goes in pieces, and the pieces
// of the one message that is arriving return their credit as they come.
func TestMessagesLargerThanTheirWindows(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{StreamWindow: 1000, ConnWindow: 64 << 10}}
	overAll(t, so, nil, func(t *testing.T, w *world) {
		const streams = 8
		for i := range streams {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			go func() {
				for n := range 3 {
					if err := a.Send(w.Ctx, sized(200_000+n, byte(i))); err != nil {
						t.Error(err)
					}
				}
				w.endSend(a)
			}()
			defer func() { // all of them are under way before the first is read
				for n := range 3 {
					m, err := b.Receive(w.Ctx)
					if err != nil {
						t.Fatal(err)
					}
					if p := m.Bytes(); len(p) != 200_000+n || p[0] != byte(i) || p[len(p)-1] != byte(i) {
						t.Fatalf("stream %d, message %d: %d bytes", i, n, len(p))
					}
					m.Release()
				}
				w.WantEOF(b)
			}()
		}
	})
}

// Two messages in pieces are in one mailbox: the first one's credit came back
// as it arrived, the second one's when it is taken; neither is counted twice.
func TestCreditOfLargeMessagesInTheMailbox(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		const window = 64 << 10
		b, a := w.Pair(kernel.StreamOptions{Window: window, InBuffer: kernel.None}, kernel.StreamOptions{})
		for round := range 5 {
			go func() {
				for range 3 {
					_ = a.Send(w.Ctx, sized(300_000, byte(round)))
				}
			}()
			w.Quiesce()
			w.DrainN(b, 3)
		}
		w.Quiesce()
		n := 0
		for {
			k := tryAll(t, a, 1000-overhead)
			if k == 0 {
				break
			}
			n += k
			w.Quiesce()
		}
		if want := window/1000 + 1; n < want/2 || n > want {
			t.Errorf("%d messages of a cost of 1000 went, the window admits %d", n, want)
		}
		w.DrainN(b, n)
	})
}

func TestTooLargeFailsAtTheWriter(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{MaxMessage: 1000}}
	overAll(t, so, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		m := sized(1001, 1)
		if err := a.Send(w.Ctx, m); !errors.Is(err, kernel.ErrTooLarge) {
			t.Fatalf("Send: %v", err)
		}
		if err := a.TrySend(m); !errors.Is(err, kernel.ErrTooLarge) {
			t.Fatalf("TrySend: %v", err)
		}
		slot := <-a.Writable()
		if err := slot.Send(m); !errors.Is(err, kernel.ErrTooLarge) {
			t.Fatalf("Slot.Send: %v", err)
		}
		if _, err := w.Client.Open(w.Ctx, "pair", &kernel.OpenOptions{Request: m}); !errors.Is(err, kernel.ErrTooLarge) {
			t.Fatalf("Open: %v", err)
		}
		m.Truncate(1000) // it was ours all the time
		w.SendMessage(a, m)
		w.DrainN(b, 1)
		if err := a.Err(); err != nil {
			t.Errorf("the stream failed: %v", err)
		}
		a.Out() <- sized(1001, 1) // Out can't return an error
		w.WantDone(a)
		wantCode(t, a.Err(), status.TooLarge)
		w.WantErr(b, w.told(status.TooLarge))
	})
}

// Senders on many streams share the connection's queue: when it is full they
// wait, and wake in turn.
func TestRoomOfTheConnectionIsShared(t *testing.T) {
	co := &kernel.ClientOptions{Limits: kernel.Limits{OutQueue: 1}}
	so := &kernel.ServerOptions{Limits: kernel.Limits{ConnWindow: 4 << 10, MaxStreams: 32}}
	overAll(t, so, co, func(t *testing.T, w *world) {
		const streams, each = 16, 40
		done := make(chan error, streams)
		for range streams {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			go func() {
				for i := range each {
					if err := a.Send(w.Ctx, text("%d", i)); err != nil {
						t.Error(err)
					}
				}
				w.endSend(a)
			}()
			go func() {
				n := 0
				for m, err := range b.All(w.Ctx) {
					if err != nil {
						done <- err
						return
					}
					m.Release()
					n++
				}
				if n != each {
					done <- errors.New("messages are missing")
					return
				}
				done <- nil
			}()
		}
		for range streams {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// A slot that was not taken is withdrawn when other streams have used up the
// connection's room, and comes back with that.
func TestASlotIsWithdrawnWithTheConnectionsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(gate, 1)
		co := &kernel.ClientOptions{Limits: kernel.Limits{OutQueue: 16 << 10}}
		w := newWorld(t, gate.start, nil, co)
		a, _ := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		greedy, reader := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{Window: 1 << 20})
		slots := a.Writable()
		gate <- struct{}{} // nothing is written any more
		open := sync.OnceFunc(func() { <-gate })
		defer open()
		w.Send(greedy, "stuck")
		synctest.Wait() // nor does a flush take anything out of the queue
		sent := 1 + tryAll(t, greedy, 1000)
		if err := greedy.TrySend(pool.Message{}); !errors.Is(err, kernel.ErrNoRoom) {
			t.Fatalf("%d messages went, and then: %v", sent, err)
		}
		wantOpen(t, "Writable without room", slots)
		open()
		w.DrainN(reader, sent)
		synctest.Wait()
		select {
		case slot := <-slots:
			slot.Cancel()
		default:
			t.Error("there is room again, and no slot")
		}
	})
}

// A gate lets a client write, unless it is full.
type gate chan struct{}

// start is kerneltest.Start with the client behind the gate.
func (g gate) start(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
	ln := kerneltest.Listen()
	o := *co
	o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := ln.Dial(ctx, network, addr)
		return &gatedConn{nc, g}, err
	}
	return serve(t, so, &o, memoryListener{ln})
}

type gatedConn struct {
	net.Conn
	gate gate
}

func (c *gatedConn) Write(p []byte) (int, error) {
	c.gate <- struct{}{}
	defer func() { <-c.gate }()
	return c.Conn.Write(p)
}

// A memoryListener has an address that a client takes.
type memoryListener struct{ net.Listener }

func (memoryListener) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return kerneltest.Target }

// An end takes no credit. On a connection whose window is full of messages of other
// streams that are not read, a stream can still be closed, and a handler's status comes.
func TestEndsWaitForNoCredit(t *testing.T) {
	small := kernel.Limits{MaxStreams: 100, ConnWindow: 4 << 10, MaxMessage: 1 << 20}
	for name, fromServer := range map[string]bool{"client's": false, "server's": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &kernel.ServerOptions{Limits: small}, &kernel.ClientOptions{Limits: small}, func(t *testing.T, w *world) {
				w.Loose = true
				var cancel func()
				w.Ctx, cancel = context.WithTimeout(w.Ctx, time.Hour)
				defer cancel()
				w.Srv.Handle("fails", func(context.Context, *kernel.Stream) error {
					return &status.HandlerError{Code: status.NotFound, Reason: "not here"}
				})
				pair := func() (from, to *kernel.Stream) {
					one := kernel.StreamOptions{Window: 128} // message, and no fragments, which return their credit
					from, to = w.Pair(one, one)
					if fromServer {
						from, to = to, from
					}
					return from, to
				}
				empty, reader := pair()
				for sent := 1; sent > 0; w.Quiesce() {
					from, _ := pair()
					sent = tryAll(t, from, 96)
				}
				if err := empty.CloseSend(); err != nil {
					t.Fatal(err)
				}
				w.WantEOF(reader)
				s := must[*kernel.Stream](t)(w.Client.Open(w.Ctx, "fails", nil))
				w.Cleanup(s)
				w.WantErr(s, status.NotFound)
			})
		})
	}
}
