package rpc_test

import (
	"context"
	"sync"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// stuck is a codec that does not return where a value, or what is read, asks for it.
type stuck struct {
	reached chan struct{}
	release chan struct{}
}

func newStuck() stuck { return stuck{make(chan struct{}, 10), make(chan struct{})} }

func (c stuck) wait() {
	c.reached <- struct{}{}
	<-c.release
}

func (c stuck) Append(b []byte, v string) ([]byte, error) {
	if v == "append" {
		c.wait()
	}
	return append(b, v...), nil
}

func (c stuck) Decode(p []byte) (string, error) {
	if string(p) == "decode" {
		c.wait()
	}
	return string(p), nil
}

// callHandled calls a handler whose codec is stuck.
func callHandled(w *world, request string) {
	req := text(request)
	reply, err := w.Client.Call(w.Ctx, "handled", req, nil)
	if err == nil {
		w.T.Errorf("the call has succeeded with %q", reply.Bytes())
		reply.Release()
		return
	}
	req.Release()
}

// A codec that does not return holds up what it was called for, and nothing else: streams beside it
// on the connection go on, its own can be ended, and client and server close.
func TestACodecThatBlocksHoldsUpItsOwnStream(t *testing.T) {
	for way, block := range map[string]func(w *world, c stuck, a, b *kernel.Stream){
		"Send": func(w *world, c stuck, a, _ *kernel.Stream) {
			k := testkit.Must[*rpc.Sink[string]](w.T)(rpc.SinkOf(a, codec.Codec[string](c)))
			_ = k.Send(w.Ctx, "append")
		},
		"Out": func(w *world, c stuck, a, _ *kernel.Stream) {
			k := testkit.Must[*rpc.Sink[string]](w.T)(rpc.SinkOf(a, codec.Codec[string](c)))
			k.Out() <- "append"
			<-k.SendDone()
		},
		"Receive": func(w *world, c stuck, a, b *kernel.Stream) {
			src := testkit.Must[*rpc.Source[string]](w.T)(rpc.SourceOf(a, codec.Codec[string](c)))
			w.Send(b, "decode")
			_, _ = src.Receive(w.Ctx)
		},
		"In": func(w *world, c stuck, a, b *kernel.Stream) {
			src := testkit.Must[*rpc.Source[string]](w.T)(rpc.SourceOf(a, codec.Codec[string](c)))
			w.Send(b, "decode")
			for range src.In() {
			}
		},
		"a call's request": func(w *world, c stuck, _, _ *kernel.Stream) {
			_, opts, _ := by(codec.EncodingOf(codec.Codec[string](c)))
			_, _ = rpc.Call[string, string](w.Ctx, w.Client, "reflect", "append", opts)
		},
		"a call's reply": func(w *world, c stuck, _, _ *kernel.Stream) {
			_, opts, _ := by(codec.EncodingOf(codec.Codec[string](c)))
			_, _ = rpc.Call[string, string](w.Ctx, w.Client, "reflect", "decode", opts)
		},
		"a handler's request": func(w *world, _ stuck, _, _ *kernel.Stream) {
			callHandled(w, "decode")
		},
		"a handler's reply": func(w *world, _ stuck, _, _ *kernel.Stream) {
			callHandled(w, "x")
		},
	} {
		t.Run(way, func(t *testing.T) {
			overWires(t, nil, nil, func(t *testing.T, w *world) {
				w.Loose = true
				c := newStuck()
				release := sync.OnceFunc(func() { close(c.release) })
				defer release()
				w.Srv.Handle("reflect", func(ctx context.Context, s *kernel.Stream) error {
					m, err := s.Request(ctx)
					if err != nil {
						return err
					}
					return s.Send(ctx, m)
				})
				handled, _, _ := by(codec.EncodingOf(codec.Codec[string](c)))
				ok(t, rpc.HandleUnary(w.Srv, "handled", func(context.Context, string) (string, error) { return "append", nil }, handled))
				a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
				other, there := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
				over := make(chan struct{})
				go func() {
					defer close(over)
					block(w, c, a, b)
				}()
				<-c.reached
				for range 100 {
					w.Send(other, "on")
					w.Want(there, "on")
				}
				aborted := make(chan struct{})
				go func() {
					defer close(aborted)
					a.Abort(status.Cancelled, "enough")
					<-a.Done()
				}()
				testkit.WantClosed(t, "Abort", aborted)
				if m, err := b.Receive(w.Ctx); err == nil {
					t.Errorf("the peer of what was aborted gets %q", m.Bytes())
				}
				ok(t, w.Client.Close())
				ok(t, w.Srv.Close())
				release()
				<-over
			})
		})
	}
}
