package guide_test

import (
	"fmt"

	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

func latest(s *kernel.Stream, values <-chan string) error {
	var pending string
	have := false
	for values != nil || have {
		var slots <-chan actor.Slot
		if have {
			slots = s.Writable()
		}
		select {
		case v, ok := <-values:
			if !ok {
				values = nil // the last one still goes
				continue
			}
			pending, have = v, true // what could not be sent yet is replaced
		case slot, ok := <-slots:
			if !ok {
				return s.Err()
			}
			if err := slot.Send(pool.MessageOf([]byte(pending))); err != nil {
				return err
			}
			have = false
		case <-s.SendDone():
			return s.Err()
		}
	}
	return s.CloseSend()
}

func TestLatestReplacesWhatCouldNotBeSent(t *testing.T) {
	recipe(t, kernel.StreamOptions{SendLimit: 64}, kernel.StreamOptions{InBuffer: kernel.None}, func(t *testing.T, w *world, a, b *kernel.Stream) {
		values := make(chan string)
		done := make(chan error, 1)
		go func() { done <- latest(a, values) }()
		for i := range 1000 {
			values <- fmt.Sprintf("%060d", i)
		}
		first, err := b.Receive(w.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		first.Release()
		synctest.Wait() // the credit comes back, and the latest is sent
		n, last := 1, ""
		close(values)
		for m, err := range b.All(w.Ctx) {
			if err != nil {
				t.Fatal(err)
			}
			n, last = n+1, string(m.Bytes())
			m.Release()
		}
		if n > 10 || !strings.HasSuffix(last, "999") {
			t.Errorf("%d of 1,000 values were sent, the last is %q", n, last)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
