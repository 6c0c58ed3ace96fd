package guide_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A hub sends each message to all subscribers.
type hub struct {
	mu     sync.Mutex
	queues map[*kernel.Stream]chan pool.Message
}

const (
	behind    = 1000            // how many messages a subscriber may be behind
	lastWords = 2 * time.Second // for what was sent, when the server drains
)

// publish gives m to all subscribers and never waits. It ends the streams of those whose
// queue is full.
func (h *hub) publish(m pool.Message) {
	defer m.Release()
	h.mu.Lock()
	defer h.mu.Unlock()
	for s, queue := range h.queues {
		share := m.Share() // the same bytes, another handle
		select {
		case queue <- share:
		default:
			share.Release()
			s.Abort(status.ResourceExhausted, "too slow") // at once, and waits for nobody
			delete(h.queues, s)
		}
	}
}

// subscribe is the handler.
func (h *hub) subscribe(ctx context.Context, s *kernel.Stream) error {
	queue := make(chan pool.Message, behind)
	h.add(s, queue)
	defer h.remove(s, queue)
	var held pool.Message // at most one
	defer func() { held.Release() }()
	next, slots := queue, (<-chan actor.Slot)(nil)
	for {
		select {
		case held = <-next:
			next, slots = nil, s.Writable()
		case slot, ok := <-slots: // the stream has credit
			if !ok {
				return s.Err()
			}
			if err := slot.Send(held); err != nil {
				return err
			}
			held, next, slots = pool.Message{}, queue, nil
		case <-s.GoingAway(): // the server drains
			ctx, cancel := context.WithTimeout(ctx, lastWords)
			defer cancel()
			return s.Close(ctx) // what was sent still arrives; after 2 s the stream is reset
		case <-s.SendDone(): // the subscriber reads no more
			return s.Err()
		case <-ctx.Done(): // it was too slow, or is gone
			return context.Cause(ctx)
		}
	}
}

func (h *hub) add(s *kernel.Stream, queue chan pool.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.queues == nil {
		h.queues = map[*kernel.Stream]chan pool.Message{}
	}
	h.queues[s] = queue
}

func (h *hub) remove(s *kernel.Stream, queue chan pool.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.queues, s)
	close(queue)
	for m := range queue {
		m.Release()
	}
}

// A subscriber has at most 64 KiB unread, whatever window it grants.
var newsOptions = &kernel.ServerOptions{Stream: kernel.StreamOptions{SendLimit: 64 << 10}}

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

// A reader that takes nothing is told so at once, although it does not read.
func TestHubEndsWhoIsSlowAndNobodyElse(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		h, streams := subscribers(t, w, 2)
		stuck, reader := streams[0], streams[1]
		for i := range 2 * behind {
			h.publish(text("%0100d", i))
			w.Want(reader, "%0100d", i)
		}
		synctest.Wait()
		if err := stuck.Err(); !errors.Is(err, &status.StreamError{Code: status.ResourceExhausted}) {
			t.Errorf("the stuck one was told %v", err)
		}
		if n := len(h.queues); n != 1 {
			t.Errorf("%d subscribers are left, want 1", n)
		}
		h.publish(text("more"))
		w.Want(reader, "more")
		testkit.Drain(stuck)
	})
}

// One stuck subscriber makes a drain take as long as the page says. Who reads has all that
// its stream accepted, and a clean end.
func TestHubDrains(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		h, streams := subscribers(t, w, 2)
		reader := streams[1]
		for i := range behind {
			h.publish(text("%0100d", i))
			w.Want(reader, "%0100d", i)
		}
		read := make(chan error, 1)
		go func() {
			_, err := reader.Receive(w.Ctx)
			read <- err
		}()
		start := time.Now()
		if err := w.Srv.Shutdown(w.Ctx); err != nil || time.Since(start) > lastWords {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if err := <-read; !errors.Is(err, io.EOF) {
			t.Errorf("the reader's end: %v", err)
		}
		testkit.Drain(streams[0])
	})
}

// A subscriber that closes its stream is forgotten, though nothing is published.
func TestHubForgetsWhoCloses(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		h, streams := subscribers(t, w, 2)
		if err := streams[0].Close(w.Ctx); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := len(h.queues); n != 1 {
			t.Errorf("%d subscribers are left, want 1", n)
		}
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

// A new stream that nobody reads takes as many messages of 100 bytes as the page says, alone and
// beside many others.
func TestANewStreamTakesFewMessages(t *testing.T) {
	recipe(t, kernel.StreamOptions{}, kernel.StreamOptions{}, func(t *testing.T, w *world, a, _ *kernel.Stream) {
		if n := accepts(a); n != 497 {
			t.Errorf("a new stream takes %d messages, the page says 497", n)
		}
		for range 200 {
			a, _ = w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		}
		if n := accepts(a); n != 64 {
			t.Errorf("beside 200 others it takes %d messages, the page says 64", n)
		}
	})
}

// What waits at a subscriber that has stopped to read is bounded by what the sender has chosen, not by
// the window that the subscriber has grown.
func TestASendLimitBoundsWhatWaitsAtASubscriber(t *testing.T) {
	const size, overhead = 1 << 10, 32
	for name, c := range map[string]struct {
		options     *kernel.ServerOptions
		least, most int // bytes of credit that are unread at the subscriber: the window, of which half may not be granted yet
	}{
		"a limit of 64 KiB": {newsOptions, 32 << 10, 64 << 10},
		"no limit":          {nil, 512 << 10, 1 << 20},
	} {
		inBubble(t, c.options, nil, func(t *testing.T, w *world) {
			h, streams := subscribers(t, w, 1)
			s := streams[0]
			for range 3 * behind { // while it reads, its window grows
				h.publish(sized(size, 1))
				w.DrainN(s, 1)
			}
			for range behind {
				h.publish(sized(size, 2))
			}
			synctest.Wait()
			i := s.Snapshot()
			if unread := i.MailboxBytes + overhead*i.MailboxMessages; unread < c.least || unread > c.most {
				t.Errorf("%s: %d bytes are unread at the subscriber", name, unread)
			}
			for n := range behind { // it was not too slow: all that is behind the limit waits here
				m, err := s.Receive(w.Ctx)
				if err != nil || m.Len() != size {
					t.Fatalf("%s: message %d: %v", name, n, err)
				}
				m.Release()
			}
		})
	}
}

// The limit bounds the rate on a long path too: so much in a round trip, and no more.
func TestASendLimitBoundsTheRateOfALongPath(t *testing.T) {
	const rtt, size = 100 * time.Millisecond, 1 << 10
	synctest.Test(t, func(t *testing.T) {
		srv, err := kernel.NewServer(newsOptions)
		if err != nil {
			t.Fatal(err)
		}
		srv.Handle("flood", func(ctx context.Context, s *kernel.Stream) error {
			for {
				if err := s.Send(ctx, pool.New(size)); err != nil {
					return err
				}
			}
		})
		path := testkit.NewPath(rtt, 0)
		var serving sync.WaitGroup
		serving.Go(func() { _ = srv.Serve(context.Background(), path) })
		client, err := kernel.Dial(t.Context(), kerneltest.Target, &kernel.ClientOptions{Dial: path.Dial})
		if err != nil {
			t.Fatal(err)
		}
		s, err := client.Open(t.Context(), "flood", nil)
		if err != nil {
			t.Fatal(err)
		}
		n, start := 0, time.Now()
		for time.Since(start) < 20*rtt {
			m, err := s.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			n += m.Len()
			m.Release()
		}
		if each := n / 20; each < 50<<10 || each > 64<<10 {
			t.Errorf("%d bytes in a round trip", each)
		}
		testkit.OK(t, client.Close())
		testkit.OK(t, srv.Close())
		serving.Wait()
		time.Sleep(time.Minute) // what is under way arrives
	})
}

// accepts is how many messages of 100 bytes s accepts at once.
func accepts(s *kernel.Stream) int {
	for n := 0; ; n++ {
		m := sized(100, 1)
		if err := s.TrySend(m); err != nil {
			m.Release()
			return n
		}
	}
}
