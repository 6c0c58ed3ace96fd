package kernel_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
)

// A tracing is one call of Trace and what it has seen.
type tracing struct {
	mu     sync.Mutex
	frames []conn.FrameInfo
	stop   context.CancelFunc
	ended  chan struct{}
}

// trace begins to trace c: when it returns, no frame is missed any more.
func trace(t testing.TB, c *kernel.Conn) *tracing {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tr := &tracing{stop: cancel, ended: make(chan struct{})}
	before := c.Snapshot().Traces
	go func() {
		defer close(tr.ended)
		c.Trace(ctx, func(i conn.FrameInfo) {
			tr.mu.Lock()
			defer tr.mu.Unlock()
			tr.frames = append(tr.frames, i)
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-tr.ended
	})
	eventually(t, "Trace to begin", func() bool { return c.Snapshot().Traces > before })
	return tr
}

// of is the frames of stream id in one direction, without those that time decides.
func (tr *tracing) of(id uint64, sent bool) (fs []conn.FrameInfo) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, f := range tr.frames {
		if f.Stream == id && f.Sent == sent && f.Kind != "CREDIT" {
			fs = append(fs, f)
		}
	}
	return fs
}

func describe(fs []conn.FrameInfo) string {
	var s []string
	for _, f := range fs {
		switch f.Kind {
		case "OPEN":
			s = append(s, fmt.Sprintf("OPEN %s %d+%d", f.Method, f.Streams, f.Length))
		case "DATA":
			s = append(s, fmt.Sprintf("DATA %d %v-%v", f.Length, f.First, f.Last))
		case "EOS", "RESET":
			s = append(s, fmt.Sprintf("%s %v", f.Kind, f.Code))
		case "ENDED":
			s = append(s, fmt.Sprintf("ENDED %d", f.Value))
		default:
			s = append(s, f.Kind)
		}
	}
	return strings.Join(s, ", ")
}

// What one side sends is what the other receives, in that order, and what was done.
func TestTrace(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", func(ctx context.Context, s *kernel.Stream) error {
			return echo(ctx, s)
		})
		w.Call("echo", "first", "first") // now both sides have a connection
		client, server := trace(t, w.Client.Conns()[0]), trace(t, w.Srv.Conns()[0])
		s := must[*kernel.Stream](t)(w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{
			Request: pool.MessageOf([]byte("secret request")), Metadata: metadata.MD{{Key: "key", Value: "secret value"}},
		}))
		w.Send(s, "secret 1")
		w.Want(s, "secret 1")
		ok(t, s.CloseSend())
		w.WantEOF(s)
		w.WantDone(s)
		up := "OPEN echo 1+14, DATA 8 true-true, EOS OK, ENDED 1"
		down := "ACCEPT, DATA 8 true-true, EOS OK, ENDED 1"
		for _, x := range []struct {
			side string
			tr   *tracing
			sent bool
			want string
		}{
			{"the client sends", client, true, up},
			{"the server receives", server, false, up},
			{"the server sends", server, true, down},
			{"the client receives", client, false, down},
		} {
			got := ""
			w.Eventually(x.side, func() bool {
				got = describe(x.tr.of(s.ID(), x.sent))
				// ENDED may be written before or after the own end.
				return sorted(got) == sorted(x.want)
			}, func() string { return fmt.Sprintf("%s, want %s", got, x.want) })
		}
		for _, tr := range []*tracing{client, server} {
			tr.stop()
			<-tr.ended
			if s := fmt.Sprintf("%+v", tr.frames); strings.Contains(s, "secret") {
				t.Errorf("the trace has contents: %s", s)
			}
		}
		if n := w.Client.Conns()[0].Snapshot().Traces; n != 0 {
			t.Errorf("%d traces are left", n)
		}
		client.frames = nil
		w.Call("echo", "untraced", "untraced")
		if len(client.frames) > 0 {
			t.Errorf("traced after the end: %v", client.frames)
		}
	})
}

func sorted(s string) string {
	parts := strings.Split(s, ", ")
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// Each message is seen, also those that are read many at a time, and each piece of a long one.
func TestTraceOfBurstsAndPieces(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		sends, receives := trace(t, a.Conn()), trace(t, b.Conn())
		const n, long = 500, 300 << 10
		go func() {
			for i := range n {
				w.SendMessage(a, sized(1+i%50, 1))
			}
			w.SendMessage(a, sized(long, 1))
		}()
		w.DrainN(b, n+1)
		bytes := long
		for i := range n {
			bytes += 1 + i%50
		}
		for name, x := range map[string]struct {
			tr   *tracing
			sent bool
		}{"sent": {sends, true}, "received": {receives, false}} {
			var first, last, sum int
			w.Eventually("all to be traced", func() bool {
				first, last, sum = 0, 0, 0
				for _, f := range x.tr.of(a.ID(), x.sent) {
					if f.Kind != "DATA" || f.Lost != 0 {
						t.Fatalf("%+v", f)
					}
					sum += f.Length
					if f.First {
						first++
					}
					if f.Last {
						last++
					}
				}
				return sum == bytes
			}, func() string { return fmt.Sprintf("%s: %d bytes of %d", name, sum, bytes) })
			if first != n+1 || last != n+1 {
				t.Errorf("%s: %d messages begin and %d end, of %d", name, first, last, n+1)
			}
		}
	})
}

// A function that is slow holds up nobody, and is told what it has missed.
func TestSlowTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, kerneltest.Start, nil, nil)
		w.Bubble, w.Ctx = true, context.Background()
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		free := make(chan struct{})
		seen, lost := 0, uint64(0)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			a.Conn().Trace(w.Ctx, func(i conn.FrameInfo) {
				<-free
				lost += i.Lost
				if i.Kind == "DATA" {
					seen++
				}
			})
		}()
		synctest.Wait()
		const n = 5000
		for range n {
			w.Send(a, "x")
			w.DrainN(b, 1)
		}
		synctest.Wait()
		close(free)
		synctest.Wait()
		w.Send(a, "x")
		w.DrainN(b, 1)
		synctest.Wait()
		if seen < 1000 || seen > 1100 || int(lost) < n-seen {
			t.Errorf("%d of %d frames were seen, and %d lost", seen, n, lost)
		}
		_ = a.Conn().Close()
		<-ended // with its connection
	})
}

// A panic of the function is its caller's, and the trace is over.
func TestPanicInTrace(t *testing.T) {
	w := newWorld(t, kerneltest.Start, nil, nil)
	w.Srv.Handle("echo", echo)
	k := w.Client.Conns()[0]
	panicked := make(chan any, 1)
	go func() {
		defer func() { panicked <- recover() }()
		k.Trace(w.Ctx, func(conn.FrameInfo) { panic("at the first frame") })
	}()
	w.Eventually("a frame to be traced", func() bool {
		w.Call("echo", "one", "one")
		return len(panicked) > 0
	})
	if r := <-panicked; r != "at the first frame" {
		t.Errorf("the caller got %v", r)
	}
	if n := k.Snapshot().Traces; n != 0 {
		t.Errorf("%d traces are left", n)
	}
	w.Call("echo", "two", "two")
}

// Traces may begin and end at any time, several at once, over every protocol.
func TestTraceAtAnyTime(t *testing.T) {
	starts := map[string]starter{"brpc": foreigns[0].start}
	for _, tr := range testkit.Transports {
		starts[tr.Name] = tr.Start
	}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, start, nil, nil)
			w.Srv.Handle("echo", echo)
			w.Call("echo", "first", "first") // now both sides have a connection
			stop := make(chan struct{})
			var tracers sync.WaitGroup
			seen := make(chan struct{}, 1)
			for i := range 4 {
				k := append(w.Client.Conns(), w.Srv.Conns()...)[i%2]
				tracers.Go(func() {
					for {
						ctx, cancel := context.WithCancel(w.Ctx)
						n := 0
						k.Trace(ctx, func(f conn.FrameInfo) {
							select {
							case seen <- struct{}{}:
							default:
							}
							if n++; n == 20 {
								cancel()
							}
						})
						cancel()
						select {
						case <-stop:
							return
						case <-k.Done():
							return
						default:
						}
					}
				})
			}
			var calls sync.WaitGroup
			for range 4 {
				calls.Go(func() {
					for range 50 {
						w.Call("echo", "hello", "hello")
					}
				})
			}
			calls.Wait()
			<-seen
			close(stop)
			_ = w.Client.Close()
			_ = w.Srv.Close()
			tracers.Wait()
		})
	}
}
