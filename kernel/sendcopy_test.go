package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// numberedBytes is message i of a test, of up to 700 bytes: some are too long to be encoded
// with others.
func numberedBytes(i int) []byte {
	return bytes.Repeat([]byte{byte(i), byte(i >> 8)}, (i*7919)%350)
}

// sendNumbered sends n of them and ends the half.
func sendNumbered(ctx context.Context, s *kernel.Stream, n int) error {
	for i := range n {
		if err := s.SendCopy(ctx, numberedBytes(i)); err != nil {
			return err
		}
	}
	return s.CloseSend()
}

// wantNumbered checks that ps begin with message i, and returns what follows them.
func wantNumbered(t *testing.T, i int, ps [][]byte) int {
	t.Helper()
	for _, p := range ps {
		if !bytes.Equal(p, numberedBytes(i)) {
			t.Fatalf("message %d has %d bytes, %d were sent", i, len(p), len(numberedBytes(i)))
		}
		i++
	}
	return i
}

// Copies arrive in order, whole and all, and their senders may use their memory at once.
func TestCopiesArriveInOrder(t *testing.T) {
	const n = 20_000
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		sent := make(chan error, 1)
		go func() {
			same := make([]byte, 700)
			for i := range n {
				p := same[:copy(same, numberedBytes(i))]
				if err := a.SendCopy(w.Ctx, p); err != nil {
					sent <- err
					return
				}
				clear(p)
			}
			sent <- a.CloseSend()
		}()
		i := 0
		for {
			ps, err := b.ReceiveBatch(w.Ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			ok(t, err)
			i = wantNumbered(t, i, ps)
		}
		ok(t, <-sent)
		if i != n {
			t.Errorf("%d of %d arrived", i, n)
		}
		ok(t, b.CloseSend())
		w.WantEOF(a)
		w.WantDone(a)
		if x, y := a.Snapshot(), b.Snapshot(); x.MessagesSent != n || y.MessagesReceived != n || a.Discarded() != 0 {
			t.Errorf("%d sent, %d received, %d discarded", x.MessagesSent, y.MessagesReceived, a.Discarded())
		}
	})
}

// What ReceiveBatch leaves is for Receive, and the reverse; In takes over for good.
func TestWaysToReceiveTakeTurns(t *testing.T) {
	const n = 5000
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		sent := make(chan error, 1)
		go func() { sent <- sendNumbered(w.Ctx, a, n) }()
		i := 0
		for i < n/2 {
			for range 3 {
				ps, err := b.ReceiveBatch(w.Ctx)
				ok(t, err)
				i = wantNumbered(t, i, ps)
			}
			for range 5 {
				m, err := b.Receive(w.Ctx)
				ok(t, err)
				i = wantNumbered(t, i, [][]byte{m.Bytes()})
				m.Release()
			}
		}
		for m := range b.In() {
			i = wantNumbered(t, i, [][]byte{m.Bytes()})
			m.Release()
		}
		if i != n {
			t.Errorf("%d of %d arrived", i, n)
		}
		ok(t, <-sent)
		_, err := b.ReceiveBatch(w.Ctx)
		isErr(t, "the error", err, kernel.ErrChannelInUse)
		ok(t, b.CloseSend())
		w.WantEOF(a)
	})
}

// A copy waits for credit like any message, behind those that wait already, and a context ends
// its wait.
func TestCopiesWaitForCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		const window = 4 << 10
		srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: kernel.Limits{StreamWindow: window}}, nil)
		a, b := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{})
		n := 0
		for ; n <= window; n++ {
			short, cancel := context.WithTimeout(ctx, time.Second)
			err := a.SendCopy(short, []byte{byte(n)})
			cancel()
			if err != nil {
				isErr(t, "SendCopy", err, context.DeadlineExceeded)
				break
			}
		}
		if most := window/33 + 1; n < most/2 || n > most {
			t.Fatalf("%d were sent with %d bytes of credit", n, window)
		}
		sent := make(chan error, 1)
		go func() {
			err := a.Send(ctx, pool.MessageOf([]byte{byte(n)}))
			for i := n + 1; err == nil && i < 5*n; i++ {
				err = a.SendCopy(ctx, []byte{byte(i)})
			}
			sent <- errors.Join(err, a.CloseSend())
		}()
		i := 0
		for {
			ps, err := b.ReceiveBatch(ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			ok(t, err)
			for _, p := range ps {
				if len(p) != 1 || p[0] != byte(i) {
					t.Fatalf("message %d is %v", i, p)
				}
				i++
			}
		}
		ok(t, <-sent)
		if i != 5*n {
			t.Errorf("%d of %d arrived", i, 5*n)
		}
	})
}

// What ReceiveBatch returned stays as it is until the next call, whatever arrives and whatever
// becomes of the stream.
func TestLentMessagesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		srv, client := kerneltest.Start(t, nil, nil)
		a, b := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{})
		next := 0
		send := func(n int) {
			for range n {
				ok(t, a.SendCopy(ctx, numberedBytes(next)))
				next++
			}
			synctest.Wait()
		}
		send(40)
		first, err := b.ReceiveBatch(ctx)
		ok(t, err)
		send(40)
		wantNumbered(t, 0, first)
		i := len(first)
		second, err := b.ReceiveBatch(ctx)
		ok(t, err)
		a.Abort(status.Aborted, "enough")
		synctest.Wait()
		wantNumbered(t, i, second)
		for err == nil {
			_, err = b.ReceiveBatch(ctx)
		}
		isErr(t, "the error", err, &status.StreamError{Code: status.Aborted})
	})
}

// ReceiveBatch and SendCopy have the errors that Receive and Send have.
func TestErrorsOfCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxMessage: 100}}, nil)
		a, b := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{})
		isErr(t, "SendCopy", a.SendCopy(ctx, make([]byte, 101)), kernel.ErrTooLarge)
		isErr(t, "SendCopy", a.SendCopy(ctx, make([]byte, 1<<20)), kernel.ErrTooLarge)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := b.ReceiveBatch(short)
		isErr(t, "the error", err, context.DeadlineExceeded)
		ok(t, a.SendCopy(ctx, make([]byte, 100)))
		ok(t, a.CloseSend())
		isErr(t, "SendCopy", a.SendCopy(ctx, nil), kernel.ErrSendClosed)
		ps, err := b.ReceiveBatch(ctx)
		if ok(t, err); len(ps) != 1 || len(ps[0]) != 100 {
			t.Errorf("%d messages", len(ps))
		}
		_, err = b.ReceiveBatch(ctx)
		isErr(t, "the error", err, io.EOF)
		b.CloseReceive(status.OK)
		_, err = b.ReceiveBatch(ctx)
		isErr(t, "the error", err, io.EOF)
	})
}

// Small messages that are copied take no memory of their own: all that they take is used again.
func TestCopiesTakeNoMemoryEach(t *testing.T) {
	if testkit.RaceEnabled {
		t.Skip("the race detector has memory used once")
	}
	const n = 200_000
	w := newWorld(t, loops, nil, nil)
	a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	p := make([]byte, 64)
	send := func(n int) {
		done := make(chan error, 1)
		go func() {
			for range n {
				if err := a.SendCopy(w.Ctx, p); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		for got := 0; got < n; {
			ps, err := b.ReceiveBatch(w.Ctx)
			ok(t, err)
			got += len(ps)
		}
		ok(t, <-done)
	}
	send(n / 4) // what is used again is made
	if took := allocated(func() { send(n) }); took > n*16 {
		t.Errorf("%d messages of 64 bytes took %d bytes of memory", n, took)
	}
}
