package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sluicerpc/sluice/cmd/echo/internal/data"
	"github.com/sluicerpc/sluice/cmd/echo/internal/figures"
	"github.com/sluicerpc/sluice/cmd/echo/internal/group"
	"github.com/sluicerpc/sluice/cmd/echo/internal/wire"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// A transfer sends data to an echo and checks what comes back.
type transfer struct{ figures.Figures }

// run sends each part over a stream of its own, all at once.
func (t *transfer) run(ctx context.Context, client *kernel.Client, method string, parts []data.Part) error {
	defer t.Begin()()
	g := group.New(ctx)
	for _, p := range parts {
		g.Go(func() error {
			s, err := wire.Open(g.Context(), client, method)
			if err != nil {
				return err
			}
			// The halves of a stream are independent: one goroutine sends, another
			// receives. Only credit keeps the one from getting far ahead of the other.
			g.Go(func() error { return t.send(g.Context(), s, p) })
			return t.receive(g.Context(), s, p)
		})
	}
	return g.Wait()
}

// send hands the part's messages to the stream, and then ends our half: what was handed
// over before CloseSend still arrives before the end.
func (t *transfer) send(ctx context.Context, s *kernel.Stream, p data.Part) error {
	for next := range p.Messages() {
		m := pool.New(next.Size) // from a pool: its last owner releases it
		if err := next.Read(m.Bytes()); err != nil {
			return err
		}
		err := s.TrySend(m)
		if errors.Is(err, kernel.ErrWouldBlock) {
			// Send alone would do. TrySend tells us that there was no credit: the
			// server has as much unread as its window allows.
			t.Stalls.Add(1)
			err = s.Send(ctx, m)
		}
		if err != nil {
			m.Release() // a message that was not taken over is still ours
			return why(s, err)
		}
	}
	return wire.CloseSend(s)
}

// receive takes the part's messages back from the stream and compares each one's place,
// length and content.
func (t *transfer) receive(ctx context.Context, s *kernel.Stream, p data.Part) error {
	in := s.In()
	for want := range p.Messages() {
		m, ok := <-in
		if !ok {
			return fmt.Errorf("after %d messages: %w", want.Number, why(s, io.ErrUnexpectedEOF))
		}
		if err := want.Check(m.Bytes()); err != nil {
			return fmt.Errorf("stream %d, message %d: %w", s.ID(), want.Number, err)
		}
		m.Release()
		t.Messages.Add(1)
		t.Bytes.Add(int64(want.Size))
	}
	if wire.WholeEnds(s) {
		return s.Close(ctx)
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
