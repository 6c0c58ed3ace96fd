package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// What somebody who waits on a stream is told.
type told int

const (
	waits   told = iota // nothing: it goes on waiting
	clean               // an end in order
	fails               // an error
	over                // one of these two
	perhaps             // one of these three
)

// An ending is one way in which a stream, or something that it stands on, can end. s is the
// stream of who waits, o the other side's.
type ending struct {
	name   string
	do     func(w *world, s, o *kernel.Stream)
	reads  told // who waits for messages
	writes told // who waits for credit
	needs  func(c *frame.Caps) bool
}

var endings = []ending{
	{name: "the peer ends its half", reads: clean, writes: waits, needs: halves,
		do: func(w *world, _, o *kernel.Stream) { _ = o.CloseSend() }},
	{name: "the peer reads no more", reads: waits, writes: fails, needs: func(c *frame.Caps) bool { return c.Stop },
		do: func(w *world, _, o *kernel.Stream) { o.CloseReceive(status.OK) }},
	{name: "the peer closes", reads: clean, writes: fails,
		do: func(w *world, _, o *kernel.Stream) {
			ctx, cancel := context.WithTimeout(w.Ctx, time.Second)
			defer cancel()
			_ = o.Close(ctx)
		}},
	{name: "the peer aborts", reads: fails, writes: fails,
		do: func(w *world, _, o *kernel.Stream) { o.Abort(status.Aborted, "no more") }},
	{name: "this side ends its half", reads: waits, writes: fails, needs: halves,
		do: func(w *world, s, _ *kernel.Stream) { _ = s.CloseSend() }},
	{name: "this side reads no more", reads: over, writes: waits,
		do: func(w *world, s, _ *kernel.Stream) { s.CloseReceive(status.OK) }},
	{name: "this side closes", reads: over, writes: fails,
		do: func(w *world, s, _ *kernel.Stream) {
			ctx, cancel := context.WithTimeout(w.Ctx, time.Second)
			defer cancel()
			_ = s.Close(ctx)
		}},
	{name: "this side aborts", reads: fails, writes: fails,
		do: func(w *world, s, _ *kernel.Stream) { s.Abort(status.Aborted, "no more") }},
	{name: "this side's connection is closed", reads: fails, writes: fails,
		do: func(w *world, s, _ *kernel.Stream) { _ = s.Conn().Close() }},
	{name: "the peer's connection is closed", reads: fails, writes: fails,
		do: func(w *world, _, o *kernel.Stream) { _ = o.Conn().Close() }},
	{name: "the client is closed", reads: fails, writes: fails,
		do: func(w *world, _, _ *kernel.Stream) { _ = w.Client.Close() }},
	{name: "the server is closed", reads: fails, writes: fails,
		do: func(w *world, _, _ *kernel.Stream) { _ = w.Srv.Close() }},
	{name: "a drain has taken too long", reads: fails, writes: fails,
		do: func(w *world, _, _ *kernel.Stream) {
			ctx, cancel := context.WithTimeout(w.Ctx, time.Second)
			defer cancel()
			_ = w.Srv.Shutdown(ctx)
		}},
}

func halves(c *frame.Caps) bool { return c.HalfClose }

// A waiter waits on a stream in one way. It returns nil for an end in order.
type waiter struct {
	name  string
	wait  func(s *kernel.Stream) error
	reads bool
}

var waiters = []waiter{
	{"Receive", func(s *kernel.Stream) error {
		m, err := s.Receive(context.Background())
		m.Release()
		if err == io.EOF {
			return nil
		}
		return err
	}, true},
	{"All", func(s *kernel.Stream) error {
		for m, err := range s.All(context.Background()) {
			m.Release()
			if err != nil {
				return err
			}
		}
		return nil
	}, true},
	{"In", func(s *kernel.Stream) error {
		for m := range s.In() {
			m.Release()
		}
		return s.Err()
	}, true},
	{"Batches", func(s *kernel.Stream) error {
		for b := range s.Batches() {
			b.Release()
		}
		return s.Err()
	}, true},
	{"Send", func(s *kernel.Stream) error {
		m := pool.New(1000)
		err := s.Send(context.Background(), m)
		if err != nil {
			m.Release()
		}
		return err
	}, false},
	{"Writable", func(s *kernel.Stream) error {
		slot, ok := <-s.Writable()
		if ok {
			slot.Cancel()
			return nil
		}
		return errors.New("closed")
	}, false},
	{"Out", func(s *kernel.Stream) error {
		for range 3 { // one is taken before there is credit for it
			m := pool.New(1000)
			select {
			case s.Out() <- m:
			case <-s.SendDone():
				m.Release()
				return errors.New("done")
			}
		}
		return nil
	}, false},
}

// Whatever ends, and whoever waits for whatever on a stream, is told: none waits for ever, and
// only an end in order looks like one.
func TestWhoWaitsIsToldOfEveryEnd(t *testing.T) {
	wires := append([]foreign{{name: "native", proto: native.Protocol{}}}, foreigns...)
	for _, p := range wires {
		caps := p.proto.Caps()
		p.connect = kerneltest.Start // in memory
		for _, e := range endings {
			if e.needs != nil && !e.needs(&caps) {
				continue
			}
			if !caps.Stop || caps.Pacing != frame.Granted {
				// A reader that stops drops what comes, and may give credit for it; a
				// writer that has its window itself tries again after a while.
				e.writes = map[told]told{waits: perhaps, fails: over}[e.writes]
			}
			for _, wt := range waiters {
				for _, side := range []string{"opener", "acceptor"} {
					t.Run(fmt.Sprintf("%s/%s/%s/%s", p.name, e.name, wt.name, side), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { isTold(t, p.start, e, wt, side == "opener") })
					})
				}
			}
		}
	}
}

func isTold(t *testing.T, start starter, e ending, wt waiter, opener bool) {
	w := newWorld(t, start, nil, nil)
	w.Ctx, w.Loose, w.Bubble = context.Background(), true, true
	o := kernel.StreamOptions{SendLimit: 10_000, Window: 10_000}
	a, b := w.Pair(o, o)
	s, peer := a, b
	if !opener {
		s, peer = b, a
	}
	if !wt.reads {
		exhaust(s)
	}
	got := make(chan error, 1)
	go func() { got <- wt.wait(s) }()
	synctest.Wait()
	select {
	case err := <-got:
		t.Fatalf("did not wait: %v", err)
	default:
	}
	e.do(w, s, peer)
	time.Sleep(3 * time.Second)
	synctest.Wait()
	want := e.writes
	if wt.reads {
		want = e.reads
	}
	select {
	case err := <-got:
		switch {
		case want == waits:
			t.Errorf("told %v, and should wait", err)
		case want == clean && err != nil, want == fails && err == nil:
			t.Errorf("told %v", err)
		}
	default:
		if want != waits && want != perhaps {
			t.Error("waits for ever")
		}
		s.Abort(status.Cancelled, "over")
		<-got
	}
	_ = w.Client.Close()
	_ = w.Srv.Close()
	drain(peer)
	drain(s)
}

// exhaust sends what s can send without waiting.
func exhaust(s *kernel.Stream) {
	for {
		m := pool.New(1000)
		err := s.TrySend(m)
		if err != nil {
			m.Release()
			return
		}
		synctest.Wait()
	}
}
