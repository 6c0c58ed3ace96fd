package interop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// The rules that are the same on every wire.

// A wire is one of them.
type wire struct {
	name     string
	method   string // of a call
	start    func(*testing.T, *kernel.ServerOptions, *kernel.ClientOptions) *world
	metadata bool // travels with calls, both ways
	streams  bool // opens have a method and a request
}

var wires = []wire{
	{name: "sluice", method: "a.Service/Method", metadata: true, streams: true,
		start: func(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions) *world {
			return newWorld(t, loops, so, co)
		}},
	{name: "brpc", method: "a.Service/Method", metadata: true, streams: true, start: overBrpc},
	{name: "seastar", method: "#1", start: overSeastar},
}

func overWires(t *testing.T, f func(t *testing.T, x wire, w *world)) {
	t.Helper()
	for _, x := range wires {
		t.Run(x.name, func(t *testing.T) { f(t, x, x.start(t, nil, nil)) })
	}
}

// Request gives a call's request in each kind of handler, once, and Receive gives it where
// nobody has asked by Request.
func TestRequestsAreFoundInOneWay(t *testing.T) {
	answer := func(ctx context.Context, s *kernel.Stream, m pool.Message, err error) error {
		if err != nil {
			return err
		}
		if more, err := s.Request(ctx); err != io.EOF {
			t.Errorf("behind the request: %d bytes, %v", more.Len(), err)
		}
		return s.Send(ctx, m)
	}
	serve := map[string]func(h *kernel.Handlers, method string){
		"Handle, Request": func(h *kernel.Handlers, method string) {
			h.Handle(method, func(ctx context.Context, s *kernel.Stream) error {
				m, err := s.Request(ctx)
				return answer(ctx, s, m, err)
			})
		},
		"Handle, Receive": func(h *kernel.Handlers, method string) {
			h.Handle(method, func(ctx context.Context, s *kernel.Stream) error {
				m, err := s.Receive(ctx)
				return answer(ctx, s, m, err)
			})
		},
		"HandleOffer, before": func(h *kernel.Handlers, method string) {
			h.HandleOffer(method, func(ctx context.Context, o *kernel.Offer) error {
				m, err := o.Request(ctx)
				if err != nil {
					return err
				}
				s, err := o.Accept(m, nil)
				if err == nil {
					s.Finish(nil)
				}
				return err
			})
		},
		"HandleOffer, after": func(h *kernel.Handlers, method string) {
			h.HandleOffer(method, func(ctx context.Context, o *kernel.Offer) error {
				s, err := o.Accept(pool.Message{}, nil)
				if err != nil {
					return err
				}
				m, err := s.Request(ctx)
				err = answer(ctx, s, m, err)
				s.Finish(err)
				return nil
			})
		},
	}
	for name, register := range serve {
		t.Run(name, func(t *testing.T) {
			overWires(t, func(t *testing.T, x wire, w *world) {
				register(w.Srv.Handlers, x.method)
				for _, n := range []int{1, 1000, 17 << 10, 1 << 20} {
					reply, err := w.Client.Call(w.Ctx, x.method, sized(n, 7), nil)
					if err != nil || !bytes.Equal(reply.Bytes(), bytes.Repeat([]byte{7}, n)) {
						t.Fatalf("a reply of %d bytes, want %d: %v", reply.Len(), n, err)
					}
					reply.Release()
				}
			})
		})
	}
}

// A typed handler has its request, and can still set what travels with the reply. The caller
// finds both in the same way, also if the handler fails then. What can't travel is an error.
func TestHeadersAndTrailersOfTypedCalls(t *testing.T) {
	overWires(t, func(t *testing.T, x wire, w *world) {
		header, trailer := metadata.MD{{Key: "h", Value: "1"}}, metadata.MD{{Key: "t", Value: "2"}}
		ok(t, rpc.HandleUnary(w.Srv, x.method, func(ctx context.Context, fails bool) (int32, error) {
			s := kernel.FromContext(ctx)
			if !x.metadata {
				isErr(t, "SetHeader", s.SetHeader(header), kernel.ErrNotSupported)
				isErr(t, "SetTrailer", s.SetTrailer(trailer), kernel.ErrNotSupported)
				return 7, nil
			}
			ok(t, s.SetHeader(header))
			ok(t, s.SetTrailer(trailer))
			if fails {
				return 0, &status.HandlerError{Code: status.NotFound, Reason: "no", Details: metadata.MD{{Key: "d", Value: "3"}}}
			}
			return 7, nil
		}, nil))
		var h, tr metadata.MD
		opts := &rpc.CallOptions{CallOptions: kernel.CallOptions{Header: &h, Trailer: &tr}}
		v, err := rpc.Call[int32](w.Ctx, w.Client, x.method, false, opts)
		if v != 7 || err != nil {
			t.Errorf("%d, %v", v, err)
		}
		if !x.metadata {
			return
		}
		if h.Get("h") != "1" || tr.Get("t") != "2" {
			t.Errorf("header %v, trailer %v", h, tr)
		}
		_, err = rpc.Call[int32](w.Ctx, w.Client, x.method, true, opts)
		se := wantCode(t, err, status.NotFound)
		if se.Refused || h.Get("h") != "1" || tr.Get("t") != "2" || tr.Get("d") != "3" || se.Details.Get("t") != "2" || se.Details.Get("d") != "3" {
			t.Errorf("%v: header %v, trailer %v, details %v", se, h, tr, se.Details)
		}
	})
}

// A typed handler that is asked by an open, as brpc's programs ask for streams, has the
// request that came with it, and the stream for its answers.
func TestATypedHandlerHasTheRequestOfAnOpen(t *testing.T) {
	overWires(t, func(t *testing.T, x wire, w *world) {
		if !x.streams {
			t.Skip("opens have no request")
		}
		ok(t, rpc.HandleServerStream(w.Srv, x.method, func(ctx context.Context, n int32, out *rpc.Sink[int32]) error {
			if s := kernel.FromContext(ctx); n == 0 {
				return &status.HandlerError{Code: status.NotFound, Reason: "none"}
			} else if err := s.SetHeader(metadata.MD{{Key: "n", Value: decimal(int(n))}}); err != nil {
				return err
			}
			for i := range n {
				if err := out.Send(ctx, i); err != nil {
					return err
				}
			}
			return nil
		}, nil))
		s := testkit.Must[*kernel.Stream](t)(w.Client.Open(w.Ctx, x.method, &kernel.OpenOptions{Request: text("3")}))
		_, header, err := s.Accepted(w.Ctx)
		if err != nil || header.Get("n") != "3" {
			t.Errorf("header %v, %v", header, err)
		}
		for i := range 3 {
			w.Want(s, "%d", i)
		}
		w.WantEOF(s)
		ok(t, s.Close(w.Ctx))

		// An error that comes before the first answer has its code on each wire.
		s = testkit.Must[*kernel.Stream](t)(w.Client.Open(w.Ctx, x.method, &kernel.OpenOptions{Request: text("0")}))
		if se := w.WantErr(s, status.NotFound); !strings.Contains(se.Reason, "none") {
			t.Errorf("%v", se)
		}
		_ = s.Close(w.Ctx)
	})
}

// What a call's options carry and its wire does not is an error, before anything is sent.
func TestMetadataThatAWireDoesNotCarry(t *testing.T) {
	overWires(t, func(t *testing.T, x wire, w *world) {
		w.Srv.Handle(x.method, echo)
		m := text("x")
		reply, err := w.Client.Call(w.Ctx, x.method, m, &kernel.CallOptions{Metadata: metadata.MD{{Key: "k", Value: "v"}}})
		if x.metadata {
			ok(t, err)
			reply.Release()
			return
		}
		isErr(t, "metadata", err, kernel.ErrNotSupported)
		if !strings.Contains(err.Error(), `"k"`) {
			t.Errorf("which key: %v", err)
		}
		m.Release()
	})
}

// A typed handler of Seastar's can have no reply, by the header that every handler sets.
func TestATypedHandlerMayHaveNoReply(t *testing.T) {
	w := overSeastar(t, nil, nil)
	ok(t, rpc.HandleUnary(w.Srv, "#1", func(ctx context.Context, _ int32) (int32, error) {
		return 7, kernel.FromContext(ctx).SetHeader(metadata.MD{{Key: seastar.NoWait}})
	}, nil))
	opts := &rpc.CallOptions{CallOptions: kernel.CallOptions{Timeout: 50 * time.Millisecond}}
	if v, err := rpc.Call[int32](w.Ctx, w.Client, "#1", int32(1), opts); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d, %v", v, err)
	}
}

// An attachment has its size in what travels with its message: a request's in the metadata,
// a reply's in the header, of calls and of opens. Over brpc it is brpc's own attachment.
func TestAttachmentsOfRequestsAndReplies(t *testing.T) {
	overWires(t, func(t *testing.T, x wire, w *world) {
		if !x.metadata {
			t.Skip("a wire without metadata")
		}
		size := func(n int) metadata.MD {
			return metadata.MD{{Key: strm.KeyAttachmentSize, Value: decimal(n)}}
		}
		serve := func(ctx context.Context, o *kernel.Offer) error {
			m, err := o.Request(ctx)
			if err != nil {
				return err
			}
			if got := o.Metadata().Get(strm.KeyAttachmentSize); got != "4" || string(m.Bytes()) != "requestfile" {
				t.Errorf("%q with an attachment of %q bytes", m.Bytes(), got)
			}
			m.Release()
			ok(t, o.SetHeader(size(5)))
			s, err := o.Accept(text("replyimage"), nil)
			if err == nil {
				s.Finish(nil)
			}
			return err
		}
		w.Srv.HandleOffer(x.method, serve)
		var header metadata.MD
		reply, err := w.Client.Call(w.Ctx, x.method, text("requestfile"), &kernel.CallOptions{Metadata: size(4), Header: &header})
		if err != nil || string(reply.Bytes()) != "replyimage" || header.Get(strm.KeyAttachmentSize) != "5" {
			t.Errorf("a call: %q, header %v, %v", reply.Bytes(), header, err)
		}
		reply.Release()
		s := testkit.Must[*kernel.Stream](t)(w.Client.Open(w.Ctx, x.method, &kernel.OpenOptions{Metadata: size(4), Request: text("requestfile")}))
		reply, header, err = s.Accepted(w.Ctx)
		if err != nil || string(reply.Bytes()) != "replyimage" || header.Get(strm.KeyAttachmentSize) != "5" {
			t.Errorf("an open: %q, header %v, %v", reply.Bytes(), header, err)
		}
		reply.Release()
		_ = s.Close(w.Ctx)
	})
}

// What Reject and a handler's error carry is the same: code, reason, header, trailer and
// details.
func TestRefusalsCarryDetails(t *testing.T) {
	denied := &status.HandlerError{Code: status.PermissionDenied, Reason: "not you", Details: metadata.MD{{Key: "d", Value: "3"}}}
	for name, refuse := range map[string]func(o *kernel.Offer) error{
		"Reject":  func(o *kernel.Offer) error { o.Reject(denied); return nil },
		"returns": func(*kernel.Offer) error { return denied },
	} {
		t.Run(name, func(t *testing.T) {
			overWires(t, func(t *testing.T, x wire, w *world) {
				if !x.streams {
					t.Skip("a wire whose streams are not answered")
				}
				w.Srv.HandleOffer("m", func(_ context.Context, o *kernel.Offer) error {
					ok(t, o.SetHeader(metadata.MD{{Key: "h", Value: "1"}}))
					return refuse(o)
				})
				ss, err := w.Client.OpenN(w.Ctx, "m", nil, make([]kernel.StreamOptions, 2)...)
				ok(t, err)
				for _, s := range ss {
					_, _, err := s.Accepted(w.Ctx)
					se := wantCode(t, err, strm.CodeOf(strm.Errno(denied.Code)))
					if !se.Refused || se.NotProcessed || !strings.Contains(se.Reason, "not you") || se.Details.Get("h") != "1" || se.Details.Get("d") != "3" {
						t.Errorf("%v, details %v", se, se.Details)
					}
				}
				m := text("x")
				_, err = w.Client.Call(w.Ctx, "m", m, nil)
				se := wantCode(t, err, strm.CodeOf(strm.Errno(denied.Code)))
				if se.NotProcessed || se.Details.Get("h") != "1" || se.Details.Get("d") != "3" {
					t.Errorf("a call: %v, details %v", se, se.Details)
				}
				m.Release()
			})
		})
	}
}

// A call that passes streams and fails has what its handler says where every call has it.
func TestACallWithStreamsThatFails(t *testing.T) {
	overWires(t, func(t *testing.T, x wire, w *world) {
		ok(t, rpc.HandleUnary(w.Srv, x.method, func(context.Context, *intSource) (int32, error) {
			return 0, &status.HandlerError{Code: status.NotFound, Reason: "none", Details: metadata.MD{{Key: "d", Value: "3"}}}
		}, nil))
		var trailer metadata.MD
		opts := &rpc.CallOptions{CallOptions: kernel.CallOptions{Trailer: &trailer}}
		_, err := rpc.Call[int32](w.Ctx, w.Client, x.method, newSink(t, w), opts)
		var se *status.StreamError
		if !errors.As(err, &se) || !strings.Contains(se.Reason, "none") {
			t.Fatalf("%v", err)
		}
		if x.metadata && (se.Code != status.NotFound || se.Details.Get("d") != "3" || trailer.Get("d") != "3") {
			t.Errorf("%v: details %v, trailer %v", se, se.Details, trailer)
		}
	})
}

// A client whose call passes streams hears why it failed if a middleware has used the call's
// stream: what the middleware says, or that it has.
func TestAMiddlewareThatUsesTheStreamOfACallWithStreams(t *testing.T) {
	for name, say := range map[string]string{"its own error": "the middleware says no", "rpc's": "a middleware has used the stream"} {
		t.Run(name, func(t *testing.T) {
			overWires(t, func(t *testing.T, x wire, w *world) {
				w.Srv.Use(func(next kernel.Handler) kernel.Handler {
					return func(ctx context.Context, s *kernel.Stream) error {
						s.CloseReceive(status.OK)
						if name == "rpc's" {
							return next(ctx, s)
						}
						return &status.HandlerError{Code: status.Internal, Reason: say}
					}
				})
				ok(t, rpc.HandleUnary(w.Srv, x.method, func(context.Context, *intSource) (int32, error) { return 0, nil }, nil))
				_, err := rpc.Call[int32](w.Ctx, w.Client, x.method, newSink(t, w), nil)
				var de *codec.DecodeError
				var se *status.StreamError
				if errors.As(err, &de) || !errors.As(err, &se) {
					t.Fatalf("the client hears %v", err)
				}
				if x.name != "brpc" && !strings.Contains(se.Reason, say) { // there the end of an accepted stream says nothing
					t.Errorf("the client hears %v", err)
				}
			})
		})
	}
}
