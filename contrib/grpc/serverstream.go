package sluicegrpc

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	kstatus "github.com/sluicerpc/sluice/status"
)

// A serverStream is one RPC at the server: grpc.ServerStream for its handler, and
// grpc.ServerTransportStream for grpc.SetHeader and the like.
type serverStream struct {
	s     *kernel.Stream
	ctx   context.Context
	desc  *grpc.StreamDesc
	full  string
	codec codec
	stats statsHandlers
	begun time.Time // with stats

	// What the wire does: a half can end alone; a stream's messages come behind its acceptance, and
	// not what came with its open.
	halves, late bool

	asked bool        // the first request has come; the receiver's
	sent  atomic.Bool // the header

	mu              sync.Mutex
	header, trailer metadata.MD
}

var (
	_ grpc.ServerStream          = (*serverStream)(nil)
	_ grpc.ServerTransportStream = transportStream{}
)

// begin makes the serverStream of s, and the context that handlers of gRPC's expect.
func (r *Registrar) begin(ctx context.Context, s *kernel.Stream, full string, d *grpc.StreamDesc) (*serverStream, error) {
	ss := &serverStream{s: s, desc: d, full: full, stats: r.stats}
	var err error
	if r.opts.Codec != nil {
		ss.codec = codec{c: r.opts.Codec, proto: isGRPCProto(r.opts.Codec)}
	} else if ss.codec, err = codecFor(s.Metadata().Get(triple.KeyContentSubtype)); err != nil {
		return nil, err
	}
	caps := s.Conn().Caps()
	ss.halves, ss.late = caps.HalfClose, !caps.Early
	md, p := grpcMD(s.Metadata()), peerOf(s.Conn())
	ctx = peer.NewContext(metadata.NewIncomingContext(ctx, md), p)
	if len(ss.stats) > 0 {
		ss.begun = time.Now()
		ctx = ss.stats.tag(ctx, &stats.RPCTagInfo{FullMethodName: full})
		ss.stats.tell(ctx, &stats.InHeader{FullMethod: full, RemoteAddr: p.Addr, Header: md.Copy()})
		ss.stats.tell(ctx, &stats.Begin{BeginTime: ss.begun, IsClientStream: d.ClientStreams, IsServerStream: d.ServerStreams})
	}
	ss.ctx = grpc.NewContextWithServerTransportStream(ctx, transportStream{ss})
	return ss, nil
}

// end is the error that the kernel's handler returns when the handler of gRPC's has returned err.
func (ss *serverStream) end(err error) error {
	ss.mu.Lock()
	trailer := ss.trailer
	ss.mu.Unlock()
	if len(trailer) > 0 {
		md, e := appendMD(nil, trailer)
		if e == nil {
			e = ss.s.SetTrailer(md)
		}
		if e != nil && err == nil {
			err = status.Errorf(codes.Internal, "the trailer can't be sent: %v", e)
		}
	}
	if len(ss.stats) > 0 {
		ss.tellEnd(err, trailer)
	}
	return handlerError(err)
}

func (ss *serverStream) tellEnd(err error, trailer metadata.MD) {
	end := &stats.End{BeginTime: ss.begun, EndTime: time.Now()}
	if err != nil {
		if _, ok := status.FromError(err); !ok {
			err = status.FromContextError(err).Err()
		}
		end.Error = err
	}
	ss.stats.tell(ss.ctx, &stats.OutTrailer{Trailer: trailer})
	ss.stats.tell(ss.ctx, end)
}

// Context implements grpc.ServerStream.
func (ss *serverStream) Context() context.Context { return ss.ctx }

// RecvMsg implements grpc.ServerStream.
func (ss *serverStream) RecvMsg(v any) error {
	returned := false
	defer ss.left(&returned)
	err := ss.recv(v)
	returned = true
	return err
}

// left is clientStream.left: also a handler that has other goroutines receive and send must not go on
// without a message.
func (ss *serverStream) left(returned *bool) {
	if !*returned {
		ss.s.Abort(kstatus.Internal, errLeft.Error())
	}
}

func (ss *serverStream) recv(v any) error {
	m, err := ss.receive()
	if err != nil {
		return err
	}
	n := m.Len()
	if err := ss.codec.unmarshal(m, v); err != nil {
		logPanic(ss.s.Conn(), ss.s.Method(), err)
		return err
	}
	if len(ss.stats) > 0 {
		ss.stats.tell(ss.ctx, inPayload(false, v, n))
	}
	return nil
}

// receive receives a request. The stream's own end ends its waiting: it needs no context.
func (ss *serverStream) receive() (pool.Message, error) {
	first := !ss.asked
	ss.asked = true
	switch {
	case ss.desc.ClientStreams:
		m, err := ss.next()
		return m, rpcError(err)
	case !first:
		return pool.Message{}, io.EOF
	}
	m, err := ss.next()
	if err == io.EOF {
		return m, status.Error(codes.Unimplemented, "no request for a method that takes one")
	}
	if err != nil || !ss.halves {
		return m, rpcError(err)
	}
	more, err := ss.next()
	if err == io.EOF {
		return m, nil
	}
	m.Release()
	if err != nil {
		return pool.Message{}, rpcError(err)
	}
	more.Release()
	return pool.Message{}, status.Error(codes.Unimplemented, "more than one request for a method that takes one")
}

// next receives the next message. To ask for it by Request is no use of the stream: the handler
// can still set its header.
func (ss *serverStream) next() (pool.Message, error) {
	if ss.late && ss.desc != unaryDesc {
		return ss.s.Receive(context.Background()) // which accepts the stream
	}
	return ss.s.Request(context.Background())
}

// SendMsg implements grpc.ServerStream.
func (ss *serverStream) SendMsg(v any) error {
	returned := false
	defer ss.left(&returned)
	err := ss.send(v)
	returned = true
	return err
}

func (ss *serverStream) send(v any) error {
	m, err := ss.codec.marshal(v)
	if err != nil {
		logPanic(ss.s.Conn(), ss.s.Method(), err)
		return err
	}
	if !ss.sent.Load() {
		ss.sendHeader()
	}
	n := m.Len()
	if err := ss.s.Send(context.Background(), m); err != nil {
		m.Release()
		if e := ss.s.Err(); e != nil {
			err = e
		}
		return rpcError(err)
	}
	if len(ss.stats) > 0 {
		ss.stats.tell(ss.ctx, outPayload(false, v, n))
	}
	return nil
}

// SetHeader implements grpc.ServerStream.
func (ss *serverStream) SetHeader(md metadata.MD) error {
	if md.Len() == 0 {
		return nil
	}
	to, err := appendMD(nil, md)
	if err != nil {
		return err
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.sent.Load() {
		return errHeaderSent
	}
	if err := ss.s.SetHeader(to); err != nil {
		return rpcError(err)
	}
	ss.header = metadata.Join(ss.header, md)
	return nil
}

var errHeaderSent = status.Error(codes.Internal, "the header was sent before")

// SendHeader implements grpc.ServerStream.
func (ss *serverStream) SendHeader(md metadata.MD) error {
	if err := ss.SetHeader(md); err != nil {
		return err
	}
	if !ss.sendHeader() {
		return errHeaderSent
	}
	return nil
}

// sendHeader sends the header. It reports false if that was done before.
func (ss *serverStream) sendHeader() bool {
	ss.mu.Lock()
	if ss.sent.Load() {
		ss.mu.Unlock()
		return false
	}
	accept(ss.s)
	ss.sent.Store(true)
	header := ss.header
	ss.mu.Unlock()
	if len(ss.stats) > 0 { // not under the lock: a stats handler may set a trailer
		ss.stats.tell(ss.ctx, &stats.OutHeader{Header: header.Copy()})
	}
	return true
}

// accept accepts a stream, which sends its header, by a use of it that does nothing else.
func accept(s *kernel.Stream) { s.Idle() }

// SetTrailer implements grpc.ServerStream. What can't be sent is the RPC's failure, when it ends.
func (ss *serverStream) SetTrailer(md metadata.MD) {
	if md.Len() == 0 {
		return
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.trailer = metadata.Join(ss.trailer, md)
}

// A transportStream is a serverStream as package grpc's functions for contexts have it.
type transportStream struct{ *serverStream }

// Method implements grpc.ServerTransportStream.
func (t transportStream) Method() string { return t.full }

// SetTrailer implements grpc.ServerTransportStream.
func (t transportStream) SetTrailer(md metadata.MD) error {
	if _, err := appendMD(nil, md); err != nil {
		return err
	}
	t.serverStream.SetTrailer(md)
	return nil
}
