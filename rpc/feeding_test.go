package rpc_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
)

// A source's channel waits no longer either, nor when its stream was over already; the
// context that the stream was opened with ends such a wait too.
func TestCloseWaitsForNoReaderOfC(t *testing.T) {
	for _, reset := range []bool{false, true} {
		for _, end := range []string{"close", "context"} {
			t.Run(fmt.Sprintf("%s, reset %v", end, reset), func(t *testing.T) {
				inBubble(t, nil, nil, func(t *testing.T, w *world) {
					w.Loose = true
					w.Offers = w.Srv.Offers()
					ctx, cancel := context.WithCancel(w.Ctx)
					defer cancel()
					a := testkit.Must[*kernel.Stream](t)(w.Client.Open(ctx, "values", nil))
					b := testkit.Must[*kernel.Stream](t)(w.Offer().Accept(kernel.Message{}, nil))
					w.Cleanup(a, b)
					src := testkit.Must[*rpc.Source[kernel.Message]](t)(rpc.SourceOf[kernel.Message](a, nil))
					w.Send(b, "taken")
					w.Send(b, "waits")
					m := <-src.C()
					m.Release()
					synctest.Wait()
					if reset {
						b.Abort(kernel.CodeAborted, "enough")
						synctest.Wait()
					}
					if n := feeders(); n != 1 {
						t.Fatalf("%d goroutines feed one source", n)
					}
					if end == "close" {
						_ = w.Client.Close()
					}
					cancel()
					synctest.Wait()
					if n := feeders(); n > 0 {
						t.Errorf("%d goroutines wait for readers", n)
					}
					testkit.WantClosed(t, "C", src.C())
				})
			})
		}
	}
}

// Who asks for C of a stream that is over is fed like others, and waited for no longer
// than others, whatever comes first: the question, or what ends the wait.
func TestCAskedForLateWaitsForNoReader(t *testing.T) {
	for _, end := range []string{"close", "context"} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, before %v", end, before), func(t *testing.T) {
				inBubble(t, nil, nil, func(t *testing.T, w *world) { askLate(w, end, before) })
			})
		}
	}
}

// askLate has a stream end with messages unread, and asks for a channel then; what ends
// the wait comes after that, or before.
func askLate(w *world, end string, before bool) {
	w.Loose = true
	w.Offers = w.Srv.Offers()
	ctx, cancel := context.WithCancel(w.Ctx)
	defer cancel()
	a := testkit.Must[*kernel.Stream](w.T)(w.Client.Open(ctx, "late", &kernel.OpenOptions{Stream: kernel.StreamOptions{InBuffer: 8, MaxBatch: 8}}))
	b := testkit.Must[*kernel.Stream](w.T)(w.Offer().Accept(kernel.Message{}, nil))
	w.Cleanup(a, b)
	for range 100 {
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
	src := testkit.Must[*rpc.Source[kernel.Message]](w.T)(rpc.SourceOf[kernel.Message](a, nil))
	if m, ok := <-src.C(); ok {
		m.Release()
	}
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
	drain(a)
	testkit.WantClosed(w.T, "C", src.C())
}

// feeders is how many goroutines feed channels now.
func feeders() int {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	n := 0
	for _, f := range []string{"actor.(*Stream).pumpIn(", "actor.(*Stream).pumpBatches(", "]).feed("} {
		n += strings.Count(string(stacks), f)
	}
	return n
}
