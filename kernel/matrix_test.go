package kernel_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
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

// A scene is two sides of a stream in a bubble, and what can end it.
type scene struct {
	*world
	cancel func() // ends the context that bounds the opener's stream
	mu     sync.Mutex
	conns  []net.Conn
}

// cut closes the sockets, as an intermediary does that says nothing.
func (sc *scene) cut() {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	for _, nc := range sc.conns {
		_ = nc.Close()
	}
}

// An ending is one way in which a stream, or something that it stands on, can end. s is the
// stream of who waits, o the other side's.
type ending struct {
	name   string
	do     func(sc *scene, s, o *kernel.Stream)
	reads  told // who waits for messages
	writes told // who waits for credit
	ends   told // who waits for the stream's end: over, waits or perhaps
	needs  func(c *frame.Caps) bool
}

var endings = []ending{
	{name: "the peer ends its half", reads: clean, writes: waits, ends: waits, needs: halves,
		do: func(_ *scene, _, o *kernel.Stream) { _ = o.CloseSend() }},
	{name: "the peer reads no more", reads: waits, writes: fails, ends: waits, needs: func(c *frame.Caps) bool { return c.Stop },
		do: func(_ *scene, _, o *kernel.Stream) { o.CloseReceive(status.OK) }},
	{name: "the peer closes", reads: clean, writes: fails, ends: perhaps,
		do: func(sc *scene, _, o *kernel.Stream) { sc.close(o) }},
	{name: "the peer aborts", reads: fails, writes: fails, ends: over,
		do: func(_ *scene, _, o *kernel.Stream) { o.Abort(status.Aborted, "no more") }},
	{name: "this side ends its half", reads: waits, writes: fails, ends: waits, needs: halves,
		do: func(_ *scene, s, _ *kernel.Stream) { _ = s.CloseSend() }},
	{name: "this side reads no more", reads: over, writes: waits, ends: perhaps,
		do: func(_ *scene, s, _ *kernel.Stream) { s.CloseReceive(status.OK) }},
	{name: "this side closes", reads: over, writes: fails, ends: over,
		do: func(sc *scene, s, _ *kernel.Stream) { sc.close(s) }},
	{name: "this side aborts", reads: fails, writes: fails, ends: over,
		do: func(_ *scene, s, _ *kernel.Stream) { s.Abort(status.Aborted, "no more") }},
	{name: "the opener's context ends", reads: fails, writes: fails, ends: over,
		do: func(sc *scene, _, _ *kernel.Stream) { sc.cancel() }},
	{name: "this side's connection is closed", reads: fails, writes: fails, ends: over,
		do: func(_ *scene, s, _ *kernel.Stream) { _ = s.Conn().Close() }},
	{name: "the peer's connection is closed", reads: fails, writes: fails, ends: over,
		do: func(_ *scene, _, o *kernel.Stream) { _ = o.Conn().Close() }},
	{name: "the sockets are cut", reads: fails, writes: fails, ends: over,
		do: func(sc *scene, _, _ *kernel.Stream) { sc.cut() }},
	{name: "the client is closed", reads: fails, writes: fails, ends: over,
		do: func(sc *scene, _, _ *kernel.Stream) { _ = sc.Client.Close() }},
	{name: "the server is closed", reads: fails, writes: fails, ends: over,
		do: func(sc *scene, _, _ *kernel.Stream) { _ = sc.Srv.Close() }},
	{name: "a drain has taken too long", reads: fails, writes: fails, ends: over,
		do: func(sc *scene, _, _ *kernel.Stream) {
			ctx, cancel := context.WithTimeout(sc.Ctx, time.Second)
			defer cancel()
			_ = sc.Srv.Shutdown(ctx)
		}},
}

// close closes s, and waits a second for the other side.
func (sc *scene) close(s *kernel.Stream) {
	ctx, cancel := context.WithTimeout(sc.Ctx, time.Second)
	defer cancel()
	_ = s.Close(ctx)
}

func halves(c *frame.Caps) bool { return c.HalfClose }

// A waiter waits on a stream in one way. It returns nil for an end in order.
type waiter struct {
	name string
	wait func(s *kernel.Stream) error
	what waitsFor
}

// waitsFor is what somebody waits for.
type waitsFor int

const (
	forMessages waitsFor = iota
	forCredit            // for one more message
	forEnd               // of both halves
)

var waiters = []waiter{
	{"Receive", func(s *kernel.Stream) error {
		m, err := s.Receive(context.Background())
		m.Release()
		if err == io.EOF {
			return nil
		}
		return err
	}, forMessages},
	{"All", func(s *kernel.Stream) error {
		for m, err := range s.All(context.Background()) {
			m.Release()
			if err != nil {
				return err
			}
		}
		return nil
	}, forMessages},
	{"In", func(s *kernel.Stream) error {
		for m := range s.In() {
			m.Release()
		}
		return s.Err()
	}, forMessages},
	{"Batches", func(s *kernel.Stream) error {
		for b := range s.Batches() {
			b.Release()
		}
		return s.Err()
	}, forMessages},
	{"Send", func(s *kernel.Stream) error {
		m := pool.New(1000)
		err := s.Send(context.Background(), m)
		if err != nil {
			m.Release()
		}
		return err
	}, forCredit},
	{"Writable", func(s *kernel.Stream) error {
		slot, ok := <-s.Writable()
		if ok {
			slot.Cancel()
			return nil
		}
		return errors.New("closed")
	}, forCredit},
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
	}, forCredit},
	{"SendDone", func(s *kernel.Stream) error {
		<-s.SendDone()
		return errors.New("done")
	}, forCredit},
	{"Done", func(s *kernel.Stream) error {
		<-s.Done()
		return nil
	}, forEnd},
	{"Context", func(s *kernel.Stream) error {
		<-s.Context().Done()
		return nil
	}, forEnd},
}

// A stage is a wire, and whether it runs over TLS.
type stage struct {
	name  string
	proto frame.Protocol
	tls   bool
}

// Whatever ends, and whoever waits for whatever on a stream, is told: none waits for ever, and
// only an end in order looks like one.
func TestWhoWaitsIsToldOfEveryEnd(t *testing.T) {
	certificates() // outside of the bubbles
	stages := []stage{
		{"native", native.Protocol{}, false}, {"native, TLS", native.Protocol{}, true},
		{"grpc, TLS", triple.Protocol{}, true}, {"brpc, TLS", strm.Protocol{}, true},
		{"seastar", &seastar.Protocol{}, false}, {"seastar, TLS", &seastar.Protocol{}, true},
	}
	for _, p := range foreigns {
		stages = append(stages, stage{p.name, p.proto, false})
	}
	for _, st := range stages {
		caps := st.proto.Caps()
		for _, e := range endings {
			if e.needs != nil && !e.needs(&caps) || st.tls && e.ends != over {
				continue // under TLS what differs is how a connection ends
			}
			if !caps.Stop || caps.Pacing != frame.Granted {
				// A reader that stops drops what comes, and may give credit for it; a
				// writer that has its window itself tries again after a while.
				e.writes = map[told]told{waits: perhaps, fails: over}[e.writes]
			}
			for _, wt := range waiters {
				for _, side := range []string{"opener", "acceptor"} {
					t.Run(fmt.Sprintf("%s/%s/%s/%s", st.name, e.name, wt.name, side), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { isTold(t, st, e, wt, side == "opener") })
					})
				}
			}
		}
	}
}

// start connects both sides in memory.
func (st *stage) start(sc *scene) starter {
	return func(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
		s, c := *so, *co
		s.Protocols, c.Protocols = []frame.Protocol{st.proto}, []frame.Protocol{st.proto}
		if st.tls {
			s.TLS, c.TLS = clocked()
		}
		ln := kerneltest.Listen()
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := ln.Dial(ctx, network, addr)
			if err == nil {
				sc.mu.Lock()
				sc.conns = append(sc.conns, nc)
				sc.mu.Unlock()
			}
			return nc, err
		}
		return serve(t, &s, &c, memoryListener{ln})
	}
}

// pair opens a stream, whose opener has the context life, and takes it on the other side.
func (st *stage) pair(sc *scene, life context.Context, o kernel.StreamOptions) (a, b *kernel.Stream) {
	if !st.proto.Caps().StreamsByID {
		return sc.PairIn(life, o, o)
	}
	taken := make(chan *kernel.Stream, 1)
	sc.Srv.Handle(kernel.Verb(1), func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Request(ctx)
		if err != nil {
			return err
		}
		child, err := s.Conn().TakeStream(ctx, binary.LittleEndian.Uint64(m.Bytes()))
		if err != nil {
			return err
		}
		taken <- child
		return s.Send(ctx, m)
	})
	a, err := sc.Client.Open(life, "", &kernel.OpenOptions{Stream: o})
	ok(sc.T, err)
	on, id := a.CallRef()
	reply, err := on.Call(sc.Ctx, kernel.Verb(1), pool.Copy(binary.LittleEndian.AppendUint64(nil, id)), nil)
	ok(sc.T, err)
	reply.Release()
	b = <-taken
	sc.Cleanup(a, b)
	return a, b
}

func isTold(t *testing.T, st stage, e ending, wt waiter, opener bool) {
	life, cancel := context.WithCancel(context.Background())
	sc := &scene{cancel: cancel}
	sc.world = newWorld(t, st.start(sc), nil, nil)
	sc.Ctx, sc.Loose, sc.Bubble = context.Background(), true, true
	a, b := st.pair(sc, life, kernel.StreamOptions{SendLimit: 10_000, Window: 10_000})
	s, peer := a, b
	if !opener {
		s, peer = b, a
	}
	if wt.what == forCredit {
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
	e.do(sc, s, peer)
	time.Sleep(3 * time.Second)
	synctest.Wait()
	want := map[waitsFor]told{forMessages: e.reads, forCredit: e.writes, forEnd: e.ends}[wt.what]
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
	cancel()
	_ = sc.Client.Close()
	_ = sc.Srv.Close()
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
