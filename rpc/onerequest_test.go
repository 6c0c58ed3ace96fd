package rpc_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// oneRequest has handlers of the two kinds that take one request, "unary" and "stream", which
// tell begun that they run, and end with their context or when let is closed.
type oneRequest struct {
	*world
	begun chan string
	ended chan error
	let   chan struct{}
}

// overRequests runs f over the wires on which data can come before a stream is accepted: over
// brpc's nothing does, and over Seastar's calls have one request.
func overRequests(t *testing.T, f func(t *testing.T, w *oneRequest, request bool)) {
	for _, p := range []frame.Protocol{native.Protocol{}, triple.Protocol{}} {
		for _, request := range []bool{true, false} { // with the open, or behind it
			t.Run(p.Name(), func(t *testing.T) {
				inBubble(t, &kernel.ServerOptions{Protocols: []frame.Protocol{p}}, &kernel.ClientOptions{Protocols: []frame.Protocol{p}}, func(t *testing.T, w *world) {
					w.Loose = true
					r := &oneRequest{w, make(chan string, 9), make(chan error, 9), make(chan struct{})}
					serve := func(ctx context.Context, req []byte) error {
						r.begun <- string(req)
						select {
						case <-ctx.Done():
							r.ended <- ctx.Err()
							return ctx.Err()
						case <-r.let:
							r.ended <- nil
							return nil
						}
					}
					ok(t, rpc.HandleUnary(w.Srv, "a.B/unary", func(ctx context.Context, req []byte) ([]byte, error) {
						return []byte("reply"), serve(ctx, req)
					}, nil))
					ok(t, rpc.HandleServerStream(w.Srv, "a.B/stream", func(ctx context.Context, req []byte, out *rpc.Sink[[]byte]) error {
						if err := out.Send(ctx, []byte("reply")); err != nil {
							return err
						}
						return serve(ctx, req)
					}, nil))
					f(t, r, request)
				})
			})
		}
	}
}

// open opens a stream of method with a request, which comes with the open or behind it.
func (w *oneRequest) open(method string, withOpen bool) *kernel.Stream {
	w.T.Helper()
	if withOpen {
		return testkit.Must[*kernel.Stream](w.T)(w.Client.Open(w.Ctx, method, &kernel.OpenOptions{Request: text("one")}))
	}
	s := testkit.Must[*kernel.Stream](w.T)(w.Client.Open(w.Ctx, method, nil))
	w.Send(s, "one")
	return s
}

// wantContextOver checks that the handler's context has ended.
func (w *oneRequest) wantContextOver() {
	w.T.Helper()
	select {
	case err := <-w.ended:
		if err == nil {
			w.T.Error("the handler has ended by itself")
		}
	case <-time.After(time.Hour):
		w.T.Fatal("the handler's context does not end")
	}
}

// end is how the stream has ended for its opener.
func (w *oneRequest) end(s *kernel.Stream) error {
	for {
		m, err := s.Receive(w.Ctx)
		if err != nil {
			return err
		}
		m.Release()
	}
}

// A second request ends the call, and the handler's context.
func TestASecondRequestEndsTheCall(t *testing.T) {
	for _, method := range []string{"a.B/unary", "a.B/stream"} {
		for name, second := range map[string]pool.Message{"short": text("two"), "empty": text(""), "long": sized(200_000, 'x')} {
			t.Run(method+" "+name, func(t *testing.T) {
				overRequests(t, func(t *testing.T, w *oneRequest, request bool) {
					s := w.open(method, request)
					if req := <-w.begun; req != "one" {
						t.Errorf("the request is %q", req)
					}
					m := pool.Copy(second.Bytes())
					if err := s.Send(w.Ctx, m); err != nil {
						m.Release()
						t.Fatal(err)
					}
					w.wantContextOver()
					if e := wantCode(t, w.end(s), status.Unimplemented); !e.Remote || e.Reason != "more than one request" {
						t.Errorf("the caller's error is %v", e)
					}
				})
			})
		}
	}
}

// The same if both requests are there before the handler has asked for one.
func TestTwoRequestsAtOnceEndTheCall(t *testing.T) {
	for _, size := range []int{3, 100_000} {
		overRequests(t, func(t *testing.T, w *oneRequest, request bool) {
			gate := make(chan struct{})
			w.Srv.Use(func(next kernel.Handler) kernel.Handler {
				return func(ctx context.Context, s *kernel.Stream) error {
					<-gate
					return next(ctx, s)
				}
			})
			s := w.open("a.B/unary", request)
			w.SendMessage(s, sized(size, 'x'))
			synctest.Wait()
			close(gate)
			w.wantContextOver()
			if e := wantCode(t, w.end(s), status.Unimplemented); !strings.Contains(e.Reason, "more than one") {
				t.Errorf("the caller's error is %v", e)
			}
		})
	}
}

// A caller that leaves its half open is answered all the same.
func TestACallerNeedNotEndItsHalf(t *testing.T) {
	for _, method := range []string{"a.B/unary", "a.B/stream"} {
		overRequests(t, func(t *testing.T, w *oneRequest, request bool) {
			s := w.open(method, request)
			<-w.begun
			close(w.let)
			w.Want(s, "reply")
			ok(t, <-w.ended)
			ok(t, s.Close(w.Ctx))
		})
	}
}
