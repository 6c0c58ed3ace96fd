package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
)

// A Duplex is a stream with a type for each direction: values of type In are
// received, values of type Out sent.
type Duplex[In, Out any] struct {
	in  Source[In]
	out Sink[Out]
}

// DuplexOf returns both halves of s. Nil codecs are the default ones.
func DuplexOf[In, Out any](s *Stream, in Codec[In], out Codec[Out]) (*Duplex[In, Out], error) {
	ci, err := carrierFor(s, in)
	co, err2 := carrierFor(s, out)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	return newDuplex(s, ci, co), nil
}

func newDuplex[In, Out any](s *Stream, in carrier[In], out carrier[Out]) *Duplex[In, Out] {
	d := &Duplex[In, Out]{}
	d.in.stream, d.in.c, d.in.halved = s, in, true
	d.out.c, d.out.origin = out, s
	d.out.stream.Store(s)
	return d
}

// Source returns the receiving half.
func (d *Duplex[In, Out]) Source() *Source[In] { return &d.in }

// Sink returns the sending half.
func (d *Duplex[In, Out]) Sink() *Sink[Out] { return &d.out }

// Receive takes the next value: see Source.Receive.
func (d *Duplex[In, Out]) Receive(ctx context.Context) (In, error) { return d.in.Receive(ctx) }

// All yields every value: see Source.All.
func (d *Duplex[In, Out]) All(ctx context.Context) iter.Seq2[In, error] { return d.in.All(ctx) }

// In returns the values on a channel: see Source.C.
func (d *Duplex[In, Out]) In() <-chan In { return d.in.C() }

// Send sends v: see Sink.Send.
func (d *Duplex[In, Out]) Send(ctx context.Context, v Out) error { return d.out.Send(ctx, v) }

// TrySend sends v if there is credit for it now: see Sink.TrySend.
func (d *Duplex[In, Out]) TrySend(v Out) error { return d.out.TrySend(v) }

// Out returns a channel to the peer: see Sink.C.
func (d *Duplex[In, Out]) Out() chan<- Out { return d.out.C() }

// SendDone is closed when no further value will be taken: see Stream.SendDone.
func (d *Duplex[In, Out]) SendDone() <-chan struct{} { return d.out.SendDone() }

// CloseSend ends the sending half in order: see Sink.CloseSend.
func (d *Duplex[In, Out]) CloseSend() error { return d.out.CloseSend() }

// CloseReceive ends the receiving half: see Stream.CloseReceive.
func (d *Duplex[In, Out]) CloseReceive(code Code) { d.in.CloseReceive(code) }

// CloseAndReceive ends the sending half and takes the one value that the peer
// answers with: how a client ends a stream that RegisterSource serves. Errors:
// Receive's, and ErrNoReply if there is none.
func (d *Duplex[In, Out]) CloseAndReceive(ctx context.Context) (In, error) {
	var none In
	if err := d.CloseSend(); err != nil {
		return none, err
	}
	v, err := d.Receive(ctx)
	if err == io.EOF {
		err = fmt.Errorf("%w: %s", ErrNoReply, d.Stream().Method())
	}
	if err != nil {
		return none, err
	}
	switch _, err := d.Receive(ctx); {
	case err == io.EOF:
		return v, nil
	case err == nil:
		d.Abort(CodeCancelled, "more than one reply")
		return none, fmt.Errorf("sluice: %s: more than one reply", d.Stream().Method())
	default:
		return none, err
	}
}

// Close ends both halves in order and waits until the peer's program was handed
// the end: see Stream.Close.
func (d *Duplex[In, Out]) Close(ctx context.Context) error { return d.out.Close(ctx) }

// Abort ends both halves now and tells the peer why: see Stream.Abort.
func (d *Duplex[In, Out]) Abort(code Code, reason string) { d.Stream().Abort(code, reason) }

// Err returns how the receiving half failed, or the stream: see Source.Err.
func (d *Duplex[In, Out]) Err() error { return d.in.Err() }

// Stream returns the untyped stream.
func (d *Duplex[In, Out]) Stream() *Stream { return d.in.stream }

// RegisterDuplex has streams of method served by h, both ways at once, for clients
// that open them with OpenDuplex. The stream ends as Server.Handle says: with nil
// in order, after everything sent. It fails with ErrNoCodec, and panics if h is nil.
func RegisterDuplex[In, Out any](s *Server, method string, h func(ctx context.Context, d *Duplex[In, Out]) error, opts *RegisterOptions) error {
	mustBeGiven(h != nil, method)
	ci, co, err := carriers[In, Out](method, opts.encoding(s))
	if err != nil {
		return err
	}
	s.Handle(method, func(ctx context.Context, st *Stream) error {
		d := newDuplex(st, ci, co)
		err := h(ctx, d)
		if err == nil {
			d.out.flushed(ctx)
		}
		return err
	})
	return nil
}

// carriers are the codecs of a stream's two directions.
func carriers[In, Out any](method string, e *Encoding) (carrier[In], carrier[Out], error) {
	ci, err := infoOf[In](e).element()
	co, err2 := infoOf[Out](e).element()
	if err := errors.Join(err, err2); err != nil {
		return ci, co, fmt.Errorf("sluice: %s: %w", method, err)
	}
	return ci, co, nil
}

// RegisterSource has streams of method served by h, which receives any number of
// values and answers with one. A client opens one with OpenDuplex and ends it with
// CloseAndReceive. It fails with ErrNoCodec, and panics if h is nil.
func RegisterSource[In, Resp any](s *Server, method string, h func(ctx context.Context, in *Source[In]) (Resp, error), opts *RegisterOptions) error {
	mustBeGiven(h != nil, method)
	return RegisterDuplex(s, method, func(ctx context.Context, d *Duplex[In, Resp]) error {
		v, err := h(ctx, d.Source())
		if err != nil {
			return err
		}
		return d.Send(ctx, v)
	}, opts)
}

// RegisterSink has streams of method served by h, which gets one request and
// sends any number of values. A client makes such a call with CallSource. It fails
// with ErrNoCodec, and panics if h is nil.
func RegisterSink[Req, Out any](s *Server, method string, h func(ctx context.Context, req Req, out *Sink[Out]) error, opts *RegisterOptions) error {
	mustBeGiven(h != nil, method)
	cq, co, err := carriers[Req, Out](method, opts.encoding(s))
	if err != nil {
		return err
	}
	s.Handle(method, func(ctx context.Context, st *Stream) error {
		req, err := request(ctx, st, &cq)
		if err != nil {
			return err
		}
		out := newSink(st, co)
		if err := h(ctx, req, out); err != nil {
			return err
		}
		out.flushed(ctx)
		return nil
	})
	return nil
}

// OpenDuplex opens a stream with a type for each direction: In is what is received
// here. ctx bounds the stream's life. Its errors are Client.Open's, and ErrNoCodec.
func OpenDuplex[In, Out any](ctx context.Context, c Caller, method string, opts *OpenOptions) (*Duplex[In, Out], error) {
	ci, co, err := carriers[In, Out](method, opts.encoding(c))
	if err != nil {
		return nil, err
	}
	s, err := c.Open(ctx, method, opts)
	if err != nil {
		return nil, err
	}
	return newDuplex(s, ci, co), nil
}

// CallSource makes a call that is answered by any number of values. ctx bounds all
// of it: there is no other limit. Its errors are Client.Open's, Stream.Send's, and
// ErrNoCodec; the handler's comes from the source.
func CallSource[Req, Out any](ctx context.Context, c Caller, method string, req Req, opts *OpenOptions) (*Source[Out], error) {
	co, cq, err := carriers[Out, Req](method, opts.encoding(c))
	if err != nil {
		return nil, err
	}
	m, err := cq.encode(&req)
	if err != nil {
		return nil, err
	}
	s, err := c.Open(ctx, method, opts)
	if err != nil {
		cq.drop(m)
		return nil, err
	}
	if err := s.Send(ctx, m); err != nil {
		cq.drop(m)
		if !errors.Is(err, ErrStopped) { // by a handler that did not want it
			s.Abort(CodeCancelled, "the request could not be sent")
			return nil, err
		}
	}
	if err := s.CloseSend(); err != nil {
		s.Abort(CodeCancelled, "the request could not be ended")
		return nil, err
	}
	return &Source[Out]{stream: s, c: co, halved: true}, nil
}

func (o *OpenOptions) encoding(c Caller) *Encoding {
	if o == nil {
		return speaksOf(c)
	}
	return o.Encoding.or(speaksOf(c))
}
