package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime/debug"
	"strconv"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// element returns what carries T through a stream.
func element[T any](e *codec.Encoding) (*codec.Marshaler[T], error) {
	m, err := codec.MarshalerOf[T](e)
	if err == nil {
		err = noStreamsIn(m)
	}
	return m, err
}

// noStreamsIn fails if values of T can hold sinks or sources.
func noStreamsIn[T any](m *codec.Marshaler[T]) error {
	if len(m.RefTypes()) > 0 {
		return fmt.Errorf("%w: %v: sinks and sources are passed in calls only", codec.ErrNoCodec, reflect.TypeFor[T]())
	}
	return nil
}

// elementBy returns what carries T by c or, if c is nil, by the default of s's protocol.
func elementBy[T any](s *kernel.Stream, c codec.Codec[T]) (*codec.Marshaler[T], error) {
	if c != nil {
		return codec.NewMarshaler(c), nil
	}
	return element[T](encodingFor(nil, s.Conn().Caps().FixedValues))
}

// decodeError says that message n of method is not a T, because of err.
func decodeError[T any](method string, n int, err error) *codec.DecodeError {
	e := &codec.DecodeError{Offset: -1, Type: reflect.TypeFor[T]().String(), Err: err}
	var inner *codec.DecodeError
	if errors.As(err, &inner) {
		*e = *inner
	}
	e.Method, e.Message = method, n
	return e
}

// noRequest is what a call ends with whose request could not be received because of err.
func noRequest(err error) error {
	if err == io.EOF {
		return &status.HandlerError{Code: status.Unimplemented, Reason: "the call came without a request"}
	}
	return err
}

// receiveRequest receives the one value that a call begins with.
func receiveRequest[T any](ctx context.Context, s *kernel.Stream, m *codec.Marshaler[T]) (T, error) {
	var none T
	msg, err := s.OnlyRequest(ctx)
	if err != nil {
		return none, noRequest(err)
	}
	var v T
	if err := m.Unmarshal(msg, &v); err != nil {
		logPanic(s.Conn(), s.Method(), err)
		return none, invalidRequest[T](s.Method(), 1, err)
	}
	return v, nil
}

// exited is deferred around the use of a codec. If that has not returned, the codec has called
// runtime.Goexit: nothing keeps the goroutine from ending, and end ends what it would leave
// behind.
func exited(returned *bool, end func(err error)) {
	if !*returned {
		end(&codec.PanicError{Stack: debug.Stack()})
	}
}

// logPanic logs the panic of a codec, or its runtime.Goexit, if err is one.
func logPanic(c *kernel.Conn, method string, err error) {
	var p *codec.PanicError
	if errors.As(err, &p) {
		c.Logger().Error("sluice: codec panicked", "method", method, "peer", c.Peer().Addr, "panic", panicText(p), "stack", string(p.Stack))
	}
}

func panicText(p *codec.PanicError) string {
	if p.Value == nil {
		return "runtime.Goexit"
	}
	return fmt.Sprint(p.Value)
}

// invalidRequest is what a handler ends a call with whose request is not a T.
func invalidRequest[T any](method string, n int, err error) error {
	return &status.HandlerError{Code: status.InvalidArgument, Reason: decodeError[T](method, n, err).Error()}
}

// sendReply sends the one value that a call ends with.
func sendReply[T any](ctx context.Context, s *kernel.Stream, m *codec.Marshaler[T], v T) error {
	msg, err := m.Marshal(&v)
	if err != nil {
		return badResult(s.Conn(), s.Method(), err)
	}
	if err := s.Send(ctx, msg); err != nil {
		msg.Release()
		return err
	}
	return nil
}

// badResult logs that a handler's result can't be sent, and is what its call ends with.
func badResult(c *kernel.Conn, method string, err error) error {
	logPanic(c, method, err)
	c.Logger().Error("sluice: a handler's result can't be sent", "method", method, "peer", c.Peer().Addr, "error", clip(err.Error()))
	return &status.HandlerError{Code: status.Internal, Reason: "the handler's result: " + err.Error()}
}

// mustBeGiven panics if the handler for method is nil: it is better to hear of that at
// once than by every call's failing.
func mustBeGiven(given bool, method string) {
	if !given {
		panic("sluice: nil handler for " + strconv.Quote(method))
	}
}

// discard releases what a stream that has failed still holds.
func discard(s *kernel.Stream) {
	for {
		m, err := s.Receive(context.Background())
		if err != nil {
			return
		}
		m.Release()
	}
}

// clip shortens a text that goes to a peer or a log.
func clip(t string) string { return errtext.Clip(t, 256) }
