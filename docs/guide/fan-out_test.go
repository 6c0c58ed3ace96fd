package guide_test

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A hub sends each message to all subscribers.
type hub struct {
	mu     sync.Mutex
	queues map[chan pool.Message]context.CancelCauseFunc
}

// behind is how many messages a subscriber may be behind.
const behind = 1000

var errSlow = &status.HandlerError{Code: status.ResourceExhausted, Reason: "too slow"}

// publish gives m to all subscribers and never waits. It ends those whose queue is full.
func (h *hub) publish(m pool.Message) {
	defer m.Release()
	h.mu.Lock()
	defer h.mu.Unlock()
	for queue, end := range h.queues {
		share := m.Share() // the same bytes, another handle
		select {
		case queue <- share:
		default:
			share.Release()
			end(errSlow)
		}
	}
}

// subscribe is the handler.
func (h *hub) subscribe(ctx context.Context, s *kernel.Stream) error {
	ctx, end := context.WithCancelCause(ctx)
	queue := make(chan pool.Message, behind)
	h.add(queue, end)
	defer h.remove(queue)
	for {
		select {
		case m := <-queue:
			if err := s.Send(ctx, m); err != nil { // waits for credit; ends with ctx
				m.Release()
				return cmp.Or(context.Cause(ctx), err)
			}
		case <-s.GoingAway():
			return nil // the server drains
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (h *hub) add(queue chan pool.Message, end context.CancelCauseFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.queues == nil {
		h.queues = map[chan pool.Message]context.CancelCauseFunc{}
	}
	h.queues[queue] = end
}

func (h *hub) remove(queue chan pool.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.queues, queue)
	close(queue)
	for m := range queue {
		m.Release()
	}
}

func broadcast(m pool.Message, to []*kernel.Stream) (skipped []*kernel.Stream) {
	defer m.Release()
	for _, s := range to {
		share := m.Share()
		if err := s.TrySend(share); err != nil {
			share.Release() // still ours
			if errors.Is(err, kernel.ErrWouldBlock) {
				skipped = append(skipped, s)
			}
		}
	}
	return skipped
}

// subscribers opens n streams to a hub.
func subscribers(t *testing.T, w *world, n int) (h *hub, streams []*kernel.Stream) {
	t.Helper()
	h = &hub{}
	w.Srv.Handle("news", h.subscribe)
	for range n {
		streams = append(streams, w.Open("news"))
	}
	synctest.Wait()
	t.Cleanup(func() {
		for _, s := range streams {
			s.Abort(status.Cancelled, "test over")
		}
	})
	return h, streams
}

// A burst that is longer than the credit of a new stream reaches all who read.
func TestHubBringsABurstToNewSubscribers(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		h, streams := subscribers(t, w, 180)
		for i := range 500 {
			h.publish(text("%0100d", i))
		}
		for _, s := range streams {
			for i := range 500 {
				w.Want(s, "%0100d", i)
			}
		}
	})
}

func TestHubEndsWhoIsSlowAndNobodyElse(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		h, streams := subscribers(t, w, 2)
		stuck, reader := streams[0], streams[1]
		for i := range 2 * behind {
			h.publish(text("%0100d", i))
			w.Want(reader, "%0100d", i)
		}
		for n := 0; ; n++ {
			m, err := stuck.Receive(w.Ctx)
			if err == nil {
				m.Release()
				continue
			}
			if !errors.Is(err, &status.StreamError{Code: status.ResourceExhausted}) || n < 10 {
				t.Errorf("%v after %d messages", err, n)
			}
			break
		}
		h.publish(text("more"))
		w.Want(reader, "more")
	})
}

func TestBroadcastLeavesOutWhoIsSlow(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		fast, reader := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		stuck, _ := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{Window: 64})
		for m := text("filler"); ; m = text("filler") {
			if err := stuck.TrySend(m); err != nil {
				m.Release()
				break
			}
		}
		skipped := broadcast(text("news"), []*kernel.Stream{fast, stuck})
		if len(skipped) != 1 || skipped[0] != stuck {
			t.Errorf("skipped: %v", skipped)
		}
		w.Want(reader, "news")
	})
}

// A new stream that nobody reads takes as many messages of 100 bytes as the page says.
func TestANewStreamTakesFewMessages(t *testing.T) {
	recipe(t, kernel.StreamOptions{}, kernel.StreamOptions{}, func(t *testing.T, w *world, a, _ *kernel.Stream) {
		n := 0
		for ; ; n++ {
			m := sized(100, 1)
			if err := a.TrySend(m); err != nil {
				m.Release()
				break
			}
		}
		if n != 64 {
			t.Errorf("a new stream takes %d messages, the page says 64", n)
		}
	})
}
