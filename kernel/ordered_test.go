package kernel_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// A turn notes who is served when, and that nobody else is at the same time.
type turn struct {
	mu     sync.Mutex
	served []int
	now    atomic.Int32
	most   atomic.Int32
	all    chan struct{} // closed when want are served
	want   int
}

func newTurn(want int) *turn { return &turn{want: want, all: make(chan struct{})} }

// serve serves the stream whose first message is a number, by f.
func (o *turn) serve(f func(n int)) kernel.Handler {
	return func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(m.Bytes()))
		m.Release()
		if err != nil {
			return err
		}
		o.most.Store(max(o.most.Load(), o.now.Add(1)))
		defer o.now.Add(-1)
		o.mu.Lock()
		o.served = append(o.served, n)
		if len(o.served) == o.want {
			close(o.all)
		}
		o.mu.Unlock()
		f(n)
		return nil
	}
}

// order is who was served so far.
func (o *turn) order() []int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.served)
}

// tell makes call n, and does not wait for it.
func tell(t testing.TB, w *world, method string, n int) {
	t.Helper()
	if _, err := w.Client.Call(w.Ctx, method, say(strconv.Itoa(n)), &kernel.CallOptions{NoWait: true}); err != nil {
		t.Fatal(err)
	}
}

// Streams of ordered methods are served one after another, in the order in which they were
// opened, whatever their methods are, and others beside them.
func TestOrderedMethods(t *testing.T) {
	const streams = 300
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		o := newTurn(streams)
		h := o.serve(func(int) { runtime.Gosched() })
		w.Srv.Ordered("a")
		w.Srv.Handle("a", h)
		w.Srv.Handle("b", h)
		w.Srv.Ordered("b")
		release := make(chan struct{})
		w.Srv.Handle("free", func(context.Context, *kernel.Stream) error {
			<-release
			return nil
		})
		tell(t, w, "free", 0)
		want := make([]int, streams)
		for i := range want {
			want[i] = i
			tell(t, w, []string{"a", "b"}[i%2], i)
		}
		select {
		case <-o.all:
		case <-w.Ctx.Done():
			t.Fatalf("%d of %d are served", len(o.order()), streams)
		}
		close(release)
		if !slices.Equal(o.order(), want) || o.most.Load() != 1 {
			t.Errorf("%d at once, in the order %v", o.most.Load(), o.order())
		}
	})
}

// Whoever has its turn holds up what comes behind it on its connection, and nothing else.
// What ended while it waited is not served.
func TestATurnHoldsUpItsOwnConnectionOnly(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		o := newTurn(0)
		release := make(chan struct{})
		h := o.serve(func(n int) {
			switch n {
			case 1:
				<-release
			case 2:
				panic("as asked")
			case 3:
				runtime.Goexit()
			}
		})
		w.Srv.Handle("a", h)
		w.Srv.Ordered("a")
		for i := range 4 {
			tell(t, w, "a", i)
		}
		ends := w.Open("a")
		w.Send(ends, "4")
		for i := range 2 {
			tell(t, w, "a", 5+i)
		}
		w.Quiesce()
		if fmt.Sprint(o.order()) != "[0 1]" {
			t.Fatalf("%v are served while the second has its turn", o.order())
		}
		ends.Abort(status.Cancelled, "changed my mind")
		free := make(chan struct{})
		w.Srv.Handle("free", func(ctx context.Context, s *kernel.Stream) error {
			m, err := s.Receive(ctx) // or the client, which may still send, would be stopped
			m.Release()
			close(free)
			return err
		})
		tell(t, w, "free", 0)
		<-free
		close(release)
		w.Quiesce()
		if fmt.Sprint(o.order()) != "[0 1 2 3 5 6]" {
			t.Errorf("%v are served", o.order())
		}
		w.Srv.Remove("a") // and with it that it is ordered
		w.Srv.Handle("a", h)
		release = make(chan struct{})
		for i := range 3 {
			tell(t, w, "a", i)
		}
		w.Quiesce()
		if len(o.order()) != 6+3 {
			t.Errorf("%v are served, without an order", o.order())
		}
		close(release)
	})
}

// Streams in order wait for room like others, and with others.
func TestOrderedStreamsWaitForRoom(t *testing.T) {
	const most = 4
	so := &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: most}}
	inBubble(t, so, nil, func(t *testing.T, w *world) {
		o := newTurn(0)
		w.Srv.Handle("a", o.serve(func(int) { time.Sleep(time.Second) }))
		w.Srv.Ordered("a")
		w.Srv.Handle("slow", func(context.Context, *kernel.Stream) error {
			time.Sleep(10 * time.Second)
			return nil
		})
		for i := range 20 {
			tell(t, w, "slow", i)
			tell(t, w, "a", i)
		}
		time.Sleep(time.Minute)
		want := make([]int, 20)
		for i := range want {
			want[i] = i
		}
		if !slices.Equal(o.order(), want) || o.most.Load() != 1 {
			t.Errorf("%d at once, in the order %v", o.most.Load(), o.order())
		}
	})
}
