package grpctest

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	sluicemd "github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// Programs of grpc-go as they are, with its defaults, against ours in memory: hours take no time.

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// ourServer is a server of ours, and the connections that it has had.
func ourServer(t *testing.T, l kernel.Limits, ln net.Listener) *kernel.Server {
	t.Helper()
	return serverWith(t, kernel.ServerOptions{Limits: l}, ln)
}

func serverWith(t *testing.T, opts kernel.ServerOptions, ln net.Listener) *kernel.Server {
	t.Helper()
	opts.Protocols = []frame.Protocol{triple.Protocol{}}
	srv := must[*kernel.Server](t)(kernel.NewServer(&opts))
	if err := Register(srv); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return srv
}

func theirClient(t *testing.T, ln *kerneltest.Listener, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return ln.Dial(ctx, "", "") }))
	cc := must[*grpc.ClientConn](t)(grpc.NewClient("passthrough:///memory", opts...))
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func theirServer(t *testing.T, ln net.Listener, opts ...grpc.ServerOption) {
	t.Helper()
	s := grpc.NewServer(opts...)
	grpc_testing.RegisterTestServiceServer(s, interop.NewTestServer())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
}

func ourClient(t *testing.T, ln *kerneltest.Listener, p triple.Protocol) *kernel.Client {
	t.Helper()
	c := must[*kernel.Client](t)(kernel.NewClient(kerneltest.Target, &kernel.ClientOptions{
		Protocols: []frame.Protocol{p}, Dial: ln.Dial,
	}))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// slowly asks for one response after d.
func slowly(d time.Duration) *grpc_testing.StreamingOutputCallRequest {
	return &grpc_testing.StreamingOutputCallRequest{ResponseParameters: []*grpc_testing.ResponseParameters{{
		Size: 1, IntervalUs: int32(d.Microseconds()),
	}}}
}

// theirTalk asks for a response now and then, and never longer than forty minutes.
func theirTalk(t *testing.T, s grpc.BidiStreamingClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) {
	t.Helper()
	if err := s.Send(slowly(0)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
}

// A client of grpc-go that pings as often as it may, with streams and without, keeps its
// connection.
func TestStockClientsKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := kerneltest.Listen()
		srv := ourServer(t, kernel.Limits{IdleConn: kernel.Unlimited}, ln)
		cc := theirClient(t, ln, grpc.WithIdleTimeout(0), grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 10 * time.Second, Timeout: time.Second, PermitWithoutStream: true,
		}))
		s := must[grpc.BidiStreamingClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]](t)(
			grpc_testing.NewTestServiceClient(cc).FullDuplexCall(t.Context()))
		for range 12 {
			theirTalk(t, s)
			time.Sleep(10 * time.Minute)
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != io.EOF {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour)
		if st := srv.Stats(); st.Accepted != 1 || st.Conns != 1 {
			t.Errorf("%d connections of %d are left", st.Conns, st.Accepted)
		}
	})
}

// bulk asks for a hundred megabytes.
func bulk() *grpc_testing.StreamingOutputCallRequest {
	req := &grpc_testing.StreamingOutputCallRequest{}
	for range 1600 {
		req.ResponseParameters = append(req.ResponseParameters, &grpc_testing.ResponseParameters{Size: 64 << 10})
	}
	return req
}

// Data makes grpc-go measure the path, a ping a round trip: here that takes no time, and no guard
// minds it.
func TestStockBandwidthPings(t *testing.T) {
	t.Run("their client", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ln := kerneltest.Listen()
			srv := ourServer(t, kernel.Limits{}, ln)
			c := grpc_testing.NewTestServiceClient(theirClient(t, ln))
			s := must[grpc.ServerStreamingClient[grpc_testing.StreamingOutputCallResponse]](t)(c.StreamingOutputCall(t.Context(), bulk()))
			n, err := 0, error(nil)
			for ; err == nil; n++ {
				_, err = s.Recv()
			}
			synctest.Wait() // the connection is counted
			if st := srv.Stats(); n != 1601 || err != io.EOF || st.Accepted != 1 {
				t.Errorf("%d responses, then %v, on %d connections", n-1, err, st.Accepted)
			}
		})
	})
	t.Run("their server", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ln := kerneltest.Listen()
			theirServer(t, ln)
			c := ourClient(t, ln, triple.Protocol{})
			call := must[*rpc.ClientStream[*grpc_testing.StreamingInputCallRequest, *grpc_testing.StreamingInputCallResponse]](t)(
				rpc.CallClientStream[*grpc_testing.StreamingInputCallRequest, *grpc_testing.StreamingInputCallResponse](
					t.Context(), c, service+"StreamingInputCall", nil))
			for range 1600 {
				if err := call.Out.Send(t.Context(), &grpc_testing.StreamingInputCallRequest{Payload: body(64 << 10)}); err != nil {
					t.Fatal(err)
				}
			}
			resp, err := call.CloseAndReceive(t.Context())
			if err != nil || resp.AggregatedPayloadSize != 1600*64<<10 {
				t.Errorf("%v, %v", resp, err)
			}
		})
	})
}

// A client of ours with a silent stream pings a server of grpc-go no more often than that
// takes by default.
func TestStockServersEnforcement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := kerneltest.Listen()
		theirServer(t, ln)
		c := ourClient(t, ln, triple.Protocol{})
		b := must[*talk](t)(converse(t.Context(), c, nil))
		for range 4 {
			if err := ask(t.Context(), b, 1, 1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Hour)
		}
		if err := ask(t.Context(), b, 1, 1); err != nil {
			t.Fatal(err)
		}
		if err := b.Out.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if err := finish(t.Context(), b.In); err != nil {
			t.Fatal(err)
		}
	})
}

// ages are three connections' lives.
const ages = 4 * time.Hour

// No call of grpc-go's fails because connections of ours come of age or are idle. A stream
// that lasts ends with its connection's grace.
func TestStockClientOutlivesConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := kerneltest.Listen()
		srv := ourServer(t, kernel.Limits{MaxConnAge: time.Hour, ConnAgeGrace: 10 * time.Minute, IdleConn: 5 * time.Minute}, ln)
		c := grpc_testing.NewTestServiceClient(theirClient(t, ln))
		start := time.Now()
		long := must[grpc.BidiStreamingClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]](t)(
			c.FullDuplexCall(t.Context()))
		ended := make(chan error, 1)
		go func() {
			_, err := long.Recv()
			ended <- err
		}()
		for i := 0; time.Since(start) < ages; i++ {
			if _, err := c.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{}); err != nil {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
			time.Sleep(time.Duration(i%8) * time.Minute)
			select {
			case err := <-ended:
				if grpcstatus.Code(err) != codes.Unavailable || time.Since(start) < 64*time.Minute {
					t.Errorf("after %v the long stream has ended with %v", time.Since(start), err)
				}
				ended = nil
			default:
			}
		}
		if ended != nil {
			t.Error("the long stream has not ended")
		}
		if n := srv.Stats().Accepted; n < 10 {
			t.Errorf("%d connections in %v", n, ages)
		}
	})
}

// No call of ours fails because connections of grpc-go's come of age or are idle.
func TestOurClientOutlivesStockConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := kerneltest.Listen()
		theirServer(t, ln, grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: time.Hour, MaxConnectionAgeGrace: 10 * time.Minute, MaxConnectionIdle: 5 * time.Minute,
		}))
		c := ourClient(t, ln, triple.Protocol{})
		start := time.Now()
		conns := map[*kernel.Conn]bool{}
		for i := 0; time.Since(start) < ages; i++ {
			if err := emptyUnary(t.Context(), c); err != nil {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
			for _, k := range c.Conns() {
				conns[k] = true
			}
			time.Sleep(time.Duration(i%8) * time.Minute)
		}
		if len(conns) < 10 {
			t.Errorf("%d connections in %v", len(conns), ages)
		}
	})
}

// atOnce makes calls at once, each of which takes a second, and returns how long all took.
func atOnce(t *testing.T, calls int, call func() error) time.Duration {
	t.Helper()
	start := time.Now()
	var work sync.WaitGroup
	for range calls {
		work.Go(func() {
			if err := call(); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	return time.Since(start)
}

// Calls beyond MAX_CONCURRENT_STREAMS wait, and none is refused.
func TestStockStreamsAtOnce(t *testing.T) {
	const calls, most = 20, 4
	t.Run("their client", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ln := kerneltest.Listen()
			ourServer(t, kernel.Limits{MaxStreams: most}, ln)
			c := grpc_testing.NewTestServiceClient(theirClient(t, ln))
			if _, err := c.EmptyCall(t.Context(), &grpc_testing.Empty{}); err != nil {
				t.Fatal(err) // its SETTINGS are known then
			}
			d := atOnce(t, calls, func() error {
				s, err := c.StreamingOutputCall(t.Context(), slowly(time.Second))
				for err == nil {
					_, err = s.Recv()
				}
				if err == io.EOF {
					return nil
				}
				return err
			})
			if d != calls/most*time.Second {
				t.Errorf("all have taken %v", d)
			}
		})
	})
	t.Run("our client", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ln := kerneltest.Listen()
			theirServer(t, ln, grpc.MaxConcurrentStreams(most))
			c := ourClient(t, ln, triple.Protocol{})
			d := atOnce(t, calls, func() error {
				in, err := rpc.CallServerStream[*grpc_testing.StreamingOutputCallResponse](t.Context(), c,
					service+"StreamingOutputCall", slowly(time.Second), nil)
				for err == nil {
					_, err = in.Receive(t.Context())
				}
				if err == io.EOF {
					return nil
				}
				return err
			})
			if d != calls/most*time.Second {
				t.Errorf("all have taken %v", d)
			}
		})
	})
}

// Each side's server is told who calls, and whom.
func TestStockUserAgentAndAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, theirs := kerneltest.Listen(), make(chan metadata.MD, 1)
		theirServer(t, ln, grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			theirs <- md
			return h(ctx, req)
		}))
		c := ourClient(t, ln, triple.Protocol{UserAgent: "app/1", Authority: "name.example:1"})
		if err := emptyUnary(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		md := <-theirs
		if a := strings.Join(md.Get(":authority"), ","); a != "name.example:1" {
			t.Errorf(":authority is %q", a)
		}
		if u := strings.Join(md.Get("user-agent"), ","); !strings.HasPrefix(u, "app/1 ") {
			t.Errorf("user-agent is %q", u)
		}

		ln2, agent := kerneltest.Listen(), make(chan string, 1)
		ourServer(t, kernel.Limits{}, ln2).Use(func(next kernel.Handler) kernel.Handler {
			return func(ctx context.Context, s *kernel.Stream) error {
				agent <- s.Metadata().Get("user-agent")
				return next(ctx, s)
			}
		})
		cc := theirClient(t, ln2, grpc.WithUserAgent("app/2"), grpc.WithAuthority("other.example"))
		if _, err := grpc_testing.NewTestServiceClient(cc).EmptyCall(t.Context(), &grpc_testing.Empty{}); err != nil {
			t.Fatal(err)
		}
		if u := <-agent; !strings.HasPrefix(u, "app/2 grpc-go/") {
			t.Errorf("user-agent is %q", u)
		}
	})
}

// A call that waits for a server is made when there is one.
func TestStockWaitForReady(t *testing.T) {
	t.Run("our client", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			down := kerneltest.Listen()
			_ = down.Close()
			up := kerneltest.Listen()
			start := time.Now()
			c := must[*kernel.Client](t)(kernel.NewClient(kerneltest.Target, &kernel.ClientOptions{
				Protocols: []frame.Protocol{triple.Protocol{}},
				Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
					if time.Since(start) < 10*time.Second {
						return down.Dial(ctx, n, a)
					}
					return up.Dial(ctx, n, a)
				},
			}))
			defer c.Close()
			theirServer(t, up)
			if err := emptyUnary(t.Context(), c); err == nil {
				t.Error("a call without a server succeeds")
			}
			_, err := rpc.Call[*grpc_testing.Empty](t.Context(), c, service+"EmptyCall", &grpc_testing.Empty{},
				&rpc.CallOptions{CallOptions: kernel.CallOptions{WaitForReady: true}})
			if err != nil || time.Since(start) < 10*time.Second {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		})
	})
	t.Run("their client", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ln := kerneltest.Listen()
			start := time.Now()
			time.AfterFunc(10*time.Second, func() { ourServer(t, kernel.Limits{}, ln) })
			c := grpc_testing.NewTestServiceClient(theirClient(t, ln))
			if _, err := c.EmptyCall(t.Context(), &grpc_testing.Empty{}, grpc.WaitForReady(true)); err != nil || time.Since(start) < 10*time.Second {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		})
	})
}

// A client of grpc-go that takes a method for another kind is told so while the handler runs,
// and one that leaves its half open is answered.
func TestStockSecondRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := kerneltest.Listen()
		ourServer(t, kernel.Limits{}, ln)
		cc := theirClient(t, ln)
		for sent, want := range map[int]error{1: nil, 2: grpcstatus.Error(codes.Unimplemented, "more than one request")} {
			s := must[grpc.ClientStream](t)(cc.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/"+service+"StreamingOutputCall"))
			for range sent {
				if err := s.SendMsg(slowly(time.Minute)); err != nil {
					t.Fatal(err)
				}
			}
			err := s.RecvMsg(&grpc_testing.StreamingOutputCallResponse{})
			if !errors.Is(err, want) || grpcstatus.Code(err) != grpcstatus.Code(want) {
				t.Errorf("%d requests: %v, want %v", sent, err, want)
			}
			if want == nil {
				if err := s.RecvMsg(&grpc_testing.StreamingOutputCallResponse{}); err != io.EOF {
					t.Errorf("the end is %v", err)
				}
			}
		}
	})
}

// What our server refuses before a handler runs, grpc-go's clients send again by themselves, and
// each call is served once.
func TestStockClientsRetryWhatWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 10
		ln := kerneltest.Listen()
		var asked, served atomic.Int32
		srv := serverWith(t, kernel.ServerOptions{
			Authorize: func(context.Context, kernel.Identity, string, sluicemd.MD) error {
				if asked.Add(1)%2 != 0 {
					return &status.HandlerError{Code: status.Refused, Reason: "not now"}
				}
				return nil
			},
		}, ln)
		srv.Use(func(next kernel.Handler) kernel.Handler {
			return func(ctx context.Context, s *kernel.Stream) error {
				served.Add(1)
				return next(ctx, s)
			}
		})
		c := grpc_testing.NewTestServiceClient(theirClient(t, ln))
		for range calls {
			resp, err := c.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{ResponseSize: 10, Payload: body(10)})
			if err != nil || len(resp.GetPayload().GetBody()) != 10 {
				t.Fatalf("%v, %v", resp, err)
			}
		}
		if asked.Load() != 2*calls || served.Load() != calls {
			t.Errorf("%d calls were asked for %d times and served %d times", calls, asked.Load(), served.Load())
		}
	})
}
