package kernel_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

func takeSlot(t *testing.T, s *kernel.Stream) actor.Slot {
	t.Helper()
	select {
	case slot := <-s.Writable():
		return slot
	default:
		t.Fatal("there is credit, and Writable does not offer it")
		return actor.Slot{}
	}
}

func TestOneSlotAtATime(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		slot := takeSlot(t, a)
		wantOpen(t, "Writable while a slot is out", a.Writable())
		slot.Cancel()
		slot = takeSlot(t, a)
		if err := slot.Send(text("one")); err != nil {
			t.Fatal(err)
		}
		slot.Cancel() // after Send it does nothing, so that it can be deferred
		second := takeSlot(t, a)
		m := text("two")
		if err := slot.Send(m); !errors.Is(err, kernel.ErrSlotUsed) {
			t.Fatalf("a used slot sent: %v", err)
		}
		slot.Cancel() // of an old slot: the new one stays out
		wantOpen(t, "Writable after an old slot was cancelled", a.Writable())
		if err := second.Send(m); err != nil {
			t.Fatal(err)
		}
		if err := (actor.Slot{}).Send(m); !errors.Is(err, kernel.ErrSlotUsed) {
			t.Errorf("the zero slot: %v", err)
		}
		(actor.Slot{}).Cancel()
		w.Want(b, "one")
		w.Want(b, "two")
	})
}

// A slot that was not taken is withdrawn when others use the credit up, and
// offered again with the next credit.
func TestAnUntakenSlotIsWithdrawn(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		b, a := w.Pair(kernel.StreamOptions{Window: 64, InBuffer: kernel.None}, kernel.StreamOptions{})
		slots := a.Writable()
		if len(slots) != 1 {
			t.Fatal("no slot is offered at first")
		}
		w.SendMessage(a, sized(32, 1))
		wantOpen(t, "Writable without credit", slots)
		w.DrainN(b, 1)
		w.Quiesce()
		if len(slots) != 1 {
			t.Fatal("no slot is offered after credit came")
		}
	})
}

// A taken slot is a reservation: it can be used whatever others send meanwhile.
func TestATakenSlotIsGood(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		b, a := w.Pair(kernel.StreamOptions{Window: 256, InBuffer: kernel.None}, kernel.StreamOptions{})
		slot := takeSlot(t, a)
		n := tryAll(t, a, 32)
		if n == 0 {
			t.Fatal("a slot that is out keeps everybody else from sending")
		}
		if err := slot.Send(text("reserved")); err != nil {
			t.Fatal(err)
		}
		w.DrainN(b, n)
		w.Want(b, "reserved")
	})
}

// Many goroutines wait for slots: each is woken in its turn.
func TestEveryWaiterGetsASlot(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		b, a := w.Pair(kernel.StreamOptions{Window: 64, InBuffer: kernel.None}, kernel.StreamOptions{})
		const n = 50
		var wg sync.WaitGroup
		defer wg.Wait()
		for i := range n {
			wg.Go(func() {
				slot, ok := <-a.Writable()
				if !ok {
					t.Error("closed")
				}
				defer slot.Cancel()
				if i%5 == 0 {
					return // without a send
				}
				if err := slot.Send(sized(32, byte(i))); err != nil {
					t.Error(err)
				}
			})
		}
		w.DrainN(b, n-n/5)
	})
}

func TestWritableClosesWithTheSendingHalf(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		for name, end := range map[string]func(a, b *kernel.Stream){
			"CloseSend": func(a, b *kernel.Stream) {
				if w.endSend(a); !w.caps.HalfClose { // then it is Close, which waits for the reader
					w.WantEOF(b)
				}
			},
			"Abort":        func(a, _ *kernel.Stream) { a.Abort(status.Cancelled, "") },
			"peer's Abort": func(_, b *kernel.Stream) { b.Abort(status.Cancelled, "") },
			"peer's stop":  func(_, b *kernel.Stream) { b.CloseReceive(status.OK) },
		} {
			if name == "peer's stop" && !w.caps.Stop {
				continue
			}
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			held := takeSlot(t, a)
			slots := a.Writable()
			end(a, b)
			wantClosed(t, name+": Writable", slots)
			wantClosed(t, name+": SendDone", a.SendDone())
			m := text("late")
			if err := held.Send(m); err == nil {
				t.Errorf("%s: a slot was good after the end", name)
			}
			m.Release()
			held.Cancel()
			wantClosed(t, name+": Writable, asked for afterwards", a.Writable())
		}
	})
}

// A slot that is kept delays only those that wait for slots.
func TestAKeptSlotHoldsUpNoSender(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		b, a := w.Pair(kernel.StreamOptions{Window: 64, InBuffer: kernel.None}, kernel.StreamOptions{})
		slot := takeSlot(t, a)
		go func() {
			for i := range 100 {
				if err := a.Send(w.Ctx, text("%d", i)); err != nil {
					t.Error(err)
				}
			}
		}()
		for i := range 100 {
			w.Want(b, "%d", i)
		}
		time.Sleep(time.Second)
		if err := slot.Send(text("at last")); err != nil {
			t.Fatal(err)
		}
		w.Want(b, "at last")
	})
}
