package sluicegrpc_test

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"

	sluicegrpc "github.com/sluicerpc/sluice/contrib/grpc"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
)

// An upper is a service as a program of grpc-go has it.
type upper struct {
	testgrpc.UnimplementedTestServiceServer
}

func (upper) UnaryCall(_ context.Context, req *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	return &testgrpc.SimpleResponse{Username: "hello, " + string(req.Payload.Body)}, nil
}

// serveUpper serves the service, with health and reflection, on ln.
func serveUpper(ln net.Listener) (stop func(), err error) {
	srv, err := kernel.NewServer(&kernel.ServerOptions{
		Protocols: []frame.Protocol{native.Protocol{}, triple.Protocol{}}, // on one port
	})
	if err != nil {
		return nil, err
	}
	s := sluicegrpc.NewServer(srv, nil) // was: s := grpc.NewServer()

	testgrpc.RegisterTestServiceServer(s, upper{})
	healthgrpc.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	return func() {
		s.GracefulStop()
		if err := <-served; err != nil {
			fmt.Println(err)
		}
	}, nil
}

func ExampleNewServer() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	stop, err := serveUpper(ln)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	for _, wire := range []string{"sluice://", "grpc://"} {
		if err := greet(wire + ln.Addr().String()); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// hello, gopher
	// hello, gopher
}

// greet makes a call over the wire that the target names.
func greet(target string) error {
	client, err := kernel.NewClient(target, &kernel.ClientOptions{
		Protocols: []frame.Protocol{native.Protocol{}, triple.Protocol{}},
	})
	if err != nil {
		return err
	}
	conn := sluicegrpc.NewConn(client, nil) // was: conn, err := grpc.NewClient(target, ...)
	defer conn.Close()

	resp, err := testgrpc.NewTestServiceClient(conn).UnaryCall(context.Background(), &testgrpc.SimpleRequest{
		Payload: &testgrpc.Payload{Body: []byte("gopher")},
	})
	if err != nil {
		return err
	}
	fmt.Println(resp.Username)
	return nil
}

// Services of gRPC's are served beside typed handlers of package rpc, by the same server.
func ExampleNewRegistrar() {
	var handlers kernel.Handlers
	r := sluicegrpc.NewRegistrar(&handlers, &sluicegrpc.ServerOptions{
		UnaryInterceptors: []grpc.UnaryServerInterceptor{
			func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
				fmt.Println("called:", info.FullMethod)
				return h(ctx, req)
			},
		},
	})
	testgrpc.RegisterTestServiceServer(r, upper{})
	err := rpc.HandleUnary(&handlers, "double", func(_ context.Context, n int) (int, error) { return 2 * n, nil }, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	srv, err := kernel.NewServer(&kernel.ServerOptions{Handlers: &handlers})
	if err != nil {
		fmt.Println(err)
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	defer func() {
		_ = srv.Close()
		<-served
	}()

	ctx := context.Background()
	client, err := kernel.Dial(ctx, ln.Addr().String(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	n, err := rpc.Call[int](ctx, client, "double", 21, nil)
	fmt.Println(n, err)
	_, err = testgrpc.NewTestServiceClient(sluicegrpc.NewConn(client, nil)).UnaryCall(ctx, &testgrpc.SimpleRequest{Payload: &testgrpc.Payload{}})
	fmt.Println(err)
	// Output:
	// 42 <nil>
	// called: /grpc.testing.TestService/UnaryCall
	// <nil>
}
