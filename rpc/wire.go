package rpc

import (
	"context"
	"fmt"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A callWire is how a call that passes streams came in, which depends on the protocol.
type callWire interface {
	// request waits for the arguments.
	request(ctx context.Context) (pool.Message, error)
	// stream takes the stream that stands in the arguments as id.
	stream(ctx context.Context, id uint64) (*kernel.Stream, error)
	// unnamed is how many streams came with the call that no argument has taken.
	unnamed() int
	// answer accepts the streams and sends the result.
	answer(ctx context.Context, reply pool.Message) error
	// refuse says that the call has failed, if the handler's error does not.
	refuse(code status.Code, reason string)
	// detached tells whether the functions that serve the call's streams go on without
	// its handler; else the handler counts as running until they have returned.
	detached() bool
}

// callWireOf returns how o came in.
func callWireOf(o *kernel.Offer) callWire {
	if o.Conn().Caps().StreamsByID {
		return &streamsByID{o: o}
	}
	return &inlineStreams{o: o}
}

// inlineStreams is a call whose request opens its streams: they stand in it by their
// places, and the result travels with their acceptance.
type inlineStreams struct {
	o     *kernel.Offer
	taken int
	names []bool
}

func (w *inlineStreams) request(context.Context) (pool.Message, error) {
	w.names = make([]bool, w.o.Streams())
	m := w.o.Request()
	defer m.Forget() // the stream shows it to whoever asks
	return m.Share(), nil
}

func (w *inlineStreams) stream(_ context.Context, id uint64) (*kernel.Stream, error) {
	if id >= uint64(len(w.names)) || w.names[id] {
		return nil, fmt.Errorf("the request opens %d streams, and names number %d", len(w.names), id)
	}
	w.names[id] = true
	w.taken++
	return w.o.Stream(int(id)), nil
}

func (w *inlineStreams) unnamed() int {
	if w.taken == 0 && len(w.names) == 1 {
		return 0 // a call that passes none: something must carry it
	}
	return len(w.names) - w.taken
}

func (w *inlineStreams) answer(_ context.Context, reply pool.Message) error {
	ss, err := w.o.AcceptAll(reply, nil)
	if err != nil {
		return err
	}
	if w.taken == 0 {
		ss[0].Finish(nil)
	}
	return nil
}

func (w *inlineStreams) refuse(code status.Code, reason string) { w.o.Reject(code, reason) }

func (w *inlineStreams) detached() bool { return false }

// streamsByID is a call that names streams which are open already, each on a connection
// of its own.
type streamsByID struct {
	o *kernel.Offer
	s *kernel.Stream // the call
}

func (w *streamsByID) request(ctx context.Context) (pool.Message, error) {
	var err error
	if w.s, err = w.o.Accept(pool.Message{}, nil); err != nil {
		return pool.Message{}, err
	}
	return w.s.Receive(ctx)
}

func (w *streamsByID) stream(ctx context.Context, id uint64) (*kernel.Stream, error) {
	return w.o.Conn().TakeStream(ctx, id)
}

func (w *streamsByID) unnamed() int { return 0 }

func (w *streamsByID) answer(ctx context.Context, reply pool.Message) error {
	err := w.s.Send(ctx, reply)
	if err == nil {
		w.s.Finish(nil)
	}
	return err
}

func (w *streamsByID) refuse(status.Code, string) {} // the handler's error does it

func (w *streamsByID) detached() bool { return true }
