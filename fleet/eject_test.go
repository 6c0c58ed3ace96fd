package fleet_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/fleet"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// sick has servers whose method "sick" fails with a code, if there is one.
func (w *world) sick(addrs ...string) map[string]*atomic.Uint32 {
	codes := map[string]*atomic.Uint32{}
	for _, addr := range addrs {
		code := &atomic.Uint32{}
		codes[addr] = code
		w.serve(addr).Handle("sick", func(ctx context.Context, s *kernel.Stream) error {
			if c := status.Code(code.Load()); c != status.OK {
				return &status.HandlerError{Code: c}
			}
			return s.Send(ctx, pool.MessageOf([]byte(addr)))
		})
	}
	return codes
}

// calls makes n calls of a method, one each 10 ms, and counts those that fail.
func calls(c kernel.Caller, method string, n int) (failed int, codes map[status.Code]int) {
	codes = map[status.Code]int{}
	for range n {
		reply, err := c.Call(context.Background(), method, pool.Message{}, nil)
		if err != nil {
			failed++
		} else {
			reply.Release()
		}
		code, _ := status.Of(err)
		codes[code]++
		time.Sleep(10 * time.Millisecond)
	}
	return failed, codes
}

// state is what the snapshot says of an endpoint.
func state(t *testing.T, c *fleet.Client, addr string) fleet.EndpointInfo {
	t.Helper()
	for _, e := range c.Snapshot().Endpoints {
		if e.Addr == addr {
			return e
		}
	}
	t.Fatalf("%s is not in the snapshot", addr)
	return fleet.EndpointInfo{}
}

// An endpoint that fails is ejected, for longer and longer, and is one like the others when it
// works again.
func TestWhatFailsIsEjectedAndComesBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		codes := w.sick("a:1", "b:1", "c:1")
		c := w.clientOf("list://a:1,b:1,c:1", fleet.Options{Client: kernel.ClientOptions{Backoff: kernel.Backoff{Most: 8 * time.Second}}})
		w.warm(c, time.Second, "a:1", "b:1", "c:1")
		codes["b:1"].Store(uint32(status.Unavailable))
		if failed, _ := calls(c, "sick", 30); failed != 5 {
			t.Errorf("%d calls failed until it was ejected, want 5", failed)
		}
		if e := state(t, c, "b:1"); e.State != fleet.StateEjected || e.Ejections != 1 || e.Left <= 0 || e.Left > 1200*time.Millisecond {
			t.Errorf("%+v", e)
		}
		failed, _ := calls(c, "sick", 6000) // a minute
		if failed < 60/10 || failed > 15 {
			t.Errorf("%d calls failed in the next minute", failed)
		}
		codes["b:1"].Store(0)
		time.Sleep(10 * time.Second)
		if failed, _ := calls(c, "sick", 100); failed != 0 || state(t, c, "b:1").State != kernel.StateReady {
			t.Errorf("%d failed, %+v", failed, state(t, c, "b:1"))
		}
		w.wantSpread(c, map[string]int{"a:1": 1, "b:1": 1, "c:1": 1})
		codes["b:1"].Store(uint32(status.Internal)) // it takes 5 again
		if failed, _ := calls(c, "sick", 30); failed != 5 {
			t.Errorf("%d calls failed", failed)
		}
	})
}

// Where more than half of the endpoints fail, half of them are ejected.
func TestNotAllAreEjected(t *testing.T) {
	for most, want := range map[float64]int{0: 2, 0.3: 1, 1: 4} {
		inWorld(t, func(t *testing.T, w *world) {
			codes := w.sick(addrsOf(4)...)
			c := w.clientOf("list://s0:1,s1:1,s2:1,s3:1", fleet.Options{MostEjected: most, Client: kernel.ClientOptions{Backoff: kernel.Backoff{First: time.Minute, Jitter: kernel.None}}})
			w.warm(c, time.Second, addrsOf(4)...)
			for _, code := range codes {
				code.Store(uint32(status.Unavailable))
			}
			if _, got := calls(c, "sick", 100); got[status.Unavailable] != 100 {
				t.Errorf("%v", got)
			}
			n := 0
			for _, e := range c.Snapshot().Endpoints {
				if e.State == fleet.StateEjected {
					n++
				}
			}
			if n != want {
				t.Errorf("%d of 4 are ejected, want %d", n, want)
			}
			for _, code := range codes { // those that are left are asked, or all if none is
				code.Store(0)
			}
			if failed, _ := calls(c, "sick", 100); failed != 0 {
				t.Errorf("%d failed", failed)
			}
		})
	}
}

// What a program means by its answer, and what the caller has ended, ejects nothing.
func TestAnswersEjectNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		codes := w.sick("a:1", "b:1")
		c := w.clientOf("list://a:1,b:1", fleet.Options{})
		for _, code := range []status.Code{status.NotFound, status.InvalidArgument, status.Unknown, status.FailedPrecondition, status.FirstAppCode} {
			codes["a:1"].Store(uint32(code))
			_, _ = calls(c, "sick", 40)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 40 {
			if _, err := c.Call(ctx, "sick", pool.Message{}, nil); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		}
		for _, e := range c.Snapshot().Endpoints {
			if e.State != kernel.StateReady || e.Ejections != 0 {
				t.Errorf("%+v", e)
			}
		}
		codes["a:1"].Store(uint32(status.Unavailable))
		never := w.clientOf("list://a:1,b:1", fleet.Options{Failures: kernel.Unlimited})
		if failed, _ := calls(never, "sick", 100); failed < 49 {
			t.Errorf("%d failed", failed)
		}
	})
}

func TestEjectedWithEveryBalancer(t *testing.T) {
	for _, o := range []fleet.Options{{}, {Balancer: fleet.Weighted}, {Balancer: fleet.LeastStreams}, {Balancer: fleet.Ketama, Key: byUser}} {
		inWorld(t, func(t *testing.T, w *world) {
			codes := w.sick("a:1", "b:1")
			o.Client.Backoff = kernel.Backoff{First: time.Hour}
			c := w.clientOf("list://a:1,b:1", o)
			w.warm(c, time.Second, "a:1")
			if o.Balancer != fleet.Ketama {
				w.warm(c, time.Second, "b:1")
			}
			codes["a:1"].Store(uint32(status.Unavailable))
			codes["b:1"].Store(uint32(status.Unavailable))
			_, _ = calls(c, "sick", 100)
			codes["a:1"].Store(0)
			codes["b:1"].Store(0)
			ejected := ""
			for _, e := range c.Snapshot().Endpoints {
				if e.State == fleet.StateEjected {
					ejected = e.Addr
				}
			}
			got := w.spread(c, 50)
			if ejected == "" || got[ejected] != 0 || len(got) != 1 {
				t.Errorf("%v: %q is ejected, %v", o.Balancer, ejected, got)
			}
		})
	}
}
