package kernel_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

func TestMessagesKeepTheirBoundariesAndOrder(t *testing.T) {
	sizes := []int{0, 1, 64, 0, 4095, 4096, 4097, 16 << 10, 16<<10 + 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20, 4 << 20, 3, 0}
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		s, err := w.Client.Open(w.Ctx, "echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() { // full duplex: the answers come while we send
			for i, n := range sizes {
				if err := s.Send(w.Ctx, sized(n, byte(i+1))); err != nil {
					sent <- err
					return
				}
			}
			if w.caps.HalfClose {
				sent <- s.CloseSend()
			} else {
				sent <- nil
			}
		}()
		for i, n := range sizes {
			m, err := s.Receive(w.Ctx)
			if err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
			if !bytes.Equal(m.Bytes(), bytes.Repeat([]byte{byte(i + 1)}, n)) {
				t.Fatalf("message %d: %d bytes, want %d of %d", i, m.Len(), n, i+1)
			}
			m.Release()
		}
		if w.caps.HalfClose {
			w.WantEOF(s)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if err := s.Close(w.Ctx); err != nil {
			t.Error(err)
		}
	})
}

// ways send one message by one of the four ways there are.
var ways = []struct {
	name string
	send func(ctx context.Context, s *kernel.Stream, m pool.Message) error
}{
	{"Send", func(ctx context.Context, s *kernel.Stream, m pool.Message) error { return s.Send(ctx, m) }},
	{"TrySend", func(ctx context.Context, s *kernel.Stream, m pool.Message) error {
		for {
			err := s.TrySend(m)
			if err != kernel.ErrWouldBlock { //nolint:errorlint // documented to be this very value
				return err
			}
			select { // wait for credit, leave it to others, try again
			case slot, ok := <-s.Writable():
				if !ok {
					return s.Err()
				}
				slot.Cancel()
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}},
	{"Slot", func(ctx context.Context, s *kernel.Stream, m pool.Message) error {
		select {
		case slot := <-s.Writable():
			return slot.Send(m)
		case <-ctx.Done():
			return ctx.Err()
		}
	}},
	{"Out", func(ctx context.Context, s *kernel.Stream, m pool.Message) error {
		select {
		case s.Out() <- m:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}},
}

// Each sender's messages arrive in the order in which it sent them, however
// many others send on the same stream by other means, and none is lost.
func TestOrderOfEverySenderHoldsAmongOthers(t *testing.T) {
	const senders, each = 8, 300
	so := &kernel.ServerOptions{Limits: kernel.Limits{StreamWindow: 2000}}
	overAll(t, so, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		var wg sync.WaitGroup
		for id := range senders {
			wg.Go(func() {
				for n := range each {
					m := pool.New(8 + n%60)
					binary.LittleEndian.PutUint32(m.Bytes(), uint32(id))
					binary.LittleEndian.PutUint32(m.Bytes()[4:], uint32(n))
					// Not Out: it hands over before a message is in the queue,
					// so that the next one's other way would overtake it.
					way := ways[(id+n/10)%3]
					if err := way.send(w.Ctx, a, m); err != nil {
						t.Errorf("sender %d, %s: %v", id, way.name, err)
						return
					}
				}
			})
		}
		wg.Go(func() { // one that stays with Out
			for n := range each {
				m := pool.New(8)
				binary.LittleEndian.PutUint32(m.Bytes(), senders)
				binary.LittleEndian.PutUint32(m.Bytes()[4:], uint32(n))
				if err := ways[3].send(w.Ctx, a, m); err != nil {
					t.Errorf("Out: %v", err)
				}
			}
		})
		go func() {
			wg.Wait()
			w.endSend(a)
		}()
		var next [senders + 1]uint32
		for m, err := range b.All(w.Ctx) {
			if err != nil {
				t.Fatal(err)
			}
			id, n := binary.LittleEndian.Uint32(m.Bytes()), binary.LittleEndian.Uint32(m.Bytes()[4:])
			if n != next[id] {
				t.Fatalf("sender %d: message %d came when %d was due", id, n, next[id])
			}
			next[id]++
			m.Release()
		}
		for id, n := range next {
			if n != each {
				t.Errorf("sender %d: %d of %d messages", id, n, each)
			}
		}
	})
}

// What one goroutine sends by different means arrives in the order of its calls.
func TestOneSenderMayMixItsMethods(t *testing.T) {
	overAll(t, &kernel.ServerOptions{Limits: kernel.Limits{StreamWindow: 512}}, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		const n = 600
		go func() {
			for i := range n {
				if err := ways[i%3].send(w.Ctx, a, text("%d", i)); err != nil {
					t.Error(err)
				}
			}
			w.endSend(a)
		}()
		for i := range n {
			w.Want(b, "%d", i)
		}
		w.WantEOF(b)
	})
}

// Closing Out ends the half after every message that was sent on it.
func TestCloseOfOutComesAfterItsMessages(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", func(ctx context.Context, s *kernel.Stream) error {
			for m := range s.In() {
				select {
				case s.Out() <- m:
				case <-s.SendDone():
					return s.Err()
				}
			}
			return s.Err()
		})
		s, err := w.Client.Open(w.Ctx, "echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		const n = 5000
		go func() {
			for i := range n {
				s.Out() <- text("%d", i)
			}
			close(s.Out())
		}()
		i := 0
		for m := range s.In() {
			if string(m.Bytes()) != decimal(i) {
				t.Fatalf("got %q, want %d", m.Bytes(), i)
			}
			m.Release()
			i++
		}
		if i != n || s.Err() != nil {
			t.Fatalf("%d messages, %v", i, s.Err())
		}
	})
}

// CloseSend while messages are on their way through Out ends the half behind
// what was taken from Out, and nothing is sent twice or lost.
func TestCloseSendLetsOutFinish(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		for i := range 100 {
			a.Out() <- text("%d", i)
		}
		w.endSend(a)
		for i := range 100 {
			w.Want(b, "%d", i)
		}
		w.WantEOF(b)
	})
}

// A message can go to many streams without a copy.
func TestOneMessageToManyStreams(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		m := sized(100_000, 7)
		var ends []*kernel.Stream
		for range 4 {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			ends = append(ends, b)
			w.SendMessage(a, m.Share())
		}
		m.Release()
		for _, b := range ends {
			got, err := b.Receive(w.Ctx)
			if err != nil || !bytes.Equal(got.Bytes(), bytes.Repeat([]byte{7}, 100_000)) {
				t.Fatalf("%d bytes, %v", got.Len(), err)
			}
			got.Release()
		}
	})
}
