package conformance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/interop/conformance/conformancepb"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// Serve reads from in how it is to serve, writes to out where it does, and serves until ctx
// ends.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	return serve(ctx, in, out, func(srv *kernel.Server) {
		srv.Handle(service+"Unary", unary)
		srv.Handle(service+"ServerStream", serverStream)
		srv.Handle(service+"ClientStream", clientStream)
		srv.Handle(service+"BidiStream", bidiStream)
	})
}

// serve serves what register registers, by gRPC and by sluice's own wire.
func serve(ctx context.Context, in io.Reader, out io.Writer, register func(*kernel.Server)) error {
	var want conformancepb.ServerCompatRequest
	if err := read(in, &want); err != nil {
		return err
	}
	opts := &kernel.ServerOptions{
		Protocols: []frame.Protocol{triple.Protocol{}, native.Protocol{}},
		Limits:    kernel.Limits{MaxMessage: int(want.MessageReceiveLimit)},
	}
	if want.UseTls {
		var err error
		if opts.TLS, err = serverTLS(&want); err != nil {
			return err
		}
	}
	srv, err := kernel.NewServer(opts)
	if err != nil {
		return err
	}
	register(srv)
	ln, err := kernel.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return err
	}
	answer := &conformancepb.ServerCompatResponse{
		Host: "127.0.0.1", Port: uint32(ln.Addr().(*net.TCPAddr).Port), PemCert: want.ServerCreds.GetCert(),
	}
	if err := write(out, answer); err != nil {
		return errors.Join(err, ln.Close())
	}
	if err := srv.Serve(ctx, ln); !errors.Is(err, kernel.ErrServerClosed) {
		return err
	}
	return nil
}

func serverTLS(want *conformancepb.ServerCompatRequest) (*tls.Config, error) {
	cert, err := tls.X509KeyPair(want.ServerCreds.GetCert(), want.ServerCreds.GetKey())
	if err != nil {
		return nil, err
	}
	c := &tls.Config{Certificates: []tls.Certificate{cert}}
	if len(want.ClientTlsCert) > 0 {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(want.ClientTlsCert) {
			return nil, errors.New("the client's certificate is not PEM")
		}
	}
	return c, nil
}

// A call is one that the server answers.
type call struct {
	stream *kernel.Stream
	asked  []*anypb.Any // requests that no response has told of yet
	told   bool         // a response has told of the headers
}

// receive reads a request into m. It is no use of the stream: headers can still be set.
func (c *call) receive(ctx context.Context, m proto.Message) error {
	msg, err := c.stream.Request(ctx)
	if err != nil {
		return err
	}
	if err := decode(msg, m); err != nil {
		return &status.HandlerError{Code: status.InvalidArgument, Reason: err.Error()}
	}
	a, err := anypb.New(m)
	if err != nil {
		return err
	}
	c.asked = append(c.asked, a)
	return nil
}

// receiveOnly reads the one request that there must be.
func (c *call) receiveOnly(ctx context.Context, m proto.Message) error {
	if err := c.receive(ctx, m); err == io.EOF {
		return &status.HandlerError{Code: status.Unimplemented, Reason: "a call without a request"}
	} else if err != nil {
		return err
	}
	switch more, err := c.stream.Request(ctx); {
	case err == nil:
		more.Release()
		return &status.HandlerError{Code: status.Unimplemented, Reason: "a call with more than one request"}
	case err != io.EOF:
		return err
	}
	return nil
}

// info tells what the server has seen of the request and not yet told of. Headers and the time
// limit are told of once.
func (c *call) info(ctx context.Context) *conformancepb.ConformancePayload_RequestInfo {
	i := &conformancepb.ConformancePayload_RequestInfo{Requests: c.asked}
	c.asked = nil
	if c.told {
		return i
	}
	c.told = true
	i.RequestHeaders = headersOf(c.stream.Metadata())
	if at, ok := ctx.Deadline(); ok {
		i.TimeoutMs = proto.Int64(max(time.Until(at), 0).Milliseconds())
	}
	return i
}

// begin sets what travels beside the responses.
func (c *call) begin(header, trailer []*conformancepb.Header) error {
	if err := c.stream.SetHeader(metadataOf(header)); err != nil {
		return err
	}
	return c.stream.SetTrailer(metadataOf(trailer))
}

// fail is the error that the runner wants. If nothing has told of the request yet, it does.
func (c *call) fail(ctx context.Context, e *conformancepb.Error) error {
	if !c.told {
		i, err := anypb.New(c.info(ctx))
		if err != nil {
			return err
		}
		e.Details = append(e.Details, i)
	}
	md, err := detailsOf(e)
	if err != nil {
		return err
	}
	return &status.HandlerError{Code: status.Code(e.Code), Reason: e.GetMessage(), Details: md}
}

func (c *call) send(ctx context.Context, m proto.Message) error {
	msg, err := encode(m)
	if err != nil {
		return err
	}
	return c.stream.Send(ctx, msg)
}

// respond answers a call that has one response.
func (c *call) respond(ctx context.Context, def *conformancepb.UnaryResponseDefinition, wrap func(*conformancepb.ConformancePayload) proto.Message) error {
	if err := c.begin(def.GetResponseHeaders(), def.GetResponseTrailers()); err != nil {
		return err
	}
	if err := pause(ctx, def.GetResponseDelayMs()); err != nil {
		return err
	}
	if e := def.GetError(); e != nil {
		return c.fail(ctx, e)
	}
	return c.send(ctx, wrap(&conformancepb.ConformancePayload{Data: def.GetResponseData(), RequestInfo: c.info(ctx)}))
}

// pause waits before a response.
func pause(ctx context.Context, ms uint32) error {
	if ms == 0 {
		return nil
	}
	t := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func unary(ctx context.Context, s *kernel.Stream) error {
	c := &call{stream: s}
	var req conformancepb.UnaryRequest
	if err := c.receiveOnly(ctx, &req); err != nil {
		return err
	}
	return c.respond(ctx, req.ResponseDefinition, func(p *conformancepb.ConformancePayload) proto.Message {
		return &conformancepb.UnaryResponse{Payload: p}
	})
}

func clientStream(ctx context.Context, s *kernel.Stream) error {
	c := &call{stream: s}
	var def *conformancepb.UnaryResponseDefinition
	for first := true; ; first = false {
		var req conformancepb.ClientStreamRequest
		if err := c.receive(ctx, &req); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if first {
			def = req.ResponseDefinition
		}
	}
	return c.respond(ctx, def, func(p *conformancepb.ConformancePayload) proto.Message {
		return &conformancepb.ClientStreamResponse{Payload: p}
	})
}

// A responder answers a call that has several responses.
type responder struct {
	call
	def  *conformancepb.StreamResponseDefinition
	next int // the response that is sent next
	wrap func(*conformancepb.ConformancePayload) proto.Message
}

// begin sets headers and trailers, and sends the headers at once.
func (r *responder) begin() error {
	if err := r.call.begin(r.def.GetResponseHeaders(), r.def.GetResponseTrailers()); err != nil {
		return err
	}
	r.stream.Writable() // which accepts the stream
	return nil
}

// more reports whether there is a response to send.
func (r *responder) more() bool { return r.next < len(r.def.GetResponseData()) }

// respond sends the next response. Those behind the first tell of new requests alone.
func (r *responder) respond(ctx context.Context) error {
	p := &conformancepb.ConformancePayload{Data: r.def.ResponseData[r.next]}
	if !r.told || len(r.asked) > 0 {
		p.RequestInfo = r.info(ctx)
	}
	r.next++
	if err := pause(ctx, r.def.ResponseDelayMs); err != nil {
		return err
	}
	return r.send(ctx, r.wrap(p))
}

// finish sends the responses that are left, and is the call's end.
func (r *responder) finish(ctx context.Context) error {
	for r.more() {
		if err := r.respond(ctx); err != nil {
			return err
		}
	}
	if e := r.def.GetError(); e != nil {
		return r.fail(ctx, e)
	}
	return nil
}

func serverStream(ctx context.Context, s *kernel.Stream) error {
	var req conformancepb.ServerStreamRequest
	r := &responder{call: call{stream: s}, wrap: func(p *conformancepb.ConformancePayload) proto.Message {
		return &conformancepb.ServerStreamResponse{Payload: p}
	}}
	if err := r.receiveOnly(ctx, &req); err != nil {
		return err
	}
	r.def = req.ResponseDefinition
	if err := r.begin(); err != nil {
		return err
	}
	return r.finish(ctx)
}

func bidiStream(ctx context.Context, s *kernel.Stream) error {
	r := &responder{call: call{stream: s}, wrap: func(p *conformancepb.ConformancePayload) proto.Message {
		return &conformancepb.BidiStreamResponse{Payload: p}
	}}
	full := false
	for first := true; ; first = false {
		var req conformancepb.BidiStreamRequest
		if err := r.receive(ctx, &req); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if first {
			r.def, full = req.ResponseDefinition, req.FullDuplex
			if err := r.begin(); err != nil {
				return err
			}
		}
		if !full {
			continue
		}
		if !r.more() {
			break
		}
		if err := r.respond(ctx); err != nil {
			return err
		}
	}
	return r.finish(ctx)
}
