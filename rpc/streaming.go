package rpc

import (
	"context"
	"errors"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc/codec"
)

// RegisterDuplex has streams of method served by h, both ways at once, for clients
// that open them with OpenDuplex. The stream ends as kernel.Handlers.Handle says: with nil
// in order, after everything sent. It fails with codec.ErrNoCodec, and panics if h is nil.
func RegisterDuplex[In, Out any](r Registrar, method string, h func(ctx context.Context, d *Duplex[In, Out]) error, opts *RegisterOptions) error {
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
		d := newDuplex(st, p.req, p.rep)
		if err = h(ctx, d); err == nil {
			d.out.flushed(ctx)
		}
		return err
	})
	return nil
}

// RegisterSource has streams of method served by h, which receives any number of
// values and answers with one. A client opens one with OpenDuplex and ends it with
// CloseAndReceive. It fails with codec.ErrNoCodec, and panics if h is nil.
func RegisterSource[In, Resp any](r Registrar, method string, h func(ctx context.Context, in *Source[In]) (Resp, error), opts *RegisterOptions) error {
	mustBeGiven(h != nil, method)
	return RegisterDuplex(r, method, func(ctx context.Context, d *Duplex[In, Resp]) error {
		v, err := h(ctx, d.Source())
		if err != nil {
			return err
		}
		return d.Send(ctx, v)
	}, opts)
}

// RegisterSink has streams of method served by h, which gets one request and
// sends any number of values. A client makes such a call with CallSource. It fails
// with codec.ErrNoCodec, and panics if h is nil.
func RegisterSink[Req, Out any](r Registrar, method string, h func(ctx context.Context, req Req, out *Sink[Out]) error, opts *RegisterOptions) error {
	mustBeGiven(h != nil, method)
	sv, err := serve(method, opts.encoding(), (*pair[Req, Out]).elementsOnly)
	if err != nil {
		return err
	}
	r.Handle(method, func(ctx context.Context, st *kernel.Stream) error {
		p, err := sv.begin(st)
		if err != nil {
			return err
		}
		req, err := receiveRequest(ctx, st, p.req)
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

// OpenDuplex opens a stream with a type for each direction: In is what is received
// here. ctx bounds the stream's life. Its errors are kernel.Client.Open's, and
// codec.ErrNoCodec. A handler that carries its values in another way ends the stream with
// kernel.CodeInvalidArgument: see KeyRequest.
func OpenDuplex[In, Out any](ctx context.Context, c kernel.Caller, method string, opts *OpenOptions) (*Duplex[In, Out], error) {
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
	d := newDuplex(s, p.rep, p.req)
	d.in.sent = p.says.request
	return d, nil
}

// CallSource makes a call that is answered by any number of values. ctx bounds all
// of it: there is no other limit. Its errors are kernel.Client.Open's, kernel.Stream.Send's, and
// codec.ErrNoCodec; the handler's comes from the source.
func CallSource[Req, Out any](ctx context.Context, c kernel.Caller, method string, req Req, opts *OpenOptions) (*Source[Out], error) {
	p, err := streamPair[Req, Out](method, c, opts.encoding())
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
	s, err := c.Open(ctx, method, k)
	if err != nil {
		p.req.Discard(m)
		return nil, err
	}
	if err := s.Send(ctx, m); err != nil {
		p.req.Discard(m)
		if !errors.Is(err, kernel.ErrStopped) { // by a handler that did not want it
			s.Abort(kernel.CodeCancelled, "the request could not be sent")
			return nil, err
		}
	}
	if err := s.CloseSend(); err != nil {
		s.Abort(kernel.CodeCancelled, "the request could not be ended")
		return nil, err
	}
	return &Source[Out]{stream: s, m: p.rep, halved: true, sent: p.says.request}, nil
}
