package kernel_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/kernel"
)

// Who closes a connection leaves nobody behind who waits for a reader. What was not
// handed over can be received.
func TestCloseWaitsForNoReader(t *testing.T) {
	closeClient := func(w *world, _ *kernel.Stream) error { return w.Client.Close() }
	closeConn := func(_ *world, s *kernel.Stream) error { return s.Conn().Close() }
	closeServer := func(w *world, _ *kernel.Stream) error { return w.Srv.Close() }
	for _, c := range []struct {
		name   string
		server bool // reads, and closes
		reset  bool // the streams, by the peer and before
		close  func(*world, *kernel.Stream) error
	}{
		{"client", false, false, closeClient},
		{"client, streams that are over", false, true, closeClient},
		{"client's connection", false, false, closeConn},
		{"server", true, false, closeServer},
		{"server's connection, streams that are over", true, true, closeConn},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, nil, nil, func(t *testing.T, w *world) {
				w.Loose = true
				var readers []*kernel.Stream
				for range 50 {
					a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
					if c.server {
						a, b = b, a
					}
					readers = append(readers, w.unread(a, b))
					if c.reset {
						b.Abort(kernel.CodeAborted, "enough")
					}
				}
				synctest.Wait()
				if n := feeders(); n != len(readers) {
					t.Fatalf("%d goroutines feed %d streams", n, len(readers))
				}
				if err := c.close(w, readers[0]); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if n := feeders(); n > 0 {
					t.Errorf("%d goroutines wait for readers", n)
				}
				w.wantRest(readers)
			})
		})
	}
}

const unreadMessages = 100

// unread has a with messages from b, one of which was taken from In.
func (w *world) unread(a, b *kernel.Stream) *kernel.Stream {
	for range unreadMessages {
		w.Send(b, "message")
	}
	m := <-a.In()
	m.Release()
	synctest.Wait()
	return a
}

func (w *world) wantRest(readers []*kernel.Stream) {
	w.T.Helper()
	for _, s := range readers {
		n := 1
		m, err := s.Receive(w.Ctx)
		for ; err == nil; m, err = s.Receive(w.Ctx) {
			m.Release()
			n++
		}
		if n != unreadMessages {
			w.T.Fatalf("%d of %d messages could be taken, then %v", n, unreadMessages, err)
		}
		wantClosed(w.T, "In", s.In())
	}
}

// feeders is how many goroutines feed channels now.
func feeders() int {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	n := 0
	for _, f := range []string{"actor.(*Stream).pumpIn(", "actor.(*Stream).pumpBatches(", "kernel.(*Stream).Feed("} {
		n += strings.Count(string(stacks), f)
	}
	return n
}

// feed feeds a channel with what it receives from s, by Feed.
func feed(s *kernel.Stream) <-chan kernel.Message {
	c := make(chan kernel.Message)
	go s.Feed(func(done <-chan struct{}) {
		defer close(c)
		for m, err := range s.All(context.Background()) {
			if err != nil {
				return
			}
			select {
			case c <- m:
			case <-done:
				m.Release()
				return
			}
		}
	})
	return c
}

// A channel that a program feeds waits no longer either, nor when its stream was over
// already; the context that the stream was opened with ends such a wait too. Several may
// be fed.
func TestCloseWaitsForNoReaderOfAProgramsChannel(t *testing.T) {
	for _, reset := range []bool{false, true} {
		for _, end := range []string{"close", "context", "close receive"} {
			t.Run(fmt.Sprintf("%s, reset %v", end, reset), func(t *testing.T) {
				inBubble(t, nil, nil, func(t *testing.T, w *world) {
					w.Loose = true
					w.Offers = w.Srv.Offers()
					ctx, cancel := context.WithCancel(w.Ctx)
					defer cancel()
					a := must[*kernel.Stream](t)(w.Client.Open(ctx, "values", nil))
					b := must[*kernel.Stream](t)(w.Offer().Accept(kernel.Message{}, nil))
					w.Cleanup(a, b)
					one, two := feed(a), feed(a)
					for range 3 {
						w.Send(b, "value")
					}
					synctest.Wait()
					m := <-one
					m.Release()
					synctest.Wait()
					if reset {
						b.Abort(kernel.CodeAborted, "enough")
						synctest.Wait()
					}
					if n := feeders(); n != 2 {
						t.Fatalf("%d goroutines feed two channels", n)
					}
					switch end {
					case "close":
						_ = w.Client.Close()
					case "context":
						cancel()
					default:
						a.CloseReceive(kernel.CodeOK)
					}
					synctest.Wait()
					if n := feeders(); n > 0 {
						t.Errorf("%d goroutines wait for readers", n)
					}
					wantClosed(t, "one", one)
					wantClosed(t, "the other", two)
				})
			})
		}
	}
}

// Who asks for a channel of a stream that is over is fed like others, and waited for no
// longer than others, whatever comes first: the question, or what ends the wait.
func TestAChannelAskedForLateWaitsForNoReader(t *testing.T) {
	for name, ask := range map[string]func(w *world, s *kernel.Stream) (taken int, closed func()){
		"In": func(w *world, s *kernel.Stream) (int, func()) {
			in := s.In()
			m := <-in
			m.Release()
			return 1, func() { wantClosed(w.T, "In", in) }
		},
		"Batches": func(w *world, s *kernel.Stream) (int, func()) {
			batches := s.Batches()
			n := 0
			if b, ok := <-batches; ok {
				n = b.Len()
				b.Release()
			}
			return n, func() { wantClosed(w.T, "Batches", batches) }
		},
		"Feed": func(w *world, s *kernel.Stream) (int, func()) {
			c := feed(s)
			if m, ok := <-c; ok {
				m.Release()
			}
			return unknown, func() { wantClosed(w.T, "the channel", c) } // it lets go what it has in hand
		},
	} {
		for _, end := range []string{"close", "context"} {
			for _, before := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, before %v", name, end, before), func(t *testing.T) {
					inBubble(t, nil, nil, func(t *testing.T, w *world) { w.askLate(ask, end, before) })
				})
			}
		}
	}
}

// unknown is how many messages were taken where nobody can say.
const unknown = -1000

// askLate has a stream end with messages unread, and asks for a channel then; what ends
// the wait comes after that, or before.
func (w *world) askLate(ask func(*world, *kernel.Stream) (int, func()), end string, before bool) {
	w.Loose = true
	w.Offers = w.Srv.Offers()
	ctx, cancel := context.WithCancel(w.Ctx)
	defer cancel()
	a := must[*kernel.Stream](w.T)(w.Client.Open(ctx, "late", &kernel.OpenOptions{Stream: kernel.StreamOptions{InBuffer: 8, MaxBatch: 8}}))
	b := must[*kernel.Stream](w.T)(w.Offer().Accept(kernel.Message{}, nil))
	w.Cleanup(a, b)
	for range unreadMessages {
		w.Send(b, "message")
	}
	synctest.Wait()
	b.Abort(kernel.CodeAborted, "enough")
	w.WantDone(a)
	synctest.Wait()
	stop := func() {
		if end == "close" {
			_ = w.Client.Close()
		}
		cancel()
		synctest.Wait()
	}
	if before {
		stop()
	}
	got, closed := ask(w, a)
	synctest.Wait()
	if !before {
		if f := feeders(); f != 1 {
			w.T.Fatalf("%d goroutines feed one channel", f)
		}
		stop()
	}
	if f := feeders(); f > 0 {
		w.T.Errorf("%d goroutines wait for readers", f)
	}
	for m, err := a.Receive(w.Ctx); err == nil; m, err = a.Receive(w.Ctx) {
		m.Release()
		got++
	}
	if got >= 0 && got != unreadMessages {
		w.T.Errorf("%d of %d messages could be taken", got, unreadMessages)
	}
	closed()
}
