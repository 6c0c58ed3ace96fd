package interop

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// seastarBubble is inBubble over Seastar's wire.
func seastarBubble(t *testing.T, so kernel.ServerOptions, co kernel.ClientOptions, f func(t *testing.T, w *world)) {
	t.Helper()
	so.Protocols = []frame.Protocol{native.Protocol{}, &seastar.Protocol{}}
	co.Protocols = []frame.Protocol{&seastar.Protocol{}}
	inBubble(t, &so, &co, f)
}

// A client of Seastar's does not connect again: unless it is told to, a server does not end
// its connection because nothing is to be done.
func TestSeastarAnIdleConnectionStays(t *testing.T) {
	seastarBubble(t, kernel.ServerOptions{}, kernel.ClientOptions{}, func(t *testing.T, w *world) {
		w.Srv.Handle(kernel.Verb(1), echo)
		c := w.Client.Conns()[0]
		for range 3 {
			time.Sleep(30 * time.Hour)
			reply := testkit.Must[pool.Message](t)(c.Call(w.Ctx, kernel.Verb(1), text("still there?"), nil))
			reply.Release()
		}
	})
}

// The call that a stream was passed to is long over; what it began is not.
func TestSeastarAConnectionWhoseStreamsAreOpenIsNotIdle(t *testing.T) {
	const idle = time.Minute
	so := kernel.ServerOptions{Limits: kernel.Limits{IdleConn: idle}}
	seastarBubble(t, so, kernel.ClientOptions{}, func(t *testing.T, w *world) {
		handled := make(chan error, 8)
		registerVerbs(t, w, handled)
		late := newSink(t, w) // which no call has yet
		sink := newSink(t, w)
		src := testkit.Must[[]*intSource](t)(callVerb[[]*intSource](w, 1, sink))[0]
		for range 10 {
			time.Sleep(idle)
			if err := sink.Send(w.Ctx, 1); err != nil {
				t.Fatalf("a busy stream: %v", err)
			}
		}
		lateSrc := testkit.Must[[]*intSource](t)(callVerb[[]*intSource](w, 1, late))[0]
		ok(t, sink.CloseSend())
		endsInOrder(t, w, src)
		ok(t, <-handled)
		time.Sleep(2 * idle)
		ok(t, late.CloseSend())
		endsInOrder(t, w, lateSrc)
		ok(t, <-handled)

		time.Sleep(idle - time.Second)
		if n := w.Srv.Stats().Conns; n != 1 {
			t.Errorf("%d connections are left shortly before the idle time is over", n)
		}
		time.Sleep(2 * time.Second)
		if n := w.Srv.Stats().Conns; n != 0 {
			t.Errorf("%d connections are left after it", n)
		}
	})
}

func TestSeastarShutdownWaitsForTheStreamsOfCallsThatAreAnswered(t *testing.T) {
	seastarBubble(t, kernel.ServerOptions{}, kernel.ClientOptions{}, func(t *testing.T, w *world) {
		handled := make(chan error, 8)
		registerVerbs(t, w, handled)
		newSink(t, w) // no call can have it any more
		sink := newSink(t, w)
		src := testkit.Must[[]*intSource](t)(callVerb[[]*intSource](w, 1, sink))[0]
		down := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		go func() { down <- w.Srv.Shutdown(ctx) }()
		for range 10 {
			time.Sleep(time.Minute)
			if err := sink.Send(w.Ctx, 1); err != nil {
				t.Fatalf("a stream that was open: %v", err)
			}
		}
		select {
		case err := <-down:
			t.Fatalf("Shutdown returned %v while a stream was open", err)
		default:
		}
		ok(t, sink.CloseSend())
		endsInOrder(t, w, src)
		ok(t, <-handled)
		start := time.Now()
		ok(t, <-down)
		if d := time.Since(start); d > time.Second {
			t.Errorf("Shutdown took %v more when the last stream had ended", d)
		}
	})
}

// A stream that no call has named can't be named after the drain has begun.
func TestSeastarShutdownDoesNotWaitForSinksThatNoCallHas(t *testing.T) {
	seastarBubble(t, kernel.ServerOptions{}, kernel.ClientOptions{}, func(t *testing.T, w *world) {
		sink := newSink(t, w)
		synctest.Wait()
		start := time.Now()
		ok(t, w.Srv.Shutdown(w.Ctx))
		if d := time.Since(start); d > time.Second {
			t.Errorf("Shutdown took %v", d)
		}
		w.WantDone(sink.Stream())
	})
}

func TestSeastarAShortConnectionEndsWithTheStreamThatBelongsToIt(t *testing.T) {
	seastarBubble(t, kernel.ServerOptions{}, kernel.ClientOptions{ConnType: kernel.ConnShort}, func(t *testing.T, w *world) {
		s := testkit.Must[*kernel.Stream](t)(w.Client.Open(w.Ctx, "", nil))
		synctest.Wait()
		before := len(w.Client.Conns())
		s.Abort(status.Cancelled, "changed my mind")
		time.Sleep(time.Second)
		if n := len(w.Client.Conns()); n != before-2 {
			t.Errorf("%d connections, %d when its stream had ended", before, n)
		}
	})
}
