package interop

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A half can't end: CloseSend says so and changes nothing, and close(Out) makes it
// the stream's error, and changes nothing else.
func TestBrpcHasNoHalves(t *testing.T) {
	w := overBrpc(t, nil, nil)
	for name, try := range map[string]func(a *kernel.Stream) error{
		"CloseSend": func(a *kernel.Stream) error {
			if err := a.Err(); err != nil {
				t.Error(err)
			}
			return a.CloseSend()
		},
		"close(Out)": func(a *kernel.Stream) error {
			a.Out() <- text("through Out")
			close(a.Out())
			w.Eventually("the error", func() bool { return a.Err() != nil })
			return a.Err()
		},
	} {
		for _, accepted := range []bool{false, true} {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			if accepted {
				a, b = b, a
			}
			if err := try(a); !errors.Is(err, kernel.ErrNotSupported) {
				t.Fatalf("%s: %v", name, err)
			}
			if name == "close(Out)" {
				w.Want(b, "through Out")
			}
			for i := range 10 {
				w.Send(a, "%d", i)
				w.Want(b, "%d", i)
				w.Send(b, "back %d", i)
				w.Want(a, "back %d", i)
			}
			testkit.WantOpen(t, name+": SendDone", a.SendDone())
			testkit.WantOpen(t, name+": Done", b.Done())
			if err := b.Close(w.Ctx); err != nil {
				t.Errorf("%s: Close there: %v", name, err)
			}
			w.WantEOF(a)
			w.WantDone(a)
		}
	}
	// Once a side reads no more, the end of its sending half is the stream's.
	a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	w.Send(a, "last")
	a.CloseReceive(status.OK)
	if err := a.CloseSend(); err != nil {
		t.Fatalf("CloseSend after CloseReceive: %v", err)
	}
	w.Want(b, "last")
	w.WantEOF(b)
	w.WantDone(a)
	w.WantDone(b)
}

// Close, from any number of goroutines on either side, ends both halves on both
// sides: once, after everything that was sent before it.
func TestBrpcCloseReportsBothEndsOnceAfterAllData(t *testing.T) {
	w := overBrpc(t, nil, nil)
	for round := range 40 {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		if round%2 == 1 {
			a, b = b, a
		}
		const n = 50
		for i := range n {
			w.SendMessage(a, text("%d", i))
			w.Send(b, "never read") // Close says that nobody will
		}
		w.SendMessage(a, sized(200_000, 1)) // in segments
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := a.Close(w.Ctx); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		}
		for i := range n {
			w.Want(b, "%d", i)
		}
		w.DrainN(b, 1)
		w.WantEOF(b)
		w.WantEOF(b) // for everyone who asks
		wg.Wait()
		m := text("x")
		if err := b.Send(w.Ctx, m); !errors.Is(err, kernel.ErrStopped) {
			t.Fatalf("a send after the peer's CLOSE: %v", err)
		}
		m.Release()
		if _, err := a.Receive(w.Ctx); !errors.Is(err, kernel.ErrClosed) {
			t.Fatalf("a read after our own Close: %v", err)
		}
		for _, s := range []*kernel.Stream{a, b} {
			w.WantDone(s)
			testkit.WantClosed(t, "SendDone", s.SendDone())
			testkit.WantClosed(t, "In", s.In())
			if err := s.Err(); err != nil {
				t.Errorf("an end in order: %v", err)
			}
			if d := s.Discarded(); d != 0 {
				t.Errorf("%d discarded: nobody can know", d)
			}
			if err := s.Close(w.Ctx); err != nil {
				t.Errorf("Close, again: %v", err)
			}
		}
	}
}

// CloseReceive has nothing to tell the peer: what still comes is dropped, and
// reported, so that its writer is not stuck; the other direction goes on.
func TestBrpcCloseReceiveDropsWhatComes(t *testing.T) {
	w := overBrpc(t, nil, nil)
	a, b := w.Pair(kernel.StreamOptions{SendLimit: 10_000}, kernel.StreamOptions{})
	for range 5 {
		w.SendMessage(a, sized(1000, 1))
	}
	b.CloseReceive(status.OutOfRange)
	for range 200 { // twenty windows
		w.SendMessage(a, sized(1000, 1))
	}
	testkit.WantOpen(t, "SendDone", a.SendDone())
	if _, err := b.Receive(w.Ctx); !errors.Is(err, kernel.ErrClosed) {
		t.Errorf("Receive: %v", err)
	}
	w.Send(b, "still talking")
	w.Want(a, "still talking")
	w.Eventually("all to be let go", func() bool { return unreadOf(w.Srv.Conns()[0]) == 0 })
	if err := a.Close(w.Ctx); err != nil {
		t.Error(err)
	}
	w.WantDone(b)
}

// A handler's error after the acceptance is a reset, behind all that it sent: the
// code does not travel, nor do trailers.
func TestBrpcAHandlersErrorIsAReset(t *testing.T) {
	w := overBrpc(t, nil, nil)
	w.Srv.Handle("fails", func(ctx context.Context, s *kernel.Stream) error {
		for i := range 100 {
			if err := s.Send(ctx, text("%d", i)); err != nil {
				return err
			}
		}
		if err := s.SetTrailer(metadata.MD{{Key: "k", Value: "v"}}); !errors.Is(err, kernel.ErrNotSupported) {
			t.Errorf("SetTrailer: %v", err)
		}
		return &status.HandlerError{Code: status.NotFound, Reason: "mine"}
	})
	for range 20 {
		s := w.Open("fails")
		for i := range 100 {
			w.Want(s, "%d", i)
		}
		se := w.WantErr(s, status.Aborted)
		if !se.Remote || se.Refused || se.Reason != "Received RST frame" || s.Trailer() != nil {
			t.Errorf("%+v, trailer %v", se, s.Trailer())
		}
		w.WantDone(s)
		w.WantErr(s, status.Aborted)
	}
}

// An error before the acceptance is the answer, with its code and text.
func TestBrpcAHandlersErrorBeforeItsFirstUseIsTheAnswer(t *testing.T) {
	w := overBrpc(t, nil, nil)
	w.Srv.HandleOffer("fails", func(context.Context, *kernel.Offer) error {
		return &status.HandlerError{Code: status.FirstAppCode + 7, Reason: "why, \"quoted\"\r\n"}
	})
	_, _, err := w.Open("fails").Accepted(w.Ctx)
	se := wantCode(t, err, status.FirstAppCode+7)
	if !se.Refused || se.NotProcessed || se.Reason != "why, \"quoted\"\r\n" {
		t.Errorf("%+v", se)
	}
}

// The window is the writer's own SendLimit, of payload, and is overshot by one
// message; the reader reports when its queue has run dry, and that wakes the writer.
func TestBrpcWindowIsTheWritersOwn(t *testing.T) {
	for name, turned := range map[string]bool{"opener": false, "acceptor": true} {
		t.Run(name, func(t *testing.T) {
			brpcInBubble(t, nil, nil, func(t *testing.T, w *world) {
				limited := kernel.StreamOptions{SendLimit: 100}
				exact := kernel.StreamOptions{InBuffer: kernel.None, Window: 64} // a reader's Window says nothing
				a, b := w.Pair(limited, exact)
				if turned {
					b, a = w.Pair(exact, limited)
				}
				time.Sleep(settle)
				for round := range 3 {
					for i := range 3 { // 120 bytes of 100
						if n := tryWrite(t, w, a, 40); n != 1 {
							t.Fatalf("round %d: message %d did not go", round, i)
						}
					}
					if n := tryWrite(t, w, a, 40); n != 0 {
						t.Fatalf("round %d: a fourth message went", round)
					}
					slots := a.Writable()
					w.Quiesce()
					testkit.WantOpen(t, "Writable", slots)
					ctx, cancel := context.WithTimeout(w.Ctx, 50*time.Millisecond)
					m := text("late")
					if err := a.Send(ctx, m); !errors.Is(err, context.DeadlineExceeded) {
						t.Fatalf("Send without a window: %v", err)
					}
					cancel()
					m.Release()
					w.DrainN(b, 2)
					w.Quiesce()
					testkit.WantOpen(t, "Writable before the queue ran dry", slots)
					w.DrainN(b, 1)
					w.Quiesce()
					select {
					case slot := <-slots:
						slot.Cancel()
					default:
						t.Fatal("all was taken, and Writable does not offer a slot")
					}
				}
				if n := tryWrite(t, w, a, 1000) + tryWrite(t, w, a, 0); n != 1 {
					t.Errorf("%d messages went into a window of 100, the first of 1000 bytes", n)
				}
				w.DrainN(b, 1)
			})
		})
	}
}

// tryWrite sends a message if it can, and has it written.
func tryWrite(t *testing.T, w *world, s *kernel.Stream, n int) int {
	t.Helper()
	m := sized(n, 1)
	err := s.TrySend(m)
	w.Quiesce()
	if err == nil {
		return 1
	}
	m.Release()
	if !errors.Is(err, kernel.ErrWouldBlock) {
		t.Fatal(err)
	}
	return 0
}

// Without a limit of its own the writer has brpc's 2 MiB, and Unlimited is none.
func TestBrpcDefaultWindow(t *testing.T) {
	w := overBrpc(t, nil, nil)
	const size = 64 << 10
	for limit, want := range map[int]int{0: 2 << 20 / size, kernel.Unlimited: 100} {
		a, b := w.Pair(kernel.StreamOptions{SendLimit: limit}, kernel.StreamOptions{InBuffer: kernel.None})
		got := 0
		for range want {
			w.SendMessage(a, sized(size, 1)) // waits for room in the connection's queue
			got++
		}
		m := sized(size, 1)
		err := a.TrySend(m)
		switch {
		case limit == 0 && !errors.Is(err, kernel.ErrWouldBlock), limit == 0 && errors.Is(err, kernel.ErrNoRoom):
			t.Errorf("%d bytes are unread of 2 MiB: %v", got*size, err)
		case limit != 0 && err != nil && !errors.Is(err, kernel.ErrNoRoom):
			t.Errorf("%d bytes are unread, without a limit: %v", got*size, err)
		}
		if err != nil {
			m.Release()
		} else {
			got++
		}
		w.DrainN(b, got)
	}
}

// What streams have queued for the time after their answers takes no room of
// those that have theirs.
func TestBrpcStreamsWithoutAnswerDelayNoOther(t *testing.T) {
	w := overBrpc(t, nil, nil)
	offers := w.Srv.Offers()
	w.Srv.Handle("echo", echo)
	var waiting []*kernel.Stream
	for i := range 10 {
		s := w.Open("undecided")
		sent := 0
		for ; sent < 1<<20; sent += 64 << 10 { // OutQueue, and half of the window
			w.SendMessage(s, sized(64<<10, byte(i)))
		}
		m := sized(1, 1)
		if err := s.TrySend(m); !errors.Is(err, kernel.ErrWouldBlock) {
			t.Fatalf("stream %d: OutQueue is full, and TrySend gives %v", i, err)
		}
		m.Release()
		waiting = append(waiting, s)
	}
	s := w.Open("echo")
	for i := range 100 {
		w.Send(s, "%d", i)
		w.Want(s, "%d", i)
	}
	if err := s.Close(w.Ctx); err != nil {
		t.Error(err)
	}
	for range waiting {
		b, err := (<-offers).Accept(pool.Message{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		m, err := b.Receive(w.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		first := m.Bytes()[0]
		m.Release()
		for range 1<<20/(64<<10) - 1 {
			m, err := b.Receive(w.Ctx)
			if err != nil || m.Len() != 64<<10 || m.Bytes()[0] != first {
				t.Fatalf("%d bytes, %v", m.Len(), err)
			}
			m.Release()
		}
		if err := b.Close(w.Ctx); err != nil {
			t.Error(err)
		}
	}
	for _, s := range waiting {
		w.WantEOF(s)
	}
}

// A request longer than the window goes whole with its open, and the window is as
// it was; so is a reply.
func TestBrpcLongRequestsTakeNoWindow(t *testing.T) {
	w := overBrpc(t, nil, &kernel.ClientOptions{Stream: kernel.StreamOptions{SendLimit: 1000}})
	offers := w.Srv.Offers()
	for _, n := range []int{17 << 10, 300 << 10} {
		s, err := w.Client.Open(w.Ctx, "x", &kernel.OpenOptions{Request: sized(n, 'q')})
		if err != nil {
			t.Fatal(err)
		}
		o := <-offers
		m := testkit.RequestOf(t, o)
		if m.Len() != n || o.Unary() {
			t.Fatalf("a request of %d bytes", m.Len())
		}
		m.Release()
		b, err := o.Accept(sized(n, 'r'), &kernel.StreamOptions{SendLimit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		reply, _, err := s.Accepted(w.Ctx)
		if err != nil || reply.Len() != n {
			t.Fatalf("a reply of %d bytes, %v", reply.Len(), err)
		}
		for _, x := range [][2]*kernel.Stream{{s, b}, {b, s}} {
			for range 20 {
				w.SendMessage(x[0], sized(500, 1))
				w.DrainN(x[1], 1)
			}
		}
		reply.Release()
		if err := s.Close(w.Ctx); err != nil {
			t.Error(err)
		}
		w.WantEOF(b)
	}
}

// A stream beyond SenderWindow is reset, and nothing else.
func TestBrpcUnreadBeyondTheCapResetsThatStream(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{SenderWindow: 1 << 20, MaxMessage: 512 << 10}}
	w := overBrpc(t, so, &kernel.ClientOptions{Stream: kernel.StreamOptions{SendLimit: kernel.Unlimited}})
	w.Srv.Handle("echo", echo)
	other := w.Open("echo")
	a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{InBuffer: kernel.None})
	sent := 0
	for ; a.Err() == nil && sent < 1000; sent++ {
		m := sized(100<<10, byte(sent))
		if err := a.Send(w.Ctx, m); err != nil {
			m.Release()
			break
		}
	}
	w.WantDone(b)
	se := wantCode(t, b.Err(), status.ResourceExhausted)
	if se.Remote {
		t.Errorf("%+v", se)
	}
	w.WantErr(a, status.Aborted)
	for i := range (1 << 20) / (100<<10 + overhead) { // what was within it can be read
		m, err := b.Receive(w.Ctx)
		if err != nil || m.Len() != 100<<10 || m.Bytes()[0] != byte(i) {
			t.Fatalf("message %d: %d bytes, %v", i, m.Len(), err)
		}
		m.Release()
	}
	w.WantErr(b, status.ResourceExhausted)
	w.Send(other, "alive")
	w.Want(other, "alive")
	if err := other.Close(w.Ctx); err != nil {
		t.Error(err)
	}
}

// However many streams are stuck, a connection holds four times SenderWindow, and
// the streams that are read go on: those that nobody reads are reset.
func TestBrpcStuckStreamsAreEvicted(t *testing.T) {
	const most = 4 << 20
	so := &kernel.ServerOptions{Limits: kernel.Limits{SenderWindow: most / 4, MaxMessage: 512 << 10}}
	w := overBrpc(t, so, nil)
	w.Srv.Handle("echo", echo)
	busy := w.Open("echo")
	var as, bs []*kernel.Stream
	for i := range 30 {
		a, b := w.Pair(kernel.StreamOptions{SendLimit: 500 << 10}, kernel.StreamOptions{InBuffer: kernel.None})
		as, bs = append(as, a), append(bs, b)
		for tries := 0; tries < 8; tries++ {
			m := sized(64<<10, byte(i))
			if err := a.Send(w.Ctx, m); err != nil { // reset in the middle of it
				m.Release()
				break
			}
		}
		for range 4 {
			w.SendMessage(busy, sized(100<<10, 7))
			w.DrainN(busy, 1)
		}
		w.Eventually("the bytes that are held to be few", func() bool { // without the echo that is on its way
			return unreadOf(w.Srv.Conns()[0]) <= most+128<<10
		})
	}
	for range 20 { // the streams' first data comes a little behind their answer
		w.SendMessage(busy, sized(100<<10, 7))
		w.DrainN(busy, 1)
		time.Sleep(settle / 5)
	}
	reset := 0
	for i, b := range bs {
		if b.Err() == nil {
			continue
		}
		reset++
		wantCode(t, b.Err(), status.ResourceExhausted)
		w.WantErr(as[i], status.Aborted)
	}
	// 30 of them have 512 KiB each, and there is room for eight.
	if reset < 20 || reset > 26 {
		t.Errorf("%d of %d were reset", reset, len(bs))
	}
	if err := busy.Close(w.Ctx); err != nil {
		t.Error(err)
	}
}

// An offer whose opener has given it up can be accepted, for the server can't know;
// the stream is reset at once, and nothing is left.
func TestBrpcACanceledOfferIsResetWhenItIsAccepted(t *testing.T) {
	w := overBrpc(t, nil, nil)
	w.AskOffers()
	for _, how := range []string{"accepted", "rejected"} {
		s := w.Open("x")
		w.Send(s, "never written")
		o := w.Offer()
		s.Abort(status.Aborted, "changed my mind")
		if _, _, err := s.Accepted(w.Ctx); err == nil {
			t.Error("an aborted stream was accepted")
		}
		if how == "rejected" {
			o.Reject(&status.HandlerError{Code: status.NotFound})
			continue
		}
		b, err := o.Accept(pool.Message{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.WantErr(b, status.Aborted)
		w.WantDone(b)
	}
}

// Only clients open streams.
func TestBrpcServersOpenNoStreams(t *testing.T) {
	var handlers kernel.Handlers
	handlers.Handle("echo", echo)
	w := overBrpc(t, nil, &kernel.ClientOptions{Handlers: &handlers})
	a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	if s, err := b.Conn().Open(w.Ctx, "echo", nil); !errors.Is(err, kernel.ErrNotSupported) {
		t.Errorf("Open: %v, %v", s, err)
	}
	m := text("x")
	if _, err := b.Conn().Call(w.Ctx, "echo", m, nil); !errors.Is(err, kernel.ErrNotSupported) {
		t.Errorf("Call: %v", err)
	}
	m.Release()
	w.Send(a, "on")
	w.Want(b, "on")
}

// The streams of a request have one word for whether the opener reads: it reads
// all of them if it reads one, and drops what comes on the others.
func TestBrpcStreamsOfOneRequestShareTheirOptions(t *testing.T) {
	w := overBrpc(t, nil, nil)
	w.AskOffers()
	for _, deaf := range []bool{false, true} {
		as, err := w.Client.OpenN(w.Ctx, "many", nil, kernel.StreamOptions{NoReceive: deaf}, kernel.StreamOptions{NoReceive: true})
		if err != nil {
			t.Fatal(err)
		}
		bs, err := w.Offer().AcceptAll(pool.Message{}, &kernel.StreamOptions{SendLimit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range bs {
			m := text("x")
			if err := b.Send(w.Ctx, m); errors.Is(err, kernel.ErrNotReadable) != deaf || (err != nil) != deaf {
				t.Errorf("deaf %v: %v", deaf, err)
			}
			if deaf {
				m.Release()
			}
		}
		if !deaf {
			w.Want(as[0], "x")
			for range 50 { // dropped, and reported
				w.SendMessage(bs[1], sized(100, 1))
			}
		}
		w.Send(as[1], "y")
		w.Want(bs[1], "y")
		w.Cleanup(append(as, bs...)...)
	}
}

// The further streams of a request may end in order while the answer with its long
// reply is still being written: what was sent on them arrives, and then their end.
func TestBrpcStreamsOfOneRequestEndBehindTheAnswer(t *testing.T) {
	w := overBrpc(t, nil, nil)
	w.AskOffers()
	each := make([]kernel.StreamOptions, 8)
	for range 10 {
		as, err := w.Client.OpenN(w.Ctx, "many", nil, each...)
		if err != nil {
			t.Fatal(err)
		}
		bs, err := w.Offer().AcceptAll(sized(1<<20, 1), nil)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i, b := range bs[1:] {
			wg.Go(func() {
				w.Send(b, "from %d", i)
				if err := b.Close(w.Ctx); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		}
		for i, a := range as[1:] {
			w.Want(a, "from %d", i)
			w.WantEOF(a)
			w.WantDone(a)
		}
		wg.Wait()
		reply, _, err := as[0].Accepted(w.Ctx)
		if err != nil || reply.Len() != 1<<20 {
			t.Errorf("a reply of %d bytes, %v", reply.Len(), err)
		}
		reply.Release()
		w.Cleanup(as[0], bs[0])
	}
}

// A name without a slash is a method without a service, and comes as it went.
func TestBrpcNames(t *testing.T) {
	w := overBrpc(t, nil, nil)
	for _, name := range []string{"echo", "a/b", "pkg.Service/Method", "a/b/c", "#7", "x/"} {
		w.Srv.Handle(name, func(ctx context.Context, s *kernel.Stream) error {
			return s.Send(ctx, text("%s", s.Method()))
		})
		w.Call(name, "", name)
		s := w.Open(name)
		w.Want(s, "%s", name)
		_ = s.Close(w.Ctx)
	}
}
