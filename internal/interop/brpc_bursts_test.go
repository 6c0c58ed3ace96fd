package interop

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/kernel"
)

// gated registers a handler of calls that waits until release is closed, and counts those that
// have begun.
func gated(srv *kernel.Server, method string) (begun *atomic.Int64, release chan struct{}) {
	begun, release = &atomic.Int64{}, make(chan struct{})
	srv.Handle(method, func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		begun.Add(1)
		select {
		case <-release:
		case <-ctx.Done():
			m.Release()
			return ctx.Err()
		}
		return s.Send(ctx, m)
	})
	return begun, release
}

// sayCalls makes n calls of a method, with ids from first on.
func (p *brpcPeer) sayCalls(method string, first int64, n int, a brpcAsk) {
	p.t.Helper()
	var b bytes.Buffer
	for i := range n {
		a.method, a.id = method, first+int64(i)
		b.Write(a.bytes())
	}
	p.send(b.Bytes())
}

// answers are what calls with ids from first on were answered, by error.
func (p *brpcPeer) answers(first int64, n int) map[int64]int {
	p.t.Helper()
	seen, by := map[int64]bool{}, map[int64]int{}
	for _, w := range p.all(func(w *word) bool { return w.magic == "PRPC" }) {
		id := w.num(4)
		if id < first || id >= first+int64(n) {
			continue
		}
		if seen[id] {
			p.t.Errorf("call %d is answered twice", id)
		}
		seen[id] = true
		by[w.errno()]++
	}
	return by
}

// brpc's clients have as many calls in flight on a connection as their programs make. All are
// served: as many as MaxStreams at once, and the others wait. Neither streams that are open nor
// streams that are opened behind them wait for that.
func TestBrpcManyCallsInFlightAreAllServed(t *testing.T) {
	const calls = 20_000
	inBrpcTarget(t, kernel.ServerOptions{Limits: kernel.Limits{MaxMessage: 1 << 20}}, func(tg *target, p *brpcPeer) {
		begun, release := gated(tg.Srv, "gated")
		before, to := p.open("echo")
		p.sayCalls("gated", 1000, calls, brpcAsk{payload: "ask"})
		if n := begun.Load(); n != 1000 {
			t.Errorf("%d calls are served at once, want 1,000", n)
		}
		p.send(strmData(to, before, "beside"))
		if got := p.texts(before); got != `["beside"]` {
			t.Errorf("a stream that was open heard %s", got)
		}
		behind, to := p.open("echo")
		p.send(strmData(to, behind, "behind"))
		if got := p.texts(behind); got != `["behind"]` {
			t.Errorf("a stream behind the calls heard %s", got)
		}
		close(release)
		synctest.Wait()
		if by := p.answers(1000, calls); by[0] != calls || len(by) != 1 {
			t.Errorf("answers by error: %v", by)
		}
		for _, c := range tg.Srv.Conns() {
			if i := c.Snapshot(); i.Handlers > 2 || i.Streams > 2 {
				t.Errorf("%d handlers, %d streams are left", i.Handlers, i.Streams)
			}
		}
	})
}

// The same with our own client, over TCP.
func TestBrpcOurClientHasManyCallsInFlight(t *testing.T) {
	const calls = 6_000
	w := overBrpc(t, nil, nil)
	begun, release := gated(w.Srv, "gated")
	var all sync.WaitGroup
	var failed atomic.Int64
	for range calls {
		all.Go(func() {
			if err := callsOf(w, "gated"); err != nil && failed.Add(1) == 1 {
				t.Error(err)
			}
		})
	}
	w.Eventually("the server to have all of them", func() bool {
		n := 0
		for _, c := range w.Srv.Conns() {
			n += c.Snapshot().Streams
		}
		return n == calls
	})
	if n := begun.Load(); n != 1000 {
		t.Errorf("%d are served at once, want 1,000", n)
	}
	close(release)
	all.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d calls failed", n, calls)
	}
}

func callsOf(w *world, method string) error { return calls(w.Ctx, w, method) }

// A call may wait for what comes by a stream, behind it on the same connection, whatever else
// waits there: nothing that was not read, or that has to wait, keeps it from that.
func TestBrpcCallsThatWaitForAStreamBehindThem(t *testing.T) {
	inBrpcTarget(t, kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 10}}, func(tg *target, p *brpcPeer) {
		came := make(chan struct{})
		tg.Srv.Handle("waits", func(ctx context.Context, s *kernel.Stream) error {
			select {
			case <-came:
				return s.Send(ctx, text("came"))
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		tg.Srv.Handle("brings", func(ctx context.Context, s *kernel.Stream) error {
			m, err := s.Receive(ctx)
			m.Release()
			if err == nil {
				close(came)
			}
			return err
		})
		p.sayCalls("waits", 1000, 300, brpcAsk{})
		own, to := p.open("brings")
		p.send(strmData(to, own, "it"))
		if by := p.answers(1000, 300); by[0] != 300 {
			t.Errorf("answers by error: %v, want 300 times 0", by)
		}
	})
}

// Calls that count for themselves have a bound, and so has what they hold. What is beyond is
// refused in order, and the connection goes on.
func TestBrpcCallsThatWaitAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		maxCalls int
		limits   kernel.Limits
		calls    int
		payload  int
		served   int // at least
		more     int // at most: those whose handlers have taken their request meanwhile
	}{
		"32 times MaxStreams":   {0, kernel.Limits{MaxStreams: 10}, 1000, 1, 320, 0},
		"a number of one's own": {50, kernel.Limits{MaxStreams: 10}, 1000, 1, 50, 0},
		"fewer than are served": {5, kernel.Limits{MaxStreams: 10}, 1000, 1, 5, 0},
		"bytes":                 {0, kernel.Limits{MaxStreams: 10, MaxMessage: 1 << 16, SenderWindow: 1 << 18}, 300, 1 << 13, 64, 12},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tg := newTarget(t, true, kernel.ServerOptions{Limits: c.limits, Protocols: []frame.Protocol{native.Protocol{}, strm.Protocol{MaxCalls: c.maxCalls}}})
				begun, release := gated(tg.Srv, "gated")
				p := tg.brpcAttack()
				p.sayCalls("gated", 1000, c.calls, brpcAsk{payload: string(make([]byte, c.payload))})
				if n := begun.Load(); n != int64(min(10, c.served)) {
					t.Errorf("%d are served at once", n)
				}
				by := p.answers(1000, c.calls)
				served := c.calls - by[2004]
				if served < c.served || served > c.served+c.more || len(by) != 1 {
					t.Errorf("answers by error: %v of %d, want 2004 but for %d, or %d more", by, c.calls, c.served, c.more)
				}
				close(release)
				synctest.Wait()
				if by := p.answers(1000, c.calls); by[0] != served || len(by) != 2 {
					t.Errorf("answers by error: %v, want %d times 0", by, served)
				}
				p.sayCalls("gated", 1_000_000, 5, brpcAsk{payload: "again"})
				if by := p.answers(1_000_000, 5); by[0] != 5 {
					t.Errorf("answers by error: %v, when all were answered", by)
				}
				_ = p.nc.Close()
			})
		})
	}
}

// Calls that have waited until their deadlines make room for others, also where the handlers
// before them never return; so do those of a connection that ends.
func TestBrpcCallsThatAreOverDoNotWait(t *testing.T) {
	inBrpcTarget(t, kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 10}}, func(tg *target, p *brpcPeer) {
		stuck := make(chan struct{})
		tg.Srv.Handle("held", func(context.Context, *kernel.Stream) error {
			<-stuck
			return nil
		})
		for round := range int64(10) {
			p.sayCalls("held", 1000*round, 300, brpcAsk{timeout: 100})
			if by := p.answers(1000*round, 300); len(by) != 0 {
				t.Errorf("round %d: answers by error: %v, want none yet", round, by)
			}
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
			if by := p.answers(1000*round, 300); by[1008] != 300 {
				t.Errorf("round %d: answers by error: %v, want 300 times 1008", round, by)
			}
		}
		c := tg.Srv.Conns()[0]
		if n := c.Snapshot().Handlers; n > 320 {
			t.Errorf("%d handlers run or wait", n)
		}
		_ = p.nc.Close()
		synctest.Wait()
		if n := c.Snapshot().Handlers; n != 10 {
			t.Errorf("%d handlers run or wait when the connection is over, want the 10 that are stuck", n)
		}
		close(stuck)
		synctest.Wait()
		if n := c.Snapshot().Handlers; n != 0 {
			t.Errorf("%d handlers are left", n)
		}
	})
}

// Calls of ordered methods are served one after another, as many as there are, and take one of
// the places of streams.
func TestBrpcManyOrderedCalls(t *testing.T) {
	const calls, first = 5000, 100_000
	inBrpcTarget(t, kernel.ServerOptions{Limits: kernel.Limits{MaxMessage: 1 << 20}}, func(tg *target, p *brpcPeer) {
		_, release := gated(tg.Srv, "gated")
		tg.Srv.Ordered("gated")
		p.sayCalls("gated", first, calls, brpcAsk{payload: "x"})
		for range 999 {
			p.open("echo")
		}
		close(release)
		synctest.Wait()
		if by := p.answers(first, calls); by[0] != calls || len(by) != 1 {
			t.Errorf("answers by error: %v", by)
		}
		want := int64(first)
		for _, w := range p.all(func(w *word) bool { return w.magic == "PRPC" }) {
			if w.num(4) != want {
				t.Fatalf("call %d is answered where %d is next", w.num(4), want)
			}
			want++
		}
	})
}
