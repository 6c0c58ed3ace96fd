package grpctest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/interop/check"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// Cases are all cases that need no account of a cloud's.
func Cases() []check.Case {
	return []check.Case{
		{Name: "empty_unary", Run: emptyUnary},
		{Name: "large_unary", Run: largeUnary},
		{Name: "client_streaming", Run: clientStreaming},
		{Name: "server_streaming", Run: serverStreaming},
		{Name: "ping_pong", Run: pingPong},
		{Name: "empty_stream", Run: emptyStream},
		{Name: "timeout_on_sleeping_server", Run: timeoutOnSleepingServer},
		{Name: "cancel_after_begin", Run: cancelAfterBegin},
		{Name: "cancel_after_first_response", Run: cancelAfterFirstResponse},
		{Name: "status_code_and_message", Run: statusCodeAndMessage},
		{Name: "special_status_message", Run: specialStatusMessage},
		{Name: "custom_metadata", Run: customMetadata},
		{Name: "unimplemented_method", Run: unimplementedMethod},
		{Name: "unimplemented_service", Run: unimplementedService},
	}
}

// What the cases send and ask for, bytes.
const (
	largeRequest  = 271828
	largeResponse = 314159
)

var (
	requestSizes  = []int{27182, 8, 1828, 45904}
	responseSizes = []int32{31415, 9, 2653, 58979}
)

func body(n int) *grpc_testing.Payload { return &grpc_testing.Payload{Body: make([]byte, n)} }

// ends is an error unless a call has ended with a status of gRPC's.
func ends(err error, code status.Code) error {
	var e *status.StreamError
	if !errors.As(err, &e) {
		return fmt.Errorf("the call has ended with %w, not with %v", err, code)
	}
	return check.Equal("the status", triple.StatusOf(e.Code), code)
}

func emptyUnary(ctx context.Context, c *kernel.Client) error {
	_, err := rpc.Call[*grpc_testing.Empty](ctx, c, service+"EmptyCall", &grpc_testing.Empty{}, nil)
	return err
}

func largeUnary(ctx context.Context, c *kernel.Client) error {
	resp, err := rpc.Call[*grpc_testing.SimpleResponse](ctx, c, service+"UnaryCall",
		&grpc_testing.SimpleRequest{ResponseSize: largeResponse, Payload: body(largeRequest)}, nil)
	if err != nil {
		return err
	}
	return check.Equal("the response's size", len(resp.GetPayload().GetBody()), largeResponse)
}

func clientStreaming(ctx context.Context, c *kernel.Client) error {
	call, err := rpc.CallClientStream[*grpc_testing.StreamingInputCallRequest, *grpc_testing.StreamingInputCallResponse](
		ctx, c, service+"StreamingInputCall", nil)
	if err != nil {
		return err
	}
	sum := 0
	for _, n := range requestSizes {
		if err := call.Out.Send(ctx, &grpc_testing.StreamingInputCallRequest{Payload: body(n)}); err != nil {
			return err
		}
		sum += n
	}
	resp, err := call.CloseAndReceive(ctx)
	if err != nil {
		return err
	}
	return check.Equal("the sum of sizes", resp.AggregatedPayloadSize, int32(sum))
}

func serverStreaming(ctx context.Context, c *kernel.Client) error {
	req := &grpc_testing.StreamingOutputCallRequest{}
	for _, n := range responseSizes {
		req.ResponseParameters = append(req.ResponseParameters, &grpc_testing.ResponseParameters{Size: n})
	}
	in, err := rpc.CallServerStream[*grpc_testing.StreamingOutputCallResponse](ctx, c, service+"StreamingOutputCall", req, nil)
	if err != nil {
		return err
	}
	var sizes []int32
	for resp, err := range in.All(ctx) {
		if err != nil {
			return err
		}
		sizes = append(sizes, int32(len(resp.GetPayload().GetBody())))
	}
	if !slices.Equal(sizes, responseSizes) {
		return fmt.Errorf("the responses' sizes are %v, not %v", sizes, responseSizes)
	}
	return nil
}

// A talk is the client's side of FullDuplexCall.
type talk = rpc.Bidi[*grpc_testing.StreamingOutputCallResponse, *grpc_testing.StreamingOutputCallRequest]

func converse(ctx context.Context, c *kernel.Client, md metadata.MD) (*talk, error) {
	return rpc.CallBidi[*grpc_testing.StreamingOutputCallResponse, *grpc_testing.StreamingOutputCallRequest](
		ctx, c, service+"FullDuplexCall", &rpc.OpenOptions{OpenOptions: kernel.OpenOptions{Metadata: md}})
}

// ask sends a request for one response, and receives that.
func ask(ctx context.Context, b *talk, size int, response int32) error {
	err := b.Out.Send(ctx, &grpc_testing.StreamingOutputCallRequest{
		Payload: body(size), ResponseParameters: []*grpc_testing.ResponseParameters{{Size: response}},
	})
	if err != nil {
		return err
	}
	resp, err := b.In.Receive(ctx)
	if err != nil {
		return err
	}
	return check.Equal("the response's size", len(resp.GetPayload().GetBody()), int(response))
}

func pingPong(ctx context.Context, c *kernel.Client) error {
	b, err := converse(ctx, c, nil)
	if err != nil {
		return err
	}
	for i, n := range requestSizes {
		if err := ask(ctx, b, n, responseSizes[i]); err != nil {
			return err
		}
	}
	if err := b.Out.CloseSend(); err != nil {
		return err
	}
	return finish(ctx, b.In)
}

func emptyStream(ctx context.Context, c *kernel.Client) error {
	b, err := converse(ctx, c, nil)
	if err != nil {
		return err
	}
	if err := b.Out.CloseSend(); err != nil {
		return err
	}
	return finish(ctx, b.In)
}

// timeoutOnSleepingServer asks for nothing, so that the server waits for more.
func timeoutOnSleepingServer(ctx context.Context, c *kernel.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	b, err := converse(ctx, c, nil)
	if err == nil {
		if err = b.Out.Send(ctx, &grpc_testing.StreamingOutputCallRequest{Payload: body(27182)}); err == nil {
			_, err = b.In.Receive(context.WithoutCancel(ctx))
		}
	}
	if err == nil || !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the call has ended with %v", err)
	}
	return nil
}

func cancelAfterBegin(ctx context.Context, c *kernel.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	call, err := rpc.CallClientStream[*grpc_testing.StreamingInputCallRequest, *grpc_testing.StreamingInputCallResponse](
		ctx, c, service+"StreamingInputCall", &rpc.OpenOptions{OpenOptions: kernel.OpenOptions{
			Metadata: metadata.MD{{Key: "key1", Value: "value1"}, {Key: "key2", Value: "value2"}},
		}})
	if err != nil {
		return err
	}
	cancel()
	_, err = call.CloseAndReceive(context.WithoutCancel(ctx))
	return ends(err, status.Cancelled)
}

func cancelAfterFirstResponse(ctx context.Context, c *kernel.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b, err := converse(ctx, c, nil)
	if err != nil {
		return err
	}
	if err := ask(ctx, b, 27182, 31415); err != nil {
		return err
	}
	cancel()
	_, err = b.In.Receive(context.WithoutCancel(ctx))
	return ends(err, status.Cancelled)
}

// fails checks how a unary call has failed whose request asks for that.
func fails(ctx context.Context, c *kernel.Client, s *grpc_testing.EchoStatus) error {
	_, err := rpc.Call[*grpc_testing.SimpleResponse](ctx, c, service+"UnaryCall", &grpc_testing.SimpleRequest{ResponseStatus: s}, nil)
	return failsWith(err, s)
}

func failsWith(err error, s *grpc_testing.EchoStatus) error {
	if err := ends(err, status.Code(s.Code)); err != nil {
		return err
	}
	var e *status.StreamError
	errors.As(err, &e)
	return check.Equal("the reason", e.Reason, s.Message)
}

func statusCodeAndMessage(ctx context.Context, c *kernel.Client) error {
	s := &grpc_testing.EchoStatus{Code: 2, Message: "test status message"}
	if err := fails(ctx, c, s); err != nil {
		return err
	}
	b, err := converse(ctx, c, nil)
	if err != nil {
		return err
	}
	if err := b.Out.Send(ctx, &grpc_testing.StreamingOutputCallRequest{ResponseStatus: s}); err != nil {
		return err
	}
	if err := b.Out.CloseSend(); err != nil {
		return err
	}
	_, err = b.In.Receive(ctx)
	return failsWith(err, s)
}

func specialStatusMessage(ctx context.Context, c *kernel.Client) error {
	return fails(ctx, c, &grpc_testing.EchoStatus{
		Code: 2, Message: "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n",
	})
}

func customMetadata(ctx context.Context, c *kernel.Client) error {
	md := metadata.MD{{Key: echoHeader, Value: "test_initial_metadata_value"}, {Key: echoTrailer, Value: "\x0a\x0b\x0a\x0b\x0a\x0b"}}
	echoed := func(header, trailer metadata.MD) error {
		return errors.Join(
			check.Equal("the header", header.Get(echoHeader), md.Get(echoHeader)),
			check.Equal("the trailer", trailer.Get(echoTrailer), md.Get(echoTrailer)),
		)
	}
	var header, trailer metadata.MD
	_, err := rpc.Call[*grpc_testing.SimpleResponse](ctx, c, service+"UnaryCall",
		&grpc_testing.SimpleRequest{ResponseSize: 1, Payload: body(1)},
		&rpc.CallOptions{CallOptions: kernel.CallOptions{Metadata: md, Header: &header, Trailer: &trailer}})
	if err != nil {
		return err
	}
	if err := echoed(header, trailer); err != nil {
		return err
	}
	b, err := converse(ctx, c, md)
	if err != nil {
		return err
	}
	if err := ask(ctx, b, 1, 1); err != nil {
		return err
	}
	if err := b.Out.CloseSend(); err != nil {
		return err
	}
	if err := finish(ctx, b.In); err != nil {
		return err
	}
	_, header, err = b.Stream().Accepted(ctx)
	if err != nil {
		return err
	}
	return echoed(header, b.Stream().Trailer())
}

func unimplementedMethod(ctx context.Context, c *kernel.Client) error {
	_, err := rpc.Call[*grpc_testing.Empty](ctx, c, service+"UnimplementedCall", &grpc_testing.Empty{}, nil)
	return ends(err, status.Unimplemented)
}

func unimplementedService(ctx context.Context, c *kernel.Client) error {
	_, err := rpc.Call[*grpc_testing.Empty](ctx, c, unimplemented+"UnimplementedCall", &grpc_testing.Empty{}, nil)
	return ends(err, status.Unimplemented)
}
