package kernel_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// In holds no more than 16 KiB, or one larger message that entered when it was
// empty, however much waits in the mailbox.
func TestInHoldsLittle(t *testing.T) {
	for name, c := range map[string]struct {
		size, buffer int
		want         int // messages in In's buffer
	}{
		"small messages fill it":    {100, 16, 16},
		"a KiB each":                {1 << 10, 16, 16},
		"a little more, one less":   {1<<10 + 1, 16, 15},
		"larger ones go alone":      {10_000, 16, 1},
		"very large ones go alone":  {100_000, 16, 1},
		"one that holds two":        {8 << 10, 2, 2},
		"none":                      {10, kernel.None, 0},
		"many, of which 16 KiB fit": {16, 1024, 1024},
		"many, as many as fit":      {17, 1024, 963},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, nil, func(t *testing.T, w *world) {
				a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{Window: 4 << 20, InBuffer: c.buffer})
				n := max(20, c.want+4)
				for i := range n {
					w.SendMessage(a, sized(c.size, byte(i)))
				}
				w.Quiesce()
				in := b.In()
				w.Quiesce()
				for i := range n {
					want := min(c.want, n-i)
					if len(in) > want || i == 0 && len(in) != want {
						t.Fatalf("In holds %d messages before message %d is taken, want %d", len(in), i, want)
					}
					m := <-in
					if m.Bytes()[0] != byte(i) {
						t.Fatalf("message %d is number %d", i, m.Bytes()[0])
					}
					m.Release()
					w.Quiesce()
				}
			})
		})
	}
}

// A large message that was taken and is not looked at still makes room.
func TestALargeMessageNeedNotBeTouched(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{Window: 1 << 20})
		for range 5 {
			w.SendMessage(a, sized(50_000, 1))
		}
		_ = a.CloseSend()
		var kept []pool.Message
		for m := range b.In() {
			kept = append(kept, m)
		}
		if len(kept) != 5 || b.Err() != nil {
			t.Errorf("%d messages, %v", len(kept), b.Err())
		}
		for _, m := range kept {
			m.Release()
		}
	})
}

// Receive and All read through In once In is in use, in order.
func TestReceiveReadsThroughIn(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		const n = 1000
		go func() {
			for i := range n {
				w.Send(a, "%d", i)
			}
			w.endSend(a)
		}()
		w.Want(b, "0")
		in := b.In()
		for i := 1; i < n; i++ {
			if i%3 == 0 {
				m := <-in
				if string(m.Bytes()) != decimal(i) {
					t.Fatalf("In gave %q, want %d", m.Bytes(), i)
				}
				m.Release()
				continue
			}
			w.Want(b, "%d", i)
		}
		w.WantEOF(b)
		wantClosed(t, "In", in)
		w.WantEOF(b)
	})
}

// A Receive that waits when In is asked for does not miss its message.
func TestInFoundByAWaitingReceive(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		for range 20 {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{InBuffer: kernel.None})
			got := make(chan error, 4)
			for range 4 {
				go func() {
					m, err := b.Receive(w.Ctx)
					m.Release()
					got <- err
				}()
			}
			_ = b.In()
			for i := range 4 {
				w.Send(a, "%d", i)
			}
			for range 4 {
				if err := <-got; err != nil {
					t.Error(err)
				}
			}
		}
	})
}

func TestReceiveReadsThroughBatches(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{MaxBatch: 4})
		for i := range 10 {
			w.Send(a, "%d", i)
		}
		_ = a.CloseSend()
		w.Quiesce()
		batches := b.Batches()
		for i := range 6 { // one whole batch, and half of the next
			w.Want(b, "%d", i)
		}
		batch := <-batches
		if batch.Len() != 2 || string(batch.At(0).Bytes()) != "8" {
			t.Fatalf("the next batch has %d messages", batch.Len())
		}
		batch.Release()
		w.Want(b, "6") // they were taken with the batch before
		w.Want(b, "7")
		w.WantEOF(b)
	})
}

// Batches gives what has arrived, MaxBatch at most, in order; a kept message
// survives the batch.
func TestBatches(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		const n, most = 500, 32
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{MaxBatch: most})
		go func() {
			for i := range n {
				w.Send(a, "%d", i)
			}
			w.endSend(a)
		}()
		var kept []pool.Message
		i := 0
		for batch := range b.Batches() {
			if batch.Len() < 1 || batch.Len() > most {
				t.Fatalf("a batch of %d", batch.Len())
			}
			for j := range batch.Len() {
				if got := string(batch.At(j).Bytes()); got != decimal(i) {
					t.Fatalf("message %d is %q", i, got)
				}
				i++
			}
			kept = append(kept, batch.Keep(0))
			batch.Release()
		}
		if i != n || b.Err() != nil {
			t.Fatalf("%d messages, %v", i, b.Err())
		}
		for _, m := range kept {
			if len(m.Bytes()) == 0 {
				t.Error("a kept message is gone")
			}
			m.Release()
		}
	})
}

// What waits in the mailbox comes as full batches.
func TestBatchesAreFull(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{MaxBatch: 10})
		for i := range 25 {
			w.Send(a, "%d", i)
		}
		_ = a.CloseSend()
		w.Quiesce()
		for _, want := range []int{10, 10, 5} {
			batch := <-b.Batches()
			if batch.Len() != want {
				t.Errorf("a batch of %d, want %d", batch.Len(), want)
			}
			batch.Release()
		}
		wantClosed(t, "Batches", b.Batches())
	})
}

func TestTheOtherChannelIsInUse(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		in := b.In()
		wantClosed(t, "Batches after In", b.Batches())
		if err := b.Err(); !errors.Is(err, kernel.ErrChannelInUse) {
			t.Errorf("Err: %v", err)
		}
		batches := a.Batches()
		wantClosed(t, "In after Batches", a.In())
		if err := a.Err(); !errors.Is(err, kernel.ErrChannelInUse) {
			t.Errorf("Err: %v", err)
		}
		w.Send(a, "x") // the first channel goes on
		(<-in).Release()
		w.Send(b, "y")
		(<-batches).Release()
	})
}

// Write-only: In is closed at once, the peer's sends fail, and the stream still ends
// cleanly.
func TestWriteOnly(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		for name, turn := range map[string]bool{"opener": false, "acceptor": true} {
			deaf := kernel.StreamOptions{NoReceive: true}
			var a, b *kernel.Stream
			if turn {
				b, a = w.Pair(kernel.StreamOptions{}, deaf)
			} else {
				a, b = w.Pair(deaf, kernel.StreamOptions{})
			}
			wantClosed(t, name+": In", a.In())
			wantClosed(t, name+": Batches", a.Batches())
			m := text("no")
			if err := b.Send(w.Ctx, m); !errors.Is(err, kernel.ErrNotReadable) {
				t.Fatalf("%s: Send gives %v", name, err)
			}
			if err := b.TrySend(m); !errors.Is(err, kernel.ErrNotReadable) {
				t.Fatalf("%s: TrySend gives %v", name, err)
			}
			m.Release()
			wantClosed(t, name+": Writable", b.Writable())
			wantClosed(t, name+": SendDone", b.SendDone())
			w.Send(a, "yes")
			w.Want(b, "yes")
			if err := a.CloseSend(); err != nil { // everywhere: nothing is cut off by it
				t.Fatalf("%s: CloseSend: %v", name, err)
			}
			w.WantEOF(b)
			if err := b.CloseSend(); err != nil {
				t.Fatalf("%s: CloseSend: %v", name, err)
			}
			w.WantDone(a)
			w.WantDone(b)
			if err := errors.Join(a.Err(), b.Err()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// Receive's context ends that one wait; a message that comes later is there for
// the next.
func TestACanceledReceiveLosesNothing(t *testing.T) {
	for name, use := range map[string]func(*kernel.Stream){
		"mailbox": func(*kernel.Stream) {}, "In": func(s *kernel.Stream) { s.In() }, "Batches": func(s *kernel.Stream) { s.Batches() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, nil, func(t *testing.T, w *world) {
				a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
				use(b)
				ctx, cancel := context.WithTimeout(w.Ctx, time.Second)
				defer cancel()
				if _, err := b.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				for m, err := range b.All(ctx) {
					m.Release()
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Fatal(err)
					}
				}
				w.Send(a, "x")
				w.Want(b, "x")
			})
		})
	}
}

// Every receiver gets its share, and each message goes to one.
func TestManyReceivers(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		const n = 2000
		got := make(chan string, n)
		over := make(chan error, 8)
		for range 8 {
			go func() {
				for {
					m, err := b.Receive(w.Ctx)
					if err != nil {
						over <- err
						return
					}
					got <- string(m.Bytes())
					m.Release()
				}
			}()
		}
		for i := range n {
			w.Send(a, "%d", i)
		}
		w.endSend(a)
		for range 8 {
			if err := <-over; !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		}
		seen := map[string]bool{}
		for range n {
			seen[<-got] = true
		}
		if len(seen) != n {
			t.Errorf("%d different messages of %d", len(seen), n)
		}
	})
}
