package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	grpcmd "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	sluicegrpc "github.com/sluicerpc/sluice/contrib/grpc"
	"github.com/sluicerpc/sluice/interop/conformance/conformancepb"
	"github.com/sluicerpc/sluice/kernel"
)

// CallContrib is Call with the code that protoc-gen-go-grpc generates, through contrib/grpc. scheme
// is that of the targets; "" is sluice's own wire.
func CallContrib(ctx context.Context, in io.Reader, out io.Writer, scheme string) error {
	return callAll(ctx, in, out, scheme, func(ctx context.Context, client *kernel.Client, req *conformancepb.ClientCompatRequest, cancel context.CancelFunc) (*conformancepb.ClientResponseResult, error) {
		cc := sluicegrpc.NewConn(client, nil)
		c := &contribCaller{cc: cc, stub: conformancepb.NewConformanceServiceClient(cc), req: req, cancel: cancel}
		return c.run(grpcmd.NewOutgoingContext(ctx, toGRPC(req.RequestHeaders)))
	})
}

// A contribCaller makes one call as a program of grpc-go does.
type contribCaller struct {
	cc     *sluicegrpc.Conn
	stub   conformancepb.ConformanceServiceClient
	req    *conformancepb.ClientCompatRequest
	cancel context.CancelFunc
	opts   []grpc.CallOption
	result conformancepb.ClientResponseResult
}

func (c *contribCaller) run(ctx context.Context) (*conformancepb.ClientResponseResult, error) {
	if c.req.Compression == conformancepb.Compression_COMPRESSION_GZIP {
		c.opts = append(c.opts, grpc.UseCompressor(gzip.Name))
	}
	var header, trailer grpcmd.MD
	c.opts = append(c.opts, grpc.Header(&header), grpc.Trailer(&trailer))
	var err error
	switch c.req.GetMethod() {
	case "Unary":
		err = c.unary(ctx)
	case "Unimplemented":
		_, err = c.stub.Unimplemented(ctx, &conformancepb.UnimplementedRequest{}, c.opts...)
	case "ServerStream":
		err = c.serverStream(ctx)
	case "ClientStream":
		err = c.clientStream(ctx)
	case "BidiStream":
		err = c.bidiStream(ctx)
	default:
		return nil, fmt.Errorf("no method %q", c.req.GetMethod())
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.failed(err)
	}
	c.result.ResponseHeaders, c.result.ResponseTrailers = headersOf(fromGRPC(header)), headersOf(fromGRPC(trailer))
	return &c.result, nil
}

func (c *contribCaller) failed(err error) {
	s := grpcstatus.Convert(err).Proto()
	c.result.Error = &conformancepb.Error{Code: s.Code, Message: proto.String(s.Message), Details: s.Details}
}

// response keeps what is in a response.
func (c *contribCaller) response(p *conformancepb.ConformancePayload) {
	if p == nil {
		p = &conformancepb.ConformancePayload{}
	}
	c.result.Payloads = append(c.result.Payloads, p)
	if n := c.req.Cancel.GetAfterNumResponses(); n > 0 && int(n) == len(c.result.Payloads) {
		c.cancel()
	}
}

// afterCloseSend is how long after the last request the call is cancelled, if it is then.
func (c *contribCaller) afterCloseSend() (time.Duration, bool) {
	return (&caller{req: c.req}).afterCloseSend()
}

func (c *contribCaller) unary(ctx context.Context) error {
	req := &conformancepb.UnaryRequest{}
	if err := c.req.RequestMessages[0].UnmarshalTo(req); err != nil {
		return err
	}
	if d, ok := c.afterCloseSend(); ok {
		defer time.AfterFunc(d, c.cancel).Stop()
	}
	resp, err := c.stub.Unary(ctx, req, c.opts...)
	if err != nil {
		return err
	}
	c.response(resp.Payload)
	return nil
}

func (c *contribCaller) serverStream(ctx context.Context) error {
	req := &conformancepb.ServerStreamRequest{}
	if err := c.req.RequestMessages[0].UnmarshalTo(req); err != nil {
		return err
	}
	s, err := c.stub.ServerStream(ctx, req, c.opts...)
	if err != nil {
		return err
	}
	c.closed()
	for {
		resp, err := s.Recv()
		if err != nil {
			return err
		}
		c.response(resp.Payload)
	}
}

// closed cancels the call when its last request was sent, if the runner wants that.
func (c *contribCaller) closed() {
	if d, ok := c.afterCloseSend(); ok {
		time.Sleep(d)
		c.cancel()
	}
}

// requests calls send for each request, with the pause before it, and notes how many were not sent.
func (c *contribCaller) requests(send func(i int) error) error {
	for i := range c.req.RequestMessages {
		time.Sleep(time.Duration(c.req.RequestDelayMs) * time.Millisecond)
		if err := send(i); err != nil {
			c.result.NumUnsentRequests = int32(len(c.req.RequestMessages) - i)
			return err
		}
	}
	if _, ok := c.req.Cancel.GetCancelTiming().(*conformancepb.ClientCompatRequest_Cancel_BeforeCloseSend); ok {
		c.cancel()
	}
	return nil
}

func (c *contribCaller) clientStream(ctx context.Context) error {
	s, err := c.stub.ClientStream(ctx, c.opts...)
	if err != nil {
		return err
	}
	err = c.requests(func(i int) error {
		req := &conformancepb.ClientStreamRequest{}
		if err := c.req.RequestMessages[i].UnmarshalTo(req); err != nil {
			return err
		}
		return s.Send(req)
	})
	if err != nil && err != io.EOF {
		return err
	}
	if d, ok := c.afterCloseSend(); ok {
		defer time.AfterFunc(d, c.cancel).Stop()
	}
	resp, err := s.CloseAndRecv()
	if err != nil {
		return err
	}
	c.response(resp.Payload)
	return nil
}

func (c *contribCaller) bidiStream(ctx context.Context) error {
	s, err := c.stub.BidiStream(ctx, c.opts...)
	if err != nil {
		return err
	}
	full := c.req.StreamType == conformancepb.StreamType_STREAM_TYPE_FULL_DUPLEX_BIDI_STREAM
	receive := func() error {
		resp, err := s.Recv()
		if err == nil {
			c.response(resp.Payload)
		}
		return err
	}
	var ended error // why receiving has ended meanwhile
	err = c.requests(func(i int) error {
		req := &conformancepb.BidiStreamRequest{}
		if err := c.req.RequestMessages[i].UnmarshalTo(req); err != nil {
			return err
		}
		if err := s.Send(req); err != nil || !full || ended != nil {
			return err
		}
		ended = receive()
		return nil
	})
	if err != nil && err != io.EOF {
		return err
	}
	if ended != nil {
		return ended
	}
	_ = s.CloseSend()
	c.closed()
	for {
		if err := receive(); err != nil {
			return err
		}
	}
}
