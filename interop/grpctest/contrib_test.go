package grpctest

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	grpcstatus "google.golang.org/grpc/status"

	sluicegrpc "github.com/sluicerpc/sluice/contrib/grpc"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
)

// A client of grpc-go's interoperability suite makes calls of one case. What goes wrong ends the
// process: these are grpc-go's own functions.
type suiteCase = func(ctx context.Context, tc testgrpc.TestServiceClient, args ...grpc.CallOption)

var suiteCases = map[string]suiteCase{
	"empty_unary":                 interop.DoEmptyUnaryCall,
	"large_unary":                 interop.DoLargeUnaryCall,
	"client_streaming":            interop.DoClientStreaming,
	"server_streaming":            interop.DoServerStreaming,
	"ping_pong":                   interop.DoPingPong,
	"empty_stream":                interop.DoEmptyStream,
	"timeout_on_sleeping_server":  interop.DoTimeoutOnSleepingServer,
	"cancel_after_begin":          interop.DoCancelAfterBegin,
	"cancel_after_first_response": interop.DoCancelAfterFirstResponse,
	"status_code_and_message":     interop.DoStatusCodeAndMessage,
	"special_status_message":      interop.DoSpecialStatusMessage,
	"custom_metadata":             interop.DoCustomMetadata,
}

// TestContribGRPC has grpc-go's test service and its clients run through contrib/grpc, over HTTP/2
// and over sluice's own wire.
func TestContribGRPC(t *testing.T) {
	protocols := []frame.Protocol{native.Protocol{}, triple.Protocol{}}
	srv := must[*kernel.Server](t)(kernel.NewServer(&kernel.ServerOptions{Protocols: protocols}))
	s := sluicegrpc.NewServer(srv, nil)
	testgrpc.RegisterTestServiceServer(s, interop.NewTestServer())
	ln, err := kernel.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	defer func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	for name, scheme := range map[string]string{"native": "", "HTTP2": "grpc://"} {
		t.Run(name, func(t *testing.T) {
			client := must[*kernel.Client](t)(kernel.Dial(t.Context(), scheme+ln.Addr().String(), &kernel.ClientOptions{Protocols: protocols}))
			cc := sluicegrpc.NewConn(client, nil)
			defer cc.Close()
			for name, f := range suiteCases {
				t.Run(name, func(t *testing.T) { f(t.Context(), testgrpc.NewTestServiceClient(cc)) })
			}
			t.Run("unimplemented_service", func(t *testing.T) {
				interop.DoUnimplementedService(t.Context(), testgrpc.NewUnimplementedServiceClient(cc))
			})
			// grpc-go's own function for this case takes a *grpc.ClientConn.
			t.Run("unimplemented_method", func(t *testing.T) {
				err := cc.Invoke(t.Context(), "/grpc.testing.TestService/UnimplementedCall", nil, nil)
				if grpcstatus.Code(err) != codes.Unimplemented {
					t.Errorf("%v, want UNIMPLEMENTED", err)
				}
			})
		})
	}
}
