package sluicegrpc_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/protocodec"
	kstatus "github.com/sluicerpc/sluice/status"
)

const binary = "\x00\xff\x80 any"

// What travels beside a call travels both ways, and everybody knows the other side's address.
func TestMetadataOfCalls(t *testing.T) {
	over(t, true, func(t *testing.T, w world) {
		c := w.test(t, &service{unary: func(ctx context.Context, req *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			wantMD(t, "request", md, "k", "1", "2")
			wantMD(t, "request", md, "k-bin", binary)
			if p, ok := peer.FromContext(ctx); !ok || p.Addr.Network() != "tcp" {
				t.Errorf("peer %v", p)
			}
			if m, _ := grpc.Method(ctx); m != testgrpc.TestService_UnaryCall_FullMethodName {
				t.Errorf("method %q", m)
			}
			if err := errors.Join(
				grpc.SetHeader(ctx, metadata.Pairs("h", "1")), grpc.SetHeader(ctx, metadata.Pairs("h", "2", "h-bin", binary)),
				grpc.SetTrailer(ctx, metadata.Pairs("t", "1")), grpc.SetTrailer(ctx, metadata.Pairs("t", "2", "t-bin", binary)),
			); err != nil {
				t.Error(err)
			}
			return &testgrpc.SimpleResponse{Payload: req.Payload}, nil
		}})
		ctx := metadata.AppendToOutgoingContext(bounded(t), "K", "1", "k", "2", "k-bin", binary, "te", "dropped")
		var (
			header, trailer metadata.MD
			p               peer.Peer
		)
		resp, err := c.UnaryCall(ctx, request("hello"), grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&p))
		ok(t, err)
		if got := string(resp.Payload.Body); got != "hello" {
			t.Errorf("the response is %q", got)
		}
		wantMD(t, "header", header, "h", "1", "2")
		wantMD(t, "header", header, "h-bin", binary)
		wantMD(t, "trailer", trailer, "t", "1", "2")
		wantMD(t, "trailer", trailer, "t-bin", binary)
		if p.Addr == nil || p.Addr.Network() != "tcp" {
			t.Errorf("peer %v", p.Addr)
		}
	})
}

// A status arrives as it was, with all of its details, also one whose message is long.
func TestStatus(t *testing.T) {
	over(t, true, func(t *testing.T, w world) {
		for _, message := range []string{"no such order", "", "\t\nß ☺ 😈\t\n", strings.Repeat("long ", 500)} {
			sent, err := status.New(codes.NotFound, message).WithDetails(request("one"), request("two"))
			ok(t, err)
			for _, s := range []*status.Status{sent, status.New(codes.Aborted, message)} {
				c := w.test(t, &service{
					unary: func(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
						ok(t, grpc.SetTrailer(ctx, metadata.Pairs("t", "1")))
						return nil, s.Err()
					},
					bidi: func(st testgrpc.TestService_FullDuplexCallServer) error {
						ok(t, st.SendHeader(metadata.Pairs("h", "1")))
						st.SetTrailer(metadata.Pairs("t", "1"))
						return s.Err()
					},
				})
				check := func(err error, trailer metadata.MD) {
					t.Helper()
					if got := status.Convert(err); !proto.Equal(got.Proto(), s.Proto()) {
						t.Errorf("the status is %v, want %v", got.Proto(), s.Proto())
					}
					wantMD(t, "trailer", trailer, "t", "1")
				}
				var trailer metadata.MD
				_, err := c.UnaryCall(bounded(t), request(""), grpc.Trailer(&trailer))
				check(err, trailer)
				if w.callsOnly {
					continue
				}
				st, err := c.FullDuplexCall(bounded(t))
				ok(t, err)
				header, err := st.Header()
				ok(t, err)
				wantMD(t, "header", header, "h", "1")
				_, err = st.Recv()
				check(err, st.Trailer())
				_, again := st.Recv()
				check(again, st.Trailer())
			}
		}
	})
}

// Errors that are no statuses have the codes that grpc-go gives them.
func TestErrorsThatAreNoStatus(t *testing.T) {
	over(t, true, func(t *testing.T, w world) {
		for err, want := range map[error]codes.Code{
			errors.New("disk full"):  codes.Unknown,
			context.Canceled:         codes.Canceled,
			context.DeadlineExceeded: codes.DeadlineExceeded,
		} {
			c := w.test(t, &service{unary: func(context.Context, *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
				return nil, err
			}})
			_, got := c.UnaryCall(bounded(t), request(""))
			wantCode(t, got, want)
			if m := status.Convert(got).Message(); m != err.Error() {
				t.Errorf("the message is %q, want %q", m, err)
			}
		}
	})
}

// What nobody serves is UNIMPLEMENTED.
func TestUnknownMethods(t *testing.T) {
	over(t, true, func(t *testing.T, w world) {
		cc := w.start(t, nil, nil, (&service{}).register)
		for _, m := range []string{"/grpc.testing.TestService/None", "/none.Service/Method", "/grpc.testing.TestService/EmptyCall"} {
			err := cc.Invoke(bounded(t), m, &testgrpc.Empty{}, &testgrpc.Empty{})
			wantCode(t, err, codes.Unimplemented)
			if w.callsOnly {
				continue
			}
			st, err := cc.NewStream(bounded(t), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, m)
			ok(t, err)
			_ = st.SendMsg(&testgrpc.Empty{})
			ok(t, st.CloseSend())
			if _, err := st.Header(); err != nil {
				t.Errorf("no header is no error, got %v", err)
			}
			wantCode(t, st.RecvMsg(&testgrpc.Empty{}), codes.Unimplemented)
		}
	})
}

func TestStreamingBothWays(t *testing.T) {
	over(t, false, func(t *testing.T, w world) {
		c := w.test(t, &service{bidi: func(st testgrpc.TestService_FullDuplexCallServer) error {
			req, err := st.Recv() // the header can still be set
			if err != nil {
				return err
			}
			ok(t, st.SetHeader(metadata.Pairs("h", string(req.Payload.Body))))
			ok(t, st.Send(&testgrpc.StreamingOutputCallResponse{Payload: req.Payload}))
			wantCode(t, st.SetHeader(metadata.Pairs("h", "late")), codes.Internal)
			wantCode(t, st.SendHeader(nil), codes.Internal)
			st.SetTrailer(metadata.Pairs("t", "1"))
			st.SetTrailer(metadata.Pairs("t", "2"))
			return echo(st)
		}})
		st, err := c.FullDuplexCall(bounded(t))
		ok(t, err)
		for i := range 100 {
			ok(t, st.Send(outRequest(strings.Repeat("x", i))))
			resp, err := st.Recv()
			ok(t, err)
			if len(resp.Payload.GetBody()) != i {
				t.Errorf("%d bytes, want %d", len(resp.Payload.GetBody()), i)
			}
		}
		ok(t, st.CloseSend())
		ok(t, st.CloseSend())
		for range 2 {
			if _, err := st.Recv(); err != io.EOF {
				t.Errorf("behind the end: %v, want io.EOF", err)
			}
		}
		header, err := st.Header()
		ok(t, err)
		wantMD(t, "header", header, "h", "")
		wantMD(t, "trailer", st.Trailer(), "t", "1", "2")
		wantCode(t, st.Send(outRequest("late")), codes.Internal)
	})
}

// A handler that reads for long and says nothing gets all that is sent, beyond every window.
func TestUpload(t *testing.T) {
	over(t, false, func(t *testing.T, w world) {
		c := w.test(t, &service{in: func(st testgrpc.TestService_StreamingInputCallServer) error {
			n := 0
			for {
				req, err := st.Recv()
				if err == io.EOF {
					ok(t, st.SetHeader(metadata.Pairs("h", "behind all requests")))
					return st.SendAndClose(&testgrpc.StreamingInputCallResponse{AggregatedPayloadSize: int32(n)})
				}
				if err != nil {
					return err
				}
				n += len(req.Payload.Body)
			}
		}})
		st, err := c.StreamingInputCall(bounded(t))
		ok(t, err)
		const each, times = 100_000, 200
		for range times {
			ok(t, st.Send(&testgrpc.StreamingInputCallRequest{Payload: &testgrpc.Payload{Body: make([]byte, each)}}))
		}
		resp, err := st.CloseAndRecv()
		ok(t, err)
		if resp.AggregatedPayloadSize != each*times {
			t.Errorf("%d bytes have come, want %d", resp.AggregatedPayloadSize, each*times)
		}
		header, err := st.Header()
		ok(t, err)
		wantMD(t, "header", header, "h", "behind all requests")
	})
}

func TestDownload(t *testing.T) {
	over(t, false, func(t *testing.T, w world) {
		c := w.test(t, &service{out: func(req *testgrpc.StreamingOutputCallRequest, st testgrpc.TestService_StreamingOutputCallServer) error {
			for range 300 {
				if err := st.Send(&testgrpc.StreamingOutputCallResponse{Payload: req.Payload}); err != nil {
					return err
				}
			}
			return nil
		}})
		st, err := c.StreamingOutputCall(bounded(t), outRequest(strings.Repeat("x", 50_000)))
		ok(t, err)
		n := 0
		for {
			resp, err := st.Recv()
			if err == io.EOF {
				break
			}
			ok(t, err)
			n += len(resp.Payload.Body)
		}
		if n != 300*50_000 {
			t.Errorf("%d bytes have come", n)
		}
	})
}

// The number of messages is that of the method's kind, or the call fails: at either side.
func TestCardinality(t *testing.T) {
	kinds := []*grpc.StreamDesc{{}, {ServerStreams: true}}
	over(t, false, func(t *testing.T, w world) {
		cc := w.start(t, nil, nil, (&service{
			out: func(_ *testgrpc.StreamingOutputCallRequest, st testgrpc.TestService_StreamingOutputCallServer) error {
				return errors.Join(st.Send(&testgrpc.StreamingOutputCallResponse{}), st.Send(&testgrpc.StreamingOutputCallResponse{}))
			},
			bidi: func(testgrpc.TestService_FullDuplexCallServer) error { return nil },
		}).register)
		violated := codes.Unimplemented // grpc-go's own says INTERNAL
		if w.stock {
			violated = codes.Internal
		}
		for i, method := range []string{testgrpc.TestService_UnaryCall_FullMethodName, testgrpc.TestService_StreamingOutputCall_FullMethodName} {
			for _, n := range []int{0, 2} {
				st, err := cc.NewStream(bounded(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: kinds[i].ServerStreams}, method)
				ok(t, err)
				for range n {
					_ = st.SendMsg(&testgrpc.SimpleRequest{})
				}
				_ = st.CloseSend()
				wantCode(t, st.RecvMsg(&testgrpc.SimpleResponse{}), violated)
			}
		}
		violated = codes.Unimplemented
		if w.client {
			violated = codes.Internal
		}
		for _, method := range []string{testgrpc.TestService_StreamingOutputCall_FullMethodName, testgrpc.TestService_FullDuplexCall_FullMethodName} {
			err := cc.Invoke(bounded(t), method, &testgrpc.SimpleRequest{}, &testgrpc.SimpleResponse{})
			wantCode(t, err, violated)
			st, err := cc.NewStream(bounded(t), &grpc.StreamDesc{ClientStreams: true}, method)
			ok(t, err)
			_ = st.SendMsg(&testgrpc.SimpleRequest{})
			_ = st.CloseSend()
			wantCode(t, st.RecvMsg(&testgrpc.SimpleResponse{}), violated)
		}
	})
}

// Who gives up, by a cancellation or a deadline, gets its code at once, and the handler's context
// ends.
func TestGivingUp(t *testing.T) {
	over(t, true, func(t *testing.T, w world) {
		for _, deadline := range []bool{false, true} {
			want := codes.Canceled
			if deadline {
				want = codes.DeadlineExceeded
			}
			began, ended := make(chan struct{}, 10), make(chan error, 10)
			wait := func(ctx context.Context) error {
				if _, has := ctx.Deadline(); has != deadline {
					t.Errorf("the handler has a deadline: %v", has)
				}
				began <- struct{}{}
				<-ctx.Done()
				ended <- ctx.Err()
				return status.FromContextError(ctx.Err()).Err()
			}
			c := w.test(t, &service{
				unary: func(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
					return nil, wait(ctx)
				},
				bidi: func(st testgrpc.TestService_FullDuplexCallServer) error { return wait(st.Context()) },
			})
			// once gives up a call that f makes. It reports false if the time was too short for the
			// handler to begin.
			once := func(f func(ctx context.Context) error, after time.Duration) bool {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if deadline {
					ctx, cancel = context.WithTimeout(t.Context(), after)
					defer cancel()
				} else {
					go func() {
						<-began
						began <- struct{}{}
						cancel()
					}()
				}
				wantCode(t, f(ctx), want)
				select {
				case <-began:
				default:
					return false
				}
				select {
				case err := <-ended:
					if err == nil {
						t.Error("the handler's context has no error")
					}
				case <-time.After(patience):
					t.Error("the handler's context goes on")
				}
				return true
			}
			give := func(f func(ctx context.Context) error) {
				for d := 50 * time.Millisecond; !once(f, d) && d < patience; {
					d *= 2
				}
			}
			if w.callsOnly {
				if !deadline { // brpc's server is not told of a cancellation
					continue
				}
			}
			give(func(ctx context.Context) error {
				_, err := c.UnaryCall(ctx, request(""))
				return err
			})
			if w.callsOnly {
				continue
			}
			give(func(ctx context.Context) error {
				st, err := c.FullDuplexCall(ctx)
				if err != nil {
					return err
				}
				_, err = st.Recv()
				if e := st.Send(outRequest("late")); e != io.EOF {
					t.Errorf("a send behind the end: %v, want io.EOF", e)
				}
				return err
			})
		}
	})
}

// A context that has ended before the call is its error.
func TestEndedContext(t *testing.T) {
	over(t, true, func(t *testing.T, w world) {
		c := w.test(t, &service{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.UnaryCall(ctx, request(""))
		wantCode(t, err, codes.Canceled)
		ctx, cancel = context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		_, err = c.UnaryCall(ctx, request(""))
		wantCode(t, err, codes.DeadlineExceeded)
	})
}

// A server that stops fails what is open.
func TestServerThatStops(t *testing.T) {
	over(t, false, func(t *testing.T, w world) {
		if w.stock {
			return
		}
		stopped := make(chan struct{})
		t.Run("while a stream is open", func(t *testing.T) {
			c := w.test(t, &service{bidi: func(st testgrpc.TestService_FullDuplexCallServer) error {
				ok(t, st.SendHeader(nil))
				_, err := st.Recv()
				if err == nil || err == io.EOF {
					t.Errorf("the handler reads %v", err)
				}
				close(stopped)
				return err
			}})
			st, err := c.FullDuplexCall(bounded(t))
			ok(t, err)
			_, err = st.Header()
			ok(t, err)
		})
		<-stopped
	})
}

// Over brpc a stream is carried, and the end of one half is not.
func TestStreamsWithoutHalves(t *testing.T) {
	w := worlds[2]
	if w.name != "brpc" {
		t.Fatal(w.name)
	}
	c := w.test(t, &service{
		bidi: func(st testgrpc.TestService_FullDuplexCallServer) error {
			for range 3 {
				req, err := st.Recv()
				if err != nil {
					return err
				}
				if err := st.Send(&testgrpc.StreamingOutputCallResponse{Payload: req.Payload}); err != nil {
					return err
				}
			}
			return nil
		},
		out: func(req *testgrpc.StreamingOutputCallRequest, st testgrpc.TestService_StreamingOutputCallServer) error {
			return st.Send(&testgrpc.StreamingOutputCallResponse{Payload: req.Payload})
		},
	})
	st, err := c.FullDuplexCall(bounded(t))
	ok(t, err)
	for range 3 {
		ok(t, st.Send(outRequest("x")))
		resp, err := st.Recv()
		ok(t, err)
		if string(resp.Payload.GetBody()) != "x" {
			t.Errorf("the response is %v", resp)
		}
	}
	if _, err := st.Recv(); err != io.EOF {
		t.Errorf("behind the end: %v", err)
	}

	out, err := c.StreamingOutputCall(bounded(t), outRequest("x"))
	ok(t, err)
	resp, err := out.Recv()
	ok(t, err)
	if string(resp.Payload.GetBody()) != "x" {
		t.Errorf("the response is %v", resp)
	}
	if _, err := out.Recv(); err != io.EOF {
		t.Errorf("behind the end: %v", err)
	}

	st, err = c.FullDuplexCall(bounded(t))
	ok(t, err)
	ok(t, st.CloseSend())
	_, err = st.Recv()
	wantCode(t, err, codes.Unimplemented)
}

// A stream's methods may be called from several goroutines, also while it is given up.
func TestManyAtOnce(t *testing.T) {
	over(t, false, func(t *testing.T, w world) {
		c := w.test(t, &service{})
		var all sync.WaitGroup
		for i := range 20 {
			ctx, cancel := context.WithCancel(bounded(t))
			var header, trailer metadata.MD
			st, err := c.FullDuplexCall(ctx, grpc.Header(&header), grpc.Trailer(&trailer), grpc.OnFinish(func(error) {}))
			ok(t, err)
			all.Go(func() {
				for range 100 {
					if st.Send(outRequest("x")) != nil {
						return
					}
				}
				_ = st.CloseSend()
			})
			all.Go(func() { _, _ = st.Header() })
			all.Go(func() {
				defer cancel()
				for n := 0; ; n++ {
					_, err := st.Recv()
					switch {
					case err == io.EOF && n == 100, err != nil && i%2 == 1:
						return
					case err != nil:
						t.Errorf("after %d: %v", n, err)
						return
					case i%2 == 1 && n == i:
						cancel()
					}
				}
			})
		}
		all.Wait()
	})
}

// Typed clients of package rpc call services of gRPC's, and the other way round, where both carry
// protobuf.
func TestTypedPrograms(t *testing.T) {
	w := worlds[0]
	addr := w.serve(t, nil, (&service{unary: func(_ context.Context, req *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
		if len(req.Payload.Body) == 0 {
			return nil, &kstatus.HandlerError{Code: 300, Reason: "mine"}
		}
		return &testgrpc.SimpleResponse{Payload: req.Payload}, nil
	}}).register)
	client, err := kernel.Dial(t.Context(), addr, nil)
	ok(t, err)
	defer client.Close()
	const method = "grpc.testing.TestService/UnaryCall"
	opts := &rpc.CallOptions{Encoding: protocodec.Encoding}
	resp, err := rpc.Call[*testgrpc.SimpleResponse](bounded(t), client, method, request("hello"), opts)
	ok(t, err)
	if string(resp.Payload.Body) != "hello" {
		t.Errorf("the response is %v", resp)
	}
	_, err = rpc.Call[*testgrpc.SimpleResponse](bounded(t), client, method, request(""), opts)
	if !errors.Is(err, &kstatus.StreamError{Code: 300}) {
		t.Errorf("the error is %v", err)
	}

	srv, err := kernel.NewServer(nil)
	ok(t, err)
	ok(t, rpc.HandleUnary(srv, method, func(_ context.Context, req *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
		return &testgrpc.SimpleResponse{Payload: req.Payload}, nil
	}, &rpc.HandleOptions{Encoding: protocodec.Encoding}))
	ln, err := kernel.Listen(t.Context(), "127.0.0.1:0")
	ok(t, err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	defer func() {
		_ = srv.Close()
		<-served
	}()
	c := testgrpc.NewTestServiceClient(w.connect(t, ln.Addr().String(), nil))
	resp, err = c.UnaryCall(bounded(t), request("hello"))
	ok(t, err)
	if string(resp.Payload.Body) != "hello" {
		t.Errorf("the response is %v", resp)
	}
}
