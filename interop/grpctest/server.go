// Package grpctest is gRPC's interoperability test service (grpc.testing.TestService) on package
// rpc, and a client that runs the cases of that suite
// (https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md).
package grpctest

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc"
	_ "github.com/sluicerpc/sluice/rpc/protocodec" // carries the messages
	"github.com/sluicerpc/sluice/status"
)

// The names under which services and methods are found.
const (
	service       = "grpc.testing.TestService/"
	unimplemented = "grpc.testing.UnimplementedService/"
)

// The keys of metadata that a server sends back, in the header and in the trailer.
const (
	echoHeader  = "x-grpc-test-echo-initial"
	echoTrailer = "x-grpc-test-echo-trailing-bin"
)

// Register registers the test service's methods.
func Register(r rpc.Registrar) error {
	return errors.Join(
		rpc.HandleUnary(r, service+"EmptyCall", emptyCall, nil),
		rpc.HandleUnary(r, service+"UnaryCall", unaryCall, nil),
		rpc.HandleServerStream(r, service+"StreamingOutputCall", streamingOutputCall, nil),
		rpc.HandleClientStream(r, service+"StreamingInputCall", streamingInputCall, nil),
		rpc.HandleBidi(r, service+"FullDuplexCall", fullDuplexCall, nil),
		rpc.HandleBidi(r, service+"HalfDuplexCall", halfDuplexCall, nil),
	)
}

func emptyCall(context.Context, *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, nil
}

func unaryCall(ctx context.Context, req *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	if err := echo(kernel.FromContext(ctx)); err != nil {
		return nil, err
	}
	if err := failure(req.ResponseStatus); err != nil {
		return nil, err
	}
	p, err := payload(req.ResponseSize)
	return &grpc_testing.SimpleResponse{Payload: p}, err
}

func streamingInputCall(ctx context.Context, in *rpc.Source[*grpc_testing.StreamingInputCallRequest]) (*grpc_testing.StreamingInputCallResponse, error) {
	sum := 0
	for req, err := range in.All(ctx) {
		if err != nil {
			return nil, err
		}
		sum += len(req.GetPayload().GetBody())
	}
	return &grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)}, nil
}

// responses is where responses go.
type responses = *rpc.Sink[*grpc_testing.StreamingOutputCallResponse]

func streamingOutputCall(ctx context.Context, req *grpc_testing.StreamingOutputCallRequest, out responses) error {
	return respond(ctx, req, out)
}

// A duplex is a call of both streaming methods.
type duplex = rpc.Bidi[*grpc_testing.StreamingOutputCallRequest, *grpc_testing.StreamingOutputCallResponse]

func fullDuplexCall(ctx context.Context, b *duplex) error {
	if err := echo(b.Stream()); err != nil {
		return err
	}
	for req, err := range b.In.All(ctx) {
		if err != nil {
			return err
		}
		if err := failure(req.ResponseStatus); err != nil {
			return err
		}
		if err := respond(ctx, req, b.Out); err != nil {
			return err
		}
	}
	return nil
}

// halfDuplexCall answers when it has all requests.
func halfDuplexCall(ctx context.Context, b *duplex) error {
	var all []*grpc_testing.StreamingOutputCallRequest
	for req, err := range b.In.All(ctx) {
		if err != nil {
			return err
		}
		all = append(all, req)
	}
	for _, req := range all {
		if err := respond(ctx, req, b.Out); err != nil {
			return err
		}
	}
	return nil
}

// echo sends back the metadata that a client wants back.
func echo(s *kernel.Stream) error {
	if v, ok := s.Metadata().Lookup(echoHeader); ok {
		if err := s.SetHeader(metadata.MD{{Key: echoHeader, Value: v}}); err != nil {
			return err
		}
	}
	if v, ok := s.Metadata().Lookup(echoTrailer); ok {
		return s.SetTrailer(metadata.MD{{Key: echoTrailer, Value: v}})
	}
	return nil
}

// failure is the error that a client wants.
func failure(s *grpc_testing.EchoStatus) error {
	if s.GetCode() == 0 {
		return nil
	}
	return &status.HandlerError{Code: status.Code(s.Code), Reason: s.Message}
}

func payload(size int32) (*grpc_testing.Payload, error) {
	if size < 0 {
		return nil, &status.HandlerError{Code: status.InvalidArgument, Reason: "a payload of less than nothing"}
	}
	return &grpc_testing.Payload{Body: make([]byte, size)}, nil
}

// respond sends what a request asks for, at its pace.
func respond(ctx context.Context, req *grpc_testing.StreamingOutputCallRequest, out responses) error {
	for _, want := range req.ResponseParameters {
		if err := pause(ctx, time.Duration(want.IntervalUs)*time.Microsecond); err != nil {
			return err
		}
		p, err := payload(want.Size)
		if err != nil {
			return err
		}
		if err := out.Send(ctx, &grpc_testing.StreamingOutputCallResponse{Payload: p}); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish expects the end of a stream.
func finish[T any](ctx context.Context, in *rpc.Source[T]) error {
	switch _, err := in.Receive(ctx); err {
	case io.EOF:
		return nil
	case nil:
		return errors.New("a response more than was asked for")
	default:
		return err
	}
}
