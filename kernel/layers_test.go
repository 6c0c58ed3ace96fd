package kernel_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// The exports that packages above the kernel stand on.

// served opens a stream, and has f serve the other end of it, as one that an offer's
// handler has left to a goroutine of its own.
func served(t *testing.T, w *world, f func(s *kernel.Stream)) *kernel.Stream {
	t.Helper()
	w.Srv.Remove("served") // of a call before
	w.Srv.HandleOffer("served", func(_ context.Context, o *kernel.Offer) error {
		s, err := o.Accept(pool.Message{}, nil)
		if err == nil {
			go f(s)
		}
		return err
	})
	s := w.Open("served")
	w.Cleanup(s)
	return s
}

func TestFinishEndsAStreamAsAHandlersReturnDoes(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		s := served(t, w, func(s *kernel.Stream) {
			w.Send(s, "last")
			s.Finish(nil)
		})
		w.Want(s, "last")
		w.WantEOF(s)
		m := text("nobody reads")
		isErr(t, "a send", s.Send(w.Ctx, m), kernel.ErrStopped)
		m.Release()

		s = served(t, w, func(s *kernel.Stream) {
			w.Send(s, "last")
			s.Finish(&status.HandlerError{Code: status.NotFound, Reason: "no such key"})
		})
		w.Want(s, "last")
		if se := w.WantErr(s, status.NotFound); !se.Remote || se.Reason != "no such key" {
			t.Errorf("the peer is told %v", se)
		}
	})
}

func TestServeTurnsAPanicIntoTheStreamsEnd(t *testing.T) {
	for name, f := range map[string]func(){"panic": panicsHere, "Goexit": runtime.Goexit} {
		logs := &journal{}
		overNative(t, &kernel.ServerOptions{Logger: logs.Logger()}, nil, func(t *testing.T, w *world) {
			s := served(t, w, func(s *kernel.Stream) { s.Serve(func(context.Context) { f() }) })
			se := w.WantErr(s, status.Internal)
			if !se.Remote || strings.Contains(se.Reason, "secret") {
				t.Errorf("%s: the peer is told %v", name, se)
			}
			w.Eventually("it to be counted", func() bool { return w.Srv.Stats().Panics == 1 })
			w.Eventually("it to be logged", func() bool { return strings.Contains(logs.String(), "handler panicked") })
		})
	}
}

func TestServeLeavesTheEndToItsFunction(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		over := make(chan struct{})
		s := served(t, w, func(s *kernel.Stream) {
			s.Serve(func(ctx context.Context) {
				if kernel.FromContext(ctx) != s {
					t.Error("its context is another's")
				}
			})
			w.Send(s, "still here")
			<-over
			s.Finish(nil)
		})
		w.Want(s, "still here")
		close(over)
		w.WantEOF(s)
	})
}

func TestAbortCauseKeepsTheCause(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		cause := errors.New("what was found")
		a.AbortCause(status.InvalidArgument, "for the peer", cause)
		isErr(t, "Err", a.Err(), cause)
		wantCode(t, a.Err(), status.InvalidArgument)
		if se := w.WantErr(b, status.InvalidArgument); se.Reason != "for the peer" || errors.Is(se, cause) {
			t.Errorf("the peer is told %v", se)
		}
		c, _ := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		c.AbortCause(status.OK, "", cause)
		wantCode(t, c.Err(), status.Unknown)

		// One that the peer has ended is read on.
		d, e := w.Pair(kernel.StreamOptions{InBuffer: kernel.None}, kernel.StreamOptions{})
		w.Send(e, "left")
		in := d.In()
		w.Quiesce()
		e.Abort(status.Aborted, "over")
		w.WantDone(d)
		d.AbortCause(status.InvalidArgument, "", cause)
		wantCode(t, d.Err(), status.Aborted)
		m, ok := <-in
		if !ok || string(m.Bytes()) != "left" {
			t.Fatalf("In gave %q, %v", m.Bytes(), ok)
		}
		m.Release()
		wantClosed(t, "In", in)
	})
}

// Each stream of an OpenN can have a life of its own; the context of the call bounds the
// opening.
func TestStreamsOpenedTogetherHaveTheirOwnContexts(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		type key struct{}
		w.Srv.HandleOffer("two", func(_ context.Context, o *kernel.Offer) error {
			_, err := o.AcceptAll(pool.Message{}, nil)
			return err
		})
		opening, opened := context.WithCancel(w.Ctx)
		short, end := context.WithCancelCause(context.WithValue(w.Ctx, key{}, "short"))
		ss := must[[]*kernel.Stream](t)(w.Client.OpenN(opening, "two", nil,
			kernel.StreamOptions{Context: short}, kernel.StreamOptions{Context: w.Ctx}))
		w.Cleanup(ss...)
		if v := ss[0].Context().Value(key{}); v != "short" {
			t.Errorf("the stream's context has %v", v)
		}
		opened()
		w.Quiesce()
		ok(t, errors.Join(ss[0].Err(), ss[1].Err()))
		cause := errors.New("enough")
		end(cause)
		w.Quiesce()
		isErr(t, "the one whose life is over", ss[0].Err(), cause)
		ok(t, ss[1].Err())
	})
}

func TestOnlyTheOpenerSetsAStreamsContext(t *testing.T) {
	so := kernel.StreamOptions{Context: t.Context()}
	_, err := kernel.NewServer(&kernel.ServerOptions{Stream: so})
	isErr(t, "a server's options", err, kernel.ErrLimits)
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		w.AskOffers()
		s := must[*kernel.Stream](t)(w.Client.Open(w.Ctx, "x", nil))
		o := w.Offer()
		_, err := o.Accept(pool.Message{}, &so)
		isErr(t, "Accept", err, kernel.ErrLimits)
		o.Reject(&status.HandlerError{Code: status.Aborted, Reason: "enough"})
		w.WantDone(s)
	})
	// A client's options are for what it opens.
	ctx, end := context.WithCancel(context.Background())
	overNative(t, nil, &kernel.ClientOptions{Stream: kernel.StreamOptions{Context: ctx}}, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		s := w.Open("echo")
		if ctx.Err() == nil {
			w.Send(s, "x")
			w.Want(s, "x")
			end()
		}
		m := text("a call has a life of its own")
		if reply, err := w.Client.Call(w.Ctx, "echo", m, nil); err != nil {
			t.Errorf("a call: %v", err)
		} else {
			reply.Release()
		}
		w.WantErr(s, status.Cancelled)
	})
}

func TestStatusOf(t *testing.T) {
	for _, c := range []struct {
		err    error
		code   status.Code
		reason string
	}{
		{nil, status.OK, ""},
		{errors.New("plain"), status.Unknown, "plain"},
		{&status.HandlerError{Code: status.Aborted, Reason: "r"}, status.Aborted, "r"},
		{&status.HandlerError{Reason: "r"}, status.Unknown, "r"},
		{&status.StreamError{Code: status.NotFound, Reason: "r"}, status.NotFound, "r"},
	} {
		if code, reason := status.Of(c.err); code != c.code || reason != c.reason {
			t.Errorf("%v: %v, %q", c.err, code, reason)
		}
	}
}

func TestTheCapabilitiesOfAProtocolNeedNoConnection(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		k := must[*kernel.Conn](t)(w.Client.Conn(w.Ctx))
		before, with := w.Client.Caps(), k.Caps()
		if with.MaxFragment > before.MaxFragment { // which the peer may lower
			t.Errorf("a connection takes fragments of %d, its protocol of %d", with.MaxFragment, before.MaxFragment)
		}
		before.MaxFragment = with.MaxFragment
		before.PeerCalls = with.PeerCalls // which the connection's MaxStreams decides
		if before != with {
			t.Errorf("the protocol: %+v, a connection: %+v", before, with)
		}
		if same := must[*kernel.Conn](t)(k.Conn(w.Ctx)); same != k {
			t.Error("a connection returns another one")
		}
		s := must[*kernel.Stream](t)(w.Client.Open(w.Ctx, "x", nil))
		if on, _ := s.CallRef(); on != nil && !before.StreamsByID {
			t.Error("a call can name the stream where calls don't")
		}
		w.WantDone(s) // there is no handler
	})
}
