package conformance

import (
	"context"
	"errors"
	"io"
	"time"

	pb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	grpcmd "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	sluicegrpc "github.com/sluicerpc/sluice/contrib/grpc"
	"github.com/sluicerpc/sluice/interop/conformance/conformancepb"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
)

// ServeContrib is Serve with the code that protoc-gen-go-grpc generates, through contrib/grpc.
func ServeContrib(ctx context.Context, in io.Reader, out io.Writer) error {
	return serve(ctx, in, out, func(srv *kernel.Server) {
		conformancepb.RegisterConformanceServiceServer(sluicegrpc.NewServer(srv, nil), contribServer{})
	})
}

// A contribServer is the service as a program of grpc-go has it.
type contribServer struct {
	conformancepb.UnimplementedConformanceServiceServer
}

// requestInfo is what the server has seen of a request.
func requestInfo(ctx context.Context, reqs []*anypb.Any) *conformancepb.ConformancePayload_RequestInfo {
	md, _ := grpcmd.FromIncomingContext(ctx)
	i := &conformancepb.ConformancePayload_RequestInfo{Requests: reqs, RequestHeaders: headersOf(fromGRPC(md))}
	if at, ok := ctx.Deadline(); ok {
		i.TimeoutMs = proto.Int64(max(time.Until(at), 0).Milliseconds())
	}
	return i
}

// fromGRPC and toGRPC turn the two kinds of metadata into each other.
func fromGRPC(md grpcmd.MD) (to metadata.MD) {
	for k, vs := range md {
		for _, v := range vs {
			to.Add(k, v)
		}
	}
	return to
}

func toGRPC(hs []*conformancepb.Header) grpcmd.MD {
	to := grpcmd.MD{}
	for _, f := range metadataOf(hs) {
		to.Append(f.Key, f.Value)
	}
	return to
}

// failure is the error that the runner wants. If no response has told of the request, it does.
func failure(e *conformancepb.Error, told bool, info func() *conformancepb.ConformancePayload_RequestInfo) error {
	if !told {
		i, err := anypb.New(info())
		if err != nil {
			return err
		}
		e.Details = append(e.Details, i)
	}
	return grpcstatus.ErrorProto(&pb.Status{Code: e.Code, Message: e.GetMessage(), Details: e.Details})
}

// respondOnce answers a call that has one response.
func respondOnce(ctx context.Context, def *conformancepb.UnaryResponseDefinition, reqs []*anypb.Any) (*conformancepb.ConformancePayload, error) {
	if err := errors.Join(grpc.SetHeader(ctx, toGRPC(def.GetResponseHeaders())), grpc.SetTrailer(ctx, toGRPC(def.GetResponseTrailers()))); err != nil {
		return nil, err
	}
	if err := pause(ctx, def.GetResponseDelayMs()); err != nil {
		return nil, err
	}
	info := requestInfo(ctx, reqs)
	if e := def.GetError(); e != nil {
		return nil, failure(e, false, func() *conformancepb.ConformancePayload_RequestInfo { return info })
	}
	return &conformancepb.ConformancePayload{Data: def.GetResponseData(), RequestInfo: info}, nil
}

func (contribServer) Unary(ctx context.Context, req *conformancepb.UnaryRequest) (*conformancepb.UnaryResponse, error) {
	a, err := anypb.New(req)
	if err != nil {
		return nil, err
	}
	p, err := respondOnce(ctx, req.ResponseDefinition, []*anypb.Any{a})
	if err != nil {
		return nil, err
	}
	return &conformancepb.UnaryResponse{Payload: p}, nil
}

func (contribServer) ClientStream(s grpc.ClientStreamingServer[conformancepb.ClientStreamRequest, conformancepb.ClientStreamResponse]) error {
	var (
		def  *conformancepb.UnaryResponseDefinition
		reqs []*anypb.Any
	)
	for {
		req, err := s.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if len(reqs) == 0 {
			def = req.ResponseDefinition
		}
		a, err := anypb.New(req)
		if err != nil {
			return err
		}
		reqs = append(reqs, a)
	}
	p, err := respondOnce(s.Context(), def, reqs)
	if err != nil {
		return err
	}
	return s.SendAndClose(&conformancepb.ClientStreamResponse{Payload: p})
}

// responses answers a call that has several responses.
type responses struct {
	s     grpc.ServerStream
	def   *conformancepb.StreamResponseDefinition
	asked []*anypb.Any // requests that no response has told of yet
	told  bool         // a response has told of the headers
	next  int
	send  func(*conformancepb.ConformancePayload) error
}

func (r *responses) begin(def *conformancepb.StreamResponseDefinition) error {
	r.def = def
	r.s.SetTrailer(toGRPC(def.GetResponseTrailers()))
	return r.s.SendHeader(toGRPC(def.GetResponseHeaders()))
}

func (r *responses) more() bool { return r.next < len(r.def.GetResponseData()) }

// info tells of requests once, and of the headers.
func (r *responses) info() *conformancepb.ConformancePayload_RequestInfo {
	asked := r.asked
	r.asked = nil
	if r.told {
		return &conformancepb.ConformancePayload_RequestInfo{Requests: asked}
	}
	r.told = true
	return requestInfo(r.s.Context(), asked)
}

func (r *responses) respond() error {
	p := &conformancepb.ConformancePayload{Data: r.def.ResponseData[r.next]}
	if !r.told || len(r.asked) > 0 {
		p.RequestInfo = r.info()
	}
	r.next++
	if err := pause(r.s.Context(), r.def.ResponseDelayMs); err != nil {
		return err
	}
	return r.send(p)
}

func (r *responses) finish() error {
	for r.more() {
		if err := r.respond(); err != nil {
			return err
		}
	}
	if e := r.def.GetError(); e != nil {
		return failure(e, r.told, r.info)
	}
	return nil
}

func (contribServer) ServerStream(req *conformancepb.ServerStreamRequest, s grpc.ServerStreamingServer[conformancepb.ServerStreamResponse]) error {
	a, err := anypb.New(req)
	if err != nil {
		return err
	}
	r := &responses{s: s, asked: []*anypb.Any{a}, send: func(p *conformancepb.ConformancePayload) error {
		return s.Send(&conformancepb.ServerStreamResponse{Payload: p})
	}}
	if err := r.begin(req.ResponseDefinition); err != nil {
		return err
	}
	return r.finish()
}

func (contribServer) BidiStream(s grpc.BidiStreamingServer[conformancepb.BidiStreamRequest, conformancepb.BidiStreamResponse]) error {
	r := &responses{s: s, send: func(p *conformancepb.ConformancePayload) error {
		return s.Send(&conformancepb.BidiStreamResponse{Payload: p})
	}}
	full := false
	for first := true; ; first = false {
		req, err := s.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		a, err := anypb.New(req)
		if err != nil {
			return err
		}
		r.asked = append(r.asked, a)
		if first {
			full = req.FullDuplex
			if err := r.begin(req.ResponseDefinition); err != nil {
				return err
			}
		}
		if !full {
			continue
		}
		if !r.more() {
			break
		}
		if err := r.respond(); err != nil {
			return err
		}
	}
	return r.finish()
}
