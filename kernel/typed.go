package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// speaksOf is the encoding where no other is asked for.
func speaksOf(c Caller) *Encoding {
	switch c := c.(type) {
	case *Client:
		return c.host.encoding.or(Fixed)
	case *Conn:
		return c.speaks()
	}
	return Fixed
}

func (c *Conn) speaks() *Encoding { return c.host.encoding.or(Fixed) }

// RegisterOptions are what a typed handler is registered with. Nil, and the zero
// value, are the defaults.
type RegisterOptions struct {
	// Encoding is what its requests, results and values are carried by. Nil is the
	// server's.
	Encoding *Encoding
}

func (o *RegisterOptions) encoding(s *Server) *Encoding {
	if o == nil {
		return s.host.encoding.or(Fixed)
	}
	return o.Encoding.or(s.host.encoding).or(Fixed)
}

// Register has calls of method served by h, for clients that Call it. An error
// ends the call with the code of a HandlerError, else CodeUnknown. A request that
// is no Req ends it with CodeInvalidArgument, and h does not hear of it. ctx ends
// with the call; FromContext(ctx) is its stream.
//
// Req can hold sources: fields of type *Source[T], also in slices and inner
// structs, or it is one itself. They are the sinks that the client passes. Resp
// can hold sinks made of them by MakeSink, which the client gets as sources. A
// call that passes streams is answered when h returns; what is to be received and
// sent after that, h leaves to Source.Go. Before that, sources can be read, with
// little credit. If h fails, so do the streams, with its error. A stream whose
// sink h does not return has no way back; a source that h neither reads nor
// leaves to Go it should close.
//
// Register fails with ErrNoCodec if a type can't be carried. It may be called at
// any time; the last registration of a method counts. It panics if h is nil.
func Register[Req, Resp any](s *Server, method string, h func(ctx context.Context, req Req) (Resp, error), opts *RegisterOptions) error {
	mustBeGiven(h != nil, method)
	e := opts.encoding(s)
	in, out := infoOf[Req](e), infoOf[Resp](e)
	if err := errors.Join(in.err, out.err); err != nil {
		return fmt.Errorf("sluice: register %s: %w", method, err)
	}
	switch {
	case in.in.sinks || out.in.sources:
		return fmt.Errorf("sluice: register %s: %w: a handler is given sources and returns sinks", method, ErrNoCodec)
	case out.in.sinks && !in.in.sources:
		return fmt.Errorf("sluice: register %s: %w: a sink in the result is made of a source in the request", method, ErrNoCodec)
	case in.in.sources:
		s.HandleOffer(method, func(ctx context.Context, o *Offer) error { return receive(ctx, o, e, in, out, h) })
		return nil
	}
	s.Handle(method, func(ctx context.Context, st *Stream) error {
		req, err := request(ctx, st, &in.c)
		if err != nil {
			return err
		}
		resp, err := h(ctx, req)
		if err != nil {
			return err
		}
		return reply(ctx, st, &out.c, resp)
	})
	return nil
}

// request receives the one value that a call begins with.
func request[T any](ctx context.Context, s *Stream, c *carrier[T]) (T, error) {
	var none T
	m, err := s.Receive(ctx)
	switch {
	case err == io.EOF:
		return none, &HandlerError{Code: CodeInvalidArgument, Reason: "the call came without a request"}
	case err != nil:
		return none, err
	}
	var v T
	if err := c.decode(m, &v); err != nil {
		return none, &HandlerError{Code: CodeInvalidArgument, Reason: undecodable[T](s.Method(), 1, err).Error()}
	}
	return v, nil
}

// reply sends the one value that a call ends with.
func reply[T any](ctx context.Context, s *Stream, c *carrier[T], v T) error {
	m, err := c.encode(&v)
	if err != nil {
		return s.c.conn.noResult(s.Method(), err)
	}
	if err := s.Send(ctx, m); err != nil {
		m.Release()
		return err
	}
	return nil
}

// receive serves a call that passes streams.
func receive[Req, Resp any](ctx context.Context, o *Offer, e *Encoding, in *typeInfo[Req], out *typeInfo[Resp],
	h func(ctx context.Context, req Req) (Resp, error)) error {
	v := &visit{e: e, in: &group{o: o}}
	if o.conn.caps.StreamsByID {
		v.in = &reference{o: o}
	}
	var err error
	answered := false
	defer func() { // also if h panics
		if !answered {
			v.abandon(err)
		}
	}()
	req, err := readRequest(ctx, v, o.Method(), in)
	if err != nil {
		return err
	}
	resp, err := h(ctx, req)
	if err == nil {
		err = result(ctx, o, v, out, resp)
	}
	if err != nil {
		return err
	}
	answered = true
	v.begin()
	v.serve()
	return nil
}

func readRequest[Req any](ctx context.Context, v *visit, method string, in *typeInfo[Req]) (Req, error) {
	var req Req
	m, err := v.in.request(ctx)
	if err != nil {
		return req, err
	}
	// Of a request that is no good the streams are taken too: they end with the call.
	err = in.c.decode(m, &req)
	if e := in.in.all(&req, func(x argument) error { return v.bind(ctx, x) }); err == nil {
		err = e
	}
	if n := v.in.unnamed(); err == nil && n > 0 {
		err = fmt.Errorf("%d of the streams that it opens have no place in it", n)
	}
	if err != nil {
		return req, &HandlerError{Code: CodeInvalidArgument, Reason: undecodable[Req](method, 0, err).Error()}
	}
	return req, nil
}

func result[Resp any](ctx context.Context, o *Offer, v *visit, out *typeInfo[Resp], resp Resp) error {
	m, err := Message{}, out.in.each(&resp, v.give)
	if err == nil {
		m, err = out.c.encode(&resp)
	}
	if err != nil {
		return o.conn.noResult(o.Method(), err)
	}
	if err := v.in.answer(ctx, m); err != nil {
		m.Release()
		return err
	}
	return nil
}

// noResult logs that what a handler has returned can't be sent, and is what its call
// ends with.
func (c *Conn) noResult(method string, err error) error {
	c.host.logger.Error("sluice: a handler's result can't be sent", "method", method, "peer", c.peer.Addr, "error", clip(err.Error()))
	return &HandlerError{Code: CodeInternal, Reason: "the handler's result: " + err.Error()}
}

// Call makes a call with a value each way. Its errors are Client.Call's, ErrNoCodec
// and, if the result is no Resp, a *DecodeError.
//
// Req can hold sinks, made with NewSink for the same caller: fields of type
// *Sink[T], also in slices and inner structs, or it is one itself; 256 at most. The
// handler is given them as sources. Resp can hold sources: the other halves of those sinks'
// streams, if the handler returns them. They can send from the moment that the
// call is under way. A call that fails fails its streams. The time limit is the
// call's; the streams live on, until their sinks' contexts end. Errors beside the
// above: ErrSinkUsed, ErrSinkForeign, which leave the sinks as they were. Such a
// call is never tried again by itself.
func Call[Req, Resp any](ctx context.Context, c Caller, method string, req Req, opts *CallOptions) (Resp, error) {
	var none Resp
	e := speaksOf(c)
	if opts != nil {
		e = opts.Encoding.or(e)
	}
	in, out := infoOf[Req](e), infoOf[Resp](e)
	if err := errors.Join(in.err, out.err); err != nil {
		return none, fmt.Errorf("sluice: call %s: %w", method, err)
	}
	switch {
	case in.in.sources || out.in.sinks:
		return none, fmt.Errorf("sluice: call %s: %w: a caller passes sinks and is given sources", method, ErrNoCodec)
	case out.in.sources && !in.in.sinks:
		return none, fmt.Errorf("sluice: call %s: %w: a source in the result is the other half of a sink in the request", method, ErrNoCodec)
	case in.in.sinks:
		p := &passage{caller: c, method: method, opts: opts}
		return pass(ctx, p, e, in, out, req)
	}
	m, err := in.c.encode(&req)
	if err != nil {
		return none, err
	}
	r, err := c.Call(ctx, method, m, opts)
	if err != nil {
		in.c.drop(m)
		return none, err
	}
	var resp Resp
	if err := out.c.decode(r, &resp); err != nil {
		return none, undecodable[Resp](method, 1, err)
	}
	return resp, nil
}

// pass makes a call that passes streams.
func pass[Req, Resp any](ctx context.Context, p *passage, e *Encoding, in *typeInfo[Req], out *typeInfo[Resp], req Req) (Resp, error) {
	var none Resp
	if err := p.claim(&in.in, &req); err != nil {
		return none, err
	}
	m, err := p.call(ctx, func() (Message, error) { return in.c.encode(&req) })
	if err != nil {
		p.fail(CodeCancelled, err)
		return none, err
	}
	var resp Resp
	if err = out.c.decode(m, &resp); err == nil {
		err = out.in.each(&resp, func(x argument) error { return p.resolve(x, e) })
	}
	if err != nil {
		err = undecodable[Resp](p.method, 0, err)
		p.fail(CodeInvalidArgument, err)
		return none, err
	}
	p.rest()
	return resp, nil
}
