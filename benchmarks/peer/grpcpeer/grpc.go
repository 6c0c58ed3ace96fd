// Package grpcpeer drives grpc-go with messages of raw bytes: the codec hands
// pooled buffers through, so that no protobuf is measured.
package grpcpeer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

const largeWindow = 4 << 20

type grpcPeer struct {
	name   string
	window int32 // 0: grpc's own, which grows
}

// New returns grpc-go with its defaults.
func New() peer.Peer { return grpcPeer{name: "grpc"} }

// NewLargeWindow returns grpc-go with windows of 4 MiB for streams and
// connections.
func NewLargeWindow() peer.Peer { return grpcPeer{name: "grpc+win", window: largeWindow} }

func (g grpcPeer) Name() string { return g.name }

// Secure implements peer.Secure.
func (g grpcPeer) Secure() bool { return true }

// codec passes *frame through. grpc keeps what Marshal returns until it is
// written, so the buffer is given away with it.
type codec struct{}

var _ encoding.CodecV2 = codec{}

func (codec) Name() string { return "raw" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{v.(*frame).give()}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	v.(*frame).take(data.MaterializeToBuffer(mem.DefaultBufferPool()))
	return nil
}

// A frame is one message on its way out or in.
type frame struct {
	out *[]byte
	in  mem.Buffer
}

func (f *frame) give() mem.Buffer {
	b := mem.NewBuffer(f.out, mem.DefaultBufferPool())
	f.out = nil
	return b
}

func (f *frame) take(b mem.Buffer) {
	f.free()
	f.in = b
}

func (f *frame) free() {
	if f.in != nil {
		f.in.Free()
		f.in = nil
	}
}

// grpcStream is what a client's and a server's stream have in common.
type grpcStream interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

type stream struct {
	grpcStream
	out, in frame
	end     func() error       // ends our half
	cancel  context.CancelFunc // frees the stream
}

func (s *stream) Buf(n int) []byte {
	if s.out.out != nil {
		mem.DefaultBufferPool().Put(s.out.out)
	}
	s.out.out = mem.DefaultBufferPool().Get(n)
	return *s.out.out
}

func (s *stream) Send(p []byte) error {
	*s.out.out = p
	return s.SendMsg(&s.out)
}

func (s *stream) Flush() error { return nil }

func (s *stream) Recv() ([]byte, error) {
	if err := s.RecvMsg(&s.in); err != nil {
		return nil, err
	}
	return s.in.in.ReadOnlyData(), nil
}

func (s *stream) CloseSend() error { return s.end() }

// Break ends the stream, and frees nothing that is in use.
func (s *stream) Break() { s.cancel() }

func (s *stream) Close() error {
	s.cancel()
	s.in.free()
	return nil
}

func nothing() error { return nil }

// service is the handler's type that grpc requires.
type service struct{ o peer.Options }

func (s *service) serve(m peer.Mode) grpc.StreamHandler {
	return func(_ any, ss grpc.ServerStream) error {
		st := &stream{grpcStream: ss, end: nothing, cancel: func() {}}
		defer st.Close()
		return s.o.Handle(m, st)
	}
}

func (s *service) desc() *grpc.ServiceDesc {
	d := &grpc.ServiceDesc{ServiceName: "Bench", HandlerType: (*any)(nil)}
	for _, m := range []peer.Mode{peer.Echo, peer.Discard, peer.Park} {
		d.Streams = append(d.Streams, grpc.StreamDesc{
			StreamName: string(m), Handler: s.serve(m), ClientStreams: true, ServerStreams: true,
		})
	}
	return d
}

type server struct {
	*grpc.Server
	ln net.Listener
	wg sync.WaitGroup
}

func (s *server) Addr() string { return s.ln.Addr().String() }

func (s *server) Close() error {
	s.Stop()
	s.wg.Wait()
	return nil
}

func (g grpcPeer) Serve(addr string, o peer.Options) (peer.Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	opts := []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{}), grpc.MaxRecvMsgSize(max(o.MaxMessage, 4<<20)), grpc.WaitForHandlers(true),
	}
	if o.TLS {
		c, err := peer.ServerTLS()
		if err != nil {
			return nil, errors.Join(err, ln.Close())
		}
		opts = append(opts, grpc.Creds(credentials.NewTLS(c)))
	}
	if g.window != 0 {
		opts = append(opts, grpc.InitialWindowSize(g.window), grpc.InitialConnWindowSize(g.window))
	}
	s := &server{Server: grpc.NewServer(opts...), ln: ln}
	svc := &service{o: o}
	s.RegisterService(svc.desc(), svc)
	s.wg.Go(func() { _ = s.Serve(ln) }) // ends with Stop; Close waits
	return s, nil
}

type conn struct {
	*grpc.ClientConn
}

func (g grpcPeer) Dial(ctx context.Context, addr string, o peer.Options) (peer.Conn, error) {
	creds := insecure.NewCredentials()
	if o.TLS {
		creds = credentials.NewTLS(peer.ClientTLS())
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(max(o.MaxMessage, 4<<20))),
	}
	if g.window != 0 {
		opts = append(opts, grpc.WithInitialWindowSize(g.window), grpc.WithInitialConnWindowSize(g.window))
	}
	cc, err := grpc.NewClient("passthrough:///"+addr, opts...)
	if err != nil {
		return nil, err
	}
	if err := ready(ctx, cc); err != nil {
		return nil, errors.Join(err, cc.Close())
	}
	return conn{cc}, nil
}

// ready connects and waits until that is done.
func ready(ctx context.Context, cc *grpc.ClientConn) error {
	cc.Connect()
	for s := cc.GetState(); s != connectivity.Ready; s = cc.GetState() {
		if s == connectivity.TransientFailure {
			return errors.New("grpc: cannot connect")
		}
		if !cc.WaitForStateChange(ctx, s) {
			return fmt.Errorf("grpc: connecting: %w", ctx.Err())
		}
	}
	return nil
}

func (c conn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) { return open(ctx, c, m) }

func open(ctx context.Context, c grpc.ClientConnInterface, m peer.Mode) (peer.Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	cs, err := c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/Bench/"+string(m))
	if err != nil {
		cancel()
		return nil, err
	}
	return &stream{grpcStream: cs, end: cs.CloseSend, cancel: cancel}, nil
}

var _ io.Closer = conn{}
