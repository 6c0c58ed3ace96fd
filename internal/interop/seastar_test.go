package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// overSeastar connects a server that speaks Seastar's protocol beside sluice's
// own with a client that speaks it.
func overSeastar(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions) *world {
	t.Helper()
	s, c := testkit.OrZero(so), testkit.OrZero(co)
	if s.Protocols == nil {
		s.Protocols = []frame.Protocol{native.Protocol{}, &seastar.Protocol{}}
	}
	if c.Protocols == nil {
		c.Protocols = []frame.Protocol{&seastar.Protocol{}}
	}
	return newWorld(t, loops, &s, &c)
}

func TestSeastarCalls(t *testing.T) {
	w := overSeastar(t, nil, nil)
	w.Srv.Handle("#1", func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		if string(m.Bytes()) == "fail" {
			m.Release()
			return errors.New("as asked")
		}
		return s.Send(ctx, m)
	})
	for i := range 100 {
		reply, err := w.Client.Call(w.Ctx, "#1", text("call %d", i), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(reply.Bytes()), fmt.Sprintf("call %d", i); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		reply.Release()
	}
	large, err := w.Client.Call(w.Ctx, "#1", sized(3<<20, 'x'), nil)
	if err != nil || large.Len() != 3<<20 {
		t.Fatalf("a large call came back with %d bytes, error %v", large.Len(), err)
	}
	large.Release()
	m := text("fail")
	_, err = w.Client.Call(w.Ctx, "#1", m, nil)
	m.Release()
	var se *status.StreamError
	if !errors.As(err, &se) || se.Code != status.Unknown || !se.Remote {
		t.Errorf("a handler's error came as %v", err)
	}
	m = text("x")
	_, err = w.Client.Call(w.Ctx, "#2", m, nil)
	m.Release()
	if !errors.Is(err, &status.StreamError{Code: status.Unimplemented}) || !errors.Is(err, kernel.ErrRefused) {
		t.Errorf("an unknown verb: %v", err)
	}
}

// A stream has a connection of its own; a call on the parent names it.
func TestSeastarStream(t *testing.T) {
	w := overSeastar(t, nil, nil)
	w.Srv.Handle("#1", func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		id := binary.LittleEndian.Uint64(m.Bytes())
		m.Release()
		child, err := s.Conn().TakeStream(ctx, id)
		if err != nil {
			return err
		}
		if _, err := s.Conn().TakeStream(ctx, id); err == nil {
			return errors.New("one stream for two")
		}
		go func() {
			for m, err := range child.All(child.Context()) {
				if err != nil {
					return
				}
				if err := child.Send(child.Context(), m); err != nil {
					m.Release()
					return
				}
			}
			_ = child.CloseSend()
		}()
		return s.Send(ctx, pool.MessageOf(binary.LittleEndian.AppendUint64(nil, id)))
	})
	s, err := w.Client.Open(w.Ctx, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		w.Send(s, "early %d", i)
	}
	req := pool.MessageOf(binary.LittleEndian.AppendUint64(nil, callID(s)))
	reply, err := w.Client.Call(w.Ctx, "#1", req, nil)
	if err != nil {
		t.Fatal(err)
	}
	reply.Release()
	go func() {
		for i := range 1000 {
			w.Send(s, "message %d", i)
		}
		_ = s.CloseSend()
	}()
	for i := range 10 {
		w.Want(s, "early %d", i)
	}
	for i := range 1000 {
		w.Want(s, "message %d", i)
	}
	w.WantEOF(s)
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	<-s.Done()
}

type pairOfInts struct {
	A int32
	B int64
}

// The program of Seastar's own text: a client makes a sink of (int, long), passes
// it to a call, and gets a source of strings back.
func TestSeastarSinksThroughCalls(t *testing.T) {
	w := overSeastar(t, nil, nil)
	type request struct {
		Factor  int32
		Numbers *rpc.Source[pairOfInts]
	}
	err := rpc.HandleUnary(w.Srv, kernel.Verb(1), func(_ context.Context, r request) (*rpc.Sink[string], error) {
		if r.Factor == 0 {
			return nil, errors.New("no factor")
		}
		out := rpc.MakeSink[string](r.Numbers)
		r.Numbers.Go(func(ctx context.Context) error {
			for n, err := range r.Numbers.All(ctx) {
				if err != nil {
					return err
				}
				if err := out.Send(ctx, fmt.Sprint(int64(r.Factor)*(int64(n.A)+n.B))); err != nil {
					return err
				}
			}
			return nil
		})
		return out, nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	type args struct {
		Factor  int32
		Numbers *rpc.Sink[pairOfInts]
	}
	for range 20 {
		sink, err := rpc.NewSink[pairOfInts](w.Ctx, w.Client, nil)
		if err != nil {
			t.Fatal(err)
		}
		source, err := rpc.Call[*rpc.Source[string], args](w.Ctx, w.Client, kernel.Verb(1), args{10, sink}, nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for i := range int32(500) {
				if err := sink.Send(w.Ctx, pairOfInts{i, 100}); err != nil {
					t.Error(err)
				}
			}
			_ = sink.CloseSend()
		}()
		n := int64(0)
		for text, err := range source.All(w.Ctx) {
			if err != nil || text != fmt.Sprint(10*(n+100)) {
				t.Fatalf("value %d: %q, error %v", n, text, err)
			}
			n++
		}
		if n != 500 || source.Err() != nil {
			t.Fatalf("%d values, then %v", n, source.Err())
		}
	}
	sink, err := rpc.NewSink[pairOfInts](w.Ctx, w.Client, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = rpc.Call[*rpc.Source[string], args](w.Ctx, w.Client, kernel.Verb(1), args{0, sink}, nil)
	if err == nil {
		t.Fatal("a call that fails did not")
	}
	w.Eventually("the stream of a failed call to end", func() bool { return sink.Send(w.Ctx, pairOfInts{}) != nil })
}

// A connection that is not read because its stream is not must still find out
// that the peer is gone.
func TestSeastarPausedConnectionNoticesAReset(t *testing.T) {
	var mu sync.Mutex
	var dialled []net.Conn
	co := &kernel.ClientOptions{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		mu.Lock()
		defer mu.Unlock()
		dialled = append(dialled, nc)
		return nc, err
	}}
	w := overSeastar(t, &kernel.ServerOptions{Limits: kernel.Limits{WriteStall: 200 * time.Millisecond}}, co)
	got := make(chan *kernel.Stream, 1)
	w.Srv.Handle("#1", func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		child, err := s.Conn().TakeStream(ctx, binary.LittleEndian.Uint64(m.Bytes()))
		m.Release()
		if err == nil {
			got <- child
			err = s.Send(ctx, text("taken"))
		}
		return err
	})
	s, err := w.Client.Open(w.Ctx, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := w.Client.Call(w.Ctx, "#1", pool.MessageOf(binary.LittleEndian.AppendUint64(nil, callID(s))), nil)
	if err != nil {
		t.Fatal(err)
	}
	reply.Release()
	child := <-got
	blocked := 0
	for blocked < 20 { // until neither the server nor the systems between take more
		m := sized(64<<10, 'x')
		if err := s.TrySend(m); err != nil {
			m.Release()
			blocked++
			time.Sleep(5 * time.Millisecond)
			continue
		}
		blocked = 0
	}
	if child.Err() != nil {
		t.Fatal(child.Err())
	}
	mu.Lock()
	tc := dialled[1].(*net.TCPConn)
	mu.Unlock()
	_ = tc.SetLinger(0)
	_ = tc.Close()
	w.Eventually("the unread stream to fail", func() bool { return child.Err() != nil })
	drain(child)
}

// callID is what a call names s by.
func callID(s *kernel.Stream) uint64 {
	_, id := s.CallRef()
	return id
}
