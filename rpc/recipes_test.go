package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// The functions below are docs/channels.md's, word for word:
// TestTheRecipesAreTheDocuments. The tests after them run each.

func echoBySelect(ctx context.Context, s *kernel.Stream) error {
	var held pool.Message
	in, slots := s.In(), (<-chan actor.Slot)(nil)
	for {
		select {
		case m, ok := <-in:
			if !ok {
				return s.Err() // nil if the peer ended in order
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

func broadcast(m pool.Message, to []*kernel.Stream) (slow []*kernel.Stream) {
	defer m.Release()
	for _, s := range to {
		share := m.Share() // the same bytes, another handle
		if err := s.TrySend(share); err != nil {
			share.Release() // still ours
			if errors.Is(err, kernel.ErrWouldBlock) {
				slow = append(slow, s)
			}
		}
	}
	return slow
}

func latest(s *kernel.Stream, values <-chan string) error {
	var pending string
	have := false
	for {
		var slots <-chan actor.Slot
		if have {
			slots = s.Writable()
		}
		select {
		case v, ok := <-values:
			if !ok {
				return s.CloseSend()
			}
			pending, have = v, true // what nobody could take yet is replaced
		case slot, ok := <-slots:
			if !ok {
				return s.Err()
			}
			if err := slot.Send(pool.MessageOf([]byte(pending))); err != nil {
				return err
			}
			have = false
		case <-s.SendDone():
			return s.Err()
		}
	}
}

func sendWithin(s *kernel.Stream, m pool.Message, d time.Duration) error {
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	select {
	case slot, ok := <-s.Writable():
		if !ok {
			return kernel.ErrClosed
		}
		return slot.Send(m)
	case <-timeout.C:
		return context.DeadlineExceeded // m is still ours, and the stream lives on
	}
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

// What the handler is given and what the client passes are the same, with a source
// here where there is a sink there.
type scaleRequest struct {
	Factor  int32
	Numbers *rpc.Source[int32]
}

type scaleArgs struct {
	Factor  int32
	Numbers *rpc.Sink[int32]
}

func scale(_ context.Context, r scaleRequest) (*rpc.Sink[int64], error) {
	out := rpc.MakeSink[int64](r.Numbers) // the way back
	r.Numbers.Go(func(ctx context.Context) error {
		for n, err := range r.Numbers.All(ctx) {
			if err != nil {
				return err
			}
			if err := out.Send(ctx, int64(r.Factor)*int64(n)); err != nil {
				return err
			}
		}
		return nil // both halves end in order
	})
	return out, nil // now the call is answered, and then the function runs
}

func scaled(ctx context.Context, c kernel.Caller, factor int32) (*rpc.Sink[int32], *rpc.Source[int64], error) {
	sink, err := rpc.NewSink[int32](ctx, c, nil)
	if err != nil {
		return nil, nil, err
	}
	args := scaleArgs{factor, sink}
	source, err := rpc.Call[*rpc.Source[int64]](ctx, c, "scale", args, nil)
	return sink, source, err
}

func follow(ctx context.Context, c *kernel.Client, from func() metadata.MD, handle func(pool.Message)) error {
	for {
		s, err := c.Open(ctx, "feed", &kernel.OpenOptions{Metadata: from()})
		if err == nil {
			for m := range s.In() {
				handle(m)
			}
			err = s.Err()
		}
		var lost *status.ConnError // there is no connection, or none any more
		var no *status.StreamError
		switch {
		case err == nil:
			return nil // the feed has ended
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &lost), errors.As(err, &no) && no.NotProcessed:
			continue // Open makes the pause that ClientOptions.Backoff asks for
		}
		return err
	}
}

func doubleBySelect(ctx context.Context, b *rpc.Bidi[int32, int32]) error {
	in, out := b.In.In(), (chan<- int32)(nil)
	var held int32
	for {
		select {
		case n, ok := <-in:
			if !ok {
				return b.In.Err() // nil if the peer ended in order
			}
			held, in, out = 2*n, nil, b.Out.Out()
		case out <- held:
			in, out = b.In.In(), nil
		case <-b.Out.SendDone():
			return b.In.Err() // nil if the peer just reads no more
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func TestTheRecipesAreTheDocuments(t *testing.T) {
	const document = "../docs/channels.md"
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("recipes_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 10 {
		t.Errorf("%s has %d recipes", document, len(blocks))
	}
	for _, b := range blocks {
		if !strings.Contains(string(source), "\n"+b[1]) {
			t.Errorf("not in recipes_test.go:\n%s", b[1])
		}
	}
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

func TestFollowGoesOnWhereItWas(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Loose = true
		opens := 0
		w.Srv.Handle("feed", func(ctx context.Context, s *kernel.Stream) error {
			opens++
			from, err := strconv.Atoi(s.Metadata().Get("from"))
			for i := from; err == nil && i < 100; i++ {
				switch i {
				case from + 20:
					time.Sleep(time.Millisecond) // what was sent so far arrives
				case from + 30: // of what came after that some is lost
					return s.Conn().Close()
				}
				err = sendOrRelease(ctx, s, text("%d", i))
			}
			return err
		})
		n := 0
		err := follow(w.Ctx, w.Client, func() metadata.MD {
			return metadata.MD{{Key: "from", Value: strconv.Itoa(n)}}
		}, func(m pool.Message) {
			if got := string(m.Bytes()); got != strconv.Itoa(n) {
				t.Errorf("got %s, want %d", got, n)
			}
			m.Release()
			n++
		})
		if err != nil || n != 100 || opens < 4 {
			t.Errorf("%v after %d values and %d opens", err, n, opens)
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
		slow := broadcast(text("news"), []*kernel.Stream{fast, stuck})
		if len(slow) != 1 || slow[0] != stuck {
			t.Errorf("slow: %v", slow)
		}
		w.Want(reader, "news")
	})
}

func TestLatestReplacesWhatCouldNotBeSent(t *testing.T) {
	recipe(t, kernel.StreamOptions{SendLimit: 64}, kernel.StreamOptions{InBuffer: kernel.None}, func(t *testing.T, w *world, a, b *kernel.Stream) {
		values := make(chan string)
		done := make(chan error, 1)
		go func() { done <- latest(a, values) }()
		for i := range 1000 {
			values <- fmt.Sprintf("%060d", i)
		}
		first, err := b.Receive(w.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		first.Release()
		synctest.Wait() // the credit comes back, and the latest is sent
		n, last := 1, ""
		close(values)
		for m, err := range b.All(w.Ctx) {
			if err != nil {
				t.Fatal(err)
			}
			n, last = n+1, string(m.Bytes())
			m.Release()
		}
		if n > 10 || !strings.HasSuffix(last, "999") {
			t.Errorf("%d of 1,000 values were sent, the last is %q", n, last)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestSendWithinGivesUpTheWaitAndNotTheStream(t *testing.T) {
	recipe(t, kernel.StreamOptions{SendLimit: 64}, kernel.StreamOptions{}, func(t *testing.T, w *world, a, b *kernel.Stream) {
		for range 2 { // 12 bytes of credit are left for the second, which is enough
			if err := sendWithin(a, sized(20, 1), time.Second); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		m := sized(5, 2)
		if err := sendWithin(a, m, time.Second); err != context.DeadlineExceeded || time.Since(start) != time.Second {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		for range 2 {
			taken, err := b.Receive(w.Ctx)
			if err != nil {
				t.Fatal(err)
			}
			taken.Release()
		}
		if err := sendWithin(a, m, time.Second); err != nil {
			t.Error(err)
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

func TestScaleSendsBackWhatItIsSent(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		ok(t, rpc.HandleUnary(w.Srv, "scale", scale, nil))
		sink, source, err := scaled(w.Ctx, w.Client, 3)
		ok(t, err)
		for n := range int32(100) {
			ok(t, sink.Send(w.Ctx, n))
			takes(t, w, source, int64(3*n))
		}
		ok(t, sink.CloseSend())
		endsInOrder(t, w, source)
	})
}

func TestDoubleBySelect(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		done := make(chan error, 1)
		ok(t, rpc.HandleBidi(w.Srv, "double", func(ctx context.Context, d *rpc.Bidi[int32, int32]) error {
			err := doubleBySelect(ctx, d)
			done <- err
			return err
		}, nil))
		open := func() *rpc.Bidi[int32, int32] {
			return testkit.Must[*rpc.Bidi[int32, int32]](t)(rpc.CallBidi[int32, int32](w.Ctx, w.Client, "double", nil))
		}
		d := open()
		for n := range int32(100) {
			ok(t, d.Out.Send(w.Ctx, n))
			takes(t, w, d.In, 2*n)
		}
		ok(t, d.Out.CloseSend())
		endsInOrder(t, w, d.In)
		ok(t, <-done)

		d = open() // a peer that reads no more
		d.In.CloseReceive(status.OK)
		ok(t, <-done)
		ok(t, d.Out.CloseSend())
		d = open() // and one that is gone
		ok(t, d.Out.Send(w.Ctx, 1))
		takes(t, w, d.In, 2)
		d.Abort(status.Aborted, "enough")
		if err := <-done; err == nil {
			t.Error("a reset looks like an end in order")
		}
	})
}

func sendOrRelease(ctx context.Context, s *kernel.Stream, m pool.Message) error {
	err := s.Send(ctx, m)
	if err != nil {
		m.Release()
	}
	return err
}
