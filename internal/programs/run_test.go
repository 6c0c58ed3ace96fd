package programs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A run is one program that runs.
type run struct {
	t       *testing.T
	wire    *wire
	caps    frame.Caps
	plan    *plan
	bubble  bool
	journal *testkit.Journal

	srv     *kernel.Server
	served  chan error
	clients []*kernel.Client

	talks  sync.Map     // key -> *talk
	busy   atomic.Int64 // handlers, and goroutines of spawn
	ends   atomic.Bool  // something was asked to end connections
	failed atomic.Bool
}

// bound is how long anybody may wait once the program has ended all that it waits for.
const bound = 20 * time.Second

func (r *run) fail(format string, args ...any) {
	if !r.failed.Swap(true) {
		r.t.Errorf(format, args...)
	}
}

// mayLose tells whether a connection may have been lost. ConnShort closes connections, as
// early as in their handshake, and not every wire can say that.
func (r *run) mayLose() bool { return r.ends.Load() || r.plan.connType == kernel.ConnShort }

// spawn runs f, which the program's end waits for.
func (r *run) spawn(f func()) {
	r.busy.Add(1)
	go func() {
		defer r.busy.Add(-1)
		f()
	}()
}

func (r *run) sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (r *run) sleepUntil(ctx context.Context, c <-chan struct{}) {
	select {
	case <-c:
	case <-ctx.Done():
	}
}

// program runs the program of a seed over w, in memory where time is a bubble's, or over
// sockets.
func program(t *testing.T, w *wire, seed uint64, bubble bool) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	r := &run{t: t, wire: w, caps: w.proto().Caps(), bubble: bubble, journal: &testkit.Journal{}}
	r.plan = newPlan(rnd, &r.caps, !bubble)
	if *tell {
		t.Log(r.plan)
	}
	tr := inMemory()
	if !bubble {
		tr = overSockets(t, seed)
	}
	r.start(tr)
	r.bounded("the program", func() { r.play(rnd) })
	r.rest()
	r.stop()
	r.talks.Range(func(_, v any) bool {
		r.settled(v.(*talk))
		return true
	})
	if t.Failed() {
		t.Logf("plan: %s\nlog: %s", r.plan, r.logged())
	}
}

// logged is the end of what was logged, without stacks.
func (r *run) logged() string {
	lines := strings.Split(strings.TrimSpace(r.journal.String()), "\n")
	lines = lines[max(0, len(lines)-10):]
	for i, l := range lines {
		lines[i], _, _ = strings.Cut(l, " stack=")
	}
	return strings.Join(lines, "\n")
}

// start makes the server and the clients.
func (r *run) start(tr transport) {
	p := r.plan
	so := kernel.ServerOptions{Limits: p.server, Protocols: []frame.Protocol{r.wire.proto()}, Logger: r.journal.Logger(), Observer: observer{r, "server"}}
	so.Stream.Compression = p.compression
	if tr.tls {
		so.TLS, _ = testkit.Certificates()
	}
	srv, err := kernel.NewServer(&so)
	if err != nil {
		r.t.Fatal(err)
	}
	r.srv, r.served = srv, make(chan error, 1)
	r.handle(srv.Handlers)
	go func() { r.served <- srv.Serve(context.Background(), tr.ln) }()
	proto := r.wire.proto()
	for range p.clients {
		co := kernel.ClientOptions{
			Limits: p.client, Protocols: []frame.Protocol{proto}, Logger: r.journal.Logger(), Observer: observer{r, "client"},
			Conns: p.conns, ConnType: p.connType, Dial: tr.dial, Backoff: kernel.Backoff{First: time.Millisecond, Most: 10 * time.Millisecond},
			Handlers: &kernel.Handlers{},
		}
		co.Stream.Compression = p.compression
		if tr.tls {
			_, co.TLS = testkit.Certificates()
		}
		r.handle(co.Handlers)
		c, err := kernel.NewClient(tr.target, &co)
		if err != nil {
			r.t.Fatal(err)
		}
		r.clients = append(r.clients, c)
	}
}

// play has all goroutines of the clients do what they do, and something end in the middle.
func (r *run) play(rnd *rand.Rand) {
	if r.plan.end != endNothing {
		r.ends.Store(true)
	}
	over := make(chan struct{})
	var acts, beside sync.WaitGroup
	for _, c := range r.clients {
		if r.plan.neighbour {
			rnd := rand.New(rand.NewPCG(rnd.Uint64(), 4))
			key := func() uint64 { return keyOf(rnd) | echoes }
			beside.Go(func() { r.neighbour(c, key, over) })
		}
		for range r.plan.goroutines {
			rnd := rand.New(rand.NewPCG(rnd.Uint64(), 2))
			acts.Go(func() {
				for range r.plan.acts {
					r.act(rnd, c)
				}
			})
		}
	}
	end := rand.New(rand.NewPCG(rnd.Uint64(), 3))
	acts.Go(func() { r.endInTheMiddle(end) })
	acts.Wait()
	close(over)
	beside.Wait()
	r.eventually("handlers to return", func() string {
		if n := r.busy.Load(); n > 0 {
			return fmt.Sprintf("%d are still busy: %s", n, r.unfinished())
		}
		return ""
	})
}

// unfinished are the stories of streams of which a side has begun and not ended.
func (r *run) unfinished() string {
	var stories []string
	r.talks.Range(func(_, v any) bool {
		t := v.(*talk)
		if story := t.told(); strings.Contains(story, " writes ") && strings.Count(story, " writes ") > strings.Count(story, " has ended") {
			stories = append(stories, fmt.Sprintf("stream %d: %s", t.key, story))
		}
		return true
	})
	return strings.Join(stories, "\n")
}

// endInTheMiddle ends what the plan says.
func (r *run) endInTheMiddle(rnd *rand.Rand) {
	if r.plan.end == endNothing {
		return
	}
	time.Sleep(r.plan.endAfter)
	switch r.plan.end {
	case endConn, endServersConn:
		cs := one(rnd, r.clients...).Conns()
		if r.plan.end == endServersConn {
			cs = r.srv.Conns()
		}
		if len(cs) > 0 {
			_ = one(rnd, cs...).Close()
		}
	case endClient:
		_ = one(rnd, r.clients...).Close()
	case endServer:
		_ = r.srv.Close()
	case endDrain:
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rnd.Int64N(int64(2*r.plan.life))))
		defer cancel()
		_ = r.srv.Shutdown(ctx)
	}
}

// neighbour is a stream that is read and written all the time. Once it is open it must go on
// whatever happens beside it. To open it is tried again where the others have all streams, or
// handlers that still run.
func (r *run) neighbour(c *kernel.Client, key func() uint64, over <-chan struct{}) {
	for begun := false; !begun; {
		begun = r.goOn(c, key(), over)
		select {
		case <-over:
			return
		case <-time.After(r.plan.life/10 + time.Microsecond):
		}
	}
}

// goOn is neighbour with one stream. It returns false if that was refused.
func (r *run) goOn(c *kernel.Client, key uint64, over <-chan struct{}) (begun bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := r.open(ctx, c, key, kernel.StreamOptions{})
	if err != nil {
		r.fail("the neighbour was not opened: %v", err)
		return true
	}
	t := r.talk(key)
	for open := true; open; {
		select {
		case <-over:
			open = false
		default:
		}
		r.bounded("the neighbour", func() {
			err := r.send(&t.up, func(m pool.Message) error { return s.Send(ctx, m) })
			if err == nil {
				var m pool.Message
				m, err = s.Receive(ctx)
				m.Release()
			}
			if err != nil {
				if open = false; begun || !wasRefused(err) {
					r.fail("the neighbour does not go on: %v", err)
					begun = true
				}
				return
			}
			begun = true
		})
		if open {
			r.sleep(ctx, r.plan.life/10+time.Microsecond)
		}
	}
	s.Abort(status.Cancelled, "over")
	return begun
}

// wasRefused tells whether a stream was refused for want of room, before a handler saw it.
func wasRefused(err error) bool {
	var se *status.StreamError
	return errors.As(err, &se) && se.NotProcessed && se.Code == status.Refused
}

// bounded runs f, which must not take longer than bound beside what the plan lets it take.
func (r *run) bounded(what string, f func()) {
	most := bound + 20*r.plan.life*time.Duration(r.plan.acts)
	if !r.bubble {
		most += 5 * bound // time goes on where the machine is busy
	}
	limit := time.AfterFunc(most, func() {
		buf := make([]byte, 8<<20)
		buf = buf[:runtime.Stack(buf, true)]
		panic(fmt.Sprintf("%s: %s takes too long\n%s\n%s", r.t.Name(), what, again(r), buf))
	})
	defer limit.Stop()
	f()
}

// again is the command that runs the program once more.
func again(r *run) string {
	parts := strings.Split(r.t.Name(), "/")
	return fmt.Sprintf("once more: go test ./internal/programs -run %s -seed %s", strings.Join(parts[:3], "/"), parts[3])
}

// eventually waits until bad says nothing.
func (r *run) eventually(what string, bad func() string) {
	end := time.Now().Add(bound)
	for {
		if r.bubble {
			synctest.Wait()
		}
		text := bad()
		if text == "" {
			return
		}
		if time.Now().After(end) {
			buf := make([]byte, 8<<20)
			r.fail("gave up waiting for %s: %s\n%s", what, text, buf[:runtime.Stack(buf, true)])
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// rest checks that nothing is left on the connections when all streams are over.
func (r *run) rest() {
	r.eventually("the connections to settle", func() string {
		var clients []kernel.ConnInfo
		for _, c := range r.clients {
			clients = append(clients, r.read(c.Conns())...)
		}
		servers := r.read(r.srv.Conns())
		bad := append(testkit.Owing("client", clients, servers), testkit.Owing("server", servers, clients)...)
		for _, s := range servers {
			if s.Memory != s.Own {
				bad = append(bad, fmt.Sprintf("%d bytes of memory: %+v", s.Memory-s.Own, s))
			}
		}
		return strings.Join(bad, "; ")
	})
}

// read are the snapshots of connections that are read.
func (r *run) read(cs []*kernel.Conn) (all []kernel.ConnInfo) {
	for _, c := range cs {
		if s := c.Snapshot(); !r.isPaused(&s) {
			all = append(all, s)
		}
	}
	return all
}

// isPaused tells whether a connection may not be read, because too much of it is unread: then
// its end may not be noticed (docs/interop.md, Seastar, ends).
func (r *run) isPaused(s *kernel.ConnInfo) bool {
	return r.caps.Pacing == frame.Unpaced && s.Unread >= resumes
}

// resumes is how much is unread at most when a connection that was paused is read on, bytes.
const resumes = 128 << 10

// stop ends the clients and the server.
func (r *run) stop() {
	r.ends.Store(true)
	r.bounded("the end", func() {
		for _, c := range r.clients {
			_ = c.Close()
		}
		_ = r.srv.Close()
		if err := <-r.served; !errors.Is(err, kernel.ErrServerClosed) {
			r.fail("Serve has returned %v", err)
		}
	})
}
