package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// The rules of streams passed to calls hold where each is open before its call, on
// a connection of its own.

func registerVerbs(t *testing.T, w *world, handled chan error) {
	t.Helper()
	sum := func(srcs ...*intSource) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			for _, src := range srcs {
				for _, err := range src.All(ctx) {
					if err != nil {
						handled <- err
						return err
					}
				}
			}
			handled <- nil
			return nil
		}
	}
	ok(t, rpc.HandleUnary(w.Srv, kernel.Verb(1), func(_ context.Context, s []*intSource) ([]*intSink, error) {
		var outs []*intSink
		for _, src := range s {
			outs = append(outs, rpc.MakeSink[int32](src))
			src.Go(sum(src))
		}
		return outs, nil
	}, nil))
	ok(t, rpc.HandleUnary(w.Srv, kernel.Verb(2), func(_ context.Context, src *intSource) (struct{}, error) {
		return struct{}{}, &status.HandlerError{Code: status.Aborted, Reason: "no"}
	}, nil))
	ok(t, rpc.HandleUnary(w.Srv, kernel.Verb(3), func(_ context.Context, src *intSource) (struct{}, error) { panic("no") }, nil))
}

func callVerb[Resp any](w *world, verb uint64, s ...*intSink) (Resp, error) {
	if verb == 1 {
		return rpc.Call[Resp, []*intSink](w.Ctx, w.Client, kernel.Verb(verb), s, nil)
	}
	return rpc.Call[Resp, *intSink](w.Ctx, w.Client, kernel.Verb(verb), s[0], nil)
}

func TestSeastarPassesSeveralSinks(t *testing.T) {
	w := overSeastar(t, nil, nil)
	handled := make(chan error, 8)
	registerVerbs(t, w, handled)
	sinks := []*intSink{newSink(t, w), newSink(t, w), newSink(t, w)}
	for _, k := range sinks {
		if k.Stream() == nil {
			t.Fatal("a sink without a stream, which should be there before its call")
		}
		ok(t, k.Send(w.Ctx, 1)) // and may be sent on
	}
	srcs := testkit.Must[[]*intSource](t)(callVerb[[]*intSource](w, 1, sinks...))
	for i, k := range sinks {
		ok(t, k.CloseSend())
		endsInOrder(t, w, srcs[i])
		ok(t, <-handled)
	}
}

func TestSeastarCallsThatFailFailTheirStreams(t *testing.T) {
	w := overSeastar(t, nil, nil)
	handled := make(chan error, 8)
	registerVerbs(t, w, handled)
	for _, verb := range []uint64{2, 3, 99} {
		sink := newSink(t, w)
		_, err := callVerb[struct{}](w, verb, sink)
		var se *status.StreamError
		if !errors.As(err, &se) {
			t.Errorf("verb %d: %v", verb, err)
		}
		w.WantDone(sink.Stream())
		if sink.Send(w.Ctx, 1) == nil || sink.Err() == nil {
			t.Errorf("verb %d: the stream of a call that failed lives", verb)
		}
	}
	if n := w.Srv.Stats().Panics; n != 1 {
		t.Errorf("%d panics", n)
	}
}

func TestSeastarSinksThatCanNotBeUsed(t *testing.T) {
	w := overSeastar(t, nil, nil)
	handled := make(chan error, 8)
	registerVerbs(t, w, handled)
	used := newSink(t, w)
	src := testkit.Must[[]*intSource](t)(callVerb[[]*intSource](w, 1, used))
	_, err := callVerb[[]*intSource](w, 1, used)
	isErr(t, "two calls", err, rpc.ErrSinkUsed)

	other := overSeastar(t, nil, nil)
	unused := newSink(t, w)
	_, err = rpc.Call[struct{}, []*intSink](w.Ctx, other.Client, kernel.Verb(1), []*intSink{unused}, nil)
	isErr(t, "another client", err, rpc.ErrSinkForeign)
	unused.Abort(status.Cancelled, "nobody wants it")
	_, err = rpc.NewSink[int32](w.Ctx, used.Stream().Conn(), nil)
	isErr(t, "a connection that carries one stream", err, kernel.ErrNotSupported)

	// A number that stands for no stream, and one that another call has.
	for _, id := range []uint64{4711 << 16, callID(used.Stream())} {
		req := binary.LittleEndian.AppendUint64([]byte{1, 0, 0, 0}, id)
		m := pool.MessageOf(req)
		_, err := w.Client.Call(w.Ctx, kernel.Verb(1), m, nil)
		m.Release()
		if err == nil {
			t.Errorf("a call with stream %d succeeded", id)
		}
	}
	ok(t, used.CloseSend())
	endsInOrder(t, w, src[0])
	ok(t, <-handled)
}

// A sink that nobody passes on has a connection, which goes with its client.
func TestSeastarSinksAreReleasedWithTheirClient(t *testing.T) {
	w := overSeastar(t, nil, nil)
	for range 3 {
		newSink(t, w)
	}
	for _, wait := range []bool{true, false} {
		given := newSink(t, w)
		if wait {
			_, _, err := given.Stream().Accepted(w.Ctx)
			ok(t, err)
		}
		given.Abort(status.Cancelled, "changed my mind")
		select {
		case <-given.Stream().Conn().Done():
		case <-w.Ctx.Done():
			t.Fatalf("an aborted sink keeps its connection, waited %v", wait)
		}
	}
	eventually(t, "the calls' connection and those of three streams to be all", func() bool { return len(w.Client.Conns()) == 4 })
	ok(t, w.Client.Close())
	eventually(t, "the server to be left alone", func() bool { return w.Srv.Stats().Conns == 0 })
}

// Nobody would ever take the end of a sink that no call has.
func TestSeastarASinkThatNoCallHasCanBeClosed(t *testing.T) {
	seastarBubble(t, kernel.ServerOptions{}, kernel.ClientOptions{}, func(t *testing.T, w *world) {
		registerVerbs(t, w, make(chan error, 8))
		sink := newSink(t, w)
		ok(t, sink.Send(w.Ctx, 1))
		_, err := rpc.Call[struct{}, []*intSink](w.Ctx, w.Client, kernel.Verb(1), []*intSink{sink, sink}, nil)
		isErr(t, "twice in one call, which was not made", err, rpc.ErrSinkUsed)
		ctx, cancel := context.WithTimeout(w.Ctx, time.Hour)
		defer cancel()
		for range 2 {
			isErr(t, "Close", sink.Close(ctx), rpc.ErrSinkUnused)
		}
		if sink.Err() == nil {
			t.Error("the values that it has sent are lost, and it has no error")
		}
		_, err = callVerb[[]*intSource](w, 1, sink)
		isErr(t, "a call after Close", err, kernel.ErrClosed)
		select {
		case <-sink.Stream().Conn().Done():
		case <-time.After(time.Second):
			t.Error("its connection is left")
		}

		early := newSink(t, w) // the end may be sent before the call that takes it
		ok(t, early.CloseSend())
		src := testkit.Must[[]*intSource](t)(callVerb[[]*intSource](w, 1, early))
		endsInOrder(t, w, src[0])
		ok(t, early.Close(w.Ctx))
	})
}

// A client has as many streams open as it may, on connections of their own too.
func TestSeastarAClientCountsItsStreams(t *testing.T) {
	const streams = 2
	co := kernel.ClientOptions{Limits: kernel.Limits{MaxStreams: streams}}
	seastarBubble(t, kernel.ServerOptions{}, co, func(t *testing.T, w *world) {
		handled := make(chan error, 8)
		registerVerbs(t, w, handled)
		var sinks []*intSink
		for range streams {
			sinks = append(sinks, newSink(t, w))
		}
		_, err := rpc.NewSink[int32](w.Ctx, w.Client, nil)
		isErr(t, "one sink more", err, kernel.ErrTooManyStreams)
		opened := make(chan *kernel.Stream)
		go func() {
			s, err := w.Client.Open(w.Ctx, "", nil)
			if err != nil {
				t.Error(err)
			}
			opened <- s
		}()
		synctest.Wait()
		testkit.WantOpen(t, "Open beyond the limit", opened)
		src := testkit.Must[[]*intSource](t)(callVerb[[]*intSource](w, 1, sinks[0]))
		ok(t, sinks[0].CloseSend())
		endsInOrder(t, w, src[0])
		ok(t, <-handled)
		s := <-opened
		s.Abort(status.Cancelled, "enough")
		sinks[1].Abort(status.Cancelled, "enough")
		for range 3 * streams {
			synctest.Wait() // its connection ends behind it
			newSink(t, w).Abort(status.Cancelled, "enough")
		}
	})
}

// A client that stops ends the streams of calls that are answered.
func TestSeastarStreamsEndWithTheirClient(t *testing.T) {
	w := overSeastar(t, nil, nil)
	handled := make(chan error, 8)
	registerVerbs(t, w, handled)
	sink := newSink(t, w)
	src := testkit.Must[[]*intSource](t)(callVerb[[]*intSource](w, 1, sink))
	ok(t, sink.Send(w.Ctx, 1))
	ok(t, w.Client.Close())
	select {
	case err := <-handled:
		if err == nil {
			t.Error("the handler saw an end in order")
		}
	case <-time.After(patience):
		t.Fatal("the handler was not told")
	}
	if _, err := src[0].Receive(w.Ctx); err == nil || src[0].Err() == nil {
		t.Errorf("the client's source: %v, %v", err, src[0].Err())
	}
}

// A call that could pass sinks and passes none is one like any other.
func TestSeastarACallMayPassNoSinks(t *testing.T) {
	type optional struct{ In *struct{ Sink *intSink } }
	type received struct{ In *struct{ Source *intSource } }
	w := overSeastar(t, nil, nil)
	registerVerbs(t, w, make(chan error, 8))
	ok(t, rpc.HandleUnary(w.Srv, kernel.Verb(4), func(_ context.Context, r received) (bool, error) { return r.In == nil, nil }, nil))
	if srcs := testkit.Must[[]*intSource](t)(callVerb[[]*intSource](w, 1)); len(srcs) != 0 {
		t.Errorf("%d sources for no sink", len(srcs))
	}
	if !testkit.Must[bool](t)(rpc.Call[bool, optional](w.Ctx, w.Client, kernel.Verb(4), optional{}, nil)) {
		t.Error("the handler was given what nobody passed")
	}
	k := testkit.Must[*kernel.Conn](t)(w.Client.Conn(w.Ctx))
	if !testkit.Must[bool](t)(rpc.Call[bool, optional](w.Ctx, k, kernel.Verb(4), optional{}, nil)) {
		t.Error("the handler was given what nobody passed on one connection")
	}
	_, err := rpc.Call[struct{}, []*intSink](w.Ctx, w.Client, kernel.Verb(99), nil, nil)
	if !errors.Is(err, &status.StreamError{Code: status.Unimplemented}) {
		t.Errorf("an unknown verb: %v", err)
	}
}

// Streams that are opened together take their places together: nothing is dialled for
// some of them while there is no room for all.
func TestSeastarStreamsOpenedTogetherTakeTheirPlacesTogether(t *testing.T) {
	w := overSeastar(t, nil, &kernel.ClientOptions{Limits: kernel.Limits{MaxStreams: 2}})
	both := make([]kernel.StreamOptions, 2)
	first := testkit.Must[*kernel.Stream](t)(w.Client.Open(w.Ctx, "", nil))
	w.Eventually("the stream's connection", func() bool { return w.Srv.Stats().Accepted == 2 })
	ctx, cancel := context.WithTimeout(w.Ctx, 50*time.Millisecond)
	defer cancel()
	_, err := w.Client.OpenN(ctx, "", nil, both...)
	isErr(t, "two where there is room for one", err, kernel.ErrTooManyStreams)
	_, err = w.Client.OpenN(w.Ctx, "", nil, make([]kernel.StreamOptions, 3)...)
	isErr(t, "three where there may be two", err, kernel.ErrTooManyStreams)
	_, err = w.Client.OpenN(w.Ctx, "", nil)
	isErr(t, "none", err, kernel.ErrLimits)
	if n := w.Srv.Stats().Accepted; n != 2 {
		t.Errorf("%d connections, want that of calls and that of the stream", n)
	}
	opened := make(chan []*kernel.Stream, 1)
	go func() {
		ss, err := w.Client.OpenN(w.Ctx, "", nil, both...)
		if err != nil {
			t.Error(err)
		}
		opened <- ss
	}()
	first.Abort(status.Cancelled, "enough")
	for _, s := range <-opened {
		s.Abort(status.Cancelled, "enough")
	}
}

// A connection opens streams as its client does, on connections that belong to it, and a
// sink made for it goes through a call on it. The server's side opens none.
func TestSeastarAConnectionIsACallerToo(t *testing.T) {
	conns := make(chan *kernel.Conn, 8)
	w := overSeastar(t, &kernel.ServerOptions{OnConn: func(c *kernel.Conn) { conns <- c }}, nil)
	handled := make(chan error, 8)
	registerVerbs(t, w, handled)
	_, err := (<-conns).Open(w.Ctx, "", nil)
	isErr(t, "the server's side", err, kernel.ErrNotSupported)

	k := testkit.Must[*kernel.Conn](t)(w.Client.Conn(w.Ctx))
	s := testkit.Must[*kernel.Stream](t)(k.Open(w.Ctx, "", nil))
	if on, id := s.CallRef(); on != k || id == 0 || s.Conn() == k {
		t.Errorf("a call names the stream as %d, on %v", id, on)
	}
	s.Abort(status.Cancelled, "enough")
	_, err = k.Open(w.Ctx, "#1", nil)
	isErr(t, "an open with a method", err, kernel.ErrNotSupported)

	sink := testkit.Must[*intSink](t)(rpc.NewSink[int32](w.Ctx, k, nil))
	srcs := testkit.Must[[]*intSource](t)(rpc.Call[[]*intSource, []*intSink](w.Ctx, k, kernel.Verb(1), []*intSink{sink}, nil))
	ok(t, sink.CloseSend())
	endsInOrder(t, w, srcs[0])
	ok(t, <-handled)
}
