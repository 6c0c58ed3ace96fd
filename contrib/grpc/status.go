package sluicegrpc

import (
	"context"
	"errors"
	"io"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

// keyDetails is the key of the trailer with a whole google.rpc.Status, on every wire.
const keyDetails = "grpc-status-details-bin"

// plainReason is how much of a reason every wire carries, bytes. A longer message travels in
// the status of keyDetails.
const plainReason = 256

// handlerError is the error of a handler of gRPC's as one of the kernel's.
func handlerError(err error) error {
	if err == nil {
		return nil
	}
	s, ok := grpcstatus.FromError(err)
	if !ok {
		if errors.As(err, new(*status.HandlerError)) || errors.As(err, new(*status.StreamError)) {
			return err // of a handler that uses the kernel too
		}
		s = grpcstatus.FromContextError(err)
	}
	he := &status.HandlerError{Code: status.Code(s.Code()), Reason: s.Message()}
	if p := s.Proto(); len(p.GetDetails()) > 0 || len(he.Reason) > plainReason {
		b, err := proto.Marshal(p)
		if err != nil { // an error's text that is no UTF-8
			return he
		}
		he.Details = metadata.MD{{Key: keyDetails, Value: string(b)}}
	}
	return he
}

// rpcError is an error of the kernel's as one of gRPC's. io.EOF and nil stay as they are.
func rpcError(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var se *status.StreamError
	if errors.As(err, &se) {
		return streamError(se)
	}
	if s, ok := grpcstatus.FromError(err); ok {
		return s.Err()
	}
	return grpcstatus.Error(codeOf(err), err.Error())
}

// openError is the error of an open or call of a client's. If ctx has ended, that is why: an error
// of a connection that was being made may not say so.
func openError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return grpcstatus.FromContextError(ctx.Err()).Err()
	}
	return rpcError(err)
}

// streamError is what a stream has failed with.
func streamError(e *status.StreamError) error {
	code := codes.Code(triple.StatusOf(e.Code))
	if p, ok := e.Details.Lookup(keyDetails); ok {
		var s spb.Status
		if proto.Unmarshal([]byte(p), &s) == nil && codes.Code(s.Code) == code {
			return grpcstatus.ErrorProto(&s)
		}
	}
	reason := e.Reason
	if reason == "" && e.Cause != nil {
		reason = e.Cause.Error()
	}
	return grpcstatus.Error(code, reason)
}

// codeOf is the code of an error of the kernel's that is no stream's.
func codeOf(err error) codes.Code {
	if errors.As(err, new(*status.ConnError)) && !errors.Is(err, kernel.ErrClosed) {
		return statusCode(err) // what is in it, such as a timeout of the system's, is no call's
	}
	for _, c := range errorCodes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return statusCode(err)
}

func statusCode(err error) codes.Code {
	code, _ := status.Of(err)
	return codes.Code(triple.StatusOf(code))
}

var errorCodes = []struct {
	err  error
	code codes.Code
}{
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
	{kernel.ErrTooLarge, codes.ResourceExhausted},
	{kernel.ErrMetadataTooLarge, codes.ResourceExhausted},
	{kernel.ErrMetadataKey, codes.Internal},
	{kernel.ErrHeaderSent, codes.Internal},
	{kernel.ErrLimits, codes.Internal},
	{kernel.ErrNotSupported, codes.Unimplemented},
	{kernel.ErrGoingAway, codes.Unavailable},
	{kernel.ErrTooManyStreams, codes.Unavailable},
	{kernel.ErrStopped, codes.Canceled},
	{kernel.ErrClosed, codes.Canceled},
}
