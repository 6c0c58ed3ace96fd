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

// What it is that ends.
type level int

const (
	ofHalf level = iota
	ofStream
	ofConn
	ofClient
	ofServer
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
	of     level
	do     func(sc *scene, s, o *kernel.Stream)
	reads  told // who waits for messages
	writes told // who waits for credit
	ends   told // who waits for the stream's end: over, waits or perhaps
	needs  func(c *frame.Caps) bool
}

var endings = []ending{
	{name: "the peer ends its half", of: ofHalf, reads: clean, writes: waits, ends: waits, needs: halves,
		do: func(_ *scene, _, o *kernel.Stream) { _ = o.CloseSend() }},
	{name: "the peer reads no more", of: ofHalf, reads: waits, writes: fails, ends: waits, needs: func(c *frame.Caps) bool { return c.Stop },
		do: func(_ *scene, _, o *kernel.Stream) { o.CloseReceive(status.OK) }},
	{name: "the peer closes", of: ofStream, reads: clean, writes: fails, ends: perhaps,
		do: func(sc *scene, _, o *kernel.Stream) { sc.close(o) }},
	{name: "the peer aborts", of: ofStream, reads: fails, writes: fails, ends: over,
		do: func(_ *scene, _, o *kernel.Stream) { o.Abort(status.Aborted, "no more") }},
	{name: "this side ends its half", of: ofHalf, reads: waits, writes: fails, ends: waits, needs: halves,
		do: func(_ *scene, s, _ *kernel.Stream) { _ = s.CloseSend() }},
	{name: "this side reads no more", of: ofHalf, reads: over, writes: waits, ends: perhaps,
		do: func(_ *scene, s, _ *kernel.Stream) { s.CloseReceive(status.OK) }},
	{name: "this side closes", of: ofStream, reads: over, writes: fails, ends: over,
		do: func(sc *scene, s, _ *kernel.Stream) { sc.close(s) }},
	{name: "this side aborts", of: ofStream, reads: fails, writes: fails, ends: over,
		do: func(_ *scene, s, _ *kernel.Stream) { s.Abort(status.Aborted, "no more") }},
	{name: "the opener's context ends", of: ofStream, reads: fails, writes: fails, ends: over,
		do: func(sc *scene, _, _ *kernel.Stream) { sc.cancel() }},
	{name: "this side's connection is closed", of: ofConn, reads: fails, writes: fails, ends: over,
		do: func(_ *scene, s, _ *kernel.Stream) { _ = s.Conn().Close() }},
	{name: "the peer's connection is closed", of: ofConn, reads: fails, writes: fails, ends: over,
		do: func(_ *scene, _, o *kernel.Stream) { _ = o.Conn().Close() }},
	{name: "the sockets are cut", of: ofConn, reads: fails, writes: fails, ends: over,
		do: func(sc *scene, _, _ *kernel.Stream) { sc.cut() }},
	{name: "the client is closed", of: ofClient, reads: fails, writes: fails, ends: over,
		do: func(sc *scene, _, _ *kernel.Stream) { _ = sc.Client.Close() }},
	{name: "the server is closed", of: ofServer, reads: fails, writes: fails, ends: over,
		do: func(sc *scene, _, _ *kernel.Stream) { _ = sc.Srv.Close() }},
	{name: "a drain has taken too long", of: ofServer, reads: fails, writes: fails, ends: over,
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

// soon is how long somebody may wait at most who is told of an end at once, and does not have
// to be told by the other side. others is for all who are.
const (
	soon   = 10 * time.Millisecond
	others = 100 * time.Millisecond
)

// within is how soon who waits is told: for the ends that wait for nothing themselves.
func (e *ending) within(opener bool) time.Duration {
	switch e.name {
	case "this side aborts", "this side's connection is closed":
		return soon
	case "the opener's context ends":
		if opener {
			return soon
		}
		return others
	case "the peer aborts", "the peer's connection is closed", "the sockets are cut":
		return others
	}
	return 3 * time.Second
}

// A waiter waits on a stream in one way. It returns nil for an end in order.
type waiter struct {
	name string
	wait func(s *kernel.Stream) error
	what waitsFor
}

// A waiterIn waits for something beside the stream, until ctx ends.
type waiterIn struct {
	name string
	wait func(ctx context.Context, sc *scene, s *kernel.Stream) error
	what waitsFor
}

// waitsFor is what somebody waits for.
type waitsFor int

const (
	forMessages waitsFor = iota
	forCredit            // for one more message
	forEnd               // of both halves
	forRoom              // for another stream: there may be one
	forAnswer            // of a call beside the stream
	forClosing           // for the peer, which does not read, to close
	forNothing           // for what no end brings
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
	{"ReceiveBatch", func(s *kernel.Stream) error {
		for {
			switch _, err := s.ReceiveBatch(context.Background()); {
			case err == io.EOF:
				return nil
			case err != nil:
				return err
			}
		}
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

// hanging is the name of a handler that does not answer.
func (sc *scene) hanging() string {
	if sc.caps.StreamsByID {
		return kernel.Verb(9)
	}
	return "hangs/Hang"
}

var waitersIn = []waiterIn{
	{"Open", func(ctx context.Context, sc *scene, _ *kernel.Stream) error {
		s, err := sc.Client.Open(ctx, sc.hanging(), nil)
		if err == nil {
			s.Abort(status.Cancelled, "over")
			drain(s)
		}
		return err
	}, forRoom},
	{"Call", func(ctx context.Context, sc *scene, _ *kernel.Stream) error {
		m := pool.New(1)
		r, err := sc.Client.Call(ctx, sc.hanging(), m, nil)
		if err != nil {
			m.Release()
		}
		r.Release()
		return err
	}, forAnswer},
	{"Close", func(ctx context.Context, _ *scene, s *kernel.Stream) error { return s.Close(ctx) }, forClosing},
	{"Idle", func(ctx context.Context, _ *scene, s *kernel.Stream) error {
		select {
		case <-s.Idle():
		case <-ctx.Done():
		}
		return nil
	}, forNothing},
	{"Offers", func(ctx context.Context, sc *scene, _ *kernel.Stream) error {
		select {
		case <-sc.Srv.Offers():
		case <-ctx.Done():
		}
		return nil
	}, forNothing},
}

// tells is what the end says to who waits for what.
func (e *ending) tells(what waitsFor, caps *frame.Caps) told {
	switch what {
	case forMessages:
		return e.reads
	case forCredit:
		return e.writes
	case forEnd:
		return e.ends
	case forNothing:
		return waits
	case forRoom:
		switch {
		case e.of >= ofClient:
			return fails
		case e.of == ofConn:
			return over
		}
		return map[told]told{over: clean, perhaps: perhaps}[e.ends]
	case forAnswer:
		switch {
		case e.of < ofConn:
			return waits
		case e.of == ofConn && caps.StreamsByID: // it may be that of the stream alone
			return perhaps
		}
		return fails
	}
	if e.of == ofHalf {
		return perhaps
	}
	return over
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
			all := waitersIn
			for _, wt := range waiters {
				all = append(all, waiterIn{wt.name, func(_ context.Context, _ *scene, s *kernel.Stream) error { return wt.wait(s) }, wt.what})
			}
			for _, wt := range all {
				for _, side := range []string{"opener", "acceptor"} {
					if wt.what == forRoom && !st.saysRoom() || side == "acceptor" && (wt.what == forRoom || wt.what == forAnswer) {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s/%s/%s", st.name, e.name, wt.name, side), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { isTold(t, st, e, wt, side == "opener") })
					})
				}
			}
		}
	}
}

// saysRoom reports whether a server says how many streams there may be: where it does not, an
// open that is too much is refused, and does not wait.
func (st *stage) saysRoom() bool {
	switch st.proto.Name() {
	case native.Protocol{}.Name(), triple.Protocol{}.Name():
		return true
	}
	return false
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

func isTold(t *testing.T, st stage, e ending, wt waiterIn, opener bool) {
	life, cancel := context.WithCancel(context.Background())
	sc := &scene{cancel: cancel}
	so := &kernel.ServerOptions{}
	if wt.what == forRoom {
		so.Limits.MaxStreams = 1
	}
	sc.world = newWorld(t, st.start(sc), so, nil)
	sc.Ctx, sc.Loose, sc.Bubble = context.Background(), true, true
	sc.Srv.Handle(sc.hanging(), func(ctx context.Context, _ *kernel.Stream) error {
		<-ctx.Done()
		return ctx.Err()
	})
	a, b := st.pair(sc, life, kernel.StreamOptions{SendLimit: 10_000, Window: 10_000, IdleTimeout: time.Hour})
	s, peer := a, b
	if !opener {
		s, peer = b, a
	}
	if wt.what == forCredit || wt.what == forClosing {
		exhaust(s)
	}
	defer func() {
		cancel()
		_ = sc.Client.Close()
		_ = sc.Srv.Close()
		drain(peer)
		drain(s)
	}()
	waiting, stop := context.WithCancel(context.Background())
	defer stop()
	got := make(chan error, 1)
	var at time.Time
	go func() {
		err := wt.wait(waiting, sc, s)
		at = time.Now()
		got <- err
	}()
	synctest.Wait()
	select {
	case err := <-got:
		if wt.what == forClosing && err == nil && st.proto.Name() == (strm.Protocol{}).Name() {
			return // brpc answers a CLOSE whatever its application has read
		}
		t.Fatalf("did not wait: %v", err)
	default:
	}
	start := time.Now()
	e.do(sc, s, peer)
	time.Sleep(3 * time.Second)
	synctest.Wait()
	caps := st.proto.Caps()
	want := e.tells(wt.what, &caps)
	select {
	case err := <-got:
		switch {
		case want == waits:
			t.Errorf("told %v, and should wait", err)
		case want == clean && err != nil, want == fails && err == nil:
			t.Errorf("told %v", err)
		case want == fails && wt.what == forMessages:
			wantReason(t, err, &caps)
		}
		if d := at.Sub(start); want != perhaps && d > e.within(opener) {
			t.Errorf("told after %v", d)
		}
	default:
		if want != waits && want != perhaps {
			t.Error("waits for ever")
		}
		stop()
		s.Abort(status.Cancelled, "over")
		<-got
	}
}

// wantReason checks that an end that is a failure says which, and why, as far as the wire does.
func wantReason(t *testing.T, err error, caps *frame.Caps) {
	t.Helper()
	var se *status.StreamError
	if !errors.As(err, &se) || se.Code == status.OK || caps.Status && se.Reason == "" && se.Cause == nil {
		t.Errorf("told %#v", err)
	}
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
