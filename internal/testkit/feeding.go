package testkit

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Feeders is how many goroutines feed channels of streams now.
func Feeders() int {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	n := 0
	for _, f := range []string{"actor.(*Stream).pumpIn(", "actor.(*Stream).pumpBatches(", "kernel.(*Stream).Feed("} {
		n += strings.Count(string(stacks), f)
	}
	return n
}

// noFeeders checks that no goroutine is left that waits for a reader.
func (w *World) noFeeders() {
	w.T.Helper()
	synctest.Wait()
	if n := Feeders(); n > 0 {
		w.T.Errorf("%d goroutines wait for readers", n)
	}
}

// offered opens a stream that ctx bounds, and accepts it.
func (w *World) offered(ctx context.Context, opts kernel.StreamOptions) (a, b *kernel.Stream) {
	w.T.Helper()
	w.AskOffers()
	a = Must[*kernel.Stream](w.T)(w.Client.Open(ctx, "values", &kernel.OpenOptions{Stream: opts}))
	b = Must[*kernel.Stream](w.T)(w.Offer().Accept(pool.Message{}, nil))
	w.Cleanup(a, b)
	return a, b
}

// CloseWaitsForNoReader checks that n channels which feed makes of one stream are closed
// when this side reads no more, although they are not read, also where the stream was over
// already.
func CloseWaitsForNoReader(t *testing.T, n int, feed func(testing.TB, *kernel.Stream) <-chan pool.Message) {
	for _, reset := range []bool{false, true} {
		for _, end := range []string{"close", "context", "close receive"} {
			t.Run(fmt.Sprintf("%s, reset %v", end, reset), func(t *testing.T) {
				InBubble(t, nil, nil, func(t *testing.T, w *World) {
					w.Loose = true
					ctx, cancel := context.WithCancel(w.Ctx)
					defer cancel()
					a, b := w.offered(ctx, kernel.StreamOptions{})
					var fed []<-chan pool.Message
					for range n {
						fed = append(fed, feed(t, a))
					}
					for range n + 1 {
						w.Send(b, "value")
					}
					synctest.Wait()
					m := <-fed[0]
					m.Release()
					synctest.Wait()
					if reset {
						b.Abort(status.Aborted, "enough")
						synctest.Wait()
					}
					if f := Feeders(); f != n {
						t.Fatalf("%d goroutines feed %d channels", f, n)
					}
					switch end {
					case "close":
						_ = w.Client.Close()
					case "context":
						cancel()
					default:
						a.CloseReceive(status.OK)
					}
					w.noFeeders()
					for i, c := range fed {
						WantClosed(t, fmt.Sprintf("channel %d", i), c)
					}
				})
			})
		}
	}
}

// unread is how many messages a stream has that ends before it is asked for a channel.
const unread = 100

// Unknown is the number of messages taken where it varies.
const Unknown = -1000

// An Asker asks a stream for a channel, and takes from that once. It returns how many
// messages it took, and what checks that the channel is closed.
type Asker func(w *World, s *kernel.Stream) (taken int, closed func())

// AskedLate checks that a channel which a stream is asked for when it is over is fed like
// others, and waits for a reader no longer than others, whatever comes first: the question,
// or what ends the wait.
func AskedLate(t *testing.T, ask Asker) {
	for _, end := range []string{"close", "context"} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, before %v", end, before), func(t *testing.T) {
				InBubble(t, nil, nil, func(_ *testing.T, w *World) { w.askLate(ask, end, before) })
			})
		}
	}
}

// askLate has a stream end with messages unread, and asks for a channel then; what ends
// the wait comes after that, or before.
func (w *World) askLate(ask Asker, end string, before bool) {
	w.Loose = true
	ctx, cancel := context.WithCancel(w.Ctx)
	defer cancel()
	a, b := w.offered(ctx, kernel.StreamOptions{InBuffer: 8, MaxBatch: 8})
	for range unread {
		w.Send(b, "message")
	}
	synctest.Wait()
	b.Abort(status.Aborted, "enough")
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
		if f := Feeders(); f != 1 {
			w.T.Fatalf("%d goroutines feed one channel", f)
		}
		stop()
	}
	w.noFeeders()
	for m, err := a.Receive(w.Ctx); err == nil; m, err = a.Receive(w.Ctx) {
		m.Release()
		got++
	}
	if got >= 0 && got != unread {
		w.T.Errorf("%d of %d messages could be taken", got, unread)
	}
	closed()
}
