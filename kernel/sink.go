package kernel

import (
	"context"
	"errors"
	"sync"
)

// A Sink sends values of one type: it is the sending half of a stream, or will be
// when it is passed to a call.
//
// A client makes one with NewSink and passes it to a Call; it sends from the
// moment that the call is under way. A handler makes one of a Source with MakeSink
// and returns it; it sends from the moment that the handler has returned. Both
// happen once. Its methods may be called from any goroutine.
type Sink[T any] struct {
	seat
	c carrier[T]

	cmu     sync.Mutex
	ch      chan T        // user -> pump
	stop    chan struct{} // CloseSend -> pump
	pumped  chan struct{} // closed by the pump at its end
	stopped bool
}

// SinkOptions are what a sink is made with. Nil, and the zero value, are the
// defaults.
type SinkOptions struct {
	// Encoding is what its values are sent by. Nil is the client's.
	Encoding *Encoding
	// Stream is this side's wishes for its stream.
	Stream StreamOptions
	// Dedicated gives the stream a connection of its own: see
	// OpenOptions.Dedicated. The sinks of one call are all dedicated, and share
	// that connection, or none is. Where the protocol gives every stream a
	// connection of its own, this makes no difference.
	Dedicated bool
}

// NewSink makes a sink to be passed to a Call by the same client, or on the same
// connection. ctx bounds the life of its stream, and not only of the call. Where
// the protocol opens streams ahead of the calls that they are passed to, it is
// opened here. A sink that is never passed on costs nothing but what was opened,
// which ends with the client; Abort ends it at once. Errors: ErrNoCodec, and, if
// something is opened, what Open gives.
func NewSink[T any](ctx context.Context, c Caller, opts *SinkOptions) (*Sink[T], error) {
	var o SinkOptions
	if opts != nil {
		o = *opts
	}
	r, err := infoOf[T](o.Encoding.or(speaksOf(c))).element()
	if err != nil {
		return nil, err
	}
	if _, err := o.Stream.withDefaults(); err != nil {
		return nil, err
	}
	k := &Sink[T]{c: r}
	k.caller, k.ctx, k.opts, k.alone = c, ctx, o.Stream, o.Dedicated
	if err := k.begin(); err != nil {
		return nil, err
	}
	return k, nil
}

// SinkOf returns the sending half of s as a sink. A nil c is the default codec.
func SinkOf[T any](s *Stream, c Codec[T]) (*Sink[T], error) {
	r, err := carrierFor(s, c)
	if err != nil {
		return nil, err
	}
	return newSink(s, r), nil
}

func newSink[T any](s *Stream, c carrier[T]) *Sink[T] {
	k := &Sink[T]{c: c}
	k.origin = s
	k.stream.Store(s)
	return k
}

// carrierFor makes c ready for use on s.
func carrierFor[T any](s *Stream, c Codec[T]) (carrier[T], error) {
	if c != nil {
		return carrierOf(c), nil
	}
	return infoOf[T](s.c.conn.speaks()).element()
}

// check implements argument.
func (*Sink[T]) check(e *Encoding) error { return checkElement[T](e) }

// MarshalJSON writes the number that stands for the sink in a call's arguments. It
// fails where there is no call, and where a call does not look for sinks: in maps
// and interfaces.
func (k *Sink[T]) MarshalJSON() ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.used && k.of == nil {
		return nil, ErrSinkUnused
	}
	return k.ref.marshal(), nil
}

// Send sends v, waiting for credit, and, where its call is not answered yet, for
// that. A ctx that ends gives up this wait, not the stream. Errors: ErrSinkUnused,
// the codec's, ErrTooLarge, ErrSendClosed, ErrStopped, ErrNotReadable, a
// StreamError, or ctx's. If it fails nothing of v was sent; a Message still
// belongs to the caller.
func (k *Sink[T]) Send(ctx context.Context, v T) error {
	s, err := k.ready(ctx)
	if err != nil {
		return err
	}
	m, err := k.c.encode(&v)
	if err != nil {
		return err
	}
	if err := s.Send(ctx, m); err != nil {
		k.c.drop(m)
		return err
	}
	return nil
}

// TrySend sends v if there is credit for it now, and fails with ErrWouldBlock if
// there is none, or if the call is not answered yet.
func (k *Sink[T]) TrySend(v T) error {
	s, err := k.now()
	if err != nil {
		return err
	}
	m, err := k.c.encode(&v)
	if err != nil {
		return err
	}
	if err := s.TrySend(m); err != nil {
		k.c.drop(m)
		return err
	}
	return nil
}

// C returns a channel to the peer, for selects. A send on it completes when the
// sink has taken the value, which is sent as soon as there is credit. Once the
// sending half has ended nothing takes from C, so give each send a way out:
//
//	select {
//	case sink.C() <- v:
//	case <-sink.SendDone():
//		return sink.Err()
//	}
//
// A value that can't be encoded, or is too large, aborts the stream. Closing C
// means CloseSend; only a sole sender may do it. Before the sink was passed to a
// call nothing takes from C.
//
// The first call starts a goroutine that ends with the sending half.
func (k *Sink[T]) C() chan<- T {
	s := k.arriving()
	k.cmu.Lock()
	defer k.cmu.Unlock()
	switch {
	case k.ch != nil:
		return k.ch
	case s == nil:
		return make(chan T)
	}
	k.ch, k.stop, k.pumped = make(chan T), make(chan struct{}), make(chan struct{})
	k.mu.Lock()
	k.flush = k.endC
	k.mu.Unlock()
	go k.pump(s)
	return k.ch
}

// arriving is the stream; where a call is about to open it, that is waited for.
func (k *Sink[T]) arriving() *Stream {
	if s := k.known(); s != nil {
		return s
	}
	s, _ := k.ready(context.Background())
	return s
}

// pump takes values from C until the sending half is over.
func (k *Sink[T]) pump(s *Stream) {
	defer close(k.pumped)
	done := s.SendDone()
	for {
		select {
		case v, ok := <-k.ch:
			if !ok {
				_ = k.closeSend()
				return
			}
			if err := k.Send(context.Background(), v); err != nil {
				k.lose(s, v, err)
				return
			}
		case <-k.stop:
			_ = k.closeSend()
			return
		case <-done:
			return
		}
	}
}

// lose ends the stream because a value taken from C could not be sent, unless it
// was the stream's end that kept it.
func (k *Sink[T]) lose(s *Stream, v T, err error) {
	if m, ok := any(v).(Message); ok {
		m.Release()
	}
	select {
	case <-s.SendDone():
	default:
		code := CodeInvalidArgument
		if errors.Is(err, ErrTooLarge) {
			code = CodeTooLarge
		}
		s.c.abort(code, clip(err.Error()), err)
	}
}

// endC ends the sending half behind what C has taken, and waits until that is
// sent, or never will be, or ctx ends.
func (k *Sink[T]) endC(ctx context.Context) {
	_ = k.CloseSend()
	select {
	case <-k.pumped:
	case <-ctx.Done():
	}
}

// SendDone is closed when the sink will take no further value, as Stream.SendDone;
// also while the sink was passed to no call.
func (k *Sink[T]) SendDone() <-chan struct{} {
	if s := k.arriving(); s != nil {
		return s.SendDone()
	}
	return closed
}

// closed is a channel that is.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

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

// Close ends the stream in order, the other half too, and waits until the peer's
// program was handed the end: see Stream.Close. A sink that was passed to no call
// can't be from then on; if it has a stream nevertheless, that is aborted, for nobody
// reads it, and Close returns ErrSinkUnused.
func (k *Sink[T]) Close(ctx context.Context) error {
	if k.forsake() {
		return ErrSinkUnused
	}
	s := k.stream.Load()
	if s == nil {
		k.abort(CodeCancelled, "closed before the call was answered")
		return nil
	}
	k.flushed(ctx)
	return s.Close(ctx)
}

// Abort ends the stream now, both halves, and tells the peer why: see
// Stream.Abort. A sink that was passed to no call can't be from then on.
func (k *Sink[T]) Abort(code Code, reason string) { k.abort(code, reason) }

// Err returns why the stream failed, or nil while it has not: see Stream.Err. It
// is ErrSinkUnused as long as there is no stream.
func (k *Sink[T]) Err() error { return k.failure() }

// Stream returns the untyped stream, nil before the sink was passed to a call.
func (k *Sink[T]) Stream() *Stream { return k.known() }
