package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/status"
)

// A watcher is an Observer that writes down what it is told.
type watcher struct {
	mu      sync.Mutex
	conns   map[*kernel.Conn]*kernel.ConnInfo // nil: has not ended
	streams map[*kernel.Stream]*kernel.StreamInfo
	wrong   []string
	hook    func() // called in each call
}

func newWatcher() *watcher {
	return &watcher{conns: map[*kernel.Conn]*kernel.ConnInfo{}, streams: map[*kernel.Stream]*kernel.StreamInfo{}}
}

func (o *watcher) told() func() {
	if o.hook != nil {
		o.hook()
	}
	o.mu.Lock()
	return o.mu.Unlock
}

func (o *watcher) wrongf(format string, args ...any) {
	o.wrong = append(o.wrong, fmt.Sprintf(format, args...))
}

func (o *watcher) ConnBegun(c *kernel.Conn) {
	defer o.told()()
	if _, twice := o.conns[c]; twice {
		o.wrongf("a connection begins twice")
	}
	o.conns[c] = nil
}

func (o *watcher) ConnEnded(c *kernel.Conn, i kernel.ConnInfo) {
	defer o.told()()
	if before, begun := o.conns[c]; !begun || before != nil {
		o.wrongf("a connection ends that has not begun, or a second time: %+v", i)
	}
	if c.Err() == nil || i.State != "closed" {
		o.wrongf("a connection ends that lives on: %+v", i)
	}
	o.conns[c] = &i
}

func (o *watcher) StreamBegun(s *kernel.Stream) {
	defer o.told()()
	if _, twice := o.streams[s]; twice {
		o.wrongf("a stream begins twice")
	}
	if _, begun := o.conns[s.Conn()]; !begun {
		o.wrongf("a stream begins before its connection")
	}
	o.streams[s] = nil
}

func (o *watcher) StreamEnded(s *kernel.Stream, i kernel.StreamInfo) {
	defer o.told()()
	if before, begun := o.streams[s]; !begun || before != nil {
		o.wrongf("a stream ends that has not begun, or a second time: %+v", i)
	}
	if i.State != "closed" || i.Method != s.Method() {
		o.wrongf("a stream ends that lives on: %+v", i)
	}
	o.streams[s] = &i
}

// ended is how many streams have ended, and how many have not.
func (o *watcher) ended() (over, open int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, i := range o.streams {
		if i == nil {
			open++
		} else {
			over++
		}
	}
	return over, open
}

// settled checks, after Close, that everything has ended that has begun.
func (o *watcher) settled(t *testing.T) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range o.wrong {
		t.Error(w)
	}
	for c, i := range o.conns {
		if i == nil {
			t.Errorf("a connection to %v has not ended", c.Peer().Addr)
		}
	}
	for s, i := range o.streams {
		if i == nil {
			t.Errorf("a stream has not ended: %+v", s.Snapshot())
		}
	}
}

func (o *watcher) only(t *testing.T, s *kernel.Stream) kernel.StreamInfo {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	i := o.streams[s]
	if i == nil {
		t.Fatalf("the observer knows of no end of %s", s.Method())
	}
	return *i
}

func TestObserver(t *testing.T) {
	starts := map[string]starter{"brpc": foreigns[0].start}
	for _, tr := range testkit.Transports {
		starts[tr.Name] = tr.Start
	}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			server, client := newWatcher(), newWatcher()
			w := newWorld(t, start, &kernel.ServerOptions{Observer: server}, &kernel.ClientOptions{Observer: client})
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			for range 10 {
				w.Send(a, "ten bytes.")
			}
			w.DrainN(b, 10)
			w.Send(b, "and one back")
			w.DrainN(a, 1)
			c, d := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			d.Abort(status.Aborted, "over")
			w.WantDone(c)
			a.Abort(status.Cancelled, "over")
			w.WantDone(b)
			w.Eventually("the ends to be told", func() bool {
				n, _ := server.ended()
				m, _ := client.ended()
				return n >= 2 && m >= 2
			})
			i, j := client.only(t, a), server.only(t, b)
			if i.MessagesSent != 10 || i.BytesSent != 100 || i.MessagesReceived != 1 || i.BytesReceived != 12 || !i.Opener {
				t.Errorf("the client's stream: %+v", i)
			}
			if j.MessagesReceived != 10 || j.BytesReceived != 100 || j.MessagesSent != 1 || j.BytesSent != 12 || j.Opener {
				t.Errorf("the server's stream: %+v", j)
			}
			for _, i := range []kernel.StreamInfo{i, j} {
				if i.Latency <= 0 || i.Age <= i.Latency || i.Age > patience {
					t.Errorf("times: %+v", i)
				}
			}
			if i := client.only(t, a); i.Code != status.Cancelled {
				t.Errorf("the aborted stream: %+v", i)
			}
			_ = w.Client.Close()
			_ = w.Srv.Close()
			server.settled(t)
			client.settled(t)
			if len(server.conns) == 0 || len(client.conns) == 0 {
				t.Error("nobody was told of a connection")
			}
			for k, i := range client.conns {
				if i.BytesSent == 0 || i.BytesReceived == 0 || i.Age <= 0 || !i.Client {
					t.Errorf("the client's connection to %v: %+v", k.Peer().Addr, i)
				}
			}
		})
	}
}

// An Observer that is too slow misses whole streams, never one end of them, and the memory
// that waits for it is bounded.
func TestSlowObserver(t *testing.T) {
	o, log := newWatcher(), &journal{}
	free := make(chan struct{})
	o.hook = func() { <-free }
	w := newWorld(t, kerneltest.Start, &kernel.ServerOptions{Observer: o, Logger: log.Logger()}, nil)
	w.Srv.Handle("nothing", func(context.Context, *kernel.Stream) error { return nil })
	early := w.Open("nothing") // begins, as far as the observer will know, and ends much later
	const calls = 17_000
	for range calls {
		s := w.Open("nothing")
		w.WantEOF(s)
		ok(t, s.CloseSend())
	}
	w.WantEOF(early)
	ok(t, early.CloseSend())
	w.Eventually("the streams to end", func() bool { return w.Srv.Conns()[0].Streams() == 0 })
	dropped := w.Srv.Stats().ObserverDropped
	if dropped == 0 || dropped%2 != 0 {
		t.Errorf("%d calls were dropped", dropped)
	}
	close(free)
	w.Eventually("the observer to be told", func() bool {
		over, open := o.ended()
		return open == 0 && uint64(2*over)+dropped == 2*(calls+1)
	}, func() string {
		over, open := o.ended()
		return fmt.Sprintf("%d are over, %d open, %d calls dropped", over, open, dropped)
	})
	said := func() int { return strings.Count(log.String(), "observer is too slow") }
	if w.Eventually("it to be logged", func() bool { return said() > 0 }); said() != 1 {
		t.Errorf("logged %d times", said())
	}
	// It has caught up, and is told again.
	s := w.Open("nothing")
	w.WantEOF(s)
	ok(t, s.CloseSend())
	w.Eventually("another stream to be told", func() bool {
		over, _ := o.ended()
		return uint64(2*over)+dropped == 2*(calls+2)
	})
	_ = w.Client.Close()
	_ = w.Srv.Close()
	o.settled(t)
}

// An Observer may panic and end its goroutine: that is counted, and the next call is made.
func TestObserverPanics(t *testing.T) {
	for name, fail := range map[string]func(){
		"panic": func() { panic("the observer's fault") }, "Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			o := newWatcher()
			o.hook = fail
			w := newWorld(t, kerneltest.Start, nil, &kernel.ClientOptions{Observer: o})
			w.Srv.Handle("echo", echo)
			s := w.Open("echo")
			w.Send(s, "still here")
			w.Want(s, "still here")
			ok(t, s.CloseSend())
			w.WantEOF(s)
			w.Eventually("the calls to be made", func() bool { return w.Client.Stats().Panics == 3 })
			_ = w.Client.Close()
			if st := w.Client.Stats(); st.Panics != 4 || st.ObserverDropped != 0 || st.Conns != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// Close has the Observer told of everything, and waits no longer than 1 s for that.
func TestCloseAndTheObserver(t *testing.T) {
	for _, blocks := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			server, client := newWatcher(), newWatcher()
			free := make(chan struct{})
			if blocks {
				server.hook = func() { <-free }
			} else {
				server.hook = func() { time.Sleep(time.Millisecond) }
			}
			w := newWorld(t, kerneltest.Start, &kernel.ServerOptions{Observer: server}, &kernel.ClientOptions{Observer: client})
			w.Loose = true
			for range 20 {
				w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			}
			start := time.Now()
			_ = w.Srv.Close()
			took := time.Since(start)
			dropped := w.Srv.Stats().ObserverDropped
			switch {
			case !blocks && (dropped != 0 || took > time.Second/2):
				t.Errorf("Close took %v and dropped %d calls", took, dropped)
			case blocks && (dropped != 41 || took < time.Second || took > time.Second+time.Second/2):
				t.Errorf("Close took %v and dropped %d calls", took, dropped)
			}
			if !blocks {
				server.settled(t)
			}
			_ = w.Client.Close()
			client.settled(t)
			if over, _ := client.ended(); over != 20 {
				t.Errorf("%d streams have ended at the client", over)
			}
			close(free)
		})
	}
}

// Shutdown does so too.
func TestShutdownAndTheObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newWatcher()
		o.hook = func() { time.Sleep(10 * time.Millisecond) }
		w := newWorld(t, kerneltest.Start, &kernel.ServerOptions{Observer: o}, nil)
		w.Srv.Handle("echo", echo)
		s := w.Open("echo")
		ok(t, s.CloseSend())
		w.WantEOF(s)
		ok(t, w.Srv.Shutdown(w.Ctx))
		o.settled(t)
		if over, _ := o.ended(); over != 1 || len(o.conns) != 1 {
			t.Errorf("%d streams and %d connections have ended", over, len(o.conns))
		}
	})
}

// Streams that end in every way and at any time are told of once.
func TestObserverAtAnyTime(t *testing.T) {
	server, client := newWatcher(), newWatcher()
	w := newWorld(t, loops, &kernel.ServerOptions{Observer: server}, &kernel.ClientOptions{Observer: client, Conns: 2})
	w.Srv.Handle("echo", echo)
	w.Srv.HandleOffer("refused", func(context.Context, *kernel.Offer) error { return errors.New("no") })
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for i := range 100 {
				ctx, cancel := context.WithCancel(w.Ctx)
				s, err := w.Client.Open(ctx, []string{"echo", "refused", "unknown"}[i%3], nil)
				if err != nil {
					t.Error(err)
					cancel()
					continue
				}
				switch (n + i) % 4 {
				case 0:
					cancel()
				case 1:
					s.Abort(status.Cancelled, "at once")
				case 2:
					_ = s.CloseSend()
					drain(s)
				case 3:
					if i == 99 {
						_ = s.Conn().Close()
					}
				}
				cancel()
			}
		})
	}
	wg.Wait()
	_ = w.Client.Close()
	_ = w.Srv.Close()
	client.settled(t)
	server.settled(t)
	if over, _ := client.ended(); over != 400 {
		t.Errorf("%d streams have ended at the client", over)
	}
}
