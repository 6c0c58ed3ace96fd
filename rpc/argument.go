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
	// check tells whether e carries what goes through it. The receiver may be nil.
	check(e *codec.Encoding) error
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

// argumentsOf finds out which there are in T, and whether e carries what goes through
// them.
func argumentsOf[T any](m *codec.Marshaler[T], e *codec.Encoding) (as arguments, err error) {
	for _, t := range m.RefTypes() {
		switch x := reflect.Zero(t).Interface().(type) {
		case sinkArgument:
			as.sinks, err = true, x.check(e)
		case sourceArgument:
			as.sources, err = true, x.check(e)
		default:
			err = fmt.Errorf("%w: %v is not a sink or source", codec.ErrNoCodec, t)
		}
		if err != nil {
			return as, err
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
