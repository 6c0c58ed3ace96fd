package sluicepeer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A Service is a method of a server that is not the harness's. Its streams have a reply for
// each message, in order, whatever mode they are opened in.
type Service struct {
	Proto   string // sluice, brpc, seastar or grpc
	Method  string // over Seastar's protocol "#7"
	Unary   bool   // a message is the request of a call
	Request []byte // sent when a stream is opened; empty: nothing is
	Token   []byte
	TLS     *tls.Config   // nil: plain text
	Timeout time.Duration // of a call; 0: the library's
}

// SplitTarget splits a target such as grpc://host:port in protocol and address.
func SplitTarget(target string) (proto, addr string, err error) {
	name, addr, found := strings.Cut(target, "://")
	if !found {
		return "sluice", target, nil
	}
	switch name {
	case "sluice", brpc, seastarProto, grpcProto:
		return name, addr, nil
	case "tri":
		return grpcProto, addr, nil
	}
	return "", "", fmt.Errorf("target %q: no protocol %q; there are sluice, brpc, seastar, grpc and tri", target, name)
}

// Peer returns a peer that dials the service. It serves nothing.
func (s Service) Peer() peer.Peer {
	a := api{name: s.Proto, named: s.Method}
	if s.Proto != "sluice" {
		a.proto = s.Proto
	}
	return servicePeer{sluicePeer{a}, s}
}

type servicePeer struct {
	sluicePeer
	service Service
}

// Serve implements peer.Peer.
func (p servicePeer) Serve(string, peer.Options) (peer.Server, error) {
	return nil, errors.New("a service is not the harness's to serve")
}

// Dial implements peer.Peer.
func (p servicePeer) Dial(ctx context.Context, addr string, o peer.Options) (peer.Conn, error) {
	c, err := kernel.Dial(ctx, p.target(addr), &kernel.ClientOptions{
		Protocols: p.protocols(), Limits: kernel.Limits{MaxMessage: o.MaxMessage}, NoChecksum: !o.Checksum,
		TLS: p.service.TLS, Token: p.service.Token,
	})
	if err != nil {
		return nil, err
	}
	return &serviceConn{conn{Client: c, p: p.sluicePeer, open: c}, p.service}, nil
}

type serviceConn struct {
	conn
	service Service
}

// Open implements peer.Conn. A stream of calls opens nothing yet.
func (c *serviceConn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	if c.service.Unary {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		return &calls{service: c.service, client: c.Client, ctx: ctx, cancel: cancel}, nil
	}
	s, err := c.openStream(ctx, m)
	if err != nil {
		return nil, err
	}
	whole := !s.Conn().Caps().HalfClose
	return &serviceStream{stream: c.p.stream(context.Background(), s), whole: whole}, nil
}

func (c *serviceConn) openStream(ctx context.Context, m peer.Mode) (*kernel.Stream, error) {
	if c.p.proto == seastarProto {
		return c.pass(ctx, m)
	}
	var opts kernel.OpenOptions
	if len(c.service.Request) > 0 {
		opts.Request = pool.MessageOf(slices.Clone(c.service.Request))
	}
	return c.Client.Open(context.WithoutCancel(ctx), c.service.Method, &opts)
}

// calls are unary calls, one after the other, as a stream: Send makes one, and Recv returns its
// reply.
type calls struct {
	service Service
	client  *kernel.Client
	ctx     context.Context
	cancel  context.CancelFunc
	next    pool.Message // handed out by Buf
	reply   pool.Message // of the last call
	unread  bool         // Recv has not returned it yet
}

func (c *calls) Buf(n int) []byte {
	c.next.Release()
	c.next = pool.New(n)
	return c.next.Bytes()
}

func (c *calls) Send([]byte) error {
	c.reply.Release()
	c.reply, c.unread = pool.Message{}, false
	reply, err := c.client.Call(c.ctx, c.service.Method, c.next, &kernel.CallOptions{Timeout: c.service.Timeout})
	if err != nil {
		return c.failure(err)
	}
	c.next = pool.Message{} // the call took it over
	c.reply, c.unread = reply, true
	return nil
}

// failure tells errors of a call from those of its connection, and from those that every further
// call would end with too.
func (c *calls) failure(err error) error {
	if errors.Is(err, context.DeadlineExceeded) { // perhaps before the call was opened
		return &peer.CallError{Code: status.DeadlineExceeded.String(), Err: err}
	}
	failed, ok := errors.AsType[*status.StreamError](err)
	if c.ctx.Err() != nil || !ok || failed.Code == status.ConnectionLost {
		return err
	}
	if failed.Code == status.Unimplemented || failed.Code == status.Unauthenticated {
		return fmt.Errorf("%w: %w", peer.ErrOtherServer, err)
	}
	return &peer.CallError{Code: failed.Code.String(), Err: err}
}

func (c *calls) Flush() error { return nil }

func (c *calls) Recv() ([]byte, error) {
	if !c.unread {
		return nil, io.EOF
	}
	c.unread = false
	return c.reply.Bytes(), nil
}

func (c *calls) CloseSend() error { return nil }

// Break ends the call that is under way.
func (c *calls) Break() { c.cancel() }

func (c *calls) Close() error {
	c.cancel()
	c.next.Release()
	c.reply.Release()
	c.next, c.reply = pool.Message{}, pool.Message{}
	return nil
}

// A serviceStream has one reply for each message. Where its halves end together, it ends when
// all replies have come.
type serviceStream struct {
	*stream
	whole     bool
	sent, got atomic.Uint64
	ending    atomic.Bool
}

func (s *serviceStream) Send(p []byte) error {
	s.sent.Add(1)
	return s.stream.Send(p)
}

// TrySend is stream's.
func (s *serviceStream) TrySend(p []byte) (wait string, err error) {
	if wait, err = s.stream.TrySend(p); wait == "" && err == nil {
		s.sent.Add(1)
	}
	return wait, err
}

func (s *serviceStream) Recv() ([]byte, error) {
	if s.ended() {
		return nil, io.EOF
	}
	p, err := s.stream.Recv()
	switch {
	case err == nil:
		s.got.Add(1)
	case s.ended(): // CloseSend has ended the stream meanwhile
		return nil, io.EOF
	}
	return p, err
}

func (s *serviceStream) ended() bool {
	return s.whole && s.ending.Load() && s.got.Load() >= s.sent.Load()
}

func (s *serviceStream) CloseSend() error {
	if !s.whole {
		return s.stream.CloseSend()
	}
	s.ending.Store(true)
	if s.ended() { // a receiver may wait for a reply that will not come
		return s.s.Close(s.ctx)
	}
	return nil
}
