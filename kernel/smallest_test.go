package kernel_test

import (
	"errors"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
)

// Whatever a limit allows must work: at the smallest windows and queues messages
// of any size still go both ways, only slower.
func TestTheSmallestLimitsStillCarryEverything(t *testing.T) {
	for name, l := range map[string]kernel.Limits{
		"windows":   {StreamWindow: 64, ConnWindow: 4 << 10},
		"queue":     {OutQueue: 1},
		"in flight": {InFlight: 128 << 10},
		"all":       {StreamWindow: 64, ConnWindow: 4 << 10, OutQueue: 1, InFlight: 128 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &kernel.ServerOptions{Limits: l}, &kernel.ClientOptions{Limits: l}, func(t *testing.T, w *world) {
				w.Srv.Handle("echo", echo)
				s, err := w.Client.Open(w.Ctx, "echo", nil)
				if err != nil {
					t.Fatal(err)
				}
				sizes := []int{0, 1, 31, 64, 4096, 4097, 70_000, 300_000, 5}
				go func() {
					for i, n := range sizes {
						w.SendMessage(s, sized(n, byte(i)))
					}
					_ = s.CloseSend()
				}()
				for i, n := range sizes {
					m, err := s.Receive(w.Ctx)
					if err != nil {
						t.Fatalf("message %d of %d bytes: %v", i, n, err)
					}
					if m.Len() != n {
						t.Fatalf("message %d has %d bytes, want %d", i, m.Len(), n)
					}
					m.Release()
				}
				w.WantEOF(s)
			})
		})
	}
}

// A peer tells what it has read every 64 KiB: a lower bound on the bytes in
// flight would wait for word that never comes.
func TestABoundBelowWhatPeersAcknowledgeIsRefused(t *testing.T) {
	_, err := kernel.NewServer(&kernel.ServerOptions{Limits: kernel.Limits{InFlight: 64 << 10}})
	if !errors.Is(err, kernel.ErrLimits) {
		t.Errorf("got %v, want ErrLimits", err)
	}
}
