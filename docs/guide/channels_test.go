package guide_test

import (
	"context"
	"errors"
	"fmt"
	"io"

	"testing"
	"time"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

func echoBySelect(ctx context.Context, s *kernel.Stream) error {
	var held pool.Message
	in, slots := s.In(), (<-chan actor.Slot)(nil)
	for {
		select {
		case m, ok := <-in:
			if !ok {
				return s.Err() // nil if the peer ended cleanly
			}
			held, in, slots = m, nil, s.Writable()
		case slot, ok := <-slots:
			if !ok {
				return s.Err() // the peer reads no more, or the stream failed
			}
			if err := slot.Send(held); err != nil {
				return err
			}
			in, slots = s.In(), nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func merge(a, b *kernel.Stream, handle func(from *kernel.Stream, m pool.Message)) error {
	inA, inB := a.In(), b.In()
	for inA != nil || inB != nil {
		select {
		case m, ok := <-inA:
			if !ok {
				inA = nil // never ready again
				continue
			}
			handle(a, m)
		case m, ok := <-inB:
			if !ok {
				inB = nil
				continue
			}
			handle(b, m)
		}
	}
	return errors.Join(a.Err(), b.Err())
}

// A tagged message says where it came from.
type tagged struct {
	from *kernel.Stream
	m    pool.Message
}

func forward(ctx context.Context, s *kernel.Stream, to chan<- tagged) error {
	for m, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		select {
		case to <- tagged{s, m}:
		case <-ctx.Done():
			m.Release()
			return context.Cause(ctx)
		}
	}
	return nil
}

func serveUntilIdle(s *kernel.Stream, handle func(pool.Message)) error {
	in, idle := s.In(), s.Idle() // StreamOptions.IdleTimeout is set
	for {
		select {
		case m, ok := <-in:
			if !ok {
				return s.Err()
			}
			handle(m)
		case since := <-idle:
			return &status.HandlerError{
				Code:   status.IdleTimeout,
				Reason: fmt.Sprintf("nothing received for %v", time.Since(since)),
			}
		}
	}
}

func produce(s *kernel.Stream, quit <-chan struct{}, next func() pool.Message) error {
	for {
		select {
		case <-quit:
			return s.CloseSend() // what was sent still arrives
		case slot, ok := <-s.Writable():
			if !ok {
				return s.Err()
			}
			if err := slot.Send(next()); err != nil {
				return err
			}
		}
	}
}

func countBatches(s *kernel.Stream) (messages, bytes int, err error) {
	for b := range s.Batches() {
		for i := range b.Len() {
			messages++
			bytes += b.At(i).Len()
		}
		b.Release() // and the messages in it, but for those taken out by Keep
	}
	return messages, bytes, s.Err()
}

func countLent(ctx context.Context, s *kernel.Stream) (messages, bytes int, err error) {
	for {
		lent, err := s.ReceiveBatch(ctx)
		if errors.Is(err, io.EOF) {
			return messages, bytes, nil
		}
		if err != nil {
			return messages, bytes, err
		}
		for _, p := range lent { // valid until the next ReceiveBatch: copy what you keep
			messages++
			bytes += len(p)
		}
	}
}

func both(ctx context.Context, s *kernel.Stream, next func() (pool.Message, bool), handle func(pool.Message)) error {
	sent := make(chan error, 1)
	go func() {
		for m, ok := next(); ok; m, ok = next() {
			if err := s.Send(ctx, m); err != nil {
				m.Release()
				sent <- err
				return
			}
		}
		sent <- s.CloseSend()
	}()
	for m, err := range s.All(ctx) {
		if err != nil {
			s.Abort(status.Cancelled, "reader failed") // the sender must end too
			<-sent
			return err
		}
		handle(m)
	}
	return <-sent
}

func copyTo(s *kernel.Stream, from <-chan []byte) error {
	for p := range from {
		m := pool.MessageOf(p)
		select {
		case s.Out() <- m:
		case <-s.SendDone():
			m.Release()
			return s.Err()
		}
	}
	close(s.Out()) // as CloseSend
	return nil
}

// recipe runs f on the two ends of a stream, in a bubble.
func recipe(t *testing.T, a, b kernel.StreamOptions, f func(t *testing.T, w *world, a, b *kernel.Stream)) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		x, y := w.Pair(a, b)
		f(t, w, x, y)
	})
}

func TestEchoBySelect(t *testing.T) {
	recipe(t, kernel.StreamOptions{}, kernel.StreamOptions{}, func(t *testing.T, w *world, a, b *kernel.Stream) {
		done := make(chan error, 1)
		go func() { done <- echoBySelect(w.Ctx, b) }()
		for i := range 100 {
			w.Send(a, "%d", i)
			w.Want(a, "%d", i)
		}
		_ = a.CloseSend()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestMergeTakesFromBothUntilBothHaveEnded(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, x := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		b, y := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		got := map[*kernel.Stream]int{}
		done := make(chan error, 1)
		go func() {
			done <- merge(x, y, func(from *kernel.Stream, m pool.Message) { got[from]++; m.Release() })
		}()
		for i := range 10 {
			w.Send(a, "%d", i)
		}
		_ = a.CloseSend()
		w.Send(b, "late")
		_ = b.CloseSend()
		if err := <-done; err != nil || got[x] != 10 || got[y] != 1 {
			t.Errorf("%d and %d messages, %v", got[x], got[y], err)
		}
	})
}

func TestForwardBringsManyStreamsTogether(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		all := make(chan tagged)
		ended := make(chan error)
		for i := range 5 {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			w.Send(a, "%d", i)
			_ = a.CloseSend()
			go func() { ended <- forward(w.Ctx, b, all) }()
		}
		for n, m := 0, 0; n < 5 || m < 5; {
			select {
			case x := <-all:
				x.m.Release()
				m++
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
				n++
			}
		}
	})
}

func TestServeUntilIdleEndsWithTheSilence(t *testing.T) {
	recipe(t, kernel.StreamOptions{}, kernel.StreamOptions{IdleTimeout: time.Minute}, func(t *testing.T, w *world, a, b *kernel.Stream) {
		w.Send(a, "sign of life")
		err := serveUntilIdle(b, pool.Message.Release)
		var he *status.HandlerError
		if !errors.As(err, &he) || he.Code != status.IdleTimeout {
			t.Error(err)
		}
	})
}

func TestProduceEndsInOrderWhenTold(t *testing.T) {
	recipe(t, kernel.StreamOptions{}, kernel.StreamOptions{}, func(t *testing.T, w *world, a, b *kernel.Stream) {
		quit, done := make(chan struct{}), make(chan error, 1)
		n := 0
		go func() { done <- produce(a, quit, func() pool.Message { n++; return text("%d", n) }) }()
		for i := range 10 {
			w.Want(b, "%d", i+1)
		}
		close(quit)
		last := 0
		for m, err := range b.All(w.Ctx) {
			if err != nil {
				t.Fatal(err)
			}
			last++
			m.Release()
		}
		if err := <-done; err != nil || last+10 != n {
			t.Errorf("%d produced, %d arrived, %v", n, last+10, err)
		}
	})
}

func TestCountBatchesSeesEveryMessage(t *testing.T) {
	recipe(t, kernel.StreamOptions{}, kernel.StreamOptions{MaxBatch: 7}, func(t *testing.T, w *world, a, b *kernel.Stream) {
		go func() {
			for range 500 {
				w.SendMessage(a, sized(10, 3))
			}
			_ = a.CloseSend()
		}()
		if n, bytes, err := countBatches(b); n != 500 || bytes != 5000 || err != nil {
			t.Errorf("%d messages, %d bytes, %v", n, bytes, err)
		}
	})
}

func TestCountLentSeesEveryMessage(t *testing.T) {
	recipe(t, kernel.StreamOptions{}, kernel.StreamOptions{}, func(t *testing.T, w *world, a, b *kernel.Stream) {
		go func() {
			for range 500 {
				_ = a.SendCopy(w.Ctx, make([]byte, 10))
			}
			_ = a.CloseSend()
		}()
		if n, bytes, err := countLent(w.Ctx, b); n != 500 || bytes != 5000 || err != nil {
			t.Errorf("%d messages, %d bytes, %v", n, bytes, err)
		}
	})
}

func TestBothHalvesRunAtOnce(t *testing.T) {
	recipe(t, kernel.StreamOptions{}, kernel.StreamOptions{}, func(t *testing.T, w *world, a, b *kernel.Stream) {
		go func() { _ = echoBySelect(w.Ctx, b); _ = b.CloseSend() }()
		sent, got := 0, 0
		err := both(w.Ctx, a, func() (pool.Message, bool) {
			if sent == 300 {
				return pool.Message{}, false
			}
			sent++
			return sized(5000, 1), true
		}, func(m pool.Message) { got++; m.Release() })
		if err != nil || got != 300 {
			t.Errorf("%d of 300 came back, %v", got, err)
		}
	})
}

func TestCopyToBringsAChannelToTheOtherSide(t *testing.T) {
	recipe(t, kernel.StreamOptions{}, kernel.StreamOptions{}, func(t *testing.T, w *world, a, b *kernel.Stream) {
		from := make(chan []byte)
		go func() {
			for i := range 100 {
				from <- fmt.Appendf(nil, "%d", i)
			}
			close(from)
		}()
		go func() {
			if err := copyTo(a, from); err != nil {
				t.Error(err)
			}
		}()
		for i := range 100 {
			w.Want(b, "%d", i)
		}
		w.WantEOF(b)
	})
}
