package rpc

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc/codec"
)

// An argument is a *Sink or a *Source in a request or a result.
type argument interface {
	// elements is the signature of what goes through it by e, or why e can't carry that.
	// The receiver may be nil.
	elements(e *codec.Encoding) (signature string, err error)
	// id is the number that stands for it in the message.
	id() uint64
}

// A sinkArgument is a *Sink.
type sinkArgument interface {
	argument
	binding() *sinkBinding
}

// A sourceArgument is a *Source.
type sourceArgument interface {
	argument
	// bind gives the source its stream. of is nil on the caller's side.
	bind(s *kernel.Stream, e *codec.Encoding, of handledStream)
}

// A handledStream is the stream of a source in a request, to whoever handles the call.
type handledStream interface {
	// makeSink makes k the stream's other half.
	makeSink(k *sinkBinding) error
	// run runs f in the service of the stream when the call has been answered.
	run(f func(ctx context.Context) error)
	// encoding is what the call's values are carried by.
	encoding() *codec.Encoding
}

// arguments says what kinds of arguments there are in a type.
type arguments struct{ sinks, sources bool }

// argumentsOf finds out which there are in T, whether e carries what goes through them,
// and adds the signatures of that to said, unless nothing is to be said.
func argumentsOf[T any](m *codec.Marshaler[T], e *codec.Encoding, said *string) (as arguments, err error) {
	for _, t := range m.RefTypes() {
		x, ok := reflect.Zero(t).Interface().(argument)
		if !ok {
			return as, fmt.Errorf("%w: %v is not a sink or source", codec.ErrNoCodec, t)
		}
		signature, err := x.elements(e)
		if err != nil {
			return as, err
		}
		if *said != "" {
			*said += "," + signature
		}
		if _, ok := x.(sinkArgument); ok {
			as.sinks = true
		} else {
			as.sources = true
		}
	}
	return as, nil
}

var errNilArgument = errors.New("a sink or source is nil")

// eachArgument calls f with every sink and source in what v points to, until one fails.
func eachArgument[T any](m *codec.Marshaler[T], v *T, f func(argument) error) error {
	return m.EachRef(v, func(ref any) error { return withArgument(ref, f) })
}

// allArguments calls f with every sink and source in what v points to, also after one
// has failed, and returns the first error.
func allArguments[T any](m *codec.Marshaler[T], v *T, f func(argument) error) (first error) {
	_ = m.EachRef(v, func(ref any) error {
		if err := withArgument(ref, f); first == nil {
			first = err
		}
		return nil
	})
	return first
}

func withArgument(ref any, f func(argument) error) error {
	if ref == nil {
		return errNilArgument
	}
	return f(ref.(argument))
}
