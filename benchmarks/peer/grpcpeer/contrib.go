package grpcpeer

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	sluicegrpc "github.com/sluicerpc/sluice/contrib/grpc"
	wire "github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
)

// contribPeer is what grpcPeer is, with the lines changed that make the server and the connection.
type contribPeer struct{}

// NewContrib returns grpc-go's programs on sluice, over HTTP/2.
func NewContrib() peer.Peer { return contribPeer{} }

func (contribPeer) Name() string { return "sluice+contrib/grpc" }

// Secure implements peer.Secure.
func (contribPeer) Secure() bool { return true }

var contribProtocols = []wire.Protocol{triple.Protocol{}}

func contribLimits(o peer.Options) kernel.Limits {
	return kernel.Limits{
		MaxMessage: o.MaxMessage, MaxStreams: o.Streams, MaxConnsPerAddr: o.Conns, MaxConns: o.Conns,
		MaxTotalStreams: min(2*o.Streams*max(o.Conns, 1), 1<<18),
	}
}

type contribServer struct {
	*sluicegrpc.Server
	ln net.Listener
	wg sync.WaitGroup
}

func (s *contribServer) Addr() string { return s.ln.Addr().String() }

func (s *contribServer) Close() error {
	s.Stop()
	s.wg.Wait()
	return nil
}

func (contribPeer) Serve(addr string, o peer.Options) (peer.Server, error) {
	opts := &kernel.ServerOptions{Protocols: contribProtocols, Limits: contribLimits(o)}
	if o.TLS {
		var err error
		if opts.TLS, err = peer.ServerTLS(); err != nil {
			return nil, err
		}
	}
	k, err := kernel.NewServer(opts)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &contribServer{Server: sluicegrpc.NewServer(k, &sluicegrpc.ServerOptions{Codec: codec{}}), ln: ln}
	svc := &service{o: o}
	s.RegisterService(svc.desc(), svc)
	s.wg.Go(func() { _ = s.Serve(ln) }) // ends with Stop; Close waits
	return s, nil
}

type contribConn struct{ *sluicegrpc.Conn }

func (contribPeer) Dial(ctx context.Context, addr string, o peer.Options) (peer.Conn, error) {
	opts := &kernel.ClientOptions{Protocols: contribProtocols, Limits: contribLimits(o)}
	if o.TLS {
		opts.TLS = peer.ClientTLS()
	}
	k, err := kernel.Dial(ctx, "grpc://"+addr, opts)
	if err != nil {
		return nil, err
	}
	return contribConn{sluicegrpc.NewConn(k, &sluicegrpc.ConnOptions{
		CallOptions: []grpc.CallOption{grpc.ForceCodecV2(codec{})},
	})}, nil
}

func (c contribConn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	return open(ctx, c, m)
}
