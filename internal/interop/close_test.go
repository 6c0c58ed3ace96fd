package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// pair makes a stream with both its ends, by a call where streams have no method.
func (x wire) pair(t *testing.T, w *world, opts kernel.StreamOptions) (client, server *kernel.Stream) {
	t.Helper()
	if x.streams {
		return w.Pair(opts, opts)
	}
	taken := make(chan *kernel.Stream, 1)
	w.Srv.Remove("#9")
	w.Srv.Handle("#9", func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Request(ctx)
		if err != nil {
			return err
		}
		b, err := s.Conn().TakeStream(ctx, binary.LittleEndian.Uint64(m.Bytes()))
		if err == nil {
			taken <- b
		}
		m.Release()
		return err
	})
	a := testkit.Must[*kernel.Stream](t)(w.Client.Open(w.Ctx, "", &kernel.OpenOptions{Stream: opts}))
	_, id := a.CallRef()
	reply := testkit.Must[pool.Message](t)(w.Client.Call(w.Ctx, "#9", pool.MessageOf(binary.LittleEndian.AppendUint64(nil, id)), nil))
	reply.Release()
	b := testkit.Handled(w, taken)
	w.Cleanup(a, b)
	return a, b
}

// What goes on on a stream, in a goroutine, when one side closes it.
var (
	readers = map[string]func(ctx context.Context, s *kernel.Stream) (int, error){
		"Receive": func(ctx context.Context, s *kernel.Stream) (n int, err error) {
			for {
				m, err := s.Receive(ctx)
				if err != nil {
					return n, err
				}
				m.Release()
				n++
			}
		},
		"All": func(ctx context.Context, s *kernel.Stream) (n int, err error) {
			for m, err := range s.All(ctx) {
				if err != nil {
					return n, err
				}
				m.Release()
				n++
			}
			return n, io.EOF
		},
		"In": func(_ context.Context, s *kernel.Stream) (n int, err error) {
			for m := range s.In() {
				m.Release()
				n++
			}
			return n, s.Err()
		},
		"Batches": func(_ context.Context, s *kernel.Stream) (n int, err error) {
			for b := range s.Batches() {
				n += b.Len()
				b.Release()
			}
			return n, s.Err()
		},
	}
	// senders send until they can't.
	senders = map[string]func(ctx context.Context, s *kernel.Stream) error{
		"Send": func(ctx context.Context, s *kernel.Stream) error {
			for {
				m := sized(30_000, 7)
				if err := s.Send(ctx, m); err != nil {
					m.Release()
					return err
				}
			}
		},
		"Out": func(ctx context.Context, s *kernel.Stream) error {
			for {
				m := sized(30_000, 7)
				select {
				case s.Out() <- m:
				case <-s.SendDone():
					m.Release()
					m = pool.New(0)
					err := s.TrySend(m) // says why
					m.Release()
					return err
				case <-ctx.Done():
					m.Release()
					return ctx.Err()
				}
			}
		},
		"Writable": func(ctx context.Context, s *kernel.Stream) error {
			for {
				select {
				case slot, ok := <-s.Writable():
					m := sized(30_000, 7)
					if !ok {
						err := s.TrySend(m)
						m.Release()
						return err
					}
					if err := slot.Send(m); err != nil {
						m.Release()
						return err
					}
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
	}
)

// Close ends both directions, whoever closes, whatever is unread and whoever waits.
func TestCloseEndsBothDirections(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{MaxMessage: 64 << 10, SenderWindow: 256 << 10}}
	co := &kernel.ClientOptions{Limits: so.Limits}
	for _, x := range wires {
		for _, closer := range []string{"client", "server"} {
			t.Run(x.name+"/"+closer, func(t *testing.T) {
				w := x.start(t, so, co)
				pair := func() (a, b *kernel.Stream) {
					a, b = x.pair(t, w, kernel.StreamOptions{SendLimit: 64 << 10})
					if closer == "server" {
						a, b = b, a
					}
					return a, b
				}
				for name, read := range readers {
					t.Run(name, func(t *testing.T) { x.closeWhileReading(t, w, read, name, pair) })
				}
				for name, send := range senders {
					t.Run(name, func(t *testing.T) { x.closeWhileSending(t, w, send, pair) })
				}
			})
		}
	}
}

// closed closes s, and says how that ended.
func closed(w *world, s *kernel.Stream) <-chan error {
	c := make(chan error, 1)
	go func() { c <- s.Close(w.Ctx) }()
	return c
}

type counted struct {
	n   int
	err error
}

func (x wire) closeWhileReading(t *testing.T, w *world, read func(context.Context, *kernel.Stream) (int, error), name string, pair func() (a, b *kernel.Stream)) {
	reading := func(s *kernel.Stream) <-chan counted {
		c := make(chan counted, 1)
		go func() {
			n, err := read(w.Ctx, s)
			c <- counted{n, err}
		}()
		return c
	}
	isChannel := name == "In" || name == "Batches"
	// The peer reads: it gets all that was sent, and then the end in order.
	a, b := pair()
	got := reading(b)
	for range 20 {
		w.Send(a, "before the end")
	}
	over := closed(w, a)
	want := counted{20, io.EOF}
	if isChannel {
		want.err = nil
	}
	if r := testkit.Handled(w, got); r.n != want.n || !errors.Is(r.err, want.err) {
		t.Errorf("the peer's reader: %v, want %v", r, want)
	}
	_ = b.CloseSend()
	ok(t, testkit.Handled(w, over))
	ok(t, b.Err())

	// This side reads: it is woken, and what it has not read is dropped.
	a, b = pair()
	got = reading(a)
	w.Send(b, "read")
	over = closed(w, a)
	want = counted{1, kernel.ErrClosed}
	if isChannel {
		want.err = nil
	}
	if r := testkit.Handled(w, got); r.n > want.n || !errors.Is(r.err, want.err) {
		t.Errorf("this side's reader: %v, want %v", r, want)
	}
	w.WantEOF(b)
	_ = b.CloseSend()
	ok(t, testkit.Handled(w, over))
	if m, err := a.Receive(w.Ctx); !errors.Is(err, kernel.ErrClosed) {
		t.Errorf("after Close: %q, %v", m.Bytes(), err)
	}

	// Both close at once, with messages that nobody has read.
	a, b = pair()
	for range 5 {
		w.Send(a, "unread")
		w.Send(b, "unread")
	}
	over, peersOver := closed(w, a), closed(w, b)
	ok(t, testkit.Handled(w, over))
	ok(t, testkit.Handled(w, peersOver))

	// The peer had ended its half, and not all was read: that is dropped.
	a, b = pair()
	w.Send(b, "unread")
	if x.name == "brpc" { // its CLOSE ends both halves
		closed(w, b)
	} else {
		ok(t, b.CloseSend())
	}
	w.Eventually("the message to arrive", func() bool { return a.Snapshot().MailboxMessages > 0 })
	over = closed(w, a)
	if x.name != "brpc" {
		w.WantEOF(b)
	}
	ok(t, testkit.Handled(w, over))
	if m, err := a.Receive(w.Ctx); !errors.Is(err, kernel.ErrClosed) {
		t.Errorf("after Close with a message unread: %q, %v", m.Bytes(), err)
	}
	ok(t, b.Close(w.Ctx))
}

func (x wire) closeWhileSending(t *testing.T, w *world, send func(context.Context, *kernel.Stream) error, pair func() (a, b *kernel.Stream)) {
	sending := func(s *kernel.Stream) <-chan error {
		c := make(chan error, 1)
		go func() { c <- send(w.Ctx, s) }()
		before, still := uint64(0), 0 // until nothing takes more
		w.Eventually("a sender that waits", func() bool {
			i := s.Snapshot()
			n := i.MessagesSent + uint64(i.QueuedMessages)
			if still++; n != before || n == 0 {
				before, still = n, 0
			}
			return still > 50
		})
		return c
	}
	// This side sends: what was accepted is delivered.
	a, b := pair()
	sent := sending(a)
	over := closed(w, a)
	isErr(t, "this side's sender", testkit.Handled(w, sent), kernel.ErrSendClosed)
	n := 0
	for m, err := range b.All(w.Ctx) {
		if err != nil {
			t.Fatal(err)
		}
		m.Release()
		n++
	}
	if i := a.Snapshot(); int(i.MessagesSent) != n {
		t.Errorf("%d messages came, %d were sent", n, i.MessagesSent)
	}
	_ = b.CloseSend()
	ok(t, testkit.Handled(w, over))

	// The peer sends, and nobody reads: it is told, where that can be said.
	a, b = pair()
	sent = sending(b)
	over = closed(w, a)
	w.WantEOF(b)
	if x.streams {
		isErr(t, "the peer's sender", testkit.Handled(w, sent), kernel.ErrStopped)
	} else {
		_ = b.CloseSend() // its messages are dropped until it ends itself
		isErr(t, "the peer's sender", testkit.Handled(w, sent), kernel.ErrSendClosed)
	}
	ok(t, testkit.Handled(w, over))
	ok(t, b.Close(w.Ctx))
}
