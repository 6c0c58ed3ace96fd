package sluicegrpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // for grpc-go's own side
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	sluicegrpc "github.com/sluicerpc/sluice/contrib/grpc"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// A jsonCodec is a codec of a program's. It keeps what it is given.
type jsonCodec struct{ kept *keeper }

type keeper struct {
	mu   sync.Mutex
	bufs []mem.Buffer
}

func (jsonCodec) Name() string { return "json" }

func (c jsonCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, err := protojson.Marshal(v.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(b[:1]), mem.SliceBuffer(b[1:])}, err
}

func (c jsonCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if c.kept != nil {
		data.Ref()
		c.kept.mu.Lock()
		defer c.kept.mu.Unlock()
		c.kept.bufs = append(c.kept.bufs, data...)
	}
	return protojson.Unmarshal(data.Materialize(), v.(proto.Message))
}

// A v1Codec is a codec of grpc-go's older interface.
type v1Codec struct{}

func (v1Codec) Name() string                  { return "v1" }
func (v1Codec) String() string                { return "v1" }
func (v1Codec) Marshal(v any) ([]byte, error) { return protojson.Marshal(v.(proto.Message)) }
func (v1Codec) Unmarshal(data []byte, v any) error {
	return protojson.Unmarshal(data, v.(proto.Message))
}

func init() {
	encoding.RegisterCodecV2(jsonCodec{})
	encoding.RegisterCodec(v1Codec{})
}

// An unknownOption is a call option that is not grpc-go's.
type unknownOption struct{ grpc.EmptyCallOption }

// Each option does what grpc-go's does, or is an error. What a stock client sends by it our server
// takes, and the other way round.
func TestCallOptions(t *testing.T) {
	long := request(strings.Repeat("x", 5000))
	for _, test := range []struct {
		name  string
		opts  []grpc.CallOption
		req   *testgrpc.SimpleRequest
		want  codes.Code
		calls bool // also over brpc
	}{
		{"none", nil, long, codes.OK, true},
		{"static method", []grpc.CallOption{grpc.StaticMethod(), grpc.EmptyCallOption{}}, long, codes.OK, true},
		{"retry buffer", []grpc.CallOption{grpc.MaxRetryRPCBufferSize(1)}, long, codes.OK, true},
		//lint:ignore SA1019 programs have it
		{"wait for ready", []grpc.CallOption{grpc.WaitForReady(true), grpc.FailFast(false)}, long, codes.OK, true},
		{"to receive enough", []grpc.CallOption{grpc.MaxCallRecvMsgSize(5100)}, long, codes.OK, true},
		{"to receive too little", []grpc.CallOption{grpc.MaxCallRecvMsgSize(4900)}, long, codes.ResourceExhausted, true},
		{"to send enough", []grpc.CallOption{grpc.MaxCallSendMsgSize(5100)}, long, codes.OK, true},
		{"to send too little", []grpc.CallOption{grpc.MaxCallSendMsgSize(4900)}, long, codes.ResourceExhausted, true},
		{"gzip", []grpc.CallOption{grpc.UseCompressor("gzip")}, long, codes.OK, true},
		{"identity", []grpc.CallOption{grpc.UseCompressor("identity")}, long, codes.OK, true},
		{"no such compressor", []grpc.CallOption{grpc.UseCompressor("none")}, long, codes.Internal, true},
		{"subtype", []grpc.CallOption{grpc.CallContentSubtype("json")}, long, codes.OK, false},
		{"subtype of an old codec", []grpc.CallOption{grpc.CallContentSubtype("v1")}, long, codes.OK, false},
		{"no such subtype", []grpc.CallOption{grpc.CallContentSubtype("none")}, long, codes.Internal, true},
		{"codec", []grpc.CallOption{grpc.ForceCodecV2(jsonCodec{})}, long, codes.OK, false},
		{"old codec", []grpc.CallOption{grpc.ForceCodec(v1Codec{})}, long, codes.OK, false},
		//lint:ignore SA1019 programs have it
		{"oldest codec", []grpc.CallOption{grpc.CallCustomCodec(v1Codec{}), grpc.CallContentSubtype("json")}, long, codes.OK, false},
		{"authority", []grpc.CallOption{grpc.CallAuthority("other")}, long, codes.OK, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			over(t, test.calls, func(t *testing.T, w world) {
				auth := make(chan []string, 1)
				c := w.test(t, &service{unary: func(ctx context.Context, req *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
					md, _ := metadata.FromIncomingContext(ctx)
					auth <- md.Get(":authority")
					return &testgrpc.SimpleResponse{Payload: req.Payload}, nil
				}})
				resp, err := c.UnaryCall(bounded(t), test.req, test.opts...)
				wantCode(t, err, test.want)
				if err == nil && !proto.Equal(resp.Payload, test.req.Payload) {
					t.Error("the response is not what was sent")
				}
				if test.name == "authority" && (w.stock || w.name == "native") {
					if got := <-auth; !slices.Equal(got, []string{"other"}) {
						t.Errorf("the authority is %q", got)
					}
				}
				if w.callsOnly || strings.Contains(test.name, "to send") && test.want != codes.OK {
					return // a stock server's stream would wait
				}
				st, err := c.FullDuplexCall(bounded(t), test.opts...)
				if err == nil {
					_ = st.Send(&testgrpc.StreamingOutputCallRequest{Payload: test.req.Payload})
					_, err = st.Recv()
				}
				wantCode(t, err, test.want)
			})
		})
	}
}

// An option that is not known, and what a message can't be, fail the call before it is sent.
func TestWhatCannotBeSent(t *testing.T) {
	w := worlds[0]
	var served atomic.Int32
	cc := w.start(t, nil, nil, (&service{unary: func(context.Context, *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
		served.Add(1)
		return &testgrpc.SimpleResponse{}, nil
	}}).register)
	c := testgrpc.NewTestServiceClient(cc)
	for name, f := range map[string]func() error{
		"an option": func() error {
			_, err := c.UnaryCall(t.Context(), request(""), unknownOption{})
			wantCode(t, err, codes.Unimplemented)
			_, err2 := c.FullDuplexCall(t.Context(), unknownOption{})
			wantCode(t, err2, codes.Unimplemented)
			return err
		},
		"no message": func() error {
			err := cc.Invoke(t.Context(), testgrpc.TestService_UnaryCall_FullMethodName, "text", &testgrpc.SimpleResponse{})
			wantCode(t, err, codes.Internal)
			return err
		},
		"a value": func() error {
			_, err := c.UnaryCall(metadata.AppendToOutgoingContext(t.Context(), "k", "\x01"), request(""))
			wantCode(t, err, codes.Internal)
			return err
		},
		"a key": func() error {
			_, err := c.UnaryCall(metadata.AppendToOutgoingContext(t.Context(), "k k", "v"), request(""))
			wantCode(t, err, codes.Internal)
			return err
		},
		"a name": func() error {
			err := cc.Invoke(t.Context(), "no/slash", &testgrpc.Empty{}, &testgrpc.Empty{})
			wantCode(t, err, codes.Internal)
			return err
		},
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if n := served.Load(); n > 0 {
		t.Errorf("%d calls were served", n)
	}
}

// A codec may keep what it was given: it does not change.
func TestACodecKeepsItsBytes(t *testing.T) {
	var kept keeper
	w := worlds[1]
	c := testgrpc.NewTestServiceClient(w.start(t, &sluicegrpc.ServerOptions{Codec: jsonCodec{&kept}},
		&sluicegrpc.ConnOptions{CallOptions: []grpc.CallOption{grpc.ForceCodecV2(jsonCodec{})}}, (&service{}).register))
	for i := range 300 { // short ones, and some that are long enough for grpc-go's pool
		_, err := c.UnaryCall(bounded(t), request(strings.Repeat("x", 10*i)))
		ok(t, err)
	}
	kept.mu.Lock()
	defer kept.mu.Unlock()
	for i, b := range kept.bufs {
		if !json.Valid(b.ReadOnlyData()) {
			t.Fatalf("request %d is %.60q by now", i, b.ReadOnlyData())
		}
	}
}

// Headers, trailers, the peer and the end are given when a stream is over, also to who stops
// reading it.
func TestOptionsOfStreams(t *testing.T) {
	over(t, false, func(t *testing.T, w world) {
		c := w.test(t, &service{bidi: func(st testgrpc.TestService_FullDuplexCallServer) error {
			st.SetTrailer(metadata.Pairs("t", "1"))
			ok(t, st.SendHeader(metadata.Pairs("h", "1")))
			return echo(st)
		}})
		for _, leave := range []bool{false, true} {
			var (
				header, trailer metadata.MD
				p               peer.Peer
				ended           = make(chan error, 2)
			)
			ctx, cancel := context.WithCancel(bounded(t))
			st, err := c.FullDuplexCall(ctx, grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&p), grpc.OnFinish(func(err error) { ended <- err }))
			ok(t, err)
			_, err = st.Header()
			ok(t, err)
			if leave {
				cancel()
			} else {
				ok(t, st.CloseSend())
				if _, err := st.Recv(); err != io.EOF {
					t.Errorf("%v, want io.EOF", err)
				}
			}
			select {
			case err := <-ended:
				if leave {
					wantCode(t, err, codes.Canceled)
				} else if err != nil {
					t.Errorf("OnFinish has %v", err)
				}
			case <-time.After(patience):
				t.Fatal("the end is not told")
			}
			wantMD(t, "header", header, "h", "1")
			if p.Addr == nil {
				t.Error("no peer")
			}
			if !leave {
				wantMD(t, "trailer", trailer, "t", "1")
			}
			cancel()
			if len(ended) > 0 {
				t.Error("OnFinish was called twice")
			}
		}
	})
}

// A token is credentials of a call.
type token struct{ secure bool }

func (c token) RequireTransportSecurity() bool { return c.secure }

func (c token) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	ri, _ := credentials.RequestInfoFromContext(ctx)
	if c.secure {
		if err := credentials.CheckSecurityLevel(ri.AuthInfo, credentials.PrivacyAndIntegrity); err != nil {
			return nil, err
		}
	}
	return map[string]string{"Authorization": "for " + uri[0] + " " + ri.Method}, nil
}

// Credentials are asked for each call; those that want a secure connection are kept from others.
func TestCredentials(t *testing.T) {
	got := make(chan []string, 1)
	s := &service{unary: func(ctx context.Context, req *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		got <- md.Get("authorization")
		p, _ := peer.FromContext(ctx)
		if p.AuthInfo != nil && p.AuthInfo.AuthType() != "tls" {
			t.Errorf("the peer is %v", p)
		}
		return &testgrpc.SimpleResponse{}, nil
	}}
	method := testgrpc.TestService_UnaryCall_FullMethodName
	serverTLS, clientTLS := testkit.Certificates()
	for _, secure := range []bool{false, true} {
		so, co := &kernel.ServerOptions{Protocols: protocols}, &kernel.ClientOptions{Protocols: protocols}
		if secure {
			so.TLS, co.TLS = serverTLS, clientTLS
		}
		srv, err := kernel.NewServer(so)
		ok(t, err)
		ours := sluicegrpc.NewServer(srv, nil)
		s.register(ours)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		ok(t, err)
		served := make(chan error, 1)
		go func() { served <- ours.Serve(ln) }()
		for _, scheme := range []string{"", "grpc://"} {
			k, err := kernel.Dial(t.Context(), scheme+ln.Addr().String(), co)
			ok(t, err)
			cc := sluicegrpc.NewConn(k, &sluicegrpc.ConnOptions{PerRPCCredentials: []credentials.PerRPCCredentials{token{}}, Authority: "host:443"})
			c := testgrpc.NewTestServiceClient(cc)
			_, err = c.UnaryCall(bounded(t), request(""), grpc.PerRPCCredentials(token{secure: true}))
			if !secure {
				wantCode(t, err, codes.Unauthenticated)
				_, err = c.UnaryCall(bounded(t), request(""), grpc.PerRPCCredentials(token{}))
			}
			ok(t, err)
			one := "for https://host/grpc.testing.TestService " + method
			if tokens := <-got; !slices.Equal(tokens, []string{one, one}) {
				t.Errorf("authorization %q", tokens)
			}
			if secure {
				_, err := c.UnaryCall(bounded(t), request(""), grpc.CallAuthority("not.in.the.certificate"))
				wantCode(t, err, codes.Unavailable)
				_, err = c.UnaryCall(bounded(t), request(""), grpc.CallAuthority("127.0.0.1:443"))
				ok(t, err)
				<-got
			}
			ok(t, cc.Close())
		}
		ours.GracefulStop()
		ok(t, <-served)
	}
}

// A call that waits for the server goes on when there is one; one that does not fails at once.
func TestWaitForReady(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	addr := ln.Addr().String()
	ok(t, ln.Close())
	k, err := kernel.NewClient("grpc://"+addr, &kernel.ClientOptions{Protocols: protocols, Backoff: kernel.Backoff{First: 10 * time.Millisecond, Most: 50 * time.Millisecond}})
	ok(t, err)
	cc := sluicegrpc.NewConn(k, nil)
	defer cc.Close()
	c := testgrpc.NewTestServiceClient(cc)
	_, err = c.UnaryCall(bounded(t), request(""))
	wantCode(t, err, codes.Unavailable)
	_, err = c.FullDuplexCall(bounded(t))
	wantCode(t, err, codes.Unavailable)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	_, err = c.UnaryCall(ctx, request(""), grpc.WaitForReady(true), grpc.PerRPCCredentials(token{}))
	cancel()
	wantCode(t, err, codes.DeadlineExceeded)
	results := make(chan error, 2)
	go func() {
		_, err := c.UnaryCall(bounded(t), request(""), grpc.WaitForReady(true))
		results <- err
	}()
	go func() {
		_, err := c.UnaryCall(bounded(t), request(""), grpc.WaitForReady(true), grpc.PerRPCCredentials(token{}))
		results <- err
	}()
	time.Sleep(20 * time.Millisecond) // it may have begun or not: either is served
	srv, err := kernel.NewServer(&kernel.ServerOptions{Protocols: protocols})
	ok(t, err)
	ours := sluicegrpc.NewServer(srv, nil)
	(&service{}).register(ours)
	ln, err = net.Listen("tcp", addr)
	ok(t, err)
	served := make(chan error, 1)
	go func() { served <- ours.Serve(ln) }()
	ok(t, errors.Join(<-results, <-results))
	ours.Stop()
	ok(t, <-served)
}

// A closed client says so, also to who would wait for a connection.
func TestClosedClient(t *testing.T) {
	w := worlds[1]
	cc := w.start(t, nil, nil, (&service{}).register).(*sluicegrpc.Conn)
	c := testgrpc.NewTestServiceClient(cc)
	_, err := c.UnaryCall(bounded(t), request(""))
	ok(t, err)
	ok(t, cc.Close())
	for _, opts := range [][]grpc.CallOption{nil, {grpc.WaitForReady(true)}, {grpc.WaitForReady(true), grpc.PerRPCCredentials(token{})}} {
		_, err := c.UnaryCall(bounded(t), request(""), opts...)
		wantCode(t, err, codes.Canceled)
		_, err = c.FullDuplexCall(bounded(t), opts...)
		wantCode(t, err, codes.Canceled)
	}
}

// A caller is one of the program's, which passes on what it knows of the options.
type caller struct{ kernel.Caller }

func (c *caller) Call(ctx context.Context, method string, req pool.Message, opts *kernel.CallOptions) (pool.Message, error) {
	return c.Caller.Call(ctx, method, req, &kernel.CallOptions{Metadata: opts.Metadata, Header: opts.Header})
}

func TestACallerOfTheProgram(t *testing.T) {
	w := worlds[0]
	addr := w.serve(t, nil, (&service{unary: func(ctx context.Context, req *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
		ok(t, grpc.SetHeader(ctx, metadata.Pairs("h", "1")))
		return &testgrpc.SimpleResponse{Payload: req.Payload}, nil
	}}).register)
	k, err := kernel.Dial(t.Context(), addr, nil)
	ok(t, err)
	defer k.Close()
	told := newRecorder(t)
	told.blind = true
	cc := sluicegrpc.NewConn(&caller{k}, &sluicegrpc.ConnOptions{StatsHandlers: []stats.Handler{told}})
	var (
		header metadata.MD
		p      peer.Peer
	)
	resp, err := testgrpc.NewTestServiceClient(cc).UnaryCall(bounded(t), request("hello"), grpc.Header(&header), grpc.Peer(&p))
	ok(t, err)
	wantMD(t, "header", header, "h", "1")
	if string(resp.Payload.GetBody()) != "hello" || p.Addr != nil {
		t.Errorf("the response is %v, the peer %v", resp, p.Addr)
	}
	ok(t, cc.Close()) // which has nothing to close
}

// Interceptors run in their order around each RPC, on both sides.
func TestInterceptors(t *testing.T) {
	var (
		mu  sync.Mutex
		log []string
	)
	note := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, s)
	}
	unaryServer := func(name string) grpc.UnaryServerInterceptor {
		return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			note(name + info.FullMethod[len("/grpc.testing.TestService"):])
			resp, err := h(ctx, req)
			note("end of " + name)
			return resp, err
		}
	}
	streamServer := func(name string) grpc.StreamServerInterceptor {
		return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if !info.IsClientStream || !info.IsServerStream {
				t.Errorf("info %v", info)
			}
			note(name + info.FullMethod[len("/grpc.testing.TestService"):])
			err := h(srv, ss)
			note("end of " + name)
			return err
		}
	}
	unaryClient := func(name string) grpc.UnaryClientInterceptor {
		return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			note(name)
			err := next(ctx, method, req, reply, cc, opts...)
			note("end of " + name)
			return err
		}
	}
	streamClient := func(name string) grpc.StreamClientInterceptor {
		return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			note(name)
			return next(ctx, desc, cc, method, opts...)
		}
	}
	w := worlds[0]
	c := testgrpc.NewTestServiceClient(w.start(t, &sluicegrpc.ServerOptions{
		UnaryInterceptors:  []grpc.UnaryServerInterceptor{unaryServer("A"), unaryServer("B"), unaryServer("C")},
		StreamInterceptors: []grpc.StreamServerInterceptor{streamServer("A"), streamServer("B"), streamServer("C")},
	}, &sluicegrpc.ConnOptions{
		UnaryInterceptors:  []grpc.UnaryClientInterceptor{unaryClient("a"), unaryClient("b"), unaryClient("c")},
		StreamInterceptors: []grpc.StreamClientInterceptor{streamClient("a"), streamClient("b"), streamClient("c")},
	}, (&service{}).register))
	_, err := c.UnaryCall(bounded(t), request(""))
	ok(t, err)
	st, err := c.FullDuplexCall(bounded(t))
	ok(t, err)
	ok(t, st.CloseSend())
	if _, err := st.Recv(); err != io.EOF {
		t.Error(err)
	}
	want := "a b c A/UnaryCall B/UnaryCall C/UnaryCall end of C end of B end of A end of c end of b end of a " +
		"a b c A/FullDuplexCall B/FullDuplexCall C/FullDuplexCall end of C end of B end of A"
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(log, " "); got != want {
		t.Errorf("ran\n%s, want\n%s", got, want)
	}
}

// An interceptor can answer for the handler, and turn an RPC away.
func TestAnInterceptorTurnsAway(t *testing.T) {
	no := status.Error(codes.PermissionDenied, "not you")
	w := worlds[1]
	c := testgrpc.NewTestServiceClient(w.start(t, &sluicegrpc.ServerOptions{
		UnaryInterceptors: []grpc.UnaryServerInterceptor{func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
			return nil, no
		}},
		StreamInterceptors: []grpc.StreamServerInterceptor{func(any, grpc.ServerStream, *grpc.StreamServerInfo, grpc.StreamHandler) error {
			return no
		}},
	}, nil, (&service{}).register))
	_, err := c.UnaryCall(bounded(t), request(""))
	wantCode(t, err, codes.PermissionDenied)
	st, err := c.FullDuplexCall(bounded(t))
	ok(t, err)
	_, err = st.Recv()
	wantCode(t, err, codes.PermissionDenied)
}
