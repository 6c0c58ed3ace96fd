package interop

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A message is reported when it is handed over, or when its reader asks for the next one, as
// brpc does when its callback has returned.
func TestBrpcAMessageIsReportedWhenTheNextIsAskedFor(t *testing.T) {
	for _, late := range []bool{false, true} {
		inBrpcTarget(t, kernel.ServerOptions{}, func(tg *target, p *brpcPeer) {
			offers := tg.Srv.Offers()
			const own = 1
			p.send(brpcAsk{method: "x", id: own, streams: []int64{own}}.bytes())
			s, err := (<-offers).Accept(pool.Message{}, &kernel.StreamOptions{CountLate: late})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			a, _ := p.answer(own)
			reports := func() (ns []int64) {
				synctest.Wait()
				for _, w := range p.reports(own) {
					ns = append(ns, w.sub(5).num(1))
				}
				return ns
			}
			receive := func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				m, err := s.Receive(ctx)
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				m.Release()
			}
			p.send(strmData(a.streams()[0], own, "12345"))
			receive()
			time.Sleep(time.Minute) // it is in work
			if ns := reports(); late != (len(ns) == 0) {
				t.Errorf("late %v: reported %v while it is in work", late, ns)
			}
			receive() // there is none
			if ns := reports(); len(ns) != 1 || ns[0] != 5 {
				t.Errorf("late %v: reported %v", late, ns)
			}
			s.Abort(status.Aborted, "")
		})
	}
}

// On a wire with credit too the message in work counts as unread, and as taken when its
// reader ends the stream.
func TestAMessageInWorkIsTakenAtTheEnd(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{CountLate: true})
		for i := range 3 {
			w.Send(a, "%d", i)
			w.Want(b, "%d", i)
			if i := b.Snapshot(); i.MailboxMessages != 1 {
				t.Errorf("%d messages are unread while one is in work", i.MailboxMessages)
			}
		}
		closed := make(chan error, 1)
		go func() { closed <- a.Close(w.Ctx) }()
		if err := b.Close(w.Ctx); err != nil {
			t.Error(err)
		}
		if err := <-closed; err != nil || a.Discarded() != 0 {
			t.Errorf("%v, %d messages were not taken", err, a.Discarded())
		}
	})
}

// The smallest window lets one message after the other through.
func TestTheMessageInWorkMayTakeTheWholeWindow(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{CountLate: true, Window: 64})
		go func() {
			for range 20 {
				if err := a.Send(w.Ctx, sized(100, 'x')); err != nil {
					t.Error(err)
				}
			}
			_ = a.CloseSend()
		}()
		n := 0
		for m, err := range b.All(w.Ctx) {
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			n++
			m.Release()
		}
		if n != 20 {
			t.Errorf("%d messages", n)
		}
		w.Cleanup(a, b)
	})
}
