package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A readGate holds back what a client reads of its connections.
type readGate struct {
	mu   sync.Mutex
	free chan struct{} // closed while reads pass
}

func newReadGate() *readGate {
	g := &readGate{free: make(chan struct{})}
	close(g.free)
	return g
}

func (g *readGate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free = make(chan struct{})
}

func (g *readGate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.free:
	default:
		close(g.free)
	}
}

func (g *readGate) wait() {
	g.mu.Lock()
	free := g.free
	g.mu.Unlock()
	<-free
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

func (g *readGate) dial(below dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := below(ctx, network, addr)
		return &gatedReads{c, g}, err
	}
}

type gatedReads struct {
	net.Conn
	g *readGate
}

func (c *gatedReads) Read(p []byte) (int, error) {
	c.g.wait()
	n, err := c.Conn.Read(p)
	c.g.wait() // it may have been closed meanwhile
	return n, err
}

// starter is a transport of the server's behind which the client reads through the gate.
func (g *readGate) starter(name string) starter {
	return func(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
		t.Helper()
		s, c := *so, *co
		c.Dial = g.dial((&net.Dialer{}).DialContext)
		t.Cleanup(g.open)
		switch name {
		case "netconn":
			return serve(t, &s, &c, testkit.PlainListener{Listener: listen(t)})
		case "tls":
			s.TLS, c.TLS = certificates()
		case "pipe":
			return g.inMemory(t, &s, &c)
		}
		return serve(t, &s, &c, listen(t))
	}
}

func (g *readGate) inMemory(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
	t.Helper()
	srv := must[*kernel.Server](t)(kernel.NewServer(so))
	ln := kerneltest.Listen()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	co.Dial = g.dial(ln.Dial)
	client := must[*kernel.Client](t)(kernel.Dial(context.Background(), kerneltest.Target, co))
	t.Cleanup(func() {
		g.open()
		_ = client.Close()
		_ = srv.Close()
		<-served
	})
	return srv, client
}

// blocked waits until s is blocked on what, and returns its figures.
func (w *world) blocked(s *kernel.Stream, what kernel.BlockedOn) (i kernel.StreamInfo) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("a stream that is blocked on %q", what), func() bool {
		i = s.Snapshot()
		return i.BlockedOn == what
	}, func() string { return fmt.Sprintf("%+v", i) })
	return i
}

func TestSnapshotOfCreditAndReader(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 2048}} // so that a window begins with 4 KiB
	overNative(t, so, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{InBuffer: kernel.None, Window: 4 << 10})
		if i := a.Snapshot(); i.BlockedOn != kernel.BlockedOnNothing || i.SendGranted != 4<<10 || i.SendUsed != 0 || !i.Opener || i.Latency <= 0 || i.State != "open" {
			t.Errorf("before: %+v", i)
		}
		n := tryAll(t, a, 96) // 128 bytes of credit
		if n != 32 {
			t.Fatalf("%d messages were sent", n)
		}
		sent := make(chan error, 1)
		go func() { sent <- a.Send(w.Ctx, sized(96, 1)) }()
		i := w.blocked(a, kernel.BlockedOnStreamCredit)
		if i.SendUsed != i.SendGranted || i.SendUsed != 4<<10 {
			t.Errorf("the sender: %+v", i)
		}
		j := w.blocked(b, kernel.BlockedOnReader)
		w.Eventually("all to arrive", func() bool { j = b.Snapshot(); return j.MessagesReceived == 32 })
		if j.MailboxMessages != 32 || j.MailboxBytes != 32*96 || j.BytesReceived != 32*96 || j.RecvUsed != 4<<10 || j.RecvGranted != 4<<10 || j.Opener {
			t.Errorf("the receiver: %+v", j)
		}
		if i = a.Snapshot(); i.MessagesSent != 32 || i.BytesSent != 32*96 || i.QueuedMessages != 0 {
			t.Errorf("the sender, after that: %+v", i)
		}
		for range 16 {
			m := must[pool.Message](t)(b.Receive(w.Ctx))
			m.Release()
		}
		ok(t, <-sent)
		w.Eventually("the sender to be free", func() bool { return a.Snapshot().BlockedOn == kernel.BlockedOnNothing })
		w.DrainN(b, 17)
		if j = b.Snapshot(); j.BlockedOn != kernel.BlockedOnNothing || j.MailboxMessages != 0 || j.MailboxBytes != 0 || j.MessagesReceived != 33 {
			t.Errorf("the receiver, after that: %+v", j)
		}
	})
}

// What was accepted and has no credit is blocked too, and so is who waits for a slot, or has
// none in Out.
func TestSnapshotOfAcceptedMessages(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		for name, send := range map[string]func(s *kernel.Stream){
			"TrySend":  func(s *kernel.Stream) { ok(t, s.TrySend(sized(200<<10, 1))) },
			"Out":      func(s *kernel.Stream) { s.Out() <- sized(200<<10, 1) },
			"Writable": func(s *kernel.Stream) { ok(t, (<-s.Writable()).Send(sized(200<<10, 1))) },
		} {
			// The first message returns its credit as it arrives, the second waits for it.
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{Window: 4 << 10, InBuffer: kernel.None})
			send(a)
			w.Eventually("the first to arrive", func() bool { return b.Snapshot().MailboxMessages == 1 })
			send(a)
			i := w.blocked(a, kernel.BlockedOnStreamCredit)
			w.Eventually("a piece to be written", func() bool {
				i = a.Snapshot()
				return i.QueuedMessages == 1 && i.BytesSent > 200<<10 && i.BytesSent+uint64(i.QueuedBytes) == 400<<10 && i.SendGranted < i.SendUsed
			}, func() string { return fmt.Sprintf("%s: %+v", name, i) })
			if i.MessagesSent != 1 {
				t.Errorf("%s: %+v", name, i)
			}
			w.DrainN(b, 2)
			w.Eventually("the sender to be free", func() bool { i = a.Snapshot(); return i.BlockedOn == kernel.BlockedOnNothing },
				func() string { return fmt.Sprintf("%s: %+v", name, i) })
			if j := b.Snapshot(); j.MessagesReceived != 2 || j.BytesReceived != 400<<10 || j.MailboxBytes != 0 {
				t.Errorf("%s, received: %+v", name, j)
			}
		}
	})
}

// Messages in In's buffer are taken, what the goroutine behind In or Batches has in hand is
// not.
func TestSnapshotOfMailboxBehindChannels(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		for _, c := range []struct {
			channel string
			use     func(s *kernel.Stream)
			mailbox int
		}{
			{"In", func(s *kernel.Stream) { s.In() }, 16},
			{"Batches", func(s *kernel.Stream) { s.Batches() }, 20},
		} {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{InBuffer: 4})
			c.use(b)
			for range 20 {
				w.Send(a, "ten bytes.")
			}
			var i kernel.StreamInfo
			w.Eventually("all to arrive", func() bool {
				i = b.Snapshot()
				return i.MessagesReceived == 20 && i.MailboxMessages == c.mailbox
			}, func() string { return fmt.Sprintf("%s: %+v", c.channel, i) })
			if i.MailboxBytes != 10*c.mailbox || i.BlockedOn != kernel.BlockedOnReader {
				t.Errorf("%s: %+v", c.channel, i)
			}
		}
	})
}

func TestSnapshotOfConnCredit(t *testing.T) {
	for _, tr := range testkit.Transports {
		t.Run(tr.Name, func(t *testing.T) {
			g := newReadGate()
			w := newWorld(t, g.starter(tr.Name), &kernel.ServerOptions{},
				&kernel.ClientOptions{Limits: kernel.Limits{ConnWindow: 4 << 10}}) // 32 times the window of a stream
			var as, bs []*kernel.Stream
			for range 34 {
				a, b := w.Pair(kernel.StreamOptions{InBuffer: kernel.None, Window: 128}, kernel.StreamOptions{})
				as, bs = append(as, a), append(bs, b)
			}
			g.close()
			ok(t, bs[0].TrySend(sized(50, 1))) // 82 bytes of credit
			for _, b := range bs[1:32] {
				ok(t, b.TrySend(sized(96, 1))) // 128
			}
			last, waits := bs[32], bs[33]
			w.Eventually("the others to be written", func() bool { return last.Conn().Snapshot().Queued == 0 })
			ok(t, last.TrySend(sized(68, 1)))
			i := w.blocked(last, kernel.BlockedOnConnCredit)
			if i.SendGranted-i.SendUsed != 28 || i.QueuedMessages != 1 {
				t.Errorf("a stream with an accepted message: %+v", i)
			}
			if c := last.Conn().Snapshot(); c.BlockedOn != kernel.BlockedOnConnCredit || c.SendUsed != c.SendGranted || c.SendWindow != 4<<10 || c.Streams != 34 {
				t.Errorf("the connection: %+v", c)
			}
			m := sized(96, 1)
			if err := waits.TrySend(m); !errors.Is(err, kernel.ErrNoRoom) {
				t.Fatalf("another stream sends: %v", err)
			}
			sent := make(chan error, 1)
			go func() { sent <- waits.Send(w.Ctx, m) }()
			if i := w.blocked(waits, kernel.BlockedOnConnCredit); i.SendUsed != 0 {
				t.Errorf("a stream whose sender waits: %+v", i)
			}
			g.open()
			for _, a := range as {
				go drain(a)
			}
			ok(t, <-sent)
			w.blocked(last, kernel.BlockedOnNothing)
			w.blocked(waits, kernel.BlockedOnNothing)
			w.Eventually("the connection to be free", func() bool {
				return last.Conn().Snapshot().BlockedOn == kernel.BlockedOnNothing
			})
			for _, b := range bs {
				b.Abort(status.Cancelled, "over")
			}
		})
	}
}

func TestSnapshotOfSocketAndQueue(t *testing.T) {
	for _, tr := range testkit.Transports {
		for name, inFlight := range map[string]int{"in flight": 0, "full socket": 1 << 30} {
			t.Run(tr.Name+"/"+name, func(t *testing.T) {
				g := newReadGate()
				w := newWorld(t, g.starter(tr.Name),
					&kernel.ServerOptions{Limits: kernel.Limits{InFlight: inFlight}},
					&kernel.ClientOptions{Limits: kernel.Limits{ConnWindow: 256 << 20, StreamWindow: 64 << 20}})
				large := kernel.StreamOptions{Window: 32 << 20}
				a1, b1 := w.Pair(large, kernel.StreamOptions{})
				a2, b2 := w.Pair(large, kernel.StreamOptions{})
				g.close()
				fillSocket(w, b1)
				sent := make(chan error, 1)
				go func() {
					var err error
					for i := 0; i < 32 && err == nil; i++ {
						err = b2.Send(w.Ctx, sized(64<<10, 1))
					}
					sent <- err
				}()
				w.blocked(b2, kernel.BlockedOnQueue)
				if i := b1.Snapshot(); i.BlockedOn != kernel.BlockedOnSocket || i.QueuedMessages == 0 || i.SendUsed >= i.SendGranted {
					t.Errorf("the stream whose messages wait: %+v", i)
				}
				if c := b1.Conn().Snapshot(); c.BlockedOn != kernel.BlockedOnSocket || c.Queued < 1<<20 || c.Streams != 2 {
					t.Errorf("the connection: %+v", c)
				}
				g.open()
				go drain(a1)
				go drain(a2)
				ok(t, <-sent)
				w.blocked(b1, kernel.BlockedOnNothing)
				w.blocked(b2, kernel.BlockedOnNothing)
				w.Eventually("the connection to be free", func() bool {
					return b1.Conn().Snapshot().BlockedOn == kernel.BlockedOnNothing
				})
				a1.Abort(status.Cancelled, "over")
				a2.Abort(status.Cancelled, "over")
			})
		}
	}
}

// fillSocket sends on s, whose peer does not read, until what it sends can't be written.
func fillSocket(w *world, s *kernel.Stream) {
	w.T.Helper()
	for stuck := false; !stuck; {
		ok(w.T, s.TrySend(sized(64<<10, 1)))
		var i kernel.StreamInfo
		w.Eventually("a message to be written or stuck", func() bool {
			i = s.Snapshot() // a write that goes on is blocked on the socket for a moment, too
			stuck = i.BlockedOn == kernel.BlockedOnSocket && i.BlockedFor > 100*time.Millisecond
			return stuck || i.QueuedMessages == 0
		}, func() string { return fmt.Sprintf("%+v", i) })
	}
}

// In a bubble times are exact.
func TestSnapshotTimes(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		const second = time.Second
		ctx, cancel := context.WithTimeout(w.Ctx, time.Hour)
		defer cancel()
		offers := w.Srv.Offers()
		a := must[*kernel.Stream](t)(w.Client.Open(ctx, "pair", nil))
		o := <-offers
		time.Sleep(second)
		if i := a.Snapshot(); i.State != "opening" || i.Latency != 0 || i.Age != second || i.Idle != second || i.DeadlineLeft != time.Hour-second || i.ID != a.ID() || i.Method != "pair" {
			t.Errorf("while it opens: %+v", i)
		}
		if i := o.Stream(0).Snapshot(); i.State != "opening" || i.Age != second || i.DeadlineLeft != time.Hour-second {
			t.Errorf("while it opens, the other side: %+v", i)
		}
		b := must[*kernel.Stream](t)(o.Accept(pool.Message{}, &kernel.StreamOptions{InBuffer: kernel.None}))
		synctest.Wait()
		for _, s := range []*kernel.Stream{a, b} {
			if i := s.Snapshot(); i.State != "open" || i.Latency != second {
				t.Errorf("accepted: %+v", i)
			}
		}
		tryAll(t, a, 1000)
		sends, cancelSend := context.WithCancel(w.Ctx)
		defer cancelSend()
		m := sized(1, 1)
		sent := make(chan error, 1)
		go func() { sent <- a.Send(sends, m) }()
		synctest.Wait()
		time.Sleep(5 * second)
		i, j := a.Snapshot(), b.Snapshot()
		if i.BlockedOn != kernel.BlockedOnStreamCredit || i.BlockedFor != 5*second || i.Idle != 6*second || i.Age != 6*second {
			t.Errorf("a sender that waits: %+v", i)
		}
		if j.BlockedOn != kernel.BlockedOnReader || j.BlockedFor != 5*second || j.Idle != 5*second {
			t.Errorf("a reader that does not read: %+v", j)
		}
		w.DrainN(b, 1)
		if j := b.Snapshot(); j.BlockedOn != kernel.BlockedOnReader || j.BlockedFor != 0 {
			t.Errorf("a reader that has just read: %+v", j)
		}
		time.Sleep(second)
		if j := b.Snapshot(); j.BlockedFor != second {
			t.Errorf("a reader that reads no more: %+v", j)
		}
		cancelSend()
		isErr(t, "the sender", <-sent, context.Canceled)
		m.Release()
		if i := a.Snapshot(); i.BlockedOn == kernel.BlockedOnStreamCredit && i.QueuedMessages == 0 {
			t.Errorf("nobody waits any more: %+v", i)
		}
		a.Abort(status.Aborted, "over")
		synctest.Wait()
		time.Sleep(time.Minute)
		for _, s := range []*kernel.Stream{a, b} {
			if i := s.Snapshot(); i.State != "closed" || i.Code != status.Aborted || i.Age != 7*second || i.DeadlineLeft != 0 {
				t.Errorf("over: %+v", i)
			}
		}
		drain(b)
	})
}

func TestSnapshotStates(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		states := func(ofA, ofB string) {
			t.Helper()
			synctest.Wait()
			if i, j := a.Snapshot(), b.Snapshot(); i.State != ofA || j.State != ofB {
				t.Errorf("%q and %q, want %q and %q", i.State, j.State, ofA, ofB)
			}
		}
		states("open", "open")
		ok(t, a.CloseSend())
		states("half-closed (local)", "half-closed (remote)")
		w.WantEOF(b)
		states("half-closed (local)", "half-closed (remote)")
		w.Send(b, "unread")
		ok(t, b.CloseSend())
		states("closing", "closing")
		w.Want(a, "unread")
		states("closed", "closed")
		w.WantEOF(a)

		a, b = w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		b.Finish(&status.HandlerError{Code: status.NotFound, Reason: "none"})
		synctest.Wait()
		if i := b.Snapshot(); i.Code != status.NotFound {
			t.Errorf("the side that ends it: %+v", i)
		}
		w.WantErr(a, status.NotFound)
		if i := a.Snapshot(); i.Code != status.NotFound {
			t.Errorf("the other side: %+v", i)
		}
		ok(t, a.CloseSend())
		states("closed", "closed")
	})
}

func TestSnapshotOfConn(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		k := w.Client.Conns()[0]
		time.Sleep(3 * time.Second)
		synctest.Wait()
		i := k.Snapshot()
		if i.State != "open" || !i.Client || i.TLS || i.Protocol != "sluice" || i.Loop != -1 || i.Peer != "pipe" || i.Age != 3*time.Second || i.Streams != 0 {
			t.Errorf("at first: %+v", i)
		}
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		for range 10 {
			w.Send(a, "ten bytes.")
		}
		w.SendMessage(a, sized(100<<10, 1))
		w.DrainN(b, 11)
		synctest.Wait()
		i = k.Snapshot()
		j := b.Conn().Snapshot()
		if i.Streams != 1 || i.MessagesSent != 11 || j.MessagesReceived != 11 || i.MessagesReceived != 0 || j.MessagesSent != 0 {
			t.Errorf("after 11 messages: %+v, %+v", i, j)
		}
		if i.BytesSent < 100<<10 || i.BytesSent != j.BytesReceived || i.BytesReceived != j.BytesSent || i.Idle != 0 {
			t.Errorf("after 11 messages: %+v, %+v", i, j)
		}
		if i.SendUsed != j.RecvUsed || i.SendUsed != 100<<10+100+11*32 || i.SendGranted != j.RecvGranted {
			t.Errorf("credit: %+v, %+v", i, j)
		}
		a.Abort(status.Cancelled, "over")
		synctest.Wait()
		_ = k.Close()
		synctest.Wait()
		time.Sleep(time.Second)
		if i := k.Snapshot(); i.State != "closed" || i.Age != 3*time.Second || i.Streams != 0 {
			t.Errorf("closed: %+v", i)
		}
	})
}

func TestStreamsOfConn(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		c, _ := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		for s := range map[*kernel.Stream]bool{a: true, b: true, c: true} {
			if got := s.Conn().Stream(s.ID()); got != s {
				t.Errorf("stream %d is %v", s.ID(), got)
			}
		}
		if s := a.Conn().Stream(1000); s != nil {
			t.Errorf("there is a stream 1000: %+v", s.Snapshot())
		}
		all := map[*kernel.Stream]int{}
		for s := range a.Conn().EachStream {
			all[s]++
		}
		if len(all) != 2 || all[a] != 1 || all[c] != 1 {
			t.Errorf("the client has %v", all)
		}
		n := 0
		for range a.Conn().EachStream {
			n++
			break
		}
		if n != 1 {
			t.Errorf("%d streams after a break", n)
		}
		b.Conn().Stream(a.ID()).Abort(status.Aborted, "by its number")
		w.WantErr(a, status.Aborted)
		w.Eventually("the stream to be forgotten", func() bool { return a.Conn().Stream(a.ID()) == nil })
	})
}

// A stream that is not on the wire yet can be seen.
func TestStreamsThatWaitForTheirNumber(t *testing.T) {
	g := newReadGate()
	w := newWorld(t, g.starter("loops"), &kernel.ServerOptions{Limits: kernel.Limits{InFlight: 1 << 30}},
		&kernel.ClientOptions{Limits: kernel.Limits{ConnWindow: 256 << 20, StreamWindow: 64 << 20}})
	a, b := w.Pair(kernel.StreamOptions{Window: 32 << 20}, kernel.StreamOptions{})
	g.close()
	fillSocket(w, b)
	s := must[*kernel.Stream](t)(b.Conn().Open(w.Ctx, "new", nil))
	all := map[*kernel.Stream]bool{}
	for s := range b.Conn().EachStream {
		all[s] = true
	}
	if i := s.Snapshot(); i.ID != 0 || i.State != "opening" || len(all) != 2 || !all[s] || !all[b] {
		t.Errorf("%d streams, the new one: %+v", len(all), i)
	}
	g.open()
	go drain(a)
	w.blocked(b, kernel.BlockedOnNothing)
	w.WantErr(s, status.Unimplemented)
	a.Abort(status.Cancelled, "over")
}

// Looking is safe at any time, and what is seen is possible.
func TestSnapshotAtAnyTime(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		w.Srv.Handle("slow", func(ctx context.Context, s *kernel.Stream) error {
			m, err := s.Receive(ctx)
			if err != nil {
				return err
			}
			m.Release()
			return &status.HandlerError{Code: status.Aborted}
		})
		stop := make(chan struct{})
		var looking, working sync.WaitGroup
		for range 2 {
			looking.Go(func() {
				for seen := 0; ; seen++ {
					lookAtAll(t, w)
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		for n := range 4 {
			working.Go(func() {
				for i := range 40 {
					useStream(w, []string{"echo", "slow"}[i%2], 1+(n+i)%3)
				}
			})
		}
		working.Wait()
		close(stop)
		looking.Wait()
	})
}

// useStream opens a stream, has it blocked for a moment, and ends it in one way or another.
func useStream(w *world, method string, how int) {
	s, err := w.Client.Open(w.Ctx, method, nil)
	if err != nil {
		w.T.Error(err)
		return
	}
	ctx, cancel := context.WithCancel(w.Ctx)
	var sending sync.WaitGroup
	sending.Go(func() {
		for range 20 {
			m := sized(10_000, 1)
			if err := s.Send(ctx, m); err != nil {
				m.Release()
				return
			}
		}
		_ = s.CloseSend()
	})
	switch how {
	case 1:
		drain(s)
	case 2:
		for range 3 {
			if m, err := s.Receive(w.Ctx); err == nil {
				m.Release()
			}
		}
	}
	cancel()
	s.Abort(status.Cancelled, "over")
	sending.Wait()
	drain(s)
	if i := s.Snapshot(); i.State != "closed" {
		w.T.Errorf("over: %+v", i)
	}
}

func lookAtAll(t *testing.T, w *world) {
	for _, c := range append(w.Client.Conns(), w.Srv.Conns()...) {
		if i := c.Snapshot(); i.Age < i.Idle || i.BlockedFor < 0 || i.Unread < 0 || i.Queued < 0 && i.Queued < -1<<20 {
			t.Errorf("impossible: %+v", i)
		}
		for s := range c.EachStream {
			i := s.Snapshot()
			if i.Method == "" || i.State == "" || i.MailboxMessages < 0 || uint64(i.MailboxMessages) > i.MessagesReceived || i.MailboxBytes < 0 ||
				uint64(i.MailboxBytes) > i.BytesReceived || i.QueuedBytes < 0 || i.QueuedMessages < 0 || i.RecvUsed > i.RecvGranted ||
				i.Age < i.Idle || i.BlockedFor < 0 || i.BlockedFor > i.Age+time.Second {
				t.Errorf("impossible: %+v", i)
			}
		}
	}
}

func TestLoops(t *testing.T) {
	w := newWorld(t, loops, nil, nil)
	w.Eventually("the server to have the connection", func() bool { return len(w.Srv.Conns()) == 1 })
	k := w.Srv.Conns()[0]
	i := k.Snapshot()
	if runtime.GOOS != "linux" {
		if ls := w.Srv.Loops(); len(ls) != 0 || i.Loop != -1 {
			t.Errorf("%+v, the connection is on %d", ls, i.Loop)
		}
		return
	}
	var ls []conn.LoopInfo
	n := 0
	w.Eventually("the loops to have this world's connections alone", func() bool {
		n, i = 0, k.Snapshot()
		ls = w.Srv.Loops()
		for _, l := range ls {
			n += l.Conns
		}
		return n == 2 && i.Loop >= 0
	})
	for _, l := range ls {
		if l.Lag <= 0 || l.Lag > 10*time.Second || l.Conns > 0 && l.Wakeups == 0 {
			t.Errorf("%+v", l)
		}
	}
	if i.Loop >= len(ls) || ls[i.Loop].Conns == 0 {
		t.Errorf("%d connections on %+v, one on %d", n, ls, i.Loop)
	}
	w.Srv.Handle("echo", echo)
	s := w.Open("echo")
	for range 100 {
		w.Send(s, "ping")
		w.Want(s, "ping")
	}
	if after := w.Srv.Loops()[i.Loop]; after.Wakeups < ls[i.Loop].Wakeups+100 {
		t.Errorf("before %+v, after 100 messages %+v", ls[i.Loop], after)
	}
	ok(t, s.CloseSend())
	w.WantEOF(s)
	_ = w.Client.Close()
	_ = w.Srv.Close()
	w.Eventually("the loops to stop", func() bool { return len(w.Srv.Loops()) == 0 })
}

// Over every protocol a sender that waits is blocked on something, and the reader is why.
func TestSnapshotOverEveryProtocol(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{InBuffer: kernel.None})
		sent := make(chan int, 1)
		go func() {
			n := 0
			for ; n < 4000; n++ {
				m := sized(1000, 1)
				if err := a.Send(w.Ctx, m); err != nil {
					m.Release()
					t.Error(err)
					break
				}
			}
			sent <- n
		}()
		var i, j kernel.StreamInfo
		w.Eventually("the sender to be blocked", func() bool {
			i, j = a.Snapshot(), b.Snapshot()
			return i.BlockedOn == kernel.BlockedOnStreamCredit && j.BlockedOn == kernel.BlockedOnReader &&
				i.MessagesSent == j.MessagesReceived && i.BlockedFor > 20*time.Millisecond
		}, func() string { return fmt.Sprintf("%+v and %+v", i, j) })
		if j.MailboxMessages != int(j.MessagesReceived) || j.MailboxBytes != 1000*j.MailboxMessages || i.BytesSent != j.BytesReceived {
			t.Errorf("%+v and %+v", i, j)
		}
		w.DrainN(b, 4000)
		if n := <-sent; n != 4000 {
			t.Errorf("%d messages were sent", n)
		}
		w.blocked(a, kernel.BlockedOnNothing)
		w.blocked(b, kernel.BlockedOnNothing)
		if i, j := a.Snapshot(), b.Snapshot(); i.MessagesSent != 4000 || j.MessagesReceived != 4000 || j.BytesReceived != 4000*1000 || j.MailboxBytes != 0 {
			t.Errorf("after that: %+v and %+v", i, j)
		}
	})
}

// In a bubble it is exact for how long a stream is blocked on its connection, also where the
// connection was blocked before the stream had anything to send.
func TestBlockedForOnTheConnection(t *testing.T) {
	const second = time.Second
	synctest.Test(t, func(t *testing.T) {
		g := newReadGate()
		w := newWorld(t, g.starter("pipe"), &kernel.ServerOptions{Limits: kernel.Limits{OutQueue: 600 << 10}},
			&kernel.ClientOptions{Limits: kernel.Limits{ConnWindow: 256 << 20, StreamWindow: 64 << 20}})
		w.Bubble, w.Ctx = true, context.Background()
		large := kernel.StreamOptions{Window: 32 << 20}
		a1, b1 := w.Pair(large, kernel.StreamOptions{})
		a2, b2 := w.Pair(large, kernel.StreamOptions{})
		a3, b3 := w.Pair(large, kernel.StreamOptions{})
		g.close()
		for b1.Snapshot().BlockedOn == kernel.BlockedOnNothing {
			ok(t, b1.TrySend(sized(64<<10, 1)))
			synctest.Wait()
		}
		time.Sleep(5 * second)
		ok(t, b2.TrySend(sized(300<<10, 1)))
		ok(t, b2.TrySend(sized(300<<10, 1)))
		sent := make(chan error, 1)
		go func() { sent <- (<-b3.Writable()).Send(sized(1, 1)) }()
		synctest.Wait()
		time.Sleep(3 * second)
		for _, x := range []struct {
			s   *kernel.Stream
			on  kernel.BlockedOn
			dur time.Duration
		}{
			{b1, kernel.BlockedOnSocket, 8 * second},
			{b2, kernel.BlockedOnSocket, 3 * second},
			{b3, kernel.BlockedOnQueue, 3 * second},
		} {
			if i := x.s.Snapshot(); i.BlockedOn != x.on || i.BlockedFor != x.dur {
				t.Errorf("want %q for %v: %+v", x.on, x.dur, i)
			}
		}
		if c := b1.Conn().Snapshot(); c.BlockedOn != kernel.BlockedOnSocket || c.BlockedFor != 8*second {
			t.Errorf("the connection: %+v", c)
		}
		g.open()
		for _, a := range []*kernel.Stream{a1, a2, a3} {
			go drain(a)
		}
		ok(t, <-sent)
		synctest.Wait()
		for _, s := range []*kernel.Stream{b1, b2, b3} {
			if i := s.Snapshot(); i.BlockedOn != kernel.BlockedOnNothing || i.BlockedFor != 0 {
				t.Errorf("all was read: %+v", i)
			}
		}
		for _, a := range []*kernel.Stream{a1, a2, a3} {
			a.Abort(status.Cancelled, "over")
		}
	})
}

// Nobody can send by a slot, and nothing else waits.
func TestBlockedForBehindSlots(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 2048}} // so that a window begins with 4 KiB
	inBubble(t, so, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{InBuffer: kernel.None, Window: 4 << 10})
		if n := slotAll(t, a, 96); n != 32 {
			t.Fatalf("%d messages were sent", n)
		}
		synctest.Wait()
		time.Sleep(2 * time.Second)
		if i := a.Snapshot(); i.BlockedOn != kernel.BlockedOnStreamCredit || i.BlockedFor != 2*time.Second || i.QueuedMessages != 0 {
			t.Errorf("without credit: %+v", i)
		}
		w.DrainN(b, 32)
		synctest.Wait()
		if i := a.Snapshot(); i.BlockedOn != kernel.BlockedOnNothing {
			t.Errorf("with credit: %+v", i)
		}
	})
}

// A reader is slow since it has last taken something, as far as an arrival has shown that.
func TestBlockedForOnTheReader(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{InBuffer: kernel.None})
		blocked := func(want time.Duration) {
			t.Helper()
			synctest.Wait()
			if i := b.Snapshot(); i.BlockedOn != kernel.BlockedOnReader || i.BlockedFor != want {
				t.Errorf("want %v: %+v", want, i)
			}
		}
		w.Send(a, "one")
		w.Send(a, "two")
		synctest.Wait()
		time.Sleep(time.Second)
		w.Send(a, "three") // nothing was taken
		synctest.Wait()
		time.Sleep(time.Second)
		blocked(2 * time.Second)
		w.Want(b, "one")
		time.Sleep(time.Second)
		w.Send(a, "four") // something was
		synctest.Wait()
		time.Sleep(3 * time.Second)
		blocked(3 * time.Second)
		w.DrainN(b, 3)
		synctest.Wait()
		w.Send(a, "five") // the mailbox was empty
		synctest.Wait()
		time.Sleep(time.Second)
		blocked(time.Second)
		w.DrainN(b, 1)
	})
}
