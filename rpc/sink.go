package rpc

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// A Sink sends values of one type: it is the sending half of a stream, or will be
// when it is passed to a call.
//
// A client makes one with NewSink and passes it to a Call; it sends from the moment that the
// call is under way, or at once where NewSink has opened a stream for it. A handler makes one of a Source with MakeSink
// and returns it; it sends from the moment that the handler has returned. Both
// happen once. Its methods may be called from any goroutine.
type Sink[T any] struct {
	sinkBinding
	m *codec.Marshaler[T]

	cmu     sync.Mutex
	ch      chan T        // user -> pump
	stop    chan struct{} // CloseSend -> pump
	pumped  chan struct{} // closed by the pump at its end
	stopped bool
}

// SinkOptions are what a sink is made with. Nil, and the zero value, are the
// defaults.
type SinkOptions struct {
	// Encoding is what its values are sent by: that of the call that it is passed to. Nil
	// is codec.Default or, where the protocol has values of its own, codec.Fixed.
	Encoding *codec.Encoding
	// Stream are this side's options of its stream. NewSink sets Context.
	Stream kernel.StreamOptions
	// Dedicated gives the stream a connection of its own: see
	// kernel.OpenOptions.Dedicated. The sinks of one call are all dedicated, and share
	// that connection, or none is. Where the protocol gives every stream a
	// connection of its own, this makes no difference.
	Dedicated bool
}

// NewSink makes a sink to be passed to a Call by the same caller. ctx bounds the life
// of its stream, and not only of the call. Where the protocol opens streams ahead of
// the calls that name them (frame.Caps.StreamsByID), it is opened here, and the call
// is made on the connection that it belongs to. A sink that is never passed on costs
// nothing but what was opened, which ends with the client; Abort ends it at once.
// Errors: codec.ErrNoCodec, kernel.ErrLimits, and, if something is opened, those of
// kernel.Conn.Open.
func NewSink[T any](ctx context.Context, c kernel.Caller, opts *SinkOptions) (*Sink[T], error) {
	var o SinkOptions
	if opts != nil {
		o = *opts
	}
	m, err := element[T](encodingFor(o.Encoding, c.Caps().FixedValues))
	if err != nil {
		return nil, err
	}
	if err := o.Stream.Validate(); err != nil {
		return nil, err
	}
	k := &Sink[T]{m: m}
	k.signature = m.Signature()
	k.caller, k.opts, k.dedicated = c, o.Stream, o.Dedicated
	k.opts.Context = ctx
	if err := k.open(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// SinkOf returns the sending half of s as a sink. A nil c is the codec of codec.Default or,
// where the protocol has values of its own, of codec.Fixed. The peer is not told which.
func SinkOf[T any](s *kernel.Stream, c codec.Codec[T]) (*Sink[T], error) {
	m, err := elementBy(s, c)
	if err != nil {
		return nil, err
	}
	return newSink(s, m), nil
}

func newSink[T any](s *kernel.Stream, m *codec.Marshaler[T]) *Sink[T] {
	k := &Sink[T]{m: m}
	k.setStream(s)
	return k
}

// elements implements argument.
func (*Sink[T]) elements(e *codec.Encoding) (string, error) {
	m, err := element[T](e)
	if err != nil {
		return "", err
	}
	return m.Signature(), nil
}

// MarshalJSON writes the number that stands for the sink in a call's arguments. It
// fails where there is no call, and where a call does not look for sinks: in maps
// and interfaces.
func (k *Sink[T]) MarshalJSON() ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.used && !k.result {
		return nil, ErrSinkUnused
	}
	return strconv.AppendUint(nil, k.ref.ID, 10), nil
}

// Send sends v. It waits for credit, and until a call that is under way has a stream
// for the sink. A ctx that ends gives up this wait, not the stream. Errors: ErrSinkUnused if
// the sink has no stream and was passed to no call, the codec's, those of kernel.Stream.Send, or ctx's. If it fails nothing of v was sent;
// a pool.Message still belongs to the caller. A codec that panics, a *codec.PanicError,
// ends the stream, and so does one that calls runtime.Goexit.
func (k *Sink[T]) Send(ctx context.Context, v T) error {
	s, err := k.ready(ctx)
	if err != nil {
		return err
	}
	m, err := k.marshal(s, &v)
	if err != nil {
		return err
	}
	if err := s.Send(ctx, m); err != nil {
		k.m.Discard(m)
		return err
	}
	return nil
}

// TrySend sends v if there is credit for it now, and fails with kernel.ErrWouldBlock if
// there is none, or if the call is not answered yet.
func (k *Sink[T]) TrySend(v T) error {
	s, err := k.now()
	if err != nil {
		return err
	}
	m, err := k.marshal(s, &v)
	if err != nil {
		return err
	}
	if err := s.TrySend(m); err != nil {
		k.m.Discard(m)
		return err
	}
	return nil
}

// marshal makes a message of v. A codec that panics or calls runtime.Goexit ends the stream.
func (k *Sink[T]) marshal(s *kernel.Stream, v *T) (pool.Message, error) {
	returned := false
	defer exited(&returned, func(err error) { _ = k.unencodable(s, err) })
	m, err := k.m.Marshal(v)
	returned = true
	if err != nil {
		err = k.unencodable(s, err)
	}
	return m, err
}

// unencodable ends the stream if err is the codec's panic, and returns err.
func (k *Sink[T]) unencodable(s *kernel.Stream, err error) error {
	var p *codec.PanicError
	if errors.As(err, &p) {
		logPanic(s.Conn(), s.Method(), err)
		s.AbortCause(status.InvalidArgument, clip(err.Error()), err)
	}
	return err
}

// SendDone returns, at once, a channel that is closed when the sink will take no further
// value: see kernel.Stream.SendDone. It is closed while the sink has no stream and was passed
// to no call.
func (k *Sink[T]) SendDone() <-chan struct{} { return k.whenSendDone() }

// CloseSend ends the sending half in order, after every value sent before it. A
// second call does nothing.
func (k *Sink[T]) CloseSend() error {
	k.cmu.Lock()
	defer k.cmu.Unlock()
	if k.ch == nil {
		return k.closeSend()
	}
	if !k.stopped {
		k.stopped = true
		close(k.stop)
	}
	return nil
}

// Close ends the stream in order, both directions, and waits until the peer's program was
// handed the end: see kernel.Stream.Close. What the peer still sends is dropped; CloseSend
// ends this direction alone. A sink that was passed to no call
// can't be passed to one any more. If it has a stream nevertheless, Close aborts that, for
// nobody reads it, and returns ErrSinkUnused.
func (k *Sink[T]) Close(ctx context.Context) error {
	if k.closeUnused() {
		return ErrSinkUnused
	}
	s := k.stream.Load()
	if s == nil {
		k.abort(status.Cancelled, "closed before the call was answered")
		return nil
	}
	k.flushed(ctx)
	return s.Close(ctx)
}

// Abort ends the stream now, both halves, and tells the peer why: see
// kernel.Stream.Abort. A sink that was passed to no call can't be passed to one any more.
func (k *Sink[T]) Abort(code status.Code, reason string) { k.abort(code, reason) }

// Err returns why the stream failed, or nil while it has not: see kernel.Stream.Err. It
// is ErrSinkUnused as long as there is no stream.
func (k *Sink[T]) Err() error { return k.permanentErr() }

// Stream returns the untyped stream, nil as long as there is none.
func (k *Sink[T]) Stream() *kernel.Stream { return k.known() }
