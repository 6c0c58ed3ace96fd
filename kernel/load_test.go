package kernel_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// 999 streams are stuck in both directions, each with a full window. The 1,000th runs as if it
// were alone, and memory stays within the connections' windows.
func TestStuckReadersDelayNoOtherStream(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		rate := func() time.Duration {
			s := w.Open("echo")
			defer func() { _ = s.Close(w.Ctx) }()
			const n, size = 400, 16 << 10
			start := time.Now()
			go func() {
				for range n {
					w.SendMessage(s, sized(size, 1))
				}
				w.half(s)
			}()
			w.DrainN(s, n)
			if w.caps.HalfClose {
				w.WantEOF(s)
			}
			return time.Since(start)
		}
		rate()
		free := min(rate(), rate())
		var stuck []*kernel.Stream
		var held [2]int
		for range 999 {
			a, b := w.Pair(kernel.StreamOptions{InBuffer: kernel.None}, kernel.StreamOptions{InBuffer: kernel.None})
			for way, s := range []*kernel.Stream{a, b} {
				n := tryAll(t, s, 4000)
				if n == 0 {
					t.Fatalf("stream %d may send nothing", s.ID())
				}
				held[way] += n
				stuck = append(stuck, s)
			}
		}
		if most := 16<<20/4032 + 999; max(held[0], held[1]) > most {
			t.Errorf("%d messages are held, the window admits %d", held, most)
		}
		beside := rate()
		for range 10 { // others may want the machine meanwhile: streams that wait for these do so every time
			if beside <= 5*free+50*time.Millisecond {
				break
			}
			beside = min(beside, rate())
		}
		if beside > 5*free+50*time.Millisecond {
			t.Errorf("beside 999 stuck streams it takes %v, alone %v", beside, free)
		}
		// A ping does not wait for them either.
		s := w.Open("echo")
		w.Send(s, "ping")
		w.Want(s, "ping")
		_ = s.Close(w.Ctx)
		if k := len(w.Client.Conns()); k != 1 {
			t.Errorf("%d connections: the stuck ones were not on this one", k)
		}
		_ = stuck
	})
}

// Streams whose windows have grown and that are then stuck: one more still gets
// through, if not at full rate.
func TestStreamsStuckAfterTheyGrew(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{ConnWindow: 1 << 20, MaxStreams: 100}}
	overAll(t, so, nil, func(t *testing.T, w *world) {
		for range 60 {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{InBuffer: kernel.None})
			for range 20 { // read, so that the window grows
				n := tryAll(t, a, 1000)
				w.DrainN(b, n)
			}
			tryAll(t, a, 1000)
		}
		w.Srv.Handle("echo", echo)
		s := w.Open("echo")
		go func() {
			for range 100 {
				w.SendMessage(s, sized(10_000, 1))
			}
		}()
		w.DrainN(s, 100)
		_ = s.Close(w.Ctx)
	})
}

// A large message does not hold up small ones: streams take turns, in pieces.
func TestLargeMessagesTakeTurns(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		bulk, bulkEnd := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		ping, pong := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					w.endSend(bulk)
					return
				default:
					w.SendMessage(bulk, sized(4<<20, 1))
				}
			}
		})
		slow, small := 0, 0 // pings that a whole message has overtaken, all of them
		var large atomic.Int64
		wg.Go(func() {
			for m, err := range bulkEnd.All(w.Ctx) {
				if err != nil {
					t.Error(err)
					return
				}
				m.Release()
				large.Add(1)
			}
		})
		for range 60 {
			before := large.Load()
			w.Send(ping, "x")
			w.Want(pong, "x")
			if small++; large.Load() > before {
				slow++
			}
		}
		close(stop)
		wg.Wait()
		if 2*slow > small { // else the pings waited for whole messages
			t.Errorf("large messages overtook %d of %d small ones, %d of them in all", slow, small, large.Load())
		}
	})
}

// Handlers that block, do not read, and do not even look at their streams hold
// up no event loop: others' pings go on, on the same connection.
func TestBlockedHandlersBlockNoLoop(t *testing.T) {
	co := &kernel.ClientOptions{Stream: kernel.StreamOptions{SendLimit: 64 << 10}} // else brpc's window takes 2 MiB of each
	overAll(t, nil, co, func(t *testing.T, w *world) {
		leave := make(chan struct{})
		w.Srv.Handle("blocks", func(_ context.Context, s *kernel.Stream) error {
			in := s.In() // nothing receives from it
			<-leave
			for m := range in {
				m.Release()
			}
			return nil
		})
		w.Srv.HandleOffer("undecided", func(context.Context, *kernel.Offer) error {
			<-leave
			return nil
		})
		w.Srv.Handle("echo", echo)
		var ss []*kernel.Stream
		for i := range 200 {
			s := w.Open([]string{"blocks", "undecided"}[i%2])
			tryAll(t, s, 1000)
			ss = append(ss, s)
		}
		s := w.Open("echo")
		for i := range 100 {
			w.Send(s, "%d", i)
			w.Want(s, "%d", i)
		}
		_ = s.Close(w.Ctx)
		close(leave)
		for _, s := range ss {
			if w.caps.HalfClose {
				_ = s.CloseSend()
				drain(s)
			}
			_ = s.Close(w.Ctx)
		}
	})
}

// Streams that are not used own no goroutine and no timer, on either side.
func TestIdleStreamsHaveNoGoroutineAndNoTimer(t *testing.T) {
	const conns, each = 10, 1000
	w := newWorld(t, loops, nil, nil)
	offers := w.Srv.Offers()
	var clients []*kernel.Client
	for range conns {
		c, err := kernel.Dial(w.Ctx, w.Srv.Addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		clients = append(clients, c)
	}
	settled := func() int {
		n := runtime.NumGoroutine()
		for range 100 { // what ends soon is not what we count
			time.Sleep(time.Millisecond)
			n = min(n, runtime.NumGoroutine())
		}
		return n
	}
	before, timers := settled(), w.Srv.Timers()
	for _, c := range clients {
		timers += c.Timers()
	}
	var all []*kernel.Stream
	for _, c := range clients {
		for range each {
			s, err := c.Open(context.Background(), "x", nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := (<-offers).Accept(pool.Message{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s, b)
		}
	}
	if _, _, err := all[len(all)-2].Accepted(w.Ctx); err != nil {
		t.Fatal(err)
	}
	w.Eventually("the goroutines to be as many as before", func() bool { return settled() <= before }, func() string {
		var buf strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&buf, 1)
		return fmt.Sprintf("%d goroutines more\n%.3000s", runtime.NumGoroutine()-before, buf.String())
	})
	w.Eventually("the timers to be as many as before", func() bool {
		now := w.Srv.Timers()
		for _, c := range clients {
			now += c.Timers()
		}
		return now <= timers
	})
	runtime.KeepAlive(all)
}

// A stream costs at most 1 KiB a side untouched, and 4 KiB a side when a message
// has gone both ways through its channels: the mean of the two sides, which are
// in this process.
func TestMemoryOfIdleStreams(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's memory is not ours")
	}
	// The runtime chooses the first size of a stack by what the stacks of the
	// process use on average, and a test's are large: a process of its own, in
	// which it does not.
	if fixed := "adaptivestackstart=0"; os.Getenv("GODEBUG") != fixed {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMemoryOfIdleStreams$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG="+fixed)
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
		return
	}
	const n = 900
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	for name, c := range map[string]struct {
		touch bool
		most  int64
	}{"untouched": {false, 1 << 10}, "touched": {true, 4 << 10}} {
		t.Run(name, func(t *testing.T) {
			// What the runtime, pools and goroutines that are about to end hold comes on
			// top, now and then: the least of some tries is the streams' own.
			got := int64(math.MaxInt64)
			for try := 0; try < 5 && got > c.most; try++ {
				got = min(got, perSide(t, c.touch, n, heap))
			}
			t.Logf("%d bytes a side", got)
			if got > c.most {
				t.Errorf("%d bytes a side, at most %d", got, c.most)
			}
		})
	}
}

// perSide is how much heap grows by one side of a stream.
func perSide(t *testing.T, touch bool, n int64, heap func() int64) int64 {
	t.Helper()
	srv, client := loops(t, quietServer(nil), quietClient(nil))
	defer srv.Close()
	defer client.Close()
	w := &world{World: &testkit.World{T: t, Srv: srv, Client: client, Ctx: t.Context(), Offers: srv.Offers()}}
	var ss []*kernel.Stream
	pairs := func(n int64) {
		for range n {
			a, b := w.memoryPair(touch)
			ss = append(ss, a, b)
		}
	}
	pairs(50) // what the first streams cost once
	before := heap()
	pairs(n)
	got := (heap() - before) / (2 * n)
	for _, s := range ss {
		s.Abort(status.Cancelled, "")
	}
	return got
}

func (w *world) memoryPair(touch bool) (a, b *kernel.Stream) {
	a, err := w.Client.Open(context.Background(), "x", nil)
	if err != nil {
		w.T.Fatal(err)
	}
	b, err = w.Offer().Accept(pool.Message{}, nil)
	if err != nil {
		w.T.Fatal(err)
	}
	if touch {
		for _, x := range [][2]*kernel.Stream{{a, b}, {b, a}} {
			x[0].Out() <- text("x")
			(<-x[1].In()).Release()
		}
	}
	return a, b
}

// Goroutines and descriptors are back where they were when everything is closed.
func TestNothingIsLeftBehind(t *testing.T) {
	overAllBut(t, func(t *testing.T, start starter) {
		leak.Descriptors(t)
		before := runtime.NumGoroutine()
		t.Cleanup(func() {
			eventually(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= before+10 })
		})
		for range 3 {
			srv, client := start(t, quietServer(nil), quietClient(nil))
			srv.Handle("echo", echo)
			w := &world{World: &testkit.World{T: t, Srv: srv, Client: client, Ctx: context.Background()}}
			s := w.Open("echo") // left open on purpose
			w.Send(s, "x")
			w.Want(s, "x")
			d, err := client.Open(w.Ctx, "echo", &kernel.OpenOptions{Dedicated: true})
			if err != nil {
				t.Fatal(err)
			}
			_ = d.Out()
			_ = d.In()
			_ = client.Close()
			_ = srv.Close()
		}
	})
}
