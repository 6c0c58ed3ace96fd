package kernel_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Row 44: what a server's answer may bring is limited like what an open may.
func TestHostileAnswers(t *testing.T) {
	accept := func(f frame.Frame) []byte {
		f.Kind, f.Stream, f.Grants = frame.Accept, 1, []frame.Grant{{Credit: 100}}
		return frames(f)
	}
	for _, row := range []struct {
		name string
		say  []byte
		code status.Code
	}{
		{"30,000 empty fields", accept(frame.Frame{Metadata: make(metadata.MD, 30_000)}), status.TooLarge},
		{"17 KiB of headers", accept(frame.Frame{Metadata: md(17 << 10)}), status.TooLarge},
		{"129 fields", accept(frame.Frame{Metadata: keys(129)}), status.TooLarge},
		{"a reply of 16 KiB and a byte", accept(frame.Frame{Payload: make([]byte, 16<<10+1)}), status.TooLarge},
		{"17 KiB of metadata in a refusal", frames(frame.Frame{Kind: frame.Reject, Stream: 1, Metadata: md(17 << 10)}), status.TooLarge},
		{"all that it may have", accept(frame.Frame{Metadata: md(16 << 10), Payload: make([]byte, 16<<10)}), status.OK},
	} {
		t.Run(row.name, func(t *testing.T) {
			fakeServer(t, func(r *raw, c *kernel.Client) {
				s, err := c.Open(context.Background(), "m", nil)
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				_ = r.write(row.say)
				_ = r.write(row.say) // a second answer is nothing
				synctest.Wait()
				if row.code == status.OK {
					if _, header, err := s.Accepted(context.Background()); err != nil || header.Size() != 16<<10 {
						t.Errorf("a header of %d bytes, %v", header.Size(), err)
					}
					if n := s.Conn().Snapshot().OpenBytes; n != 32<<10 {
						t.Errorf("%d bytes are counted", n)
					}
					return
				}
				if err := s.Err(); !errors.Is(err, &status.StreamError{Code: row.code}) {
					t.Errorf("the stream: %v", err)
				}
				if h, ok := r.find(frame.Reset, 1); !ok || h.code != row.code {
					t.Errorf("it was not reset: %s", r.tail())
				}
				if b := s.Conn().Snapshot(); b.OpenBytes != 0 || b.Streams != 0 {
					t.Errorf("left: %+v", b)
				}
			})
		})
	}
}

// M42: a reason that is too long is cut by the reader.
func TestHostileReasonsAreCut(t *testing.T) {
	const most = 1 << 10
	synctest.Test(t, func(t *testing.T) {
		tg := newTarget(t, true, kernel.ServerOptions{})
		got := make(chan error, 1)
		tg.Srv.Handle("m", func(ctx context.Context, s *kernel.Stream) error {
			<-ctx.Done()
			got <- s.Err()
			return nil
		})
		r := tg.attack(hello())
		r.open("m")
		text := strings.Repeat("x", 60_000)
		_ = r.write(join(head(2+3+len(text)-1, 7, 1), []byte{1, 0xe0, 0xd4, 0x03}, []byte(text))) // code, length
		var se *status.StreamError
		if err := <-got; !errors.As(err, &se) || len(se.Reason) != most {
			t.Errorf("a reason of %d bytes: %.200v", len(se.Reason), err)
		}
	})
}

// What opens and ends bring is within the memory budget: streams are reset for it as
// for what they have unread.
func TestHostileOpensAndEndsStayWithinTheMemoryBudget(t *testing.T) {
	const budget = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		l := targetLimits()
		l.Memory = budget
		tg := newTarget(t, true, kernel.ServerOptions{Limits: l})
		tg.ConnectHonest()
		r := tg.attack(hello())
		for range 50 {
			f := openFrame(r.next, "stuck")
			f.Metadata, f.Payload = md(15<<10), make([]byte, 16<<10)
			r.say(f, frame.Frame{Kind: frame.EOS, Stream: r.next, Metadata: md(16 << 10)})
			r.next += 2
		}
		synctest.Wait()
		if n := heldBy(tg.Srv); n < budget {
			t.Fatalf("%d bytes are held: too few for the test", n)
		}
		time.Sleep(time.Second)
		n, evicted := tg.Srv.Stats().Memory, tg.Srv.Stats().Evicted
		if n > budget*95/100 || n < budget*75/100 {
			t.Errorf("%d bytes are in use of a budget of %d", n, budget)
		}
		if evicted < 5 || evicted > 25 { // others were refused: what had come counted at once
			t.Errorf("%d streams were evicted", evicted)
		}
		tg.Unharmed()
		r.settled()
		if n := heldBy(tg.Srv); n > 100 {
			t.Errorf("%d bytes are held in the end", n)
		}
	})
}

// Where one connection's opens bring as much as it may assemble, it opens no more.
func TestHostileOpensOfOneConnectionAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := targetLimits()
		l.AssemblyBudget = 1 << 20
		tg := newTarget(t, true, kernel.ServerOptions{Limits: l})
		tg.ConnectHonest()
		r := tg.attack(hello())
		for range 100 {
			f := openFrame(r.next, "stuck")
			f.Metadata, f.Payload = md(15<<10), make([]byte, 16<<10)
			r.next += 2
			r.say(f)
		}
		synctest.Wait()
		if n := r.count(frame.Reject); n < 60 || n > 70 {
			t.Errorf("%d opens of 100 were refused", n)
		}
		if h, ok := r.find(frame.Reject, 199); !ok || h.code != status.ResourceExhausted || !h.fresh {
			t.Errorf("the last: %s", r.tail())
		}
		r.settled()
		r.echoes()
		tg.Unharmed()
	})
}

// A request that follows its open is unread until Request is called on its offer: it
// keeps its credit and its share of the assembly budget, and goes with its stream.
func TestHostileRequestsThatWaitAreUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const request, budget = 1 << 20, 4 << 20
		l := targetLimits()
		l.AssemblyBudget = budget
		tg := newTarget(t, true, kernel.ServerOptions{Limits: l})
		offers := tg.Srv.Offers()
		tg.ConnectHonest()
		r := tg.attack(hello())
		piece := make([]byte, 32<<10)
		for range 20 {
			id := r.next
			r.next += 2
			f := openFrame(id, "nobody looks")
			f.FollowsData = true
			r.say(f)
			// What a stream may send before it is accepted goes first; the rest as
			// its credit comes.
			_ = r.write(first(id, request, piece[:1000]))
			for n := request - 1000; n > 0; n -= len(piece) {
				synctest.Wait()
				p := piece[:min(n, len(piece))]
				for at := 0; at < len(p); at += 4000 {
					q := p[at:min(at+4000, len(p))]
					_ = r.write(more(id, q, n == len(p) && at+len(q) == len(p)))
					synctest.Wait()
				}
			}
		}
		synctest.Wait()
		if n := heldBy(tg.Srv); n < budget || n > budget+1<<20 {
			t.Errorf("%d bytes are held", n)
		}
		reset := 0
		for id := uint64(1); id < r.next; id += 2 {
			if h, ok := r.find(frame.Reset, id); ok && h.code == status.ResourceExhausted {
				reset++
			}
		}
		if reset != 20-budget/request {
			t.Errorf("%d streams of 20 were reset for want of memory: %s", reset, r.tail())
		}
		o := <-offers
		m := testkit.RequestOf(t, o)
		if n := m.Len(); n != request {
			t.Errorf("a request of %d bytes", n)
		}
		m.Release()
		if n := heldBy(tg.Srv); n > budget-request+100<<10 {
			t.Errorf("%d bytes are held after one was looked at", n)
		}
		r.settled() // resets the others
		if n := heldBy(tg.Srv); n > 100 {
			t.Errorf("%d bytes are held in the end", n)
		}
		o = <-offers
		if m, err := o.Request(context.Background()); !errors.Is(err, &status.StreamError{Code: status.Cancelled}) {
			t.Errorf("a request of %d bytes outlived its stream, which nobody had looked at: %v", m.Len(), err)
		}
		if _, err := o.Accept(pool.Message{}, nil); !errors.Is(err, &status.StreamError{Code: status.Cancelled}) {
			t.Errorf("accepting it: %v", err)
		}
		tg.Unharmed()
	})
}

// What is sent on a stream whose handler waits for another to return goes with the
// stream: its handler will never run.
func TestHostileStreamsThatWaitForHandlersKeepNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg := newTarget(t, true, kernel.ServerOptions{})
		done := make(chan struct{})
		tg.Srv.Handle("deaf", func(context.Context, *kernel.Stream) error {
			<-done
			return nil
		})
		tg.ConnectHonest()
		r := tg.attack(hello())
		open := func(n int) (ids []frame.Frame) {
			for range n {
				id := r.open("deaf")
				_ = r.write(data(id, make([]byte, 1000)))
				ids = append(ids, frame.Frame{Kind: frame.Reset, Stream: id})
			}
			synctest.Wait()
			return ids
		}
		r.say(open(100)...)
		waiting := open(50)
		wait := func() (n, unread int) {
			for _, c := range tg.Srv.Conns() {
				k, u := c.Waiting()
				n, unread = n+k, unread+u
			}
			return n, unread
		}
		if n, unread := wait(); n != 50 || unread != 50*1032 {
			t.Errorf("%d wait, with %d bytes", n, unread)
		}
		r.say(waiting...)
		synctest.Wait()
		if n, unread := wait(); n != 50 || unread != 0 {
			t.Errorf("%d wait, with %d bytes", n, unread)
		}
		close(done)
		r.settled()
		tg.Unharmed()
	})
}

// What waits to be written, and nobody reads, is within the budget too. Streams that keep next
// to nothing are not reset for it.
func TestStreamsAreNotResetForWhatOthersHaveUnwritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := targetLimits()
		l.Memory, l.OutQueue = 1<<20, 4<<20
		tg := newTarget(t, true, kernel.ServerOptions{Limits: l})
		tg.ConnectHonest()
		r := tg.silent(hello())
		for range 10 {
			r.open("stuck")
			r.open("source")
		}
		synctest.Wait()
		if n := heldBy(tg.Srv); n < l.Memory {
			t.Fatalf("%d bytes are held: too few for the test", n)
		}
		time.Sleep(time.Second)
		if st := tg.Srv.Stats(); st.Evicted == 0 || st.Evicted > 10 || st.Memory > l.Memory {
			t.Errorf("%d streams were evicted, %d bytes are in use", st.Evicted, st.Memory)
		}
		tg.Unharmed()
	})
}

// So does a request that came with the open.
func TestHostileRequestsAreReleasedWithUnusedOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg := newTarget(t, true, kernel.ServerOptions{})
		offers := tg.Srv.Offers()
		tg.ConnectHonest()
		r := tg.attack(hello())
		f := openFrame(1, "nobody looks")
		f.Payload = make([]byte, 10_000)
		again := f
		again.Stream, r.next = 3, 5
		r.say(f, again, frame.Frame{Kind: frame.Reset, Stream: 1})
		synctest.Wait()
		gone, here := <-offers, <-offers
		if m, err := gone.Request(context.Background()); !errors.Is(err, &status.StreamError{}) {
			t.Errorf("a request of %d bytes: %v", m.Len(), err)
		}
		if n := heldBy(tg.Srv); n < 10_000 || n > 10_100 {
			t.Errorf("%d bytes are held", n)
		}
		s, err := here.Accept(pool.Message{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.say(frame.Frame{Kind: frame.Reset, Stream: 3})
		synctest.Wait()
		m := testkit.RequestOf(t, s)
		if n := m.Len(); n != 10_000 {
			t.Errorf("the offer was accepted, and the request is of %d bytes", n)
		}
		m.Release()
		tg.Unharmed()
	})
}
