package kernel_test

import (
	"context"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
)

// A call that nobody waits for returns while its handler runs, goes on when its context has
// ended, and leaves nothing behind.
func TestCallsWithoutWaiting(t *testing.T) {
	type heard struct {
		text     string
		deadline time.Duration
	}
	for name, caller := range map[string]func(w *world) kernel.Caller{
		"client":     func(w *world) kernel.Caller { return w.Client },
		"connection": func(w *world) kernel.Caller { return w.Client.Conns()[0] },
	} {
		t.Run(name, func(t *testing.T) {
			release, handled, ended := make(chan struct{}), make(chan heard, 1), make(chan error, 1)
			so := &kernel.ServerOptions{Handlers: serving("tell", func(ctx context.Context, s *kernel.Stream) error {
				m, err := s.Receive(ctx)
				if err != nil {
					return err
				}
				at, _ := ctx.Deadline()
				handled <- heard{string(m.Bytes()), time.Until(at).Round(time.Hour)}
				m.Release()
				<-release
				ended <- ctx.Err()
				answer := say("an answer")
				if err := s.Send(ctx, answer); err != nil {
					answer.Release()
				}
				return nil
			})}
			overAll(t, so, nil, func(t *testing.T, w *world) {
				ctx, cancel := context.WithCancel(w.Ctx)
				reply, err := caller(w).Call(ctx, "tell", say("something"), &kernel.CallOptions{NoWait: true, Timeout: 5 * time.Hour})
				if err != nil || reply.Len() != 0 {
					t.Fatalf("%q, %v", reply.Bytes(), err)
				}
				cancel()
				if got := testkit.Handled(w.World, handled); got.text != "something" || got.deadline > 5*time.Hour {
					t.Errorf("%+v", got)
				}
				release <- struct{}{}
				if err := testkit.Handled(w.World, ended); err != nil {
					t.Errorf("the handler's context: %v", err)
				}
			})
		})
	}
}

// The header and the trailer of a reply go where the options say.
func TestHeaderAndTrailerOfACall(t *testing.T) {
	h := func(ctx context.Context, s *kernel.Stream) error {
		if err := s.SetHeader(metadata.MD{{Key: "h", Value: "1"}}); err != nil {
			return err
		}
		if err := s.SetTrailer(metadata.MD{{Key: "t", Value: "2"}}); err != nil {
			return err
		}
		return s.Send(ctx, say("ok"))
	}
	overAll(t, &kernel.ServerOptions{Handlers: serving("m", h)}, nil, func(t *testing.T, w *world) {
		var header, trailer metadata.MD
		reply, err := w.Client.Call(w.Ctx, "m", say("x"), &kernel.CallOptions{Header: &header, Trailer: &trailer})
		if err != nil {
			t.Fatal(err)
		}
		reply.Release()
		end := trailer
		if w.other != nil { // brpc's answer has one set of fields
			end = header
		}
		if header.Get("h") != "1" || end.Get("t") != "2" {
			t.Errorf("header %v, trailer %v", header, trailer)
		}
	})
}
