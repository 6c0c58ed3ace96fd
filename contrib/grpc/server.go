package sluicegrpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/stats"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
)

// ServerOptions configure a Server or Registrar. A nil pointer and the zero value are the
// defaults. Limits, TLS, compression and keepalive are the kernel.Server's.
type ServerOptions struct {
	// UnaryInterceptors and StreamInterceptors are called around every handler. The first is the
	// outermost.
	UnaryInterceptors  []grpc.UnaryServerInterceptor
	StreamInterceptors []grpc.StreamServerInterceptor
	// StatsHandlers are told of every RPC: TagRPC, then HandleRPC with InHeader, Begin,
	// InPayload, OutHeader, OutPayload, OutTrailer and End. They are told of no connections:
	// kernel.Observer is. Lengths on the wire are those without compression.
	StatsHandlers []stats.Handler
	// Codec is used for all messages, whatever their content-subtype. Nil is the one that is
	// registered for it.
	Codec encoding.CodecV2
}

// A Server is what a program has in place of a *grpc.Server: a Registrar with the methods that
// start and stop a kernel.Server.
type Server struct {
	*Registrar
	srv *kernel.Server
}

// NewServer returns a server that serves gRPC's services on srv, beside the handlers that srv has
// by itself. Nil opts are the defaults.
func NewServer(srv *kernel.Server, opts *ServerOptions) *Server {
	return &Server{NewRegistrar(srv, opts), srv}
}

// Serve serves the connections of ln, as kernel.Server.Serve does. It returns nil after Stop and
// GracefulStop.
func (s *Server) Serve(ln net.Listener) error {
	if err := s.srv.Serve(context.Background(), ln); !errors.Is(err, kernel.ErrServerClosed) {
		return err
	}
	return nil
}

// GracefulStop shuts the server down: RPCs that are under way have the time of Limits.Drain to
// end.
func (s *Server) GracefulStop() { _ = s.srv.Shutdown(context.Background()) }

// Stop closes the server and its connections at once.
func (s *Server) Stop() { _ = s.srv.Close() }

// A Registrar registers gRPC's services with a kernel.Server or kernel.Handlers. It implements
// grpc.ServiceRegistrar, and what packages health and reflection ask of a server.
type Registrar struct {
	to     rpc.Registrar
	opts   ServerOptions
	unary  grpc.UnaryServerInterceptor  // nil: there are none
	stream grpc.StreamServerInterceptor // the same
	stats  statsHandlers

	mu    sync.Mutex
	infos map[string]grpc.ServiceInfo
}

// NewRegistrar returns a registrar of services that to serves. Nil opts are the defaults.
func NewRegistrar(to rpc.Registrar, opts *ServerOptions) *Registrar {
	r := &Registrar{to: to, infos: map[string]grpc.ServiceInfo{}}
	if opts != nil {
		r.opts = *opts
	}
	r.unary = chainUnaryServer(slices.Clone(r.opts.UnaryInterceptors))
	r.stream = chainStreamServer(slices.Clone(r.opts.StreamInterceptors))
	r.stats = slices.Clone(r.opts.StatsHandlers)
	return r
}

// RegisterService has impl serve the methods of desc. It may be called at any time. It panics if
// impl does not implement the service, or if a method has a handler.
func (r *Registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if want := reflect.TypeOf(desc.HandlerType).Elem(); impl != nil && !reflect.TypeOf(impl).Implements(want) {
		panic(fmt.Sprintf("sluicegrpc: the service %s is a %v, and %T is none", desc.ServiceName, want, impl))
	}
	info := grpc.ServiceInfo{Metadata: desc.Metadata}
	for i := range desc.Methods {
		m := &desc.Methods[i]
		name := desc.ServiceName + "/" + m.MethodName
		r.to.Handle(name, r.serveUnary("/"+name, m, impl))
		info.Methods = append(info.Methods, grpc.MethodInfo{Name: m.MethodName})
	}
	for i := range desc.Streams {
		d := &desc.Streams[i]
		name := desc.ServiceName + "/" + d.StreamName
		r.to.Handle(name, r.serveStream("/"+name, d, impl))
		info.Methods = append(info.Methods, grpc.MethodInfo{
			Name: d.StreamName, IsClientStream: d.ClientStreams, IsServerStream: d.ServerStreams,
		})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.infos[desc.ServiceName] = info
}

// GetServiceInfo returns what services there are, and their methods.
func (r *Registrar) GetServiceInfo() map[string]grpc.ServiceInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.infos)
}

// unaryDesc is the description of a unary method as one of a stream's.
var unaryDesc = &grpc.StreamDesc{}

// serveUnary is the kernel's handler of a unary method.
func (r *Registrar) serveUnary(full string, m *grpc.MethodDesc, impl any) kernel.Handler {
	return func(ctx context.Context, s *kernel.Stream) error {
		ss, err := r.begin(ctx, s, full, unaryDesc)
		if err != nil {
			return handlerError(err)
		}
		return ss.end(func() error {
			reply, err := m.Handler(impl, ss.ctx, ss.RecvMsg, r.unary)
			if err != nil {
				return err
			}
			return ss.SendMsg(reply)
		}())
	}
}

// serveStream is the kernel's handler of a streaming method.
func (r *Registrar) serveStream(full string, d *grpc.StreamDesc, impl any) kernel.Handler {
	info := &grpc.StreamServerInfo{FullMethod: full, IsClientStream: d.ClientStreams, IsServerStream: d.ServerStreams}
	return func(ctx context.Context, s *kernel.Stream) error {
		ss, err := r.begin(ctx, s, full, d)
		if err != nil {
			return handlerError(err)
		}
		if r.stream == nil {
			return ss.end(d.Handler(impl, ss))
		}
		return ss.end(r.stream(impl, ss, info, d.Handler))
	}
}
