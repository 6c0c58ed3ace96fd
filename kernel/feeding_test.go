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

// Closing a connection leaves no goroutine that waits for a reader. What was not
// handed over can be received.
func TestCloseWaitsForNoReader(t *testing.T) {
	closeClient := func(w *world, _ *kernel.Stream) error { return w.client.Close() }
	closeConn := func(_ *world, s *kernel.Stream) error { return s.Conn().Close() }
	closeServer := func(w *world, _ *kernel.Stream) error { return w.srv.Close() }
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
				w.loose = true
				var readers []*kernel.Stream
				for range 50 {
					a, b := w.pair(kernel.StreamOptions{}, kernel.StreamOptions{})
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
		w.send(b, "message")
	}
	m := <-a.In()
	m.Release()
	synctest.Wait()
	return a
}

func (w *world) wantRest(readers []*kernel.Stream) {
	w.t.Helper()
	for _, s := range readers {
		n := 1
		m, err := s.Receive(w.ctx)
		for ; err == nil; m, err = s.Receive(w.ctx) {
			m.Release()
			n++
		}
		if n != unreadMessages {
			w.t.Fatalf("%d of %d messages could be taken, then %v", n, unreadMessages, err)
		}
		wantClosed(w.t, "In", s.In())
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
					w.loose = true
					w.offers = w.srv.Offers()
					ctx, cancel := context.WithCancel(w.ctx)
					defer cancel()
					a := must[*kernel.Stream](t)(w.client.Open(ctx, "values", nil))
					b := must[*kernel.Stream](t)(w.offer().Accept(kernel.Message{}, nil))
					w.cleanup(a, b)
					one, two := feed(a), feed(a)
					for range 3 {
						w.send(b, "value")
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
						_ = w.client.Close()
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

// A channel that is asked for when its stream is over is fed like others, and waited for no
// longer than others, whatever comes first: the question, or what ends the wait.
func TestAChannelAskedForLateWaitsForNoReader(t *testing.T) {
	for name, ask := range map[string]func(w *world, s *kernel.Stream) (taken int, closed func()){
		"In": func(w *world, s *kernel.Stream) (int, func()) {
			in := s.In()
			m := <-in
			m.Release()
			return 1, func() { wantClosed(w.t, "In", in) }
		},
		"Batches": func(w *world, s *kernel.Stream) (int, func()) {
			batches := s.Batches()
			n := 0
			if b, ok := <-batches; ok {
				n = b.Len()
				b.Release()
			}
			return n, func() { wantClosed(w.t, "Batches", batches) }
		},
		"Feed": func(w *world, s *kernel.Stream) (int, func()) {
			c := feed(s)
			if m, ok := <-c; ok {
				m.Release()
			}
			return unknown, func() { wantClosed(w.t, "the channel", c) } // it lets go what it has in hand
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

// unknown is the number of messages taken where it varies.
const unknown = -1000

// askLate has a stream end with messages unread, and asks for a channel then; what ends
// the wait comes after that, or before.
func (w *world) askLate(ask func(*world, *kernel.Stream) (int, func()), end string, before bool) {
	w.loose = true
	w.offers = w.srv.Offers()
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	a := must[*kernel.Stream](w.t)(w.client.Open(ctx, "late", &kernel.OpenOptions{Stream: kernel.StreamOptions{InBuffer: 8, MaxBatch: 8}}))
	b := must[*kernel.Stream](w.t)(w.offer().Accept(kernel.Message{}, nil))
	w.cleanup(a, b)
	for range unreadMessages {
		w.send(b, "message")
	}
	synctest.Wait()
	b.Abort(kernel.CodeAborted, "enough")
	w.wantDone(a)
	synctest.Wait()
	stop := func() {
		if end == "close" {
			_ = w.client.Close()
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
			w.t.Fatalf("%d goroutines feed one channel", f)
		}
		stop()
	}
	if f := feeders(); f > 0 {
		w.t.Errorf("%d goroutines wait for readers", f)
	}
	for m, err := a.Receive(w.ctx); err == nil; m, err = a.Receive(w.ctx) {
		m.Release()
		got++
	}
	if got >= 0 && got != unreadMessages {
		w.t.Errorf("%d of %d messages could be taken", got, unreadMessages)
	}
	closed()
}
