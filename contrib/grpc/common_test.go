package sluicegrpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	sluicegrpc "github.com/sluicerpc/sluice/contrib/grpc"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/kernel"
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience is how long something may take that must happen.
const patience = 20 * time.Second

// A world is a way from a client to a server, of which at least one is ours.
type world struct {
	name          string
	scheme        string // of the target
	client, stock bool   // the client, the server is grpc-go's
	// callsOnly: the wire carries no half of a stream that ends alone.
	callsOnly bool
}

var worlds = []world{
	{name: "native"},
	{name: "grpc", scheme: "grpc://"},
	{name: "brpc", scheme: "brpc://", callsOnly: true},
	{name: "stock client", client: true},
	{name: "stock server", scheme: "grpc://", stock: true},
}

// protocols are those of servers and clients here.
var protocols = []frame.Protocol{native.Protocol{}, triple.Protocol{}, strm.Protocol{}}

// over runs f over each wire that carries streams, and over those for calls alone if f makes
// nothing but calls.
func over(t *testing.T, calls bool, f func(t *testing.T, w world)) {
	t.Helper()
	for _, w := range worlds {
		if w.callsOnly && !calls {
			continue
		}
		t.Run(w.name, func(t *testing.T) { f(t, w) })
	}
}

// start starts a server of what register registers, and returns a connection to it.
func (w world) start(t *testing.T, so *sluicegrpc.ServerOptions, co *sluicegrpc.ConnOptions, register func(grpc.ServiceRegistrar)) grpc.ClientConnInterface {
	t.Helper()
	return w.connect(t, w.serve(t, so, register), co)
}

// serve starts a server and returns its address.
func (w world) serve(t *testing.T, so *sluicegrpc.ServerOptions, register func(grpc.ServiceRegistrar)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var srv interface {
		grpc.ServiceRegistrar
		Serve(net.Listener) error
		Stop()
	}
	if w.stock {
		srv = grpc.NewServer()
	} else {
		k, err := kernel.NewServer(&kernel.ServerOptions{Protocols: protocols})
		if err != nil {
			t.Fatal(err)
		}
		srv = sluicegrpc.NewServer(k, so)
	}
	register(srv)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve returned %v", err)
		}
	})
	return ln.Addr().String()
}

// connect returns a connection to a server.
func (w world) connect(t *testing.T, addr string, co *sluicegrpc.ConnOptions) grpc.ClientConnInterface {
	t.Helper()
	if w.client {
		cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cc.Close() })
		return cc
	}
	k, err := kernel.Dial(t.Context(), w.scheme+addr, &kernel.ClientOptions{Protocols: protocols})
	if err != nil {
		t.Fatal(err)
	}
	cc := sluicegrpc.NewConn(k, co)
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// test starts a server of s, and returns a client of it.
func (w world) test(t *testing.T, s *service) testgrpc.TestServiceClient {
	t.Helper()
	return testgrpc.NewTestServiceClient(w.start(t, nil, nil, s.register))
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// A service is grpc-go's test service, as far as the tests here need it.
type service struct {
	testgrpc.UnimplementedTestServiceServer
	unary func(ctx context.Context, req *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error)
	in    func(s testgrpc.TestService_StreamingInputCallServer) error
	out   func(req *testgrpc.StreamingOutputCallRequest, s testgrpc.TestService_StreamingOutputCallServer) error
	bidi  func(s testgrpc.TestService_FullDuplexCallServer) error
}

func (s *service) register(r grpc.ServiceRegistrar) { testgrpc.RegisterTestServiceServer(r, s) }

func (s *service) UnaryCall(ctx context.Context, req *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	if s.unary == nil {
		return &testgrpc.SimpleResponse{Payload: req.Payload}, nil
	}
	return s.unary(ctx, req)
}

func (s *service) StreamingInputCall(st testgrpc.TestService_StreamingInputCallServer) error {
	return s.in(st)
}

func (s *service) StreamingOutputCall(req *testgrpc.StreamingOutputCallRequest, st testgrpc.TestService_StreamingOutputCallServer) error {
	return s.out(req, st)
}

func (s *service) FullDuplexCall(st testgrpc.TestService_FullDuplexCallServer) error {
	if s.bidi == nil {
		return echo(st)
	}
	return s.bidi(st)
}

// echo answers each request with one response.
func echo(st testgrpc.TestService_FullDuplexCallServer) error {
	for {
		req, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := st.Send(&testgrpc.StreamingOutputCallResponse{Payload: req.Payload}); err != nil {
			return err
		}
	}
}

func payload(s string) *testgrpc.Payload { return &testgrpc.Payload{Body: []byte(s)} }

func request(s string) *testgrpc.SimpleRequest { return &testgrpc.SimpleRequest{Payload: payload(s)} }

func outRequest(s string) *testgrpc.StreamingOutputCallRequest {
	return &testgrpc.StreamingOutputCallRequest{Payload: payload(s)}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("code %v of %v, want %v", got, err, want)
	}
}

func wantMD(t testing.TB, what string, md metadata.MD, key string, want ...string) {
	t.Helper()
	got := md.Get(key)
	if len(got) != len(want) {
		t.Errorf("%s: %s is %q, want %q", what, key, got, want)
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s: %s is %q, want %q", what, key, got, want)
		}
	}
}
