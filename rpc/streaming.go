package rpc

import (
	"context"
	"errors"
	"io"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// HandleBidi has streams of method served by h, both ways at once, for clients that
// CallBidi. The stream ends as kernel.Handlers.Handle says: with nil in order, after
// everything sent. Errors and panics are those of HandleUnary.
func HandleBidi[In, Out any](r Registrar, method string, h func(ctx context.Context, b *Bidi[In, Out]) error, opts *HandleOptions) error {
	mustBeGiven(h != nil, method)
	sv, err := serve(method, opts.encoding(), (*pair[In, Out]).elementsOnly)
	if err != nil {
		return err
	}
	r.Handle(method, func(ctx context.Context, st *kernel.Stream) error {
		p, err := sv.begin(st)
		if err != nil {
			return err
		}
		b := newBidi(st, p.req, p.rep)
		if err = h(ctx, b); err == nil {
			b.out.flushed(ctx)
		}
		return err
	})
	return nil
}

// HandleClientStream has calls of method served by h, which receives any number of values
// and answers with one, for clients that CallClientStream. Errors and panics are those of
// HandleUnary.
func HandleClientStream[Req, Resp any](r Registrar, method string, h func(ctx context.Context, in *Source[Req]) (Resp, error), opts *HandleOptions) error {
	mustBeGiven(h != nil, method)
	return HandleBidi(r, method, func(ctx context.Context, b *Bidi[Req, Resp]) error {
		v, err := h(ctx, b.In)
		if err != nil {
			return err
		}
		return b.Out.Send(ctx, v)
	}, opts)
}

// HandleServerStream has calls of method served by h, which gets one request and sends any
// number of values, for clients that CallServerStream. Errors and panics are those of
// HandleUnary.
func HandleServerStream[Req, Resp any](r Registrar, method string, h func(ctx context.Context, req Req, out *Sink[Resp]) error, opts *HandleOptions) error {
	mustBeGiven(h != nil, method)
	sv, err := serve(method, opts.encoding(), (*pair[Req, Resp]).elementsOnly)
	if err != nil {
		return err
	}
	r.Handle(method, func(ctx context.Context, st *kernel.Stream) error {
		p, req, err := sv.beginWith(ctx, st)
		if err != nil {
			return err
		}
		out := newSink(st, p.rep)
		if err := h(ctx, req, out); err != nil {
			return err
		}
		out.flushed(ctx)
		return nil
	})
	return nil
}

// OpenOptions are what a typed stream is opened with. Nil, and the zero value, are the
// defaults.
type OpenOptions struct {
	kernel.OpenOptions
	// Encoding is what its values are carried by. Nil is codec.Default or, where the
	// protocol has values of its own, codec.Fixed.
	Encoding *codec.Encoding
}

func (o *OpenOptions) encoding() *codec.Encoding {
	if o == nil {
		return nil
	}
	return o.Encoding
}

// kernel are the options for the kernel, with what says how values are carried.
func (o *OpenOptions) kernel(method string, says signatures) (*kernel.OpenOptions, error) {
	k := &kernel.OpenOptions{}
	if o != nil {
		*k = o.OpenOptions
	}
	var err error
	if k.Metadata, err = says.addTo(k.Metadata, nil); err != nil {
		return nil, errtext.Errorf("sluice: open %s: %w", method, err)
	}
	return k, nil
}

// CallBidi opens a stream of method, which HandleBidi serves: In is what is received here,
// Out what is sent. ctx bounds the stream's life. Its errors are kernel.Client.Open's, and
// codec.ErrNoCodec. A handler that carries its values in another way ends the stream with
// status.InvalidArgument: see KeyRequest.
func CallBidi[In, Out any](ctx context.Context, c kernel.Caller, method string, opts *OpenOptions) (*Bidi[In, Out], error) {
	p, err := streamPair[Out, In](method, c, opts.encoding())
	if err != nil {
		return nil, err
	}
	k, err := opts.kernel(method, p.says)
	if err != nil {
		return nil, err
	}
	s, err := c.Open(ctx, method, k)
	if err != nil {
		return nil, err
	}
	b := newBidi(s, p.rep, p.req)
	b.in.sent = p.says.request
	return b, nil
}

// A ClientStream is a call with any number of values from the caller and one answer.
type ClientStream[Req, Resp any] struct {
	Out *Sink[Req]
	b   *Bidi[Resp, Req]
}

// CallClientStream begins a call of method, which HandleClientStream serves. ctx bounds all
// of it. Errors are those of CallBidi, and kernel.ErrNotSupported where the protocol can't end
// the values and leave the stream open for the answer (frame.Caps.HalfClose).
func CallClientStream[Req, Resp any](ctx context.Context, c kernel.Caller, method string, opts *OpenOptions) (*ClientStream[Req, Resp], error) {
	if caps := c.Caps(); !caps.HalfClose {
		return nil, errtext.Errorf("sluice: open %s: %w: %s has no end of one direction, which tells the handler that all values were sent", method, kernel.ErrNotSupported, caps.Name)
	}
	b, err := CallBidi[Resp, Req](ctx, c, method, opts)
	if err != nil {
		return nil, err
	}
	return &ClientStream[Req, Resp]{Out: b.Out, b: b}, nil
}

// CloseAndReceive ends the values and waits for the answer. If the handler does not want
// all of them, its answer may come before: Out.Send fails with kernel.ErrStopped then.
// Errors: those of Source.Receive, and kernel.ErrNoReply if there is no answer.
func (c *ClientStream[Req, Resp]) CloseAndReceive(ctx context.Context) (Resp, error) {
	var none Resp
	if err := c.Out.CloseSend(); err != nil && !errors.Is(err, kernel.ErrStopped) && !errors.Is(err, kernel.ErrClosed) {
		return none, err
	}
	v, err := c.b.In.Receive(ctx)
	if err == io.EOF {
		err = c.misused("the call ended without a reply", kernel.ErrNoReply)
	}
	if err != nil {
		return none, err
	}
	switch _, err := c.b.In.Receive(ctx); {
	case err == io.EOF:
		return v, nil
	case err == nil:
		c.b.Abort(status.Cancelled, "more than one reply")
		return none, c.misused("more than one reply", nil)
	default:
		return none, err
	}
}

// misused is the error of a call whose method is of another kind.
func (c *ClientStream[Req, Resp]) misused(reason string, cause error) error {
	s := c.Stream()
	return &status.StreamError{Stream: s.ID(), Method: s.Method(), Code: status.Unimplemented, Reason: reason, Cause: cause}
}

// Abort ends the call now and tells the handler why: see kernel.Stream.Abort.
func (c *ClientStream[Req, Resp]) Abort(code status.Code, reason string) { c.b.Abort(code, reason) }

// Stream returns the untyped stream.
func (c *ClientStream[Req, Resp]) Stream() *kernel.Stream { return c.b.Stream() }

// CallServerStream makes a call of method, which HandleServerStream serves, and which is
// answered by any number of values. Req need not be named. ctx bounds all of it: there is no
// other limit. Its errors are kernel.Client.Open's, kernel.Stream.Send's, and
// codec.ErrNoCodec. The handler's error comes from the source, or from CallServerStream if it
// came before the request was sent.
func CallServerStream[Resp, Req any](ctx context.Context, c kernel.Caller, method string, req Req, opts *OpenOptions) (*Source[Resp], error) {
	p, err := streamPair[Req, Resp](method, c, opts.encoding())
	if err != nil {
		return nil, err
	}
	k, err := opts.kernel(method, p.says)
	if err != nil {
		return nil, err
	}
	m, err := p.req.Marshal(&req)
	if err != nil {
		return nil, err
	}
	open := openWith
	if c.Caps().HalfClose {
		open = openThenSend
	}
	s, err := open(ctx, c, method, k, m)
	if err != nil {
		p.req.Discard(m)
		return nil, err
	}
	return &Source[Resp]{stream: s, m: p.rep, halved: true, sent: p.says.request}, nil
}

// openWith opens a stream with m as its request, for protocols where one direction has no end of
// its own: the handler's end will be that of both. It takes m over if it succeeds.
func openWith(ctx context.Context, c kernel.Caller, method string, k *kernel.OpenOptions, m pool.Message) (*kernel.Stream, error) {
	k.Request = m
	return c.Open(ctx, method, k)
}

// openThenSend opens a stream and sends m, the only value, as a message, so that a handler of
// another kind finds it too. It takes m over if it succeeds.
func openThenSend(ctx context.Context, c kernel.Caller, method string, k *kernel.OpenOptions, m pool.Message) (*kernel.Stream, error) {
	s, err := c.Open(ctx, method, k)
	if err != nil {
		return nil, err
	}
	switch err := s.Send(ctx, m); {
	case errors.Is(err, kernel.ErrStopped): // by a handler that did not want it
		m.Release()
	case err != nil:
		s.Abort(status.Cancelled, "the request could not be sent")
		return nil, err
	}
	_ = s.CloseSend() // if the stream has failed, whoever receives is told
	return s, nil
}
