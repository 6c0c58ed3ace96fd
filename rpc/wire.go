package rpc

import (
	"context"
	"fmt"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// A callWire is the offer of a call that passes streams. They stand in its request by
// numbers: with byID those of streams that are open already, each on a connection of its
// own; else their places among the streams that the request opens.
type callWire struct {
	o     *kernel.Offer
	byID  bool
	taken int
	names []bool // by place
}

// stream takes the stream that stands in the request as id.
func (w *callWire) stream(ctx context.Context, id uint64) (*kernel.Stream, error) {
	if w.byID {
		return w.o.Conn().TakeStream(ctx, id)
	}
	if w.names == nil {
		w.names = make([]bool, w.o.Streams())
	}
	if id >= uint64(len(w.names)) || w.names[id] {
		return nil, fmt.Errorf("the request opens %d streams, and names number %d", len(w.names), id)
	}
	w.names[id] = true
	w.taken++
	return w.o.Stream(int(id)), nil
}

// unnamed is how many streams came with the call that no argument has taken.
func (w *callWire) unnamed() int {
	if n := w.o.Streams(); w.taken > 0 || n > 1 {
		return n - w.taken
	}
	return 0 // a call that passes none, or none of its own: something must carry it
}

// answer accepts the call and its streams with the result.
func (w *callWire) answer(reply pool.Message) error {
	ss, err := w.o.AcceptAll(reply, nil)
	if err == nil && w.taken == 0 {
		ss[0].Finish(nil)
	}
	return err
}
