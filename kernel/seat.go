package kernel

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

var (
	// ErrSinkUnused: the sink was not passed to a call yet, so there is nobody
	// that it could send to.
	ErrSinkUnused = errors.New("sluice: sink was passed to no call")
	// ErrSinkUsed: a sink can be passed to one call, once, and a source has one
	// other half.
	ErrSinkUsed = errors.New("sluice: sink was used before")
	// ErrSinkForeign: the sink belongs to another client or connection than the
	// call, or, in a handler's result, to another call.
	ErrSinkForeign = errors.New("sluice: sink belongs to another connection or call")
)

// A seat is where a sink has its stream from: there from the start, or only when
// the call is made that the sink is passed to, or answered that it is a result of.
type seat struct {
	ref
	stream atomic.Pointer[Stream] // once values can be sent

	mu     sync.Mutex
	origin *Stream               // that it will be, where that is known before
	err    error                 // why it will be none
	used   bool                  // passed to a call
	ended  bool                  // by CloseSend, before there was a stream
	coming chan struct{}         // closed when stream or err is set; nil if nobody works on it
	flush  func(context.Context) // waits for the values that were sent on the channel

	of     *half  // of a result: the stream that it is a half of
	caller Caller // of an argument: whom it was made for
	parent *Conn  // the connection that the call must be made on; nil: any of caller's
	ctx    context.Context
	opts   StreamOptions
	alone  bool // its stream gets a connection of its own
}

func (k *seat) place() *seat { return k }

// ready returns the stream, waiting for it if it is about to come.
func (k *seat) ready(ctx context.Context) (*Stream, error) {
	if s := k.stream.Load(); s != nil {
		return s, nil
	}
	coming, err := k.wait()
	if err != nil {
		return nil, err
	}
	select {
	case <-coming:
	case <-ctx.Done():
		return nil, fmt.Errorf("sluice: send before the call is answered: %w", context.Cause(ctx))
	}
	return k.now()
}

// wait returns what is closed when it is clear whether there will be a stream.
func (k *seat) wait() (<-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.stream.Load() != nil:
		return closed, nil
	case k.err != nil:
		return nil, k.err
	case k.ended:
		return nil, ErrSendClosed
	case k.coming == nil:
		return nil, ErrSinkUnused
	}
	return k.coming, nil
}

// now returns the stream, or why there is none.
func (k *seat) now() (*Stream, error) {
	_, err := k.wait()
	s := k.stream.Load()
	if s == nil && err == nil {
		err = ErrWouldBlock
	}
	return s, err
}

// claim makes the sink an argument of a call by c.
func (k *seat) claim(c Caller) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.err != nil:
		return k.err
	case k.used, k.caller == nil:
		return ErrSinkUsed
	case k.caller != c:
		return ErrSinkForeign
	}
	k.used = true
	if k.coming == nil && k.stream.Load() == nil {
		k.coming = make(chan struct{})
	}
	return nil
}

// unclaim takes claim back: the call is not made.
func (k *seat) unclaim() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.used = false
	k.settle()
}

// take gives the sink its stream.
func (k *seat) take(s *Stream) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil { // given up meanwhile
		s.Abort(CodeCancelled, "the sink was given up")
		return
	}
	k.stream.Store(s)
	if k.ended {
		_ = s.CloseSend()
	}
	k.settle()
}

// settle wakes who waits. The lock is held.
func (k *seat) settle() {
	if k.coming != nil {
		close(k.coming)
		k.coming = nil
	}
}

// fail says that there will be no stream.
func (k *seat) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil || k.stream.Load() != nil {
		return
	}
	k.err = err
	k.settle()
}

// known is the stream, also one that can't be sent on yet; nil if there is none.
func (k *seat) known() *Stream {
	if s := k.stream.Load(); s != nil {
		return s
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.origin
}

func (k *seat) closeSend() error {
	if s := k.stream.Load(); s != nil {
		return s.CloseSend()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch s := k.stream.Load(); {
	case s != nil:
		return s.CloseSend()
	case k.err != nil:
		return k.err
	case k.coming == nil:
		return ErrSinkUnused
	}
	k.ended = true
	return nil
}

func (k *seat) abort(code Code, reason string) {
	if s := k.known(); s != nil {
		s.Abort(code, reason)
		return
	}
	k.fail(ErrClosed)
}

// forsake ends a sink that has a stream and was passed to no call.
func (k *seat) forsake() bool {
	k.mu.Lock()
	alone := k.parent != nil && !k.used
	if alone {
		k.err = ErrClosed
	}
	k.mu.Unlock()
	if alone {
		k.origin.Abort(CodeCancelled, "closed before a call had it")
	}
	return alone
}

// failure is why nothing can be sent for ever, nil if that is not so.
func (k *seat) failure() error {
	if s := k.known(); s != nil {
		return s.Err()
	}
	_, err := k.wait()
	return err
}

// flushed ends the sending half behind what was sent on the channel, and waits
// until that is done, if the channel is in use.
func (k *seat) flushed(ctx context.Context) {
	k.mu.Lock()
	flush := k.flush
	k.mu.Unlock()
	if flush != nil {
		flush(ctx)
	}
}
