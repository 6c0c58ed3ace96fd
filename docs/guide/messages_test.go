package guide_test

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

func sendThree(ctx context.Context, s *kernel.Stream, p []byte, n uint64) error {
	copied := pool.Copy(p) // p stays ours

	filled := pool.New(8) // memory of the library's, the cheapest for small messages
	binary.LittleEndian.PutUint64(filled.Bytes(), n)

	handed := pool.MessageOf(p) // no copy: nobody may write to p any more

	for _, m := range []pool.Message{copied, filled, handed} {
		if err := s.Send(ctx, m); err != nil {
			m.Release() // it was not sent, so it is still ours
			return err
		}
	}
	return nil
}

func pipe(ctx context.Context, from, to *kernel.Stream) error {
	for m, err := range from.All(ctx) {
		if err != nil {
			return err
		}
		if err := to.Send(ctx, m); err != nil { // hands it on, without a copy
			m.Release()
			return err
		}
	}
	return to.CloseSend()
}

func TestMessagesGoThroughAPipe(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		c, d := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		piped := make(chan error, 1)
		go func() { piped <- pipe(w.Ctx, b, c) }()
		if err := sendThree(w.Ctx, a, []byte("three"), 3); err != nil {
			t.Fatal(err)
		}
		w.Want(d, "three")
		w.Want(d, "\x03\x00\x00\x00\x00\x00\x00\x00")
		w.Want(d, "three")
		_ = a.CloseSend()
		w.WantEOF(d)
		if err := <-piped; err != nil {
			t.Error(err)
		}
	})
}
