package kernel_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// An end is one end of a stream in a random program.
type end struct {
	s   *kernel.Stream
	out [][2]int // sent: sequence and size
	far *end
	in  int // messages received
}

// program runs a random program on streams of one connection, both ways, and
// checks the credit whenever everything is at rest.
type program struct {
	t       *testing.T
	rnd     *rand.Rand
	tg      *target
	near    *kernel.Conn
	far     *kernel.Conn
	window  int
	parties []*end
	offers  <-chan *kernel.Offer
	trace   []string
}

func (p *program) log(format string, args ...any) {
	p.trace = append(p.trace, fmt.Sprintf(format, args...))
}

// open opens a stream with random windows, from the client.
func (p *program) open() {
	options := func() kernel.StreamOptions {
		o := kernel.StreamOptions{InBuffer: []int{0, kernel.None, 1}[p.rnd.IntN(3)]}
		if p.rnd.IntN(2) == 0 {
			o.Window = 64 << p.rnd.IntN(12)
		}
		if p.rnd.IntN(4) == 0 {
			o.SendLimit = 64 << p.rnd.IntN(12)
		}
		o.NoReceive = p.rnd.IntN(10) == 0
		return o
	}
	a, err := p.near.Open(context.Background(), "random", &kernel.OpenOptions{Stream: options()})
	if err != nil {
		p.t.Fatal(err)
	}
	synctest.Wait()
	offer := <-p.offers
	switch p.rnd.IntN(8) {
	case 0:
		offer.Reject(&status.HandlerError{Code: status.Aborted, Reason: "no"})
		p.log("open, rejected")
		return
	case 1: // data arrives before the answer
		m := sized(p.rnd.IntN(3000), 0)
		if a.TrySend(m) != nil {
			m.Release()
		}
		synctest.Wait()
		offer.Reject(&status.HandlerError{Code: status.Aborted, Reason: "no"})
		p.log("open with data, rejected")
		return
	}
	o := options()
	b, err := offer.Accept(pool.Message{}, &o)
	if err != nil {
		p.t.Fatal(err)
	}
	x, y := &end{s: a}, &end{s: b}
	x.far, y.far = y, x
	p.parties = append(p.parties, x, y)
	p.log("open %d", len(p.parties)/2)
}

// step does one random thing.
func (p *program) step() {
	if len(p.parties) == 0 || p.rnd.IntN(15) == 0 && len(p.parties) < 20 {
		p.open()
		return
	}
	i := p.rnd.IntN(len(p.parties))
	x := p.parties[i]
	switch n := p.rnd.IntN(40); {
	case n < 18:
		for range 1 + p.rnd.IntN(40)/39*p.rnd.IntN(60) { // mostly one, else as many as fill bundles
			size := p.rnd.IntN(1 << p.rnd.IntN(18))
			if n < 6 {
				size = p.rnd.IntN(200)
			}
			if err := p.send(n, x.s, size, byte(len(x.out))); err != nil {
				return
			}
			x.out = append(x.out, [2]int{len(x.out), size})
			p.log("%d sends %d bytes", i, size)
		}
	case n < 34:
		p.receive(i, x)
	case n < 35:
		_ = x.s.CloseSend()
		p.log("%d closes its sending half", i)
	case n < 36:
		x.s.CloseReceive(status.Cancelled)
		p.log("%d closes its receiving half", i)
	case n < 37:
		x.s.Abort(status.Cancelled, "random")
		p.log("%d aborts", i)
	case n < 38:
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(p.rnd.IntN(3))*time.Millisecond)
		_ = x.s.Close(ctx)
		cancel()
		p.log("%d closes", i)
	default:
		synctest.Wait()
		p.checkCredit("in the middle")
	}
}

// send sends a message in one of several ways, without waiting.
func (p *program) send(way int, s *kernel.Stream, size int, b byte) error {
	m := sized(size, b)
	if way < 12 {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		defer m.Release()
		return s.SendCopy(now, m.Bytes())
	}
	err := s.TrySend(m)
	if err != nil {
		m.Release()
	}
	return err
}

// receive takes what there is, or one message of it.
func (p *program) receive(i int, x *end) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Microsecond)
	defer cancel()
	if p.rnd.IntN(2) == 0 {
		ms, err := x.s.ReceiveBatch(ctx)
		for _, m := range ms {
			p.received(i, x, m)
		}
		if err == nil && len(ms) == 0 {
			p.t.Fatalf("%d received no message", i)
		}
		return
	}
	m, err := x.s.Receive(ctx)
	if err != nil {
		return
	}
	defer m.Release()
	p.received(i, x, m.Bytes())
}

func (p *program) received(i int, x *end, m []byte) {
	if x.in >= len(x.far.out) {
		p.t.Fatalf("%d received a message that nobody sent", i)
	}
	if want := x.far.out[x.in]; len(m) != want[1] || len(m) > 0 && m[0] != byte(want[0]) {
		p.t.Fatalf("%d received %d bytes, message %d has %d", i, len(m), want[0], want[1])
	}
	x.in++
	p.log("%d received %d bytes", i, len(m))
}

// checkCredit checks the connection's credit at rest, both ways: what was sent was
// received, and is either unread there or owed, and what is owed is less than
// half the window.
func (p *program) checkCredit(when string) {
	p.t.Helper()
	for _, way := range []struct {
		name         string
		sends, reads *kernel.Conn
	}{{"up", p.near, p.far}, {"down", p.far, p.near}} {
		b := way.sends.Snapshot()
		used := int(b.SendWindow - (b.SendGranted - b.SendUsed)) // sent, and not granted again
		unread := unreadOf(way.reads) - way.reads.Snapshot().Queued - way.reads.Snapshot().Assembled
		if owed := used - unread; owed < 0 || owed >= p.window/2 {
			p.t.Fatalf("%s, %s: %d bytes of credit are out, %d unread: %d are owed of a window of %d\n%q",
				when, way.name, used, unread, owed, p.window, p.trace[max(len(p.trace)-10, 0):])
		}
	}
}

// finish ends every stream and checks that all is back.
func (p *program) finish() {
	p.t.Helper()
	for i, x := range p.parties {
		if p.rnd.IntN(2) == 0 {
			x.s.Abort(status.Cancelled, "over")
			p.log("%d is aborted at the end", i)
			continue
		}
		_ = x.s.CloseSend()
		x.s.CloseReceive(status.OK)
		p.log("%d is closed at the end", i)
	}
	synctest.Wait()
	for _, c := range []*kernel.Conn{p.near, p.far} {
		if b := c.Snapshot(); b.Streams != 0 || b.Queued != 0 || b.Assembled != 0 || b.ExtraWindows != 0 || b.OpenBytes != 0 || b.SendGranted-b.SendUsed != b.SendWindow || unreadOf(c) != 0 {
			p.t.Fatalf("at the end %+v, %d unread\n%q", b, unreadOf(c), p.trace[max(len(p.trace)-20, 0):])
		}
	}
	for _, x := range p.parties {
		drain(x.s) // what arrived before an abort
	}
}

// Whatever two programs do on the streams of a connection, credit is neither lost
// nor made: at rest all that was sent is unread or owed, less than half a window
// is owed, and when the last stream has ended credit equals the window.
func TestCreditIsConserved(t *testing.T) {
	seeds := uint64(150)
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("seed %d", seed)
				}
			}()
			runProgram(t, seed)
		})
		if t.Failed() {
			return
		}
	}
}

func runProgram(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 3))
	l := kernel.Limits{
		MaxStreams: 20, ConnWindow: 4 << 10 << rnd.IntN(10), StreamWindow: 256 << rnd.IntN(10), OutQueue: 1 << (8 + rnd.IntN(12)),
	}
	tg := newTarget(t, true, kernel.ServerOptions{Limits: l})
	client, err := kernel.Dial(context.Background(), tg.Addr, quietClient(&kernel.ClientOptions{Dial: tg.Dial, Limits: l}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	near, err := client.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	p := &program{t: t, rnd: rnd, tg: tg, near: near, far: tg.Srv.Conns()[0], window: l.ConnWindow, offers: tg.Srv.Offers()}
	for range 200 {
		p.step()
	}
	synctest.Wait()
	p.checkCredit("before the end")
	p.finish()
}
