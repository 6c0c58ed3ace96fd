// Package sluicepeer drives sluice, through each of its APIs.
package sluicepeer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// An api is the part of the API that streams are read and written with.
type api struct {
	name             string
	in, batches, out bool
	copies           bool   // SendCopy and ReceiveBatch
	handled          bool   // streams that do nothing have a handler that waits, too
	pages            bool   // the server's pages are on, and told of everything
	watched          bool   // and watched
	observed         bool   // with metrics and traces: see observing
	proto            string // another system's protocol; empty is sluice's own
	named            string // the method of every mode, of a service that is not the harness's
}

type sluicePeer struct{ api }

// handledGRPC is Receive and Send over gRPC, with a handler for each stream.
var handledGRPC = api{name: "sluice+handle/grpc", handled: true, proto: grpcProto}

// Peers returns sluice once for each api: In and Send; channels both ways; batches and
// Send; SendCopy and ReceiveBatch; methods only, where streams that do nothing have no goroutine
// or, with "handle", have one. With "admin" it is methods only, and two of the server's pages are
// watched; with "observed" there are metrics and traces, with "on" also pages that nobody watches, and
// with "everything" all of that.
func Peers() []peer.Peer {
	var ps []peer.Peer
	for _, f := range []api{
		{name: "sluice", in: true},
		{name: "sluice+out", in: true, out: true},
		{name: "sluice+batch", batches: true},
		{name: "sluice+copy", copies: true},
		{name: "sluice+send"},
		{name: "sluice+handle", handled: true},
		{name: "sluice+admin", pages: true, watched: true},
		{name: "sluice+send+observed", observed: true},
		{name: "sluice+send+on", pages: true, observed: true},
		{name: "sluice+send+everything", pages: true, watched: true, observed: true},
		{name: "sluice/brpc", in: true, proto: brpc},
		{name: "sluice+send/brpc", proto: brpc},
		{name: "sluice+batch/brpc", batches: true, proto: brpc},
		{name: "sluice/seastar", in: true, proto: seastarProto},
		{name: "sluice+send/seastar", proto: seastarProto},
		{name: "sluice/grpc", in: true, proto: grpcProto},
		{name: "sluice+send/grpc", proto: grpcProto},
		{name: "sluice+batch/grpc", batches: true, proto: grpcProto},
		handledGRPC,
	} {
		ps = append(ps, sluicePeer{f})
	}
	return ps
}

func (p sluicePeer) Name() string { return p.name }

// Secure implements peer.Secure.
func (p sluicePeer) Secure() bool { return true }

// GRPC returns sluice with Receive and Send over gRPC.
func GRPC() peer.Peer { return sluicePeer{api{name: "sluice+send/grpc", proto: grpcProto}} }

// mostStreams is how many streams there are, at most.
const mostStreams = 1 << 18

// HandledGRPC is GRPC with a handler for each stream, as a server of grpc-go has.
func HandledGRPC() peer.Peer { return sluicePeer{handledGRPC} }

func (a *api) limits(o peer.Options) kernel.Limits {
	conns := o.Conns
	if a.proto == seastarProto && conns > 0 { // one for each stream, and those that linger
		conns *= 8 * (o.Streams + 1)
	}
	return kernel.Limits{
		MaxMessage: o.MaxMessage, MaxStreams: o.Streams, MaxConnsPerAddr: conns, MaxConns: conns,
		MaxTotalStreams: min(2*o.Streams*conns, mostStreams), // beyond half of it who has many is refused
		MaxOffers:       min(o.Streams*conns, mostStreams),   // a client over gRPC does not wait for the acceptance
	}
}

// brpc is a protocol without half-close: a message stands for the end of a half, as its
// users do it.
const (
	brpc    = "brpc"
	endMark = "no more follows on this half"
)

// seastarProto is a protocol on which a stream has a connection of its own and is passed
// to a call, whose method is a number.
const seastarProto = "seastar"

// grpcProto is gRPC on HTTP/2. Its methods are those of grpcpeer's servers and clients, so
// that either side can be one of those.
const grpcProto = "grpc"

// endMarks reports whether a message stands for the end of a half.
func (a *api) endMarks() bool { return a.proto == brpc && a.named == "" }

// wholeEnds reports whether the server's end of its half is the end of a stream.
func (a *api) wholeEnds() bool { return a.proto == grpcProto }

// method is the method that streams of a mode are opened with.
func (a *api) method(m peer.Mode) string {
	if a.named != "" {
		return a.named
	}
	switch a.proto {
	case brpc:
		return "bench.Streams/" + string(m)
	case seastarProto:
		return kernel.Verb(uint64(m))
	case grpcProto:
		return "Bench/" + string(m)
	}
	return string(m)
}

func (a *api) target(addr string) string {
	if a.proto == "" {
		return addr
	}
	return a.proto + "://" + addr
}

// protocols are those of a server or client.
func (a *api) protocols() []frame.Protocol {
	switch a.proto {
	case brpc:
		return []frame.Protocol{strm.Protocol{}}
	case seastarProto:
		return []frame.Protocol{&seastar.Protocol{}}
	case grpcProto:
		return []frame.Protocol{triple.Protocol{}}
	}
	return nil
}

// A stream passed to a call is a sink on one side and a source on the other.
type (
	sink   = *rpc.Sink[pool.Message]
	source = *rpc.Source[pool.Message]
)

// register registers the calls that streams are passed to.
func (p sluicePeer) register(k *kernel.Server, m peer.Mode, o peer.Options) error {
	return rpc.HandleUnary(k, p.method(m), func(_ context.Context, in source) (sink, error) {
		out := rpc.MakeSink[pool.Message](in)
		in.Go(func(ctx context.Context) error {
			st := p.stream(ctx, in.Stream())
			defer st.free()
			return o.Handle(m, st)
		})
		return out, nil
	}, nil)
}

// pass opens a stream by passing it to a call.
func (c *conn) pass(ctx context.Context, m peer.Mode) (*kernel.Stream, error) {
	k, err := rpc.NewSink[pool.Message](context.WithoutCancel(ctx), c.Client, nil)
	if err != nil {
		return nil, err
	}
	if _, err = rpc.Call[source, sink](ctx, c.Client, c.p.method(m), k, nil); err != nil {
		return nil, err
	}
	return k.Stream(), nil
}

type server struct {
	*kernel.Server
	addr  string
	stop  context.CancelFunc
	wg    sync.WaitGroup
	watch *watching  // nil: nobody watches
	by    *observing // nil: nothing
}

// observing is what servers and clients are observed with, nil if they are not.
func (p sluicePeer) observing() *observing {
	if !p.observed {
		return nil
	}
	return observe()
}

func (p sluicePeer) Serve(addr string, o peer.Options) (peer.Server, error) {
	opts := &kernel.ServerOptions{Protocols: p.protocols(), Limits: p.limits(o), NoChecksum: !o.Checksum}
	if o.TLS {
		var err error
		if opts.TLS, err = peer.ServerTLS(); err != nil {
			return nil, err
		}
	}
	watch, err := p.watch(&o)
	if err != nil {
		return nil, err
	}
	by := p.observing()
	var told []kernel.Observer
	if by != nil {
		told = append(told, by.metrics)
	}
	if o.Observed {
		told = append(told, o.Pages)
	}
	opts.Observer = kernel.Observers(told...)
	k, err := kernel.NewServer(opts)
	if err != nil {
		by.release()
		return nil, err
	}
	if o.Pages != nil {
		o.Pages.AddServer(p.name, k)
	}
	if by != nil {
		by.metrics.Watch(k)
		k.Use(by.traces.Middleware)
	}
	for _, m := range []peer.Mode{peer.Echo, peer.Discard, peer.Park} {
		if p.proto == seastarProto {
			if err := p.register(k, m, o); err != nil {
				return nil, err
			}
			continue
		}
		if m == peer.Park && !p.handled {
			continue // accepted from Offers
		}
		k.Handle(p.method(m), func(ctx context.Context, s *kernel.Stream) error {
			st := p.stream(ctx, s)
			defer st.free()
			return o.Handle(m, st)
		})
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		by.release()
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &server{Server: k, addr: ln.Addr().String(), stop: stop, watch: watch, by: by}
	s.wg.Add(2)
	offers := k.Offers()
	go func() {
		defer s.wg.Done()
		s.park(ctx, p, offers, o)
	}()
	go func() {
		defer s.wg.Done()
		_ = k.Serve(ctx, ln)
	}()
	return s, nil
}

// park accepts streams and does nothing with them, without a goroutine each. It ends
// the server's half at once, since no goroutine could do it when the client ends its own:
// where that would be the end of the stream, the client resets it.
func (s *server) park(ctx context.Context, p sluicePeer, offers <-chan *kernel.Offer, o peer.Options) {
	for {
		select {
		case offer := <-offers:
			if st, err := offer.Accept(pool.Message{}, nil); err == nil && o.Serving != nil {
				if !p.wholeEnds() {
					_ = st.CloseSend()
				}
				o.Serving.Add(1)
			}
		case <-ctx.Done():
			return
		}
	}
}

// Stats returns the server's own counts for the report.
func (s *server) Stats() map[string]float64 {
	st := s.Server.Stats()
	return map[string]float64{
		"conns": float64(st.Conns), "accepted": float64(st.Accepted), "refused": float64(st.Refused),
		"failed": float64(st.Failed), "panics": float64(st.Panics), "evicted": float64(st.Evicted),
	}
}

func (s *server) Addr() string { return s.addr }

func (s *server) Close() error {
	err := s.Server.Close()
	s.stop()
	s.wg.Wait()
	s.watch.end()
	s.by.release()
	return err
}

type conn struct {
	*kernel.Client
	p    sluicePeer
	open kernel.Caller // opens streams: the client, or what traces it
	by   *observing    // nil: nothing
}

func (c *conn) Close() error {
	err := c.Client.Close()
	c.by.release()
	return err
}

func (p sluicePeer) Dial(ctx context.Context, addr string, o peer.Options) (peer.Conn, error) {
	opts := &kernel.ClientOptions{Protocols: p.protocols(), Limits: p.limits(o), NoChecksum: !o.Checksum}
	if o.TLS {
		opts.TLS = peer.ClientTLS()
	}
	by := p.observing()
	if by != nil {
		opts.Observer = by.metrics
	}
	c, err := kernel.Dial(ctx, p.target(addr), opts)
	if err != nil {
		by.release()
		return nil, err
	}
	k := &conn{c, p, c, by}
	if by != nil {
		k.open = by.traces.Caller(c)
	}
	return k, nil
}

func (c *conn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	if c.p.proto == seastarProto {
		s, err := c.pass(ctx, m)
		if err != nil {
			return nil, err
		}
		return c.p.stream(context.Background(), s), nil
	}
	// The context of Open would bound the stream.
	s, err := c.open.Open(context.WithoutCancel(ctx), c.p.method(m), nil)
	if err != nil {
		return nil, err
	}
	if m == peer.Park {
		if c.p.wholeEnds() { // a server of others answers with its first message
			return parked{s, true}, nil
		}
		if _, _, err := s.Accepted(ctx); err != nil {
			return nil, err
		}
		return parked{s, false}, nil
	}
	return c.p.stream(context.Background(), s), nil
}

// A parked stream carries nothing, and should not take more memory than the stream.
type parked struct {
	s     *kernel.Stream
	whole bool // its halves end together
}

var errParked = errors.New("a parked stream carries nothing")

func (parked) Buf(n int) []byte { return make([]byte, n) }

func (parked) Send([]byte) error { return errParked }

func (parked) Flush() error { return nil }

func (p parked) Recv() ([]byte, error) {
	m, err := p.s.Receive(context.Background())
	m.Release()
	return nil, err
}

// CloseSend does nothing without half-close: Close ends the stream then.
func (p parked) CloseSend() error {
	if err := p.s.CloseSend(); !errors.Is(err, kernel.ErrNotSupported) {
		return err
	}
	return nil
}

func (p parked) Close() error {
	if p.whole {
		p.s.Abort(status.Cancelled, "not needed any more")
		return nil
	}
	if errors.Is(p.s.CloseSend(), kernel.ErrNotSupported) {
		return p.s.Close(context.Background())
	}
	p.s.CloseReceive(status.OK)
	return nil
}

type stream struct {
	s       *kernel.Stream
	ctx     context.Context
	api     api
	in      <-chan pool.Message
	batches <-chan *actor.Batch
	out     chan<- pool.Message
	done    <-chan struct{}
	next    pool.Message // handed out by Buf
	last    pool.Message // handed out by Recv
	batch   *actor.Batch
	lent    [][]byte // from ReceiveBatch, but for those handed out
	buf     []byte   // handed out by Buf, with SendCopy
	at      int
	closed  bool // the message that stands for the end was sent
}

func (p sluicePeer) stream(ctx context.Context, s *kernel.Stream) *stream {
	return &stream{s: s, ctx: ctx, api: p.api}
}

func (s *stream) Buf(n int) []byte {
	if s.api.copies {
		if cap(s.buf) < n {
			s.buf = make([]byte, n)
		}
		return s.buf[:n]
	}
	s.next.Release()
	s.next = pool.New(n)
	return s.next.Bytes()
}

func (s *stream) Send(p []byte) error {
	if s.api.copies {
		return s.cause(s.s.SendCopy(s.ctx, p))
	}
	m := s.next
	s.next = pool.Message{}
	if !s.api.out {
		return s.cause(s.s.Send(s.ctx, m))
	}
	if s.out == nil {
		s.out, s.done = s.s.Out(), s.s.SendDone()
	}
	select {
	case s.out <- m:
		return nil
	case <-s.done:
		return s.cause(errors.Join(s.s.Err(), kernel.ErrSendClosed))
	}
}

// cause adds to an error what only the stream's tells: that the server has no such method.
func (s *stream) cause(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if unimplemented := (&status.StreamError{Code: status.Unimplemented}); errors.Is(s.s.Err(), unimplemented) {
		return fmt.Errorf("%w: %w", peer.ErrOtherServer, s.s.Err())
	}
	return err
}

// TrySend sends the message from Buf without waiting, or returns what it would wait for.
func (s *stream) TrySend(p []byte) (wait string, err error) {
	if s.api.copies {
		s.next = pool.Copy(p)
	}
	err = s.s.TrySend(s.next)
	switch {
	case err == nil:
		s.next = pool.Message{}
	case errors.Is(err, kernel.ErrNoRoom):
		return "socket", nil
	case errors.Is(err, kernel.ErrWouldBlock):
		return "credit", nil
	}
	return "", s.cause(err)
}

func (s *stream) Flush() error { return nil }

func (s *stream) Recv() ([]byte, error) {
	p, err := s.recv()
	if err == nil && s.api.endMarks() && string(p) == endMark {
		return nil, io.EOF
	}
	return p, s.cause(err)
}

func (s *stream) recv() ([]byte, error) {
	s.last.Release()
	s.last = pool.Message{}
	switch {
	case s.api.in:
		if s.in == nil {
			s.in = s.s.In()
		}
		m, ok := <-s.in
		if !ok {
			return nil, s.end()
		}
		s.last = m
		return m.Bytes(), nil
	case s.api.batches:
		return s.recvBatch()
	case s.api.copies:
		return s.recvLent()
	}
	m, err := s.s.Receive(s.ctx)
	s.last = m
	return m.Bytes(), err
}

func (s *stream) recvLent() (p []byte, err error) {
	if len(s.lent) == 0 {
		if s.lent, err = s.s.ReceiveBatch(s.ctx); err != nil {
			return nil, err
		}
	}
	p, s.lent = s.lent[0], s.lent[1:]
	return p, nil
}

func (s *stream) recvBatch() ([]byte, error) {
	if s.batch != nil && s.at == s.batch.Len() {
		s.batch.Release()
		s.batch = nil
	}
	if s.batch == nil {
		if s.batches == nil {
			s.batches = s.s.Batches()
		}
		b, ok := <-s.batches
		if !ok {
			return nil, s.end()
		}
		s.batch, s.at = b, 0
	}
	s.at++
	return s.batch.At(s.at - 1).Bytes(), nil
}

func (s *stream) end() error {
	if err := s.s.Err(); err != nil {
		return err
	}
	return io.EOF
}

// CloseSend ends the half, or sends the message that stands for its end.
func (s *stream) CloseSend() error {
	if !s.api.endMarks() {
		return s.cause(s.s.CloseSend())
	}
	if s.closed {
		return nil
	}
	s.closed = true
	return s.Send(append(s.Buf(len(endMark))[:0], endMark...))
}

func (s *stream) free() {
	s.next.Release()
	s.last.Release()
	if s.batch != nil {
		s.batch.Release()
	}
}

// Break ends both halves, and frees nothing that is in use.
func (s *stream) Break() { s.s.Abort(status.Cancelled, "aborted by Break") }

func (s *stream) Close() error {
	s.free()
	if s.api.proto == brpc { // both halves at once
		return s.s.Close(s.ctx)
	}
	_ = s.s.CloseSend()
	s.s.CloseReceive(status.OK)
	return nil
}
