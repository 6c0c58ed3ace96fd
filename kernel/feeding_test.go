package kernel_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Closing a connection leaves no goroutine that waits for a reader. What was not
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
						b.Abort(status.Aborted, "enough")
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

// feed feeds a channel with what it receives from s, by Feed.
func feed(s *kernel.Stream) <-chan pool.Message {
	c := make(chan pool.Message)
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
	testkit.CloseWaitsForNoReader(t, 2, func(_ testing.TB, s *kernel.Stream) <-chan pool.Message { return feed(s) })
}

// A channel that is asked for when its stream is over is fed like others, and waited for no
// longer than others, whatever comes first: the question, or what ends the wait.
func TestAChannelAskedForLateWaitsForNoReader(t *testing.T) {
	for name, ask := range map[string]testkit.Asker{
		"In": func(w *testkit.World, s *kernel.Stream) (int, func()) {
			in := s.In()
			m := <-in
			m.Release()
			return 1, func() { wantClosed(w.T, "In", in) }
		},
		"Batches": func(w *testkit.World, s *kernel.Stream) (int, func()) {
			batches := s.Batches()
			n := 0
			if b, ok := <-batches; ok {
				n = b.Len()
				b.Release()
			}
			return n, func() { wantClosed(w.T, "Batches", batches) }
		},
		"Feed": func(w *testkit.World, s *kernel.Stream) (int, func()) {
			c := feed(s)
			if m, ok := <-c; ok {
				m.Release()
			}
			return testkit.Unknown, func() { wantClosed(w.T, "the channel", c) } // it lets go what it has in hand
		},
	} {
		t.Run(name, func(t *testing.T) { testkit.AskedLate(t, ask) })
	}
}
