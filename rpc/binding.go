package rpc

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

var (
	// ErrSinkUnused: the sink was not passed to a call yet, so it has no peer. Where the
	// protocol opens streams ahead of the calls that name them (frame.Caps.StreamsByID) it has
	// one, and can send; there Close alone returns ErrSinkUnused.
	ErrSinkUnused = errors.New("sluice: sink was passed to no call")
	// ErrSinkUsed: the sink was passed to a call before, or it is the second that
	// MakeSink has made of one source.
	ErrSinkUsed = errors.New("sluice: sink was used before")
	// ErrSinkForeign: the sink belongs to another client or connection than the
	// call, or, in a handler's result, to another call.
	ErrSinkForeign = errors.New("sluice: sink belongs to another connection or call")
)

// A sinkBinding binds a sink to its stream, which is there from the start, or comes when
// the call is made that the sink is passed to, or when the call is answered that it is a
// result of.
type sinkBinding struct {
	ref       codec.Ref
	signature string                        // of the values; "": it says nothing, or is not known
	stream    atomic.Pointer[kernel.Stream] // once values can be sent

	mu       sync.Mutex
	future   *kernel.Stream        // that it will be, where that is known before
	err      error                 // why there will be none
	used     bool                  // passed to a call
	result   bool                  // made of a source in the request of a call
	ended    bool                  // by CloseSend, before there was a stream
	coming   chan struct{}         // closed when stream or err is set; nil if no call is under way
	sendDone chan struct{}         // closed behind coming, with the sending half; nil if nobody asked
	flush    func(context.Context) // waits for the values that were sent on the channel

	// Of a sink that a caller has made.
	caller    kernel.Caller
	on        *kernel.Conn // the connection that the call must be made on; nil: any of caller's
	opts      kernel.StreamOptions
	dedicated bool // its stream gets a connection of its own
}

// closed is a channel that is.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// binding implements sinkArgument.
func (k *sinkBinding) binding() *sinkBinding { return k }

// id implements argument.
func (k *sinkBinding) id() uint64 { return k.ref.ID }

// setStream makes s the stream, from the start.
func (k *sinkBinding) setStream(s *kernel.Stream) {
	k.future = s
	k.stream.Store(s)
}

// open opens the stream, where that comes before the call that names it.
func (k *sinkBinding) open(ctx context.Context) error {
	if !k.caller.Caps().StreamsByID {
		return nil
	}
	c, err := k.caller.Conn(ctx)
	if err != nil {
		return err
	}
	s, err := c.Open(ctx, "", &kernel.OpenOptions{Stream: k.opts})
	if err != nil {
		return err
	}
	k.on, k.ref.ID = s.CallRef()
	k.setStream(s)
	return nil
}

// claim makes the sink an argument of a call by c.
func (k *sinkBinding) claim(c kernel.Caller) error {
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

// unclaim undoes claim: the call is not made.
func (k *sinkBinding) unclaim() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.used = false
	k.wake()
}

// expect makes the sink the other half of s, which it gets when the call is answered
// whose request names s as id. answered says that it is.
func (k *sinkBinding) expect(s *kernel.Stream, id uint64, answered bool) {
	k.ref.ID, k.future, k.result = id, s, true
	if answered {
		k.stream.Store(s)
	} else {
		k.coming = make(chan struct{})
	}
}

// bind gives the sink its stream.
func (k *sinkBinding) bind(s *kernel.Stream) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil { // given up meanwhile
		s.Abort(status.Cancelled, "the sink was given up")
		return
	}
	k.stream.Store(s)
	if k.ended {
		_ = s.CloseSend()
	}
	k.wake()
}

// fail says that there will be no stream.
func (k *sinkBinding) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil || k.stream.Load() != nil {
		return
	}
	k.err = err
	k.wake()
}

// wake wakes who waits for the stream. The lock is held.
func (k *sinkBinding) wake() {
	if k.coming != nil {
		close(k.coming)
		k.coming, k.sendDone = nil, nil
	}
}

// pending returns what is closed when it is clear whether there will be a stream.
func (k *sinkBinding) pending() (<-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.stream.Load() != nil:
		return closed, nil
	case k.err != nil:
		return nil, k.err
	case k.ended:
		return nil, kernel.ErrSendClosed
	case k.coming == nil:
		return nil, ErrSinkUnused
	}
	return k.coming, nil
}

// now returns the stream, or why there is none.
func (k *sinkBinding) now() (*kernel.Stream, error) {
	if s := k.stream.Load(); s != nil {
		return s, nil
	}
	_, err := k.pending()
	s := k.stream.Load()
	if s == nil && err == nil {
		err = kernel.ErrWouldBlock
	}
	return s, err
}

// ready returns the stream, waiting for it while a call is under way.
func (k *sinkBinding) ready(ctx context.Context) (*kernel.Stream, error) {
	if s := k.stream.Load(); s != nil {
		return s, nil
	}
	coming, err := k.pending()
	if err != nil {
		return nil, err
	}
	select {
	case <-coming:
	case <-ctx.Done():
		return nil, errtext.Errorf("sluice: send before the call is answered: %w", context.Cause(ctx))
	}
	return k.now()
}

// awaited is the stream, also one that can't be sent on yet. Where it is not known,
// coming is closed when the call that is under way has one for the sink or has failed;
// it is nil if there is no such call.
func (k *sinkBinding) awaited() (s *kernel.Stream, coming <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.stream.Load(); s != nil {
		return s, nil
	}
	return k.future, k.coming
}

// failed is why there will be no stream, nil if there may be one.
func (k *sinkBinding) failed() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// known is the stream, also one that can't be sent on yet; nil if it is not known.
func (k *sinkBinding) known() *kernel.Stream {
	if s := k.stream.Load(); s != nil {
		return s
	}
	s, _ := k.awaited()
	return s
}

// whenSendDone returns what is closed when nothing can be sent any more. While the
// stream is not known a goroutine waits for it, and for its end.
func (k *sinkBinding) whenSendDone() <-chan struct{} {
	if s := k.known(); s != nil {
		return s.SendDone()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch s := k.stream.Load(); {
	case s != nil:
		return s.SendDone()
	case k.coming == nil || k.ended:
		return closed
	case k.sendDone == nil:
		k.sendDone = make(chan struct{})
		go k.awaitSendDone(k.coming, k.sendDone)
	}
	return k.sendDone
}

func (k *sinkBinding) awaitSendDone(coming <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	<-coming
	if s := k.known(); s != nil {
		<-s.SendDone()
	}
}

func (k *sinkBinding) closeSend() error {
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

func (k *sinkBinding) abort(code status.Code, reason string) {
	if s := k.known(); s != nil {
		s.Abort(code, reason)
		return
	}
	k.fail(kernel.ErrClosed)
}

// closeUnused ends a sink that has a stream and was passed to no call. It returns false
// for every other sink.
func (k *sinkBinding) closeUnused() bool {
	k.mu.Lock()
	unused := k.on != nil && !k.used
	if unused {
		k.err = kernel.ErrClosed
	}
	k.mu.Unlock()
	if unused {
		k.future.Abort(status.Cancelled, "closed before a call had it")
	}
	return unused
}

// permanentErr is the permanent send error, or nil.
func (k *sinkBinding) permanentErr() error {
	if s := k.known(); s != nil {
		return s.Err()
	}
	_, err := k.pending()
	return err
}

// setFlush sets what waits for the values that were sent on the channel; nil if it is
// not in use.
func (k *sinkBinding) setFlush(f func(context.Context)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.flush = f
}

// flushed ends the sending half behind what was sent on the channel, and waits
// until that is done, if the channel is in use.
func (k *sinkBinding) flushed(ctx context.Context) {
	k.mu.Lock()
	flush := k.flush
	k.mu.Unlock()
	if flush != nil {
		flush(ctx)
	}
}
