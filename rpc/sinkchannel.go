package rpc

import (
	"context"
	"errors"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Out returns, at once, a channel to the peer, for selects. A send on it completes when
// the sink has taken the value, which is sent as soon as there is credit; while a call
// opens the stream nothing is taken. Once the sending half has ended nothing takes from
// Out, so give each send a way out:
//
//	select {
//	case sink.Out() <- v:
//	case <-sink.SendDone():
//		return sink.Err()
//	}
//
// A value that can't be encoded, or is too large, aborts the stream. Closing Out
// means CloseSend; only a sole sender may do it. Before the sink was passed to a
// call Out returns another channel each time, and nothing takes from it.
//
// The first call starts a goroutine that ends with the sending half.
func (k *Sink[T]) Out() chan<- T {
	k.cmu.Lock()
	defer k.cmu.Unlock()
	if k.ch != nil {
		return k.ch
	}
	s, coming := k.awaited()
	if s == nil && coming == nil {
		return make(chan T)
	}
	k.ch, k.stop, k.pumped, k.stopped = make(chan T), make(chan struct{}), make(chan struct{}), false
	k.setFlush(k.endOut)
	go k.pump(s, coming)
	return k.ch
}

// pump takes values from Out until the sending half is over. Without s it waits for the
// stream first.
func (k *Sink[T]) pump(s *kernel.Stream, coming <-chan struct{}) {
	defer close(k.pumped)
	for s == nil {
		<-coming
		if s = k.known(); s == nil {
			if coming = k.resetOut(); coming == nil {
				return
			}
		}
	}
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

// resetOut has the next Out start anew: the call has failed, or was not made. If the sink was
// passed to another call meanwhile, Out stays, and resetOut returns what is closed when that
// call has its stream.
func (k *Sink[T]) resetOut() (coming <-chan struct{}) {
	k.cmu.Lock()
	defer k.cmu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.coming != nil {
		return k.coming
	}
	k.ch = nil
	k.ended = k.ended || k.stopped
	return nil
}

// lose ends the stream because a value taken from Out could not be sent, unless it
// was the stream's end that kept it.
func (k *Sink[T]) lose(s *kernel.Stream, v T, err error) {
	if m, ok := any(v).(pool.Message); ok {
		m.Release()
	}
	select {
	case <-s.SendDone():
	default:
		code := status.InvalidArgument
		if errors.Is(err, kernel.ErrTooLarge) {
			code = status.TooLarge
		}
		s.AbortCause(code, clip(err.Error()), err)
	}
}

// endOut ends the sending half behind what Out has taken, and waits until that is
// sent, or never will be, or ctx ends.
func (k *Sink[T]) endOut(ctx context.Context) {
	_ = k.CloseSend()
	select {
	case <-k.pumped:
	case <-ctx.Done():
	}
}
