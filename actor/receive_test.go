package actor

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

// Several Receives wait for a batch, and one of them takes it. The others get their
// messages out of that batch, without another one.
func TestABatchServesEveryReceive(t *testing.T) {
	for _, readers := range []int{2, 3, 5} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := receiver()
			s.Batches()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			errs := make(chan error, readers)
			for range readers {
				go func() {
					m, err := s.Receive(ctx)
					m.Release()
					errs <- err
				}()
			}
			synctest.Wait()
			gone, leave := context.WithCancel(t.Context())
			go func() { _, _ = s.Receive(gone) }() // a Receive that has ended takes no other's wake-up
			synctest.Wait()
			leave()
			synctest.Wait()
			sizes := make([]int, readers)
			arrive(t, s, sizes...)
			for range readers {
				if err := <-errs; err != nil {
					t.Errorf("one of %d: %v, with %d messages there", readers, err, s.ch.rest.msgs.Len())
				}
			}
		})
	}
}

// What is left of a batch comes before the next batch, whichever Receive took that.
func TestBatchesAreReceivedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := receiver()
		s.Batches()
		sizes := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20} // batches of 8
		arrive(t, s, sizes...)
		for _, want := range sizes {
			m, err := s.Receive(t.Context())
			if err != nil || m.Len() != want {
				t.Fatalf("a message of %d bytes, %v; want %d", m.Len(), err, want)
			}
			m.Release()
		}
	})
}

// ended returns the receiving side of a stream: n messages and the end have arrived, and
// the first message was read.
func ended(t *testing.T, n int) *end {
	t.Helper()
	a, b := newPair(1<<16, 1<<16, 1<<20, 1000)
	for range n {
		a.trySend(t, []byte("x"))
	}
	if err := a.s.CloseSend(status.OK, "", nil); err != nil {
		t.Fatal(err)
	}
	run(t, a, b, false)
	if !b.receive(t) {
		t.Fatal("no message")
	}
	return b
}

// An end in order says that all was read. A stream that dropped messages because memory
// was short does not end in order, even if the peer's end had arrived.
func TestAnEvictedStreamHasNoCleanEnd(t *testing.T) {
	b := ended(t, 10)
	b.s.Evict("no memory")
	m, err := b.s.Receive(noWait)
	if m.Release(); !errors.Is(err, &status.StreamError{Code: status.ResourceExhausted}) {
		t.Errorf("1 of 10 messages read, then %v", err)
	}
	if err := b.s.Err(); !errors.Is(err, &status.StreamError{Code: status.ResourceExhausted}) {
		t.Errorf("its error is %v", err)
	}
}

// If nothing was dropped, the stream ends in order all the same.
func TestAStreamThatWasReadBeforeItsEvictionEndsInOrder(t *testing.T) {
	b := ended(t, 1)
	b.s.Evict("no memory")
	if _, err := b.s.Receive(noWait); err != io.EOF { //nolint:errorlint // never wrapped
		t.Errorf("all was read, then %v", err)
	}
}

// Once Done is closed nothing changes any more, even if the peer's end arrives then.
func TestTheErrorOfAStreamThatIsDoneStays(t *testing.T) {
	s, _ := receiver()
	s.Abort(status.DeadlineExceeded, "deadline", context.DeadlineExceeded)
	<-s.Done()
	before := s.Err()
	if err := s.PeerEnd(status.NotFound, "no", metadata.MD{{Key: "k", Value: "v"}}); err != nil {
		t.Fatal(err)
	}
	if after := s.Err(); after != before || s.Trailer() != nil {
		t.Errorf("done, it had the error %v; now it is %v, with trailers %v", before, after, s.Trailer())
	}
	if _, err := s.Receive(noWait); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("received: %v", err)
	}
}
