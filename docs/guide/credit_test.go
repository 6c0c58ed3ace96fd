package guide_test

import (
	"fmt"

	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/internal/testkit"
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

// The page's example, in numbers.
func TestAClientThatDoesNotRead(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		s := w.Open("echo")
		for i := range 65 {
			w.SendMessage(s, sized(1000, byte(i)))
			w.Quiesce()
		}
		client, server := s.Snapshot(), kernel.StreamInfo{}
		for peer := range w.Srv.Conns()[0].EachStream {
			server = peer.Snapshot()
		}
		for what, got := range map[string][2]any{
			"the client's mailbox":    {client.MailboxMessages, 63},
			"what it has received":    {client.BytesReceived, uint64(63_488)},
			"the client waits for":    {client.BlockedOn, kernel.BlockedOnReader},
			"the server has received": {server.MessagesReceived, uint64(65)},
			"it holds unread":         {server.MailboxMessages, 0},
			"it holds unsent":         {server.QueuedBytes, 512},
			"the server waits for":    {server.BlockedOn, kernel.BlockedOnStreamCredit},
			"its credit":              {server.SendGranted, int64(63*1032 + 32 + 488)},
		} {
			if got[0] != got[1] {
				t.Errorf("%s: %v, on the page %v", what, got[0], got[1])
			}
		}
		if client.SendGranted == client.SendUsed {
			t.Error("the client has no credit")
		}
		w.DrainN(s, 65)
		testkit.OK(t, s.CloseSend())
		w.WantEOF(s)
	})
}
