// Package kitexpeer drives kitex's TTHeader streaming with hand-written codec
// messages, all streams of a client on one connection.
package kitexpeer

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/cloudwego/gopkg/protocol/thrift"
	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/remote/trans/ttstream"
	"github.com/cloudwego/kitex/pkg/serviceinfo"
	"github.com/cloudwego/kitex/pkg/streaming"
	kserver "github.com/cloudwego/kitex/server"
	"github.com/cloudwego/kitex/transport"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

const (
	serviceName = "Bench"
	exitWait    = 50 * time.Millisecond
)

// quiet keeps kitex's log to itself. Once, because that is not safe beside a
// running server.
var quiet = sync.OnceFunc(func() { klog.SetLevel(klog.LevelFatal) })

type kitexPeer struct{}

// New returns kitex.
func New() peer.Peer { return kitexPeer{} }

func (kitexPeer) Name() string { return "kitex" }

// message is a payload in kitex's own way: no thrift, no reflection.
type message struct{ p []byte }

var _ thrift.FastCodec = (*message)(nil)

// BLength is the encoded length.
func (m *message) BLength() int { return len(m.p) }

// FastWriteNocopy copies the payload: kitex keeps the buffer until it is sent.
func (m *message) FastWriteNocopy(buf []byte, _ thrift.NocopyWriter) int { return copy(buf, m.p) }

// FastRead copies the payload, whose buffer kitex takes back afterwards.
func (m *message) FastRead(buf []byte) (int, error) {
	m.p = append(m.p[:0], buf...)
	return len(buf), nil
}

// kitexStream is what a client's and a server's stream have in common.
type kitexStream interface {
	SendMsg(ctx context.Context, m any) error
	RecvMsg(ctx context.Context, m any) error
}

type stream struct {
	ctx     context.Context
	st      kitexStream
	in, out message
	ended   bool
	end     func() error
	cancel  context.CancelFunc
}

func (s *stream) Buf(n int) []byte {
	if cap(s.out.p) < n {
		s.out.p = make([]byte, n)
	}
	return s.out.p[:n]
}

func (s *stream) Send(p []byte) error {
	s.out.p = p
	return s.st.SendMsg(s.ctx, &s.out)
}

func (s *stream) Flush() error { return nil }

func (s *stream) Recv() ([]byte, error) {
	if s.ended {
		return nil, io.EOF
	}
	err := s.st.RecvMsg(s.ctx, &s.in)
	s.ended = errors.Is(err, io.EOF)
	return s.in.p, err
}

func (s *stream) CloseSend() error { return s.end() }

func (s *stream) Close() error {
	s.cancel()
	return nil
}

// service is a pointer's type because kitex asks the handler whether it is
// nil.
type service struct{ o peer.Options }

func info() *serviceinfo.ServiceInfo {
	none := func() any { return nil }
	methods := make(map[string]serviceinfo.MethodInfo)
	for _, m := range []peer.Mode{peer.Echo, peer.Discard, peer.Park} {
		methods[string(m)] = serviceinfo.NewMethodInfo(serve(m), none, none, false,
			serviceinfo.WithStreamingMode(serviceinfo.StreamingBidirectional))
	}
	return &serviceinfo.ServiceInfo{
		ServiceName:  serviceName,
		HandlerType:  (*any)(nil),
		Methods:      methods,
		PayloadCodec: serviceinfo.Thrift,
		Extra:        map[string]any{"PackageName": "bench", "streaming": true},
	}
}

func serve(m peer.Mode) serviceinfo.MethodHandler {
	return func(ctx context.Context, handler, arg, _ any) error {
		st, err := streaming.GetServerStreamFromArg(arg)
		if err != nil {
			return err
		}
		return handler.(*service).o.Handle(m, &stream{
			ctx: ctx, st: st, end: func() error { return nil }, cancel: func() {},
		})
	}
}

type server struct {
	kserver.Server
	ln     net.Listener
	exited sync.WaitGroup
}

func (kitexPeer) Serve(addr string, o peer.Options) (peer.Server, error) {
	quiet()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &server{ln: ln}
	signals := make(chan error)
	s.Server = kserver.NewServer(kserver.WithListener(ln), kserver.WithExitWaitTime(exitWait),
		kserver.WithExitSignal(func() <-chan error { return signals }))
	if err := s.RegisterService(info(), &service{o: o}); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	s.exited.Go(func() { _ = s.Run() }) // ends with Stop; Close waits
	return s, nil
}

func (s *server) Addr() string { return s.ln.Addr().String() }

// Close stops accepting. Kitex then waits for its clients to go, but its own
// client can't be made to close a connection, so that wait is kept short and
// its end is no error.
func (s *server) Close() error {
	err := s.Stop()
	s.exited.Wait()
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

type conn struct {
	client.Client
}

// Dial makes a client with a pool of one connection, which is dialed with the
// first stream.
func (kitexPeer) Dial(_ context.Context, addr string, _ peer.Options) (peer.Conn, error) {
	quiet()
	c, err := client.NewClient(info(), client.WithDestService(serviceName), client.WithHostPorts(addr),
		client.WithTransportProtocol(transport.TTHeaderStreaming),
		client.WithTTHeaderStreamingOptions(client.WithTTHeaderStreamingTransportOptions(
			ttstream.WithClientMuxConnPool(ttstream.MuxConnConfig{PoolSize: 1}))))
	if err != nil {
		return nil, err
	}
	return conn{c}, nil
}

func (c conn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	st, err := c.Client.(client.Streaming).StreamX(ctx, string(m))
	if err != nil {
		cancel()
		return nil, err
	}
	return &stream{ctx: ctx, st: st, end: func() error { return st.CloseSend(ctx) }, cancel: cancel}, nil
}

// Close closes the client, whose connection stays open.
func (c conn) Close() error {
	if closer, ok := c.Client.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}
