package interop

import (
	"bytes"
	"context"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
)

// A message longer than what may wait unread on a connection is let in alone: what
// has come of it does not keep the rest from being read.
func TestSeastarMessagesLongerThanWhatMayWait(t *testing.T) {
	w := overSeastar(t, nil, nil)
	echo := func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		return s.Send(ctx, m)
	}
	w.Srv.Handle("#1", echo)
	type request struct{ S *rpc.Source[[]byte] }
	err := rpc.HandleUnary(w.Srv, kernel.Verb(2), func(_ context.Context, r request) (*rpc.Sink[[]byte], error) {
		out := rpc.MakeSink[[]byte](r.S)
		r.S.Go(func(ctx context.Context) error {
			for p, err := range r.S.All(ctx) {
				if err != nil {
					return err
				}
				if err := out.Send(ctx, p); err != nil {
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
	long := bytes.Repeat([]byte("0123456789"), 300_000)
	for range 3 {
		reply, err := w.Client.Call(w.Ctx, "#1", pool.MessageOf(bytes.Clone(long)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(reply.Bytes(), long) {
			t.Error("another message came back")
		}
		reply.Release()
	}
	type args struct{ S *rpc.Sink[[]byte] }
	sink, err := rpc.NewSink[[]byte](w.Ctx, w.Client, nil)
	if err != nil {
		t.Fatal(err)
	}
	source, err := rpc.Call[*rpc.Source[[]byte], args](w.Ctx, w.Client, kernel.Verb(2), args{sink}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const n = 5
	go func() {
		for range n {
			if err := sink.Send(w.Ctx, long); err != nil {
				t.Error(err)
			}
		}
		_ = sink.CloseSend()
	}()
	got := 0
	for p, err := range source.All(w.Ctx) {
		if err != nil || !bytes.Equal(p, long) {
			t.Fatalf("message %d: %d bytes, %v", got, len(p), err)
		}
		got++
	}
	if got != n {
		t.Errorf("%d messages of %d", got, n)
	}
}
