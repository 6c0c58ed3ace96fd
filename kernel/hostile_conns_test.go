package kernel_test

import (
	"context"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// Row 61: masses of connections that are closed at once leave no descriptor and no
// goroutine behind, and affect no other connection.
func TestHostileConnectsInMasses(t *testing.T) {
	const parties, each = 8, 250
	tg := newTarget(t, false, kernel.ServerOptions{Limits: targetLimits()})
	tg.ConnectHonest()
	t.Run("masses", func(t *testing.T) { // what is left is looked for while the server runs
		leak.Descriptors(t)
		before := runtime.NumGoroutine()
		var wg sync.WaitGroup
		for range parties {
			wg.Go(func() {
				for i := range each {
					nc, err := net.Dial("tcp", tg.Addr)
					if err != nil {
						t.Error(err)
						return
					}
					if i%2 == 0 { // half of them are reset; that also spares the ports
						_ = nc.(*net.TCPConn).SetLinger(0)
					}
					_ = nc.Close()
				}
			})
		}
		wg.Wait()
		tg.Unharmed()
		// How many of them come this far is the system's affair: its queue may be short.
		if !tg.Settle(func() bool { return tg.seen() > 0 && tg.Srv.Stats().Conns == 1 }) {
			t.Errorf("the server has seen %d connections, and has %d", tg.seen(), tg.Srv.Stats().Conns)
		}
		if !tg.Settle(func() bool { return runtime.NumGoroutine() <= before }) {
			t.Errorf("%d goroutines, before there were %d", runtime.NumGoroutine(), before)
		}
	})
	tg.Unharmed()
}

// seen is how many connections the server has done with.
func (tg *target) seen() int {
	s := tg.Srv.Stats()
	return int(s.Refused + s.Failed)
}

// Row 64: one connection that sends as fast as it can, small messages and large ones,
// holds up no other.
func TestHostileFlatOut(t *testing.T) {
	const others, echoes = 10, 50
	tg := newTarget(t, false, kernel.ServerOptions{Limits: targetLimits()})
	tg.ConnectHonest()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	flat, stop := context.WithCancel(ctx)
	var flood sync.WaitGroup
	defer flood.Wait()
	defer stop()
	greedy := tg.another()
	for _, size := range []int{10, 100 << 10} {
		s := must[*kernel.Stream](t)(greedy.Open(ctx, "sink", nil))
		flood.Go(func() {
			for flat.Err() == nil {
				m := sized(size, 1)
				if err := s.Send(flat, m); err != nil {
					m.Release()
				}
			}
			s.Abort(status.Cancelled, "enough")
		})
	}
	var wg sync.WaitGroup
	for range others {
		w := &world{World: &testkit.World{T: t, Ctx: ctx, Client: tg.another()}}
		s := w.Open("echo")
		wg.Go(func() {
			for range echoes {
				if err := s.Send(ctx, text("ping")); err != nil {
					t.Error(err)
					return
				}
				m, err := s.Receive(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				m.Release()
			}
		})
	}
	wg.Wait()
	if err := greedy.Conns()[0].Err(); err != nil {
		t.Errorf("the flood did not last: %v", err)
	}
	tg.Unharmed()
}

// another is one more client with a connection of its own.
func (tg *target) another() *kernel.Client {
	tg.T.Helper()
	c := must[*kernel.Client](tg.T)(kernel.Dial(context.Background(), tg.Addr, quietClient(&kernel.ClientOptions{Dial: tg.Dial})))
	tg.T.Cleanup(func() { _ = c.Close() })
	return c
}
