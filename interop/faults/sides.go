package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	sluicemd "github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc"
	_ "github.com/sluicerpc/sluice/rpc/protocodec" // carries the messages
)

// pause is how long clients wait before they connect again.
const pause = 10 * time.Millisecond

// The one method there is, and the key that says which stream of which session it is.
const (
	service = "sluice.interop.v1.Faults"
	method  = "Echo"
	key     = "x-stream"
)

// A talk is one side of a stream.
type talk interface {
	send(p []byte) error
	closeSend() error
	receive() ([]byte, error)
}

// A client has one connection at a time.
type client interface {
	// open opens a stream. With wait it waits for a connection.
	open(ctx context.Context, session, stream uint32, wait bool) (talk, error)
	left() int // streams
	close() error
}

// A server serves all sessions.
type server interface {
	addr() string
	left() string // connections and streams, in words; empty: none
	close() error
}

// sessions are those that are under way, by number.
type sessions struct {
	mu sync.Mutex
	of map[uint32]*session
}

func (ss *sessions) add(s *session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.of[s.id] = s
}

func (ss *sessions) remove(s *session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	delete(ss.of, s.id)
}

// handle serves a stream whose value of key is name.
func (ss *sessions) handle(name string, t talk) error {
	s, stream, err := ss.begin(name)
	if err != nil {
		return err
	}
	defer s.running.Done()
	return s.handle(stream, t)
}

func (ss *sessions) begin(name string) (*session, uint32, error) {
	first, second, _ := strings.Cut(name, "/")
	id, err := strconv.ParseUint(first, 10, 32)
	stream, err2 := strconv.ParseUint(second, 10, 32)
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.of[uint32(id)]
	if err != nil || err2 != nil || s == nil || int(stream) >= len(s.plan) {
		return nil, 0, fmt.Errorf("no stream %q is under way", name)
	}
	s.running.Add(1)
	return s, uint32(stream), nil
}

func streamName(session, stream uint32) string { return fmt.Sprintf("%d/%d", session, stream) }

// Sluice.

type bidi struct {
	ctx context.Context
	b   *rpc.Bidi[*wrapperspb.BytesValue, *wrapperspb.BytesValue]
}

func (t bidi) send(p []byte) error { return t.b.Out.Send(t.ctx, wrapperspb.Bytes(p)) }

func (t bidi) closeSend() error { return t.b.Out.CloseSend() }

func (t bidi) receive() ([]byte, error) {
	m, err := t.b.In.Receive(t.ctx)
	return m.GetValue(), err
}

func protocols() []frame.Protocol { return []frame.Protocol{triple.Protocol{}} }

type sluiceServer struct {
	srv    *kernel.Server
	ln     net.Listener
	served chan error
}

func serveSluice(ss *sessions) (server, error) {
	srv, err := kernel.NewServer(&kernel.ServerOptions{Protocols: protocols(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	err = rpc.HandleBidi(srv, service+"/"+method, func(ctx context.Context, b *rpc.Bidi[*wrapperspb.BytesValue, *wrapperspb.BytesValue]) error {
		return ss.handle(b.Stream().Metadata().Get(key), bidi{ctx, b})
	}, nil)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sluiceServer{srv, ln, make(chan error, 1)}
	go func() { s.served <- srv.Serve(context.Background(), ln) }() // ends with close
	return s, nil
}

func (s *sluiceServer) addr() string { return s.ln.Addr().String() }

func (s *sluiceServer) left() string {
	if st := s.srv.Stats(); st.Conns+st.Streams > 0 {
		return fmt.Sprintf("%d connections, %d streams", st.Conns, st.Streams)
	}
	return ""
}

func (s *sluiceServer) close() error {
	err := s.srv.Close()
	if serr := <-s.served; !errors.Is(serr, kernel.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	if n := s.srv.Stats().Panics; n > 0 {
		err = errors.Join(err, fmt.Errorf("%d panics", n))
	}
	return err
}

type sluiceClient struct{ c *kernel.Client }

func dialSluice(ctx context.Context, addr string) (client, error) {
	c, err := kernel.Dial(ctx, "grpc://"+addr, &kernel.ClientOptions{
		Protocols: protocols(), Logger: slog.New(slog.DiscardHandler), Backoff: kernel.Backoff{First: pause, Most: pause, Jitter: kernel.None},
	})
	if err != nil {
		return nil, err
	}
	return sluiceClient{c}, nil
}

func (c sluiceClient) open(ctx context.Context, session, stream uint32, _ bool) (talk, error) {
	b, err := rpc.CallBidi[*wrapperspb.BytesValue, *wrapperspb.BytesValue](ctx, c.c, service+"/"+method, &rpc.OpenOptions{
		OpenOptions: kernel.OpenOptions{Metadata: sluicemd.MD{{Key: key, Value: streamName(session, stream)}}}})
	return bidi{ctx, b}, err
}

func (c sluiceClient) left() (n int) {
	for _, k := range c.c.Conns() {
		n += k.Streams()
	}
	return n
}

func (c sluiceClient) close() error { return c.c.Close() }

// grpc-go.

type grpcStream interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

type grpcTalk struct {
	s   grpcStream
	end func() error
}

func (t grpcTalk) send(p []byte) error { return t.s.SendMsg(wrapperspb.Bytes(p)) }

func (t grpcTalk) closeSend() error { return t.end() }

func (t grpcTalk) receive() ([]byte, error) {
	m := &wrapperspb.BytesValue{}
	err := t.s.RecvMsg(m)
	return m.GetValue(), err
}

type grpcServer struct {
	srv    *grpc.Server
	ln     net.Listener
	served chan error
}

func serveGRPC(ss *sessions) (server, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &grpcServer{grpc.NewServer(grpc.WaitForHandlers(true)), ln, make(chan error, 1)}
	s.srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: service, HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: method, ClientStreams: true, ServerStreams: true, Handler: func(_ any, st grpc.ServerStream) error {
			md, _ := metadata.FromIncomingContext(st.Context())
			return ss.handle(strings.Join(md[key], ","), grpcTalk{st, nil})
		}}},
	}, s)
	go func() { s.served <- s.srv.Serve(ln) }() // ends with close
	return s, nil
}

func (s *grpcServer) addr() string { return s.ln.Addr().String() }

func (s *grpcServer) left() string { return "" } // it does not say

func (s *grpcServer) close() error {
	s.srv.Stop()
	return <-s.served
}

type grpcClient struct{ c *grpc.ClientConn }

func dialGRPC(_ context.Context, addr string) (client, error) {
	c, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: pause, Multiplier: 1, MaxDelay: pause}, MinConnectTimeout: time.Second}))
	if err != nil {
		return nil, err
	}
	return grpcClient{c}, nil
}

func (c grpcClient) open(ctx context.Context, session, stream uint32, wait bool) (talk, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, key, streamName(session, stream))
	s, err := c.c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/"+service+"/"+method, grpc.WaitForReady(wait))
	if err != nil {
		return nil, err
	}
	return grpcTalk{s, s.CloseSend}, nil
}

func (c grpcClient) left() int { return 0 } // it does not say

func (c grpcClient) close() error { return c.c.Close() }
