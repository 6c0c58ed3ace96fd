package rpc

import (
	"cmp"
	"context"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// A Bidi is a stream with a type for each direction. In is what this side receives and Out
// what it sends, on both sides. CallBidi, HandleBidi and BidiOf make one; the zero Bidi is of
// no use.
type Bidi[In, Out any] struct {
	In  *Source[In]
	Out *Sink[Out]

	in  Source[In]
	out Sink[Out]
}

// BidiOf makes a Bidi of s. Nil codecs are those of the default encoding: see
// HandleOptions.
func BidiOf[In, Out any](s *kernel.Stream, in codec.Codec[In], out codec.Codec[Out]) (*Bidi[In, Out], error) {
	mi, err := elementBy(s, in)
	mo, err2 := elementBy(s, out)
	if err := cmp.Or(err, err2); err != nil {
		return nil, err
	}
	return newBidi(s, mi, mo), nil
}

func newBidi[In, Out any](s *kernel.Stream, in *codec.Marshaler[In], out *codec.Marshaler[Out]) *Bidi[In, Out] {
	b := &Bidi[In, Out]{}
	b.In, b.Out = &b.in, &b.out
	b.in.stream, b.in.m, b.in.halved = s, in, true
	b.out.m = out
	b.out.setStream(s)
	return b
}

// Close ends both halves in order and waits until the peer's program was handed the end:
// see kernel.Stream.Close.
func (b *Bidi[In, Out]) Close(ctx context.Context) error { return b.Out.Close(ctx) }

// Abort ends both halves now and tells the peer why: see kernel.Stream.Abort.
func (b *Bidi[In, Out]) Abort(code status.Code, reason string) { b.Stream().Abort(code, reason) }

// Stream returns the untyped stream.
func (b *Bidi[In, Out]) Stream() *kernel.Stream { return b.In.Stream() }
