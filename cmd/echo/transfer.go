package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// counts is what the streams of a transfer have done so far.
type counts struct {
	messages atomic.Int64 // come back and checked
	bytes    atomic.Int64 // of those
	stalls   atomic.Int64 // sends that had to wait for credit
}

// exchange sends a part over a stream and checks what comes back. The halves of
// a stream are independent: one goroutine sends, another receives. Only credit keeps
// the one from getting far ahead of the other.
func (t *group) exchange(w *wire, s *kernel.Stream, p part, n *counts) {
	t.run(func() error { return send(t.ctx, w, s, p, n) })
	t.run(func() error { return check(t.ctx, w, s, p, n) })
}

// send hands the part's messages to the stream, and then ends our half: what
// was handed over before CloseSend still arrives before the end.
func send(ctx context.Context, w *wire, s *kernel.Stream, p part, n *counts) error {
	for off, size := range p.cuts {
		m := pool.New(size) // from a pool: its last owner releases it
		if err := fill(m.Bytes(), p.src, off); err != nil {
			return err
		}
		err := s.TrySend(m)
		if errors.Is(err, kernel.ErrWouldBlock) {
			// Send alone would do. TrySend tells us that there was no credit: the
			// server has as much unread as its window allows.
			n.stalls.Add(1)
			err = s.Send(ctx, m)
		}
		if err != nil {
			m.Release() // a message that was not taken over is still ours
			return why(s, err)
		}
	}
	return w.end(s)
}

// check takes the part's messages back from the stream and compares each one's
// place, length and content.
func check(ctx context.Context, w *wire, s *kernel.Stream, p part, n *counts) error {
	var want []byte
	in, number := s.In(), 0
	for off, size := range p.cuts {
		m, ok := <-in
		if !ok {
			return fmt.Errorf("after %d messages: %w", number, why(s, io.ErrUnexpectedEOF))
		}
		want = grow(want, size)
		if err := fill(want, p.src, off); err != nil {
			return err
		}
		if !bytes.Equal(m.Bytes(), want) {
			return fmt.Errorf("stream %d, message %d: sent %d bytes from %d on, and %d other bytes came back",
				s.ID(), number, size, off, m.Len())
		}
		m.Release()
		number++
		n.messages.Add(1)
		n.bytes.Add(int64(size))
	}
	if err := w.done(ctx, s); err != nil {
		return err
	}
	if m, ok := <-in; ok {
		return fmt.Errorf("stream %d: %d bytes came back that were not sent", s.ID(), m.Len())
	}
	// A closed channel means that no message follows. Err tells a clean end from any
	// other.
	return s.Err()
}

// why returns the stream's own error if it has one: it says more than that of the
// operation at hand.
func why(s *kernel.Stream, err error) error {
	if serr := s.Err(); serr != nil {
		return serr
	}
	return err
}

func fill(p []byte, src io.ReaderAt, off int64) error {
	n, err := src.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case errors.Is(err, io.EOF):
		return errors.New("the file has become shorter")
	}
	return err
}

func grow(p []byte, n int) []byte {
	if cap(p) < n {
		p = make([]byte, n)
	}
	return p[:n]
}

// A group is goroutines that work on one task, as in errgroup. The first that fails
// cancels ctx for all. Streams opened with ctx end with it, which wakes every goroutine
// that waits on one.
type group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

func newGroup(ctx context.Context) *group {
	t := &group{}
	t.ctx, t.cancel = context.WithCancelCause(ctx)
	return t
}

func (t *group) run(f func() error) {
	t.wg.Go(func() {
		if err := f(); err != nil {
			t.cancel(err)
		}
	})
}

// wait returns the first error, when all goroutines have returned.
func (t *group) wait() error {
	t.wg.Wait()
	defer t.cancel(nil)
	return context.Cause(t.ctx)
}
