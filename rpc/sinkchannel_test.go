package rpc_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/rpc"
)

// slowDial is how long a connection takes in slowCall.
const slowDial = 700 * time.Millisecond

// slowCall makes a call of sum with a sink by a client whose connection takes slowDial,
// or fails then with err, and runs f while it is being dialled.
func slowCall(t *testing.T, err error, f func(sink *intSink)) (*intSink, *intSource, error) {
	t.Helper()
	srv := testkit.Must[*kernel.Server](t)(kernel.NewServer(&kernel.ServerOptions{Logger: slog.New(slog.DiscardHandler)}))
	sumUp(t, srv)
	ln := kerneltest.Listen()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	client := testkit.Must[*kernel.Client](t)(kernel.NewClient(kerneltest.Target, &kernel.ClientOptions{
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			time.Sleep(slowDial)
			if err != nil {
				return nil, err
			}
			return ln.Dial(ctx, network, addr)
		},
	}))
	t.Cleanup(func() {
		ok(t, client.Close())
		ok(t, srv.Close())
		<-served
	})
	sink := testkit.Must[*intSink](t)(rpc.NewSink[int32](t.Context(), client, nil))
	type result struct {
		src *intSource
		err error
	}
	called := make(chan result, 1)
	go func() {
		src, err := rpc.Call[*intSource, *intSink](t.Context(), client, "sum", sink, nil)
		called <- result{src, err}
	}()
	synctest.Wait()
	f(sink)
	r := <-called
	return sink, r.src, r.err
}

// C and SendDone return at once, also while a call dials: a select has its other arms.
func TestTheChannelsOfASinkDoNotWaitForItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c chan<- int32
		var done <-chan struct{}
		sink, src, err := slowCall(t, nil, func(sink *intSink) {
			start := time.Now()
			select {
			case sink.Out() <- 1:
				t.Error("a value was taken while there was no stream")
			case <-sink.SendDone():
				t.Error("the sink is done while its call dials")
			case <-time.After(10 * time.Millisecond):
			}
			if d := time.Since(start); d != 10*time.Millisecond {
				t.Errorf("a select with an arm of 10 ms took %v", d)
			}
			c, done = sink.Out(), sink.SendDone()
		})
		ok(t, err)
		if c != sink.Out() {
			t.Error("C is another channel when there is a stream")
		}
		for n := range int32(5) {
			c <- n
		}
		testkit.WantOpen(t, "SendDone", done)
		close(c)
		w := &world{T: t, Ctx: t.Context()}
		takes(t, w, src, 10)
		testkit.WantClosed(t, "SendDone", done)
		testkit.WantClosed(t, "SendDone, asked now", sink.SendDone())
	})
}

func TestTheChannelsOfASinkEndWithACallThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no network")
		var c chan<- int32
		var done <-chan struct{}
		sink, _, err := slowCall(t, broken, func(sink *intSink) { c, done = sink.Out(), sink.SendDone() })
		isErr(t, "the call", err, broken)
		isErr(t, "the sink", sink.Err(), broken)
		testkit.WantClosed(t, "SendDone", done)
		for _, c := range []chan<- int32{c, sink.Out()} {
			select {
			case c <- 1:
				t.Error("a value was taken")
			case <-sink.SendDone():
			}
		}
		synctest.Wait()
	})
}

// CloseSend while the call dials ends the sending half when there is a stream.
func TestCloseSendBehindACThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, src, err := slowCall(t, nil, func(sink *intSink) {
			sink.Out()
			ok(t, sink.CloseSend())
		})
		ok(t, err)
		w := &world{T: t, Ctx: t.Context()}
		takes(t, w, src, 0)
		endsInOrder(t, w, src)
	})
}
