package rpc

import (
	"context"
	"io"
	"iter"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// A Source receives values of one type: it is the receiving half of a stream. A
// handler has it from its request, a client from a call's result. After an end
// every further read gives the same end. Its methods may be called from any
// goroutine; several readers each get some of the values.
type Source[T any] struct {
	ref    codec.Ref
	stream *kernel.Stream
	m      *codec.Marshaler[T]
	of     handledStream // of a request: for MakeSink and Go; nil for others
	halved bool          // the other half is in use already

	sent   string                // the signature of what this side sends, if it has opened the stream
	agreed atomic.Bool           // the answer does not say that the values are others
	n      atomic.Uint64         // messages taken
	end    atomic.Pointer[error] // how it ended

	mu sync.Mutex
	ch chan T // feed -> user
}

// SourceOf returns the receiving half of s as a source. A nil c is the codec of
// codec.Default or, where the protocol has values of its own, of codec.Fixed.
func SourceOf[T any](s *kernel.Stream, c codec.Codec[T]) (*Source[T], error) {
	m, err := elementBy(s, c)
	if err != nil {
		return nil, err
	}
	return &Source[T]{stream: s, m: m}, nil
}

// elements implements argument.
func (*Source[T]) elements(e *codec.Encoding) (string, error) {
	return (*Sink[T])(nil).elements(e)
}

// id implements argument.
func (r *Source[T]) id() uint64 { return r.ref.ID }

// bind implements sourceArgument.
func (r *Source[T]) bind(s *kernel.Stream, e *codec.Encoding, of handledStream) {
	r.stream, r.of, r.halved = s, of, of == nil
	r.m, _ = element[T](e) // which has been checked
	r.agreed.Store(true)   // with the call
}

// UnmarshalJSON reads the number that stands for the source in a call's arguments.
func (r *Source[T]) UnmarshalJSON(p []byte) (err error) {
	r.ref.ID, err = strconv.ParseUint(string(p), 10, 64)
	return err
}

// Receive takes the next value. It returns io.EOF once the peer has ended its half
// in order and every value before that was taken; kernel.ErrClosed after CloseReceive; a
// *codec.DecodeError if a message is not a T, and then the stream is reset, with
// ErrEncoding inside if the answer to the open says so; else the stream's error. A ctx that
// ends gives up this wait, not the stream.
func (r *Source[T]) Receive(ctx context.Context) (v T, err error) {
	if end := r.end.Load(); end != nil {
		return v, *end
	}
	if r.stream == nil {
		return v, ErrSinkUnused
	}
	m, err := r.stream.Receive(ctx)
	if err != nil {
		return v, r.ended(err)
	}
	n := r.n.Add(1)
	if !r.agreed.Load() {
		if err := r.confirm(); err != nil {
			m.Release()
			return v, r.undecodable(int(n), err)
		}
	}
	if err := r.unmarshal(m, &v, int(n)); err != nil {
		var none T
		return none, err
	}
	return v, nil
}

// unmarshal reads message n into v. If that is not a T, or the codec calls
// runtime.Goexit, the stream ends.
func (r *Source[T]) unmarshal(m pool.Message, v *T, n int) error {
	returned := false
	defer exited(&returned, func(err error) { _ = r.undecodable(n, err) })
	err := r.m.Unmarshal(m, v)
	returned = true
	if err != nil {
		err = r.undecodable(n, err)
	}
	return err
}

// confirm looks at what the header of the answer says of the values, if this side has
// opened the stream.
func (r *Source[T]) confirm() error {
	says := signatures{r.sent, r.m.Signature()}
	if err := says.answered(headerOf(r.stream), reflect.TypeFor[T]()); err != nil {
		return err
	}
	r.agreed.Store(true)
	return nil
}

// ended keeps the end that err is, if it is one and the first, and returns it. A
// wait that was given up ends nothing.
func (r *Source[T]) ended(err error) error {
	_, failed := err.(*status.StreamError) //nolint:errorlint // one inside another is no end
	if !failed && err != io.EOF && err != kernel.ErrClosed {
		return err
	}
	r.end.CompareAndSwap(nil, &err)
	return *r.end.Load()
}

// undecodable ends the stream because message n is not a T.
func (r *Source[T]) undecodable(n int, err error) error {
	logPanic(r.stream.Conn(), r.stream.Method(), err)
	var e error = decodeError[T](r.stream.Method(), n, err)
	if !r.end.CompareAndSwap(nil, &e) {
		return *r.end.Load()
	}
	r.stream.AbortCause(status.InvalidArgument, clip(e.Error()), e)
	discard(r.stream)
	return e
}

// All yields every value and then, if the stream did not end in order, the error.
func (r *Source[T]) All(ctx context.Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			v, err := r.Receive(ctx)
			if err == io.EOF {
				return
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// In returns the values on a channel, for selects. It is closed after the last one;
// Err then says whether that was the peer's wish. Every call returns the same
// channel. Read it until it is closed, or end the receiving half.
//
// The first call starts a goroutine, which ends when it has closed In: at the
// stream's end, or when this side reads no more, which closing the connection means
// too. A value that it has in hand then is dropped. What is in In's buffer is not: that is one
// value, or up to 16 of 16 KiB in all, if they have no strings, slices, maps and pointers.
func (r *Source[T]) In() <-chan T {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ch == nil {
		r.ch = make(chan T, inBuffer[T]())
		if r.stream == nil {
			close(r.ch)
		} else {
			go r.feed()
		}
	}
	return r.ch
}

// inBuffer is how many values In holds: what a stream's own In does, where values have no
// memory beside their own. Others may be large, and nothing tells when one has left a
// channel, so there is room for one. Messages are their reader's to release: none waits where
// nobody may look.
func inBuffer[T any]() int {
	const values, bytes = 16, 16 << 10
	switch t := reflect.TypeFor[T](); {
	case t == reflect.TypeFor[pool.Message]():
		return 0
	case isFlat(t):
		return max(1, min(values, bytes/max(1, int(t.Size()))))
	}
	return 1
}

// isFlat tells whether values of t have no memory beside their own.
func isFlat(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return isFlat(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !isFlat(t.Field(i).Type) {
				return false
			}
		}
		return true
	}
	return t.Kind() >= reflect.Bool && t.Kind() <= reflect.Complex128
}

func (r *Source[T]) feed() {
	defer close(r.ch)
	r.stream.Feed(r.feedUntil)
}

// feedUntil sends values on In until there are no more or done is closed.
func (r *Source[T]) feedUntil(done <-chan struct{}) {
	for {
		v, err := r.Receive(context.Background())
		if err != nil {
			return
		}
		select {
		case r.ch <- v:
		case <-done:
			if m, ok := any(v).(pool.Message); ok {
				m.Release()
			}
			err := r.stream.Err()
			if err == nil {
				err = kernel.ErrClosed
			}
			r.end.CompareAndSwap(nil, &err)
			return
		}
	}
}

// Err returns nil if the peer has ended its half in order and the end was taken,
// or if nothing has ended yet; else how it ended: kernel.ErrClosed after
// CloseReceive, a *codec.DecodeError, or the stream's error.
func (r *Source[T]) Err() error {
	if end := r.end.Load(); end != nil {
		if *end == io.EOF {
			return nil
		}
		return *end
	}
	if r.stream == nil {
		return ErrSinkUnused
	}
	return r.stream.Err()
}

// CloseReceive ends the receiving half: see kernel.Stream.CloseReceive.
func (r *Source[T]) CloseReceive(code status.Code) {
	if r.stream != nil {
		r.stream.CloseReceive(code)
	}
}

// Close ends the stream in order, both directions, and waits until the peer's program was
// handed the end: see kernel.Stream.Close. CloseReceive ends this direction alone.
func (r *Source[T]) Close(ctx context.Context) error {
	if r.stream == nil {
		return nil
	}
	return r.stream.Close(ctx)
}

// Abort ends the stream now, both halves, and tells the peer why: see
// kernel.Stream.Abort.
func (r *Source[T]) Abort(code status.Code, reason string) {
	if r.stream != nil {
		r.stream.Abort(code, reason)
	}
}

// Stream returns the untyped stream.
func (r *Source[T]) Stream() *kernel.Stream { return r.stream }

// Go runs f, which serves the source's stream, and ends the stream as f ends: nil ends
// both halves in order, after everything sent; an error ends it with a status, as in
// kernel.Handlers.Handle; a panic ends it with status.Internal. f's context is the
// stream's.
//
// A handler receives and sends in f what comes after the answer to its call: f starts
// when the handler has returned without an error. The handler counts as running until f
// returns, except where every stream has a connection of its own. If Go is called
// several times, the stream ends when all functions have returned, or with the first
// error. Outside of a handler f starts at once.
func (r *Source[T]) Go(f func(ctx context.Context) error) {
	switch {
	case r.of != nil:
		r.of.run(f)
	case r.stream != nil:
		go r.stream.Serve(func(ctx context.Context) { r.stream.Finish(f(ctx)) })
	}
}

// MakeSink makes the other half of a source's stream: a sink of values of another
// type, back to where the source's come from. A handler returns it in its result,
// and the client finds it there as a source. Send on it waits until the handler
// has returned. A source has one other half. If there is one already, also on the
// client, the methods of the sink that MakeSink returns fail with ErrSinkUsed.
func MakeSink[U, T any](src *Source[T]) *Sink[U] {
	k := &Sink[U]{}
	switch {
	case src.stream == nil:
		k.err = ErrSinkUnused
	case src.of != nil:
		if k.m, k.err = element[U](src.of.encoding()); k.err == nil {
			k.err = src.of.makeSink(&k.sinkBinding)
		}
	case !src.claimOther():
		k.err = ErrSinkUsed
	default:
		if k.m, k.err = elementBy[U](src.stream, nil); k.err == nil {
			k.setStream(src.stream)
		}
	}
	return k
}

// claimOther makes the caller the owner of the other half.
func (r *Source[T]) claimOther() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.halved {
		return false
	}
	r.halved = true
	return true
}
