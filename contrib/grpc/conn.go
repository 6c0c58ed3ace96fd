package sluicegrpc

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcmd "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	kstatus "github.com/sluicerpc/sluice/status"
)

// ConnOptions configure a Conn. A nil pointer and the zero value are the defaults. Limits, TLS,
// keepalive and connections are the kernel.Client's.
type ConnOptions struct {
	// UnaryInterceptors and StreamInterceptors are called around every RPC. The first is the
	// outermost. The *grpc.ClientConn that they are given is nil.
	UnaryInterceptors  []grpc.UnaryClientInterceptor
	StreamInterceptors []grpc.StreamClientInterceptor
	// StatsHandlers are told of every RPC: TagRPC, then HandleRPC with Begin, OutHeader,
	// OutPayload, InHeader, InPayload, InTrailer and End. They are told of no connections:
	// kernel.Observer is. Lengths on the wire are those without compression.
	StatsHandlers []stats.Handler
	// CallOptions are the options of every RPC, before its own.
	CallOptions []grpc.CallOption
	// PerRPCCredentials are asked for the metadata of every RPC.
	PerRPCCredentials []credentials.PerRPCCredentials
	// Authority is the server's name in what PerRPCCredentials are asked for. Empty is its
	// address.
	Authority string
}

// A Conn is what a program has in place of a *grpc.ClientConn. It implements
// grpc.ClientConnInterface, which generated clients are made with.
type Conn struct {
	c      kernel.Caller
	opts   ConnOptions
	unary  grpc.UnaryClientInterceptor  // nil: there are none
	stream grpc.StreamClientInterceptor // the same
	stats  statsHandlers
}

var _ grpc.ClientConnInterface = (*Conn)(nil)

// NewConn returns a connection whose RPCs go by c. Nil opts are the defaults.
func NewConn(c kernel.Caller, opts *ConnOptions) *Conn {
	cc := &Conn{c: c}
	if opts != nil {
		cc.opts = *opts
	}
	cc.unary = chainUnaryClient(slices.Clone(cc.opts.UnaryInterceptors))
	cc.stream = chainStreamClient(slices.Clone(cc.opts.StreamInterceptors))
	cc.stats = slices.Clone(cc.opts.StatsHandlers)
	return cc
}

// Close closes the kernel.Client or kernel.Conn, or does nothing if the Caller has no Close.
func (cc *Conn) Close() error {
	if c, ok := cc.c.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Invoke makes a unary RPC. It implements grpc.ClientConnInterface.
func (cc *Conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	opts = slices.Concat(cc.opts.CallOptions, opts)
	if cc.unary != nil {
		return cc.unary(ctx, method, args, reply, nil, cc.invoke, opts...)
	}
	return cc.invoke(ctx, method, args, reply, nil, opts...)
}

func (cc *Conn) invoke(ctx context.Context, method string, args, reply any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
	r, err := cc.begin(ctx, method, unaryDesc, opts)
	if err == nil {
		err = r.call(args, reply)
	}
	r.end(err)
	return err
}

// NewStream begins a streaming RPC. It implements grpc.ClientConnInterface. The stream takes
// memory until RecvMsg has returned an error, or ctx has ended.
func (cc *Conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	opts = slices.Concat(cc.opts.CallOptions, opts)
	if cc.stream != nil {
		return cc.stream(ctx, desc, nil, method, cc.newStream, opts...)
	}
	return cc.newStream(ctx, desc, nil, method, opts...)
}

func (cc *Conn) newStream(ctx context.Context, desc *grpc.StreamDesc, _ *grpc.ClientConn, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	r, err := cc.begin(ctx, method, desc, opts)
	if err == nil {
		var cs *clientStream
		if cs, err = r.open(desc); err == nil {
			return cs, nil
		}
	}
	r.end(err)
	return nil, err
}

// A clientRPC is one RPC at the client, of either kind.
type clientRPC struct {
	cc     *Conn
	ctx    context.Context
	full   string // the method's name with its slash
	name   string // and without
	o      callOptions
	md     metadata.MD
	begun  time.Time // with stats
	header grpcmd.MD // that has come, and what has come with the end
	tail   grpcmd.MD
	sent   bool
	conn   *kernel.Conn // nil: it is not known
}

// begin makes an RPC ready to be sent. The clientRPC is to be ended even if it fails.
func (cc *Conn) begin(ctx context.Context, method string, desc *grpc.StreamDesc, opts []grpc.CallOption) (*clientRPC, error) {
	r := &clientRPC{cc: cc, ctx: ctx, full: method}
	err := r.o.apply(opts)
	if len(cc.stats) > 0 {
		r.begun = time.Now()
		r.ctx = cc.stats.tag(ctx, &stats.RPCTagInfo{FullMethodName: method, FailFast: !r.o.waitForReady})
		r.tell(&stats.Begin{
			Client: true, BeginTime: r.begun, FailFast: !r.o.waitForReady,
			IsClientStream: desc.ClientStreams, IsServerStream: desc.ServerStreams,
		})
	}
	if err != nil {
		return r, err
	}
	if r.name, err = methodName(method); err != nil {
		return r, err
	}
	return r, r.prepare()
}

// prepare collects the RPC's metadata.
func (r *clientRPC) prepare() (err error) {
	if md, ok := grpcmd.FromOutgoingContext(r.ctx); ok {
		if r.md, err = appendMD(r.md, md); err != nil {
			return err
		}
	}
	if r.o.subtype != "" {
		r.md = append(r.md, metadata.Field{Key: triple.KeyContentSubtype, Value: r.o.subtype})
	}
	creds := r.cc.opts.PerRPCCredentials
	if r.o.creds != nil {
		creds = append(slices.Clip(creds), r.o.creds)
	}
	if len(creds) == 0 && r.o.authority == "" {
		return nil
	}
	conn, err := r.ready()
	if err != nil {
		return openError(r.ctx, err)
	}
	if err := r.addAuthority(conn); err != nil {
		return err
	}
	for _, c := range creds {
		if err := r.addCredentials(c, conn); err != nil {
			return err
		}
	}
	return nil
}

// ready returns a connection of the kind that the RPC will have: before credentials are sent it
// must be known whether it is secure.
func (r *clientRPC) ready() (*kernel.Conn, error) {
	for {
		conn, err := r.cc.c.Conn(r.ctx) // which pauses behind a failure
		if err == nil || !r.o.waitForReady || r.ctx.Err() != nil || !mayConnectLater(err) {
			return conn, err
		}
	}
}

// mayConnectLater reports whether a connection that has failed may succeed when it is tried again.
func mayConnectLater(err error) bool {
	var ce *kstatus.ConnError
	return errors.As(err, &ce) && !errors.Is(err, kernel.ErrClosed) && codeOf(ce) == codes.Unavailable
}

// addAuthority names the server as the RPC's option does, if its certificate is good for that.
func (r *clientRPC) addAuthority(conn *kernel.Conn) error {
	name := r.o.authority
	if name == "" {
		return nil
	}
	if tls := conn.Peer().TLS; tls != nil {
		host := name
		if h, _, err := net.SplitHostPort(name); err == nil {
			host = h
		}
		if len(tls.PeerCertificates) == 0 {
			return status.Error(codes.Unavailable, "the server has no certificate that an authority could be checked with")
		}
		if err := tls.PeerCertificates[0].VerifyHostname(host); err != nil {
			return status.Errorf(codes.Unavailable, "the authority %q is not the server's: %v", name, err)
		}
	}
	r.md = append(r.md, metadata.Field{Key: triple.KeyAuthority, Value: name})
	return nil
}

func (r *clientRPC) addCredentials(c credentials.PerRPCCredentials, conn *kernel.Conn) error {
	p := peerOf(conn)
	if c.RequireTransportSecurity() && p.AuthInfo == nil {
		return status.Error(codes.Unauthenticated, "the connection is not secure, and the credentials must not go over such a one")
	}
	authority := r.cc.opts.Authority
	if authority == "" {
		authority = p.Addr.String()
	}
	service, _, _ := strings.Cut(r.name, "/")
	ctx := credentials.NewContextWithRequestInfo(r.ctx, credentials.RequestInfo{Method: r.full, AuthInfo: p.AuthInfo})
	data, err := c.GetRequestMetadata(ctx, "https://"+strings.TrimSuffix(authority, ":443")+"/"+service)
	if err != nil {
		if s, ok := status.FromError(err); ok {
			return s.Err()
		}
		return status.Errorf(codes.Unauthenticated, "the credentials failed: %v", err)
	}
	md := make(grpcmd.MD, len(data))
	for k, v := range data {
		md.Set(k, v)
	}
	r.md, err = appendMD(r.md, md)
	return err
}

// call makes a unary RPC.
func (r *clientRPC) call(args, reply any) error {
	req, err := r.o.codec.marshal(args)
	if err != nil {
		return err
	}
	n, at := req.Len(), time.Time{}
	if !r.begun.IsZero() {
		at = time.Now()
	}
	var header, trailer metadata.MD
	m, err := r.cc.c.Call(r.ctx, r.name, req, &kernel.CallOptions{
		Metadata: r.md, Header: &header, Trailer: &trailer, Conn: &r.conn,
		Timeout: kernel.Unlimited, WaitForReady: r.o.waitForReady,
		MaxReceive: r.o.maxReceive, MaxSend: r.o.maxSend, Compression: r.o.compression,
	})
	if err != nil {
		req.Release()
		if r.conn == nil {
			return openError(r.ctx, err)
		}
	}
	r.sent = true
	if r.asks() {
		r.header, r.tail = grpcMD(header), grpcMD(trailerOf(trailer, err))
	}
	if !r.begun.IsZero() {
		r.tellSent()
		out := outPayload(true, args, n)
		out.SentTime = at
		r.tell(out)
	}
	if err != nil {
		return rpcError(err)
	}
	r.tellHeader()
	n = m.Len()
	if err := r.o.codec.unmarshal(m, reply); err != nil {
		logPanic(r.conn, r.name, err)
		return err
	}
	if !r.begun.IsZero() {
		r.tell(inPayload(true, reply, n))
	}
	return nil
}

// asks reports whether somebody wants what comes beside the messages.
func (r *clientRPC) asks() bool {
	return len(r.o.headers) > 0 || len(r.o.trailers) > 0 || !r.begun.IsZero()
}

// end gives out what was asked for, when the RPC is over. It is called once.
func (r *clientRPC) end(err error) {
	if r.sent {
		for _, h := range r.o.headers {
			*h = r.header.Copy()
		}
		for _, t := range r.o.trailers {
			*t = r.tail.Copy()
		}
	}
	if r.conn != nil {
		for _, p := range r.o.peers {
			*p = *peerOf(r.conn)
		}
	}
	for _, f := range r.o.onFinish {
		f(err)
	}
	if !r.begun.IsZero() {
		if r.sent {
			r.tell(&stats.InTrailer{Client: true, Trailer: r.tail})
		}
		r.tell(&stats.End{Client: true, BeginTime: r.begun, EndTime: time.Now(), Trailer: r.tail, Error: err})
	}
}

// tell tells the stats handlers; there may be none.
func (r *clientRPC) tell(s stats.RPCStats) { r.cc.stats.tell(r.ctx, s) }

// addr is the server's, nil if it is not known.
func (r *clientRPC) addr() net.Addr {
	if r.conn == nil {
		return nil
	}
	return r.conn.Peer().Addr
}

func (r *clientRPC) tellSent() {
	r.tell(&stats.OutHeader{Client: true, FullMethod: r.full, RemoteAddr: r.addr(), Header: grpcMD(r.md)})
}

func (r *clientRPC) tellHeader() {
	if !r.begun.IsZero() {
		r.tell(&stats.InHeader{Client: true, FullMethod: r.full, RemoteAddr: r.addr(), Header: r.header})
	}
}
