package interop

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// The rows of docs/interop.md that say what calls can't carry over Seastar's wire.
func TestWhatSeastarsCallsCannotCarry(t *testing.T) {
	w := overSeastar(t, nil, nil)
	heard := make(chan metadata.MD, 1)
	md := metadata.MD{{Key: "key", Value: "value"}}
	w.Srv.Handle("#1", func(ctx context.Context, s *kernel.Stream) error {
		heard <- s.Metadata()
		isErr(t, "a header", s.SetHeader(md), kernel.ErrNotSupported)
		isErr(t, "a trailer", s.SetTrailer(md), kernel.ErrNotSupported)
		return &status.HandlerError{Code: status.NotFound, Reason: "no such key", Details: md}
	})
	call := func(method string, md metadata.MD) error {
		m := pool.MessageOf([]byte("ask"))
		reply, err := w.Client.Call(w.Ctx, method, m, &kernel.CallOptions{Metadata: md})
		if err != nil {
			m.Release()
		}
		reply.Release()
		return err
	}
	isErr(t, "metadata of a call", call("#1", md), kernel.ErrNotSupported)
	var se *status.StreamError
	if err := call("#1", nil); !errors.As(err, &se) || se.Code != status.Unknown || se.Reason != "NOT_FOUND: no such key" {
		t.Errorf("a code came as %v", err)
	}
	if got := <-heard; len(got) != 0 {
		t.Errorf("metadata came as %v", got)
	}
	if err := call("a/name", nil); !errors.As(err, &se) || se.Code != status.Unimplemented || !se.NotProcessed {
		t.Errorf("a name: %v", err)
	}
	if err := call("#2", nil); !errors.As(err, &se) || se.Code != status.Unimplemented || !se.NotProcessed {
		t.Errorf("an unknown verb: %v", err)
	}
	m := pool.MessageOf([]byte("tell"))
	if reply, err := w.Client.Call(w.Ctx, "#1", m, &kernel.CallOptions{NoWait: true}); err != nil || reply.Len() != 0 {
		t.Errorf("a call that nobody waits for: %q, %v", reply.Bytes(), err)
	}
	<-heard
	noWait := metadata.MD{{Key: seastar.NoWait}}
	if err := call("#1", noWait); !errors.Is(err, kernel.ErrNoReply) {
		t.Errorf("a call that nobody waits for: %v", err)
	}
	<-heard
}

// A handler that says that nobody waits has nothing written, and the connection
// goes on.
func TestSeastarsHandlersMayHaveNoReply(t *testing.T) {
	w := overSeastar(t, nil, nil)
	w.Srv.Handle("#6", func(ctx context.Context, s *kernel.Stream) error {
		s.SetTrailer(metadata.MD{{Key: seastar.NoWait}})
		m, err := s.Receive(ctx)
		m.Release()
		return errors.Join(err, errors.New("nobody hears of it"))
	})
	w.Srv.Handle("#1", func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		return s.Send(ctx, m)
	})
	opts := &kernel.CallOptions{Timeout: 50 * time.Millisecond}
	m := pool.MessageOf([]byte("ask"))
	_, err := w.Client.Call(w.Ctx, "#6", m, opts)
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, &status.StreamError{Code: status.DeadlineExceeded}) {
		t.Errorf("the call ends with %v", err)
	}
	m.Release()
	reply, err := w.Client.Call(w.Ctx, "#1", pool.MessageOf([]byte("ask")), nil)
	if err != nil || string(reply.Bytes()) != "ask" {
		t.Errorf("then %q, %v", reply.Bytes(), err)
	}
	reply.Release()
}

// The rows that say what its streams can't.
func TestWhatSeastarsStreamsCannotCarry(t *testing.T) {
	w := overSeastar(t, nil, nil)
	type request struct{ S *rpc.Source[string] }
	type args struct{ S *rpc.Sink[string] }
	ended := make(chan error, 1)
	serve := func(verb uint64, f func(ctx context.Context, r request, out *rpc.Sink[string]) error) {
		err := rpc.HandleUnary(w.Srv, kernel.Verb(verb), func(_ context.Context, r request) (*rpc.Sink[string], error) {
			out := rpc.MakeSink[string](r.S)
			r.S.Go(func(ctx context.Context) error {
				err := f(ctx, r, out)
				ended <- err
				return err
			})
			return out, nil
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func(verb uint64) (*rpc.Sink[string], *rpc.Source[string]) {
		sink, err := rpc.NewSink[string](w.Ctx, w.Client, nil)
		if err != nil {
			t.Fatal(err)
		}
		source, err := rpc.Call[*rpc.Source[string], args](w.Ctx, w.Client, kernel.Verb(verb), args{sink}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return sink, source
	}
	if _, err := w.Client.Open(w.Ctx, "#1", nil); !errors.Is(err, kernel.ErrNotSupported) {
		t.Errorf("an open with a method: %v", err)
	}

	serve(1, func(ctx context.Context, r request, _ *rpc.Sink[string]) error {
		_, err := r.S.Receive(ctx)
		if err != nil {
			return err
		}
		_, err = r.S.Receive(ctx)
		return err
	})
	sink, _ := open(1)
	if err := sink.Send(w.Ctx, "one"); err != nil {
		t.Fatal(err)
	}
	sink.Abort(300, "a reason")
	if err := <-ended; err == nil || err == io.EOF || strings.Contains(err.Error(), "a reason") { //nolint:errorlint // must not be it
		t.Errorf("an abort came as %v", err)
	}

	serve(2, func(ctx context.Context, r request, out *rpc.Sink[string]) error {
		if err := out.Send(ctx, "last"); err != nil {
			return err
		}
		return errors.New("a reason")
	})
	_, source := open(2)
	if v, err := source.Receive(w.Ctx); err != nil || v != "last" {
		t.Errorf("before the error: %q, %v", v, err)
	}
	if _, err := source.Receive(w.Ctx); err == nil || err == io.EOF || strings.Contains(err.Error(), "a reason") { //nolint:errorlint // must not be it
		t.Errorf("a handler's error came as %v", err)
	}
	<-ended

	serve(3, func(ctx context.Context, r request, out *rpc.Sink[string]) error {
		r.S.CloseReceive(status.Cancelled)
		<-ctx.Done()
		return nil
	})
	sink, _ = open(3)
	for range 2000 {
		if err := sink.Send(w.Ctx, strings.Repeat("x", 1000)); err != nil {
			t.Fatalf("to a side that reads no more: %v", err)
		}
	}
	sink.Abort(status.Cancelled, "")
	<-ended
}
