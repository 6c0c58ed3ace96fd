package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc/codec"
)

// A Duplex is a stream with a type for each direction: values of type In are
// received, values of type Out sent.
type Duplex[In, Out any] struct {
	in  Source[In]
	out Sink[Out]
}

// DuplexOf returns both halves of s. Nil codecs are those of codec.Default or, where the
// protocol has values of its own, of codec.Fixed.
func DuplexOf[In, Out any](s *kernel.Stream, in codec.Codec[In], out codec.Codec[Out]) (*Duplex[In, Out], error) {
	mi, err := elementBy(s, in)
	mo, err2 := elementBy(s, out)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	return newDuplex(s, mi, mo), nil
}

func newDuplex[In, Out any](s *kernel.Stream, in *codec.Marshaler[In], out *codec.Marshaler[Out]) *Duplex[In, Out] {
	d := &Duplex[In, Out]{}
	d.in.stream, d.in.m, d.in.halved = s, in, true
	d.out.m = out
	d.out.setStream(s)
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

// SendDone is closed when no further value will be taken: see kernel.Stream.SendDone.
func (d *Duplex[In, Out]) SendDone() <-chan struct{} { return d.out.SendDone() }

// CloseSend ends the sending half in order: see Sink.CloseSend.
func (d *Duplex[In, Out]) CloseSend() error { return d.out.CloseSend() }

// CloseReceive ends the receiving half: see kernel.Stream.CloseReceive.
func (d *Duplex[In, Out]) CloseReceive(code kernel.Code) { d.in.CloseReceive(code) }

// CloseAndReceive ends the sending half and takes the one value that the peer
// answers with: how a client ends a stream that RegisterSource serves. Errors:
// Receive's, and kernel.ErrNoReply if there is none.
func (d *Duplex[In, Out]) CloseAndReceive(ctx context.Context) (In, error) {
	var none In
	if err := d.CloseSend(); err != nil {
		return none, err
	}
	v, err := d.Receive(ctx)
	if err == io.EOF {
		err = fmt.Errorf("%w: %s", kernel.ErrNoReply, d.Stream().Method())
	}
	if err != nil {
		return none, err
	}
	switch _, err := d.Receive(ctx); {
	case err == io.EOF:
		return v, nil
	case err == nil:
		d.Abort(kernel.CodeCancelled, "more than one reply")
		return none, errtext.Errorf("sluice: %s: more than one reply", d.Stream().Method())
	default:
		return none, err
	}
}

// Close ends both halves in order and waits until the peer's program was handed
// the end: see kernel.Stream.Close.
func (d *Duplex[In, Out]) Close(ctx context.Context) error { return d.out.Close(ctx) }

// Abort ends both halves now and tells the peer why: see kernel.Stream.Abort.
func (d *Duplex[In, Out]) Abort(code kernel.Code, reason string) { d.Stream().Abort(code, reason) }

// Err returns how the receiving half failed, or the stream: see Source.Err.
func (d *Duplex[In, Out]) Err() error { return d.in.Err() }

// Stream returns the untyped stream.
func (d *Duplex[In, Out]) Stream() *kernel.Stream { return d.in.stream }
