package kernel_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// stuff sends on s until there is no more credit, and returns how many bytes.
func stuff(t *testing.T, s *kernel.Stream) (n int) {
	t.Helper()
	for {
		m := pool.MessageOf(make([]byte, 1000))
		switch err := s.TrySend(m); {
		case err == nil:
			n += 1000
		case errors.Is(err, kernel.ErrWouldBlock):
			m.Release()
			return n
		default:
			t.Fatal(err)
		}
	}
}

func TestUnreadDataStaysWithinTheMemoryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: kernel.Limits{Memory: 1 << 20}}, nil)
		var streams []*kernel.Stream
		total := 0
		for range 6 {
			a, _ := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{Window: 300 << 10})
			streams = append(streams, a)
			total += stuff(t, a)
		}
		if total < 1<<20 {
			t.Fatalf("sent %d bytes: not enough for the test", total)
		}
		time.Sleep(time.Second)
		if n := srv.Stats().Evicted; n == 0 || n == uint64(len(streams)) {
			t.Errorf("%d of %d streams were evicted", n, len(streams))
		}
		evicted := 0
		for _, s := range streams {
			if errors.Is(s.Err(), &status.StreamError{Code: status.ResourceExhausted}) {
				evicted++
			}
		}
		if uint64(evicted) != srv.Stats().Evicted {
			t.Errorf("%d streams know that they were evicted, the server counts %d", evicted, srv.Stats().Evicted)
		}
	})
}

// holding starts a server with a budget, has one connection hold so many KiB of it unread, and
// returns another client.
func holding(t *testing.T, budget, unread int) (srv *kernel.Server, holder, other *kernel.Client, a, b *kernel.Stream) {
	t.Helper()
	ln := kerneltest.Listen()
	srv, err := kernel.NewServer(quietServer(&kernel.ServerOptions{Limits: kernel.Limits{Memory: budget << 10}}))
	ok(t, err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	var clients []*kernel.Client
	for range 2 {
		c, err := kernel.Dial(context.Background(), kerneltest.Target, quietClient(&kernel.ClientOptions{Dial: ln.Dial}))
		ok(t, err)
		t.Cleanup(func() { _ = c.Close() })
		clients = append(clients, c)
	}
	a, b = kerneltest.Open(t, srv, clients[0], kernel.StreamOptions{}, kernel.StreamOptions{Window: unread << 10})
	for range 10 { // OutQueue bounds what is sent at once
		stuff(t, a)
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond)
	return srv, clients[0], clients[1], a, b
}

// refusedFor checks how an open ends that is not accepted.
func refusedFor(t *testing.T, c *kernel.Client, reason string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	s, err := c.Open(ctx, "kerneltest", nil)
	ok(t, err)
	_, _, err = s.Accepted(ctx)
	var se *status.StreamError
	if !errors.As(err, &se) || se.Code != status.Refused || !se.NotProcessed || se.Reason != reason {
		t.Fatalf("got %v, want a refusal that can be tried again", err)
	}
}

// Near the budget streams are refused where more is held than is left, and nowhere else.
func TestStreamsAreRefusedNearTheMemoryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, holder, other, _, b := holding(t, 4<<10, 3388)
		refusedFor(t, holder, "the server is short of memory")
		kerneltest.Open(t, srv, other, kernel.StreamOptions{}, kernel.StreamOptions{})
		if n := srv.Stats().Evicted; n > 0 {
			t.Fatalf("%d streams within the budget were evicted", n)
		}
		b.CloseReceive(status.OK)
		time.Sleep(time.Second)
		kerneltest.Open(t, srv, holder, kernel.StreamOptions{}, kernel.StreamOptions{})
	})
}

// Well before anything is evicted, handlers of a connection that holds much wait until there is
// memory. Those of others begin, and those whose streams are over meanwhile are forgotten.
func TestHandlersOfWhoHoldsMuchWaitForMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, holder, other, _, b := holding(t, 4<<10, 2950)
		var began atomic.Int32
		srv.Handle("work", func(ctx context.Context, _ *kernel.Stream) error {
			began.Add(1)
			<-ctx.Done()
			return nil
		})
		if percent := srv.Stats().Memory * 100 / (4 << 20); percent < 76 || percent > 84 {
			t.Fatalf("%d %% are in use", percent)
		}
		var waiting []*kernel.Stream
		for range 20 {
			s, err := holder.Open(context.Background(), "work", nil)
			ok(t, err)
			waiting = append(waiting, s)
		}
		time.Sleep(200 * time.Millisecond)
		_, err := other.Open(context.Background(), "work", nil)
		ok(t, err)
		time.Sleep(200 * time.Millisecond)
		if n := began.Load(); n != 1 {
			t.Fatalf("%d handlers have begun, want the one of who holds little", n)
		}
		for _, s := range waiting[1:15] {
			s.Abort(status.Cancelled, "")
		}
		time.Sleep(200 * time.Millisecond)
		handlers := 0
		for _, c := range srv.Conns() {
			handlers += c.Snapshot().Handlers
		}
		if handlers > 8 { // with those of holding and of other
			t.Errorf("%d handlers count, of which 14 have lost their streams", handlers)
		}
		b.CloseReceive(status.OK)
		time.Sleep(200 * time.Millisecond)
		if n := began.Load(); n != 7 {
			t.Errorf("%d handlers have begun when there is memory again, want 7", n)
		}
		if n := srv.Stats().Evicted; n > 0 {
			t.Errorf("%d streams were evicted", n)
		}
	})
}

// Between the first mark and the second what holds the most goes after a second: others would
// wait for it otherwise. New clients get in meanwhile.
func TestWhatIsUnreadNearTheBudgetGoesSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, _, other, a, _ := holding(t, 4<<10, 3236)
		x, y := kerneltest.Open(t, srv, other, kernel.StreamOptions{}, kernel.StreamOptions{})
		ok(t, x.Send(context.Background(), say("little")))
		percent := srv.Stats().Memory * 100 / (4 << 20)
		if percent < 86 || percent > 94 || a.Err() != nil {
			t.Fatalf("%d %% are in use, %v", percent, a.Err())
		}
		time.Sleep(time.Second)
		if err := a.Err(); !errors.Is(err, &status.StreamError{Code: status.ResourceExhausted}) {
			t.Errorf("after a second: %v", err)
		}
		if n := srv.Stats().Evicted; n != 1 || y.Err() != nil {
			t.Errorf("%d were evicted, %v", n, y.Err())
		}
	})
}

// A server's streams are bounded, and nobody takes them all.
func TestAServersStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 100
		ln := kerneltest.Listen()
		srv, err := kernel.NewServer(quietServer(&kernel.ServerOptions{Limits: kernel.Limits{MaxTotalStreams: most}}))
		ok(t, err)
		srv.Handle("stuck", func(ctx context.Context, _ *kernel.Stream) error { <-ctx.Done(); return nil })
		served := make(chan error, 1)
		go func() { served <- srv.Serve(context.Background(), ln) }()
		defer func() {
			_ = srv.Close()
			<-served
		}()
		got := []int{}
		for range 12 {
			c, err := kernel.Dial(context.Background(), kerneltest.Target, quietClient(&kernel.ClientOptions{Dial: ln.Dial}))
			ok(t, err)
			defer c.Close()
			var ss []*kernel.Stream
			for range most {
				s, err := c.Open(context.Background(), "stuck", nil)
				ok(t, err)
				ss = append(ss, s)
			}
			synctest.Wait()
			n := 0
			for _, s := range ss {
				var se *status.StreamError
				switch err := s.Err(); {
				case err == nil:
					n++
				case !errors.As(err, &se) || !se.NotProcessed:
					t.Fatal(err)
				}
			}
			got = append(got, n)
		}
		sum := 0
		for i, n := range got {
			sum += n
			if i > 0 && n > got[i-1] || n == 0 {
				t.Fatalf("clients in their order have %v", got)
			}
		}
		if got[0] != most/2+1 || sum > most || srv.Stats().Streams != sum {
			t.Errorf("clients in their order have %v, together %d; the server counts %d", got, sum, srv.Stats().Streams)
		}
	})
}

func TestALongStalledStreamIsEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: kernel.Limits{ConnWindow: 1 << 20}}, nil)
		var held []*kernel.Stream
		for range 12 { // each takes half of what is left
			a, _ := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{Window: 1 << 20})
			stuff(t, a)
			held = append(held, a)
		}
		time.Sleep(2 * time.Minute)
		if err := held[0].Err(); !errors.Is(err, &status.StreamError{Code: status.ResourceExhausted}) {
			t.Errorf("the largest holder: %v, want RESOURCE_EXHAUSTED", err)
		}
		if err := held[len(held)-1].Err(); err != nil {
			t.Errorf("a small holder was reset: %v", err)
		}
	})
}

// A reader that holds In and takes nothing is found too: what its feeder has in
// hand is held all the same.
func TestUnreadDataBehindInIsHeldAndEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: kernel.Limits{Memory: 1 << 20}}, nil)
		const n = 290
		var streams, readers []*kernel.Stream
		for range 6 {
			a, b := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{Window: n * 1032})
			for j := range n {
				if err := a.TrySend(pool.MessageOf(make([]byte, 1000))); err != nil {
					t.Fatal(err)
				}
				if j%50 == 0 {
					synctest.Wait() // so that none is cut: fragments wait elsewhere
				}
			}
			streams, readers = append(streams, a), append(readers, b)
		}
		synctest.Wait()
		for _, b := range readers {
			b.In() // its feeder takes all that is there
		}
		time.Sleep(time.Second)
		gone := srv.Stats().Evicted
		if gone == 0 || gone == uint64(len(streams)) {
			t.Fatalf("%d of %d streams were evicted", gone, len(streams))
		}
		evicted := uint64(0)
		for i, s := range streams {
			if !errors.Is(s.Err(), &status.StreamError{Code: status.ResourceExhausted}) {
				continue
			}
			evicted++
			left := 0
			for m := range readers[i].In() {
				m.Release()
				left++
			}
			if left > 17 { // In's buffer, and one on its way
				t.Errorf("%d messages of an evicted stream were kept", left)
			}
		}
		if evicted != gone {
			t.Errorf("%d streams know that they were evicted, the server counts %d", evicted, gone)
		}
	})
}
