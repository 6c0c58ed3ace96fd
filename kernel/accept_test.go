package kernel_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// wantUnaccepted checks that nothing can be sent on s, whose offer is not accepted.
func wantUnaccepted(t *testing.T, w *world, s *kernel.Stream) {
	t.Helper()
	m := text("too early")
	if err := s.Send(w.Ctx, m); !errors.Is(err, kernel.ErrNotAccepted) {
		t.Fatalf("Send: %v", err)
	}
	isErr(t, "TrySend", s.TrySend(m), kernel.ErrNotAccepted)
	m.Release()
	isErr(t, "CloseSend", s.CloseSend(), kernel.ErrNotAccepted)
	isErr(t, "Close", s.Close(w.Ctx), kernel.ErrNotAccepted)
	wantOpen(t, "Writable", s.Writable())
	wantOpen(t, "SendDone", s.SendDone())
}

// Nothing is sent on a stream before its offer is accepted: methods say so, and channels
// wait, so that the reply comes first.
func TestNothingIsSentBeforeTheAcceptance(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.AskOffers()
		for _, n := range []int{0, 10, 20 << 10} { // the last reply follows the acceptance
			a := must[*kernel.Stream](t)(w.Client.Open(w.Ctx, "m", nil))
			o := w.Offer()
			s := o.Stream(0)
			w.Cleanup(a, s)
			wantUnaccepted(t, w, s)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				select {
				case s.Out() <- text("by Out"):
				case <-w.Ctx.Done():
				}
			}()
			must[*kernel.Stream](t)(o.Accept(sized(n, 'r'), nil))
			<-sent
			reply, _, err := a.Accepted(w.Ctx)
			if err != nil || reply.Len() != n {
				t.Fatalf("a reply of %d bytes, %v; want %d", reply.Len(), err, n)
			}
			reply.Release()
			w.Want(a, "by Out")
			select {
			case slot := <-s.Writable():
				ok(t, slot.Send(text("by a slot")))
			case <-w.Ctx.Done():
				t.Fatal("no slot after the acceptance")
			}
			w.Send(s, "by Send")
			w.Want(a, "by a slot")
			w.Want(a, "by Send")
		}
	})
}

func TestOutWaitsForTheAcceptance(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.AskOffers()
		a := must[*kernel.Stream](t)(w.Client.Open(w.Ctx, "m", nil))
		o := w.Offer()
		out := o.Stream(0).Out()
		w.Cleanup(a, o.Stream(0))
		m := text("hello")
		synctest.Wait()
		select {
		case out <- m:
			t.Fatal("Out has taken a message before the acceptance")
		default:
		}
		must[*kernel.Stream](t)(o.Accept(pool.Message{}, nil))
		out <- m
		w.Want(a, "hello")
	})
}

// The streams of one request are accepted together. Those that are not accepted are
// refused.
func TestGroupsSendNothingUntilAccepted(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.AskOffers()
		for _, all := range []bool{true, false} {
			as := must[[]*kernel.Stream](t)(w.Client.OpenN(w.Ctx, "m", nil, make([]kernel.StreamOptions, 3)...))
			o := w.Offer()
			for i, a := range as {
				w.Cleanup(a, o.Stream(i))
				wantUnaccepted(t, w, o.Stream(i))
			}
			reply := sized(20<<10, 'r')
			var accepted []*kernel.Stream
			if all {
				accepted = must[[]*kernel.Stream](t)(o.AcceptAll(reply, nil))
			} else {
				accepted = append(accepted, must[*kernel.Stream](t)(o.Accept(reply, nil)))
				m := text("refused")
				wantCode(t, o.Stream(1).Send(w.Ctx, m), status.FailedPrecondition)
				m.Release()
			}
			for i, s := range accepted {
				w.Send(s, "%d", i)
				w.Want(as[i], "%d", i)
			}
			reply, _, err := as[0].Accepted(w.Ctx)
			if err != nil || reply.Len() != 20<<10 {
				t.Fatalf("a reply of %d bytes, %v", reply.Len(), err)
			}
			reply.Release()
		}
	})
}

// A stream that is finished before its offer is accepted ends as that of a handler that
// returns then.
func TestFinishBeforeTheAcceptance(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.AskOffers()
		a := must[*kernel.Stream](t)(w.Client.Open(w.Ctx, "m", nil))
		o := w.Offer()
		o.Stream(0).Finish(nil)
		_, _, err := a.Accepted(w.Ctx)
		wantCode(t, err, w.answered(status.FailedPrecondition))
		_, err = o.Accept(pool.Message{}, nil)
		wantCode(t, err, status.FailedPrecondition)
	})
}
