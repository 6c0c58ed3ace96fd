package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/fleet"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
)

func TestWeightsAreShares(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clientOf("list://a:1 1,b:1 2,c:1 7", fleet.Options{Balancer: fleet.Weighted})
		w.warm(c, time.Second, "a:1", "b:1", "c:1")
		w.wantSpread(c, map[string]int{"a:1": 1, "b:1": 2, "c:1": 7})
		w.stop("c:1") // the shares of those that are left
		w.wantSpread(c, map[string]int{"a:1": 1, "b:1": 2})
	}, "a:1", "b:1", "c:1")
}

// From 2 servers to 4 and back, with weights that change.
func TestWeightedServersComeAndGo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client(fleet.Options{Balancer: fleet.Weighted})
		set := func(text string) {
			var s fleet.Set
			for i, line := range strings.Fields(text) {
				var weight int
				_, _ = fmt.Sscan(line, &weight)
				s.Endpoints = append(s.Endpoints, fleet.Endpoint{Addr: fmt.Sprintf("s%d:1", i), Weight: weight})
			}
			w.sets <- s
		}
		set("1 3")
		w.warm(c, time.Second, addrsOf(2)...)
		w.wantSpread(c, map[string]int{"s0:1": 1, "s1:1": 3})
		set("1 3 2 4")
		w.warm(c, time.Second, addrsOf(4)...)
		w.wantSpread(c, map[string]int{"s0:1": 1, "s1:1": 3, "s2:1": 2, "s3:1": 4})
		set("5 1")
		time.Sleep(time.Second)
		w.wantSpread(c, map[string]int{"s0:1": 5, "s1:1": 1})
		if n := len(w.dials); n != 4 {
			t.Errorf("%d dials", n)
		}
	}, addrsOf(4)...)
}

// Streams that stay open are as many everywhere, whatever is open where at the beginning.
func TestLeastStreamsEvensOut(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client(fleet.Options{Balancer: fleet.LeastStreams})
		w.register("s0:1")
		var open []*kernel.Stream
		for range 100 {
			open = append(open, w.open(c))
		}
		w.register(addrsOf(4)...)
		w.warm(c, 10*time.Second, "s1:1", "s2:1", "s3:1")
		for range 300 {
			open = append(open, w.open(c))
		}
		on := map[*kernel.Conn]int{}
		for _, s := range open {
			on[s.Conn()]++
		}
		for k, n := range on {
			if n < 85 || n > 115 || len(on) != 4 {
				t.Errorf("%d streams on one of %d connections (%v), 100 are its share", n, len(on), k.ID())
			}
		}
		for _, s := range open {
			end(s)
		}
	}, addrsOf(4)...)
}

func TestLeastStreamsLooksAtWeights(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clientOf("list://s0:1 1,s1:1 3", fleet.Options{Balancer: fleet.LeastStreams})
		w.warm(c, 10*time.Second, addrsOf(2)...)
		on := map[*kernel.Conn]int{}
		var open []*kernel.Stream
		for range 400 {
			s := w.open(c)
			on[s.Conn()]++
			open = append(open, s)
		}
		for _, n := range on {
			if n != 300 && (n < 95 || n > 105) && (n < 295 || n > 305) {
				t.Errorf("%v", on)
			}
		}
		for _, s := range open {
			end(s)
		}
	}, addrsOf(2)...)
}

// keyed calls with a key and returns who has answered.
func keyed(t *testing.T, c kernel.Caller, key string) string {
	t.Helper()
	reply, err := c.Call(context.Background(), "who", pool.Message{}, &kernel.CallOptions{Metadata: metadata.MD{{Key: "user", Value: key}}})
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Release()
	return string(reply.Bytes())
}

func byUser(_ context.Context, _ string, md metadata.MD) string { return md.Get("user") }

// A key goes to one endpoint, from every client and from the first call on; where an endpoint
// comes, the others keep all keys but those that it gets; where one is down, its keys alone move.
func TestKetamaKeepsKeys(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client(fleet.Options{Balancer: fleet.Ketama, Key: byUser})
		other := w.clientOf("list://s3:1,s1:1,s0:1,s2:1", fleet.Options{Balancer: fleet.Ketama, Key: byUser})
		w.register(addrsOf(4)...)
		const keys = 1000
		at, n := map[string]string{}, map[string]int{}
		for i := range keys {
			key := fmt.Sprint("user ", i)
			at[key] = keyed(t, c, key)
			n[at[key]]++
			if got := keyed(t, other, key); got != at[key] {
				t.Fatalf("%s is at %s, for another client at %s", key, at[key], got)
			}
		}
		for addr, n := range n {
			if n < keys/4*7/10 || n > keys/4*13/10 {
				t.Errorf("%s has %d of %d keys", addr, n, keys)
			}
		}
		moved := func(to string) (n int) {
			for key, was := range at {
				if got := keyed(t, c, key); got != was {
					if n++; to != "" && got != to || to == "" && was != "s2:1" {
						t.Fatalf("%s went from %s to %s", key, was, got)
					}
				}
			}
			return n
		}
		w.serve("s4:1")
		w.register(addrsOf(5)...)
		time.Sleep(time.Second)
		if n := moved("s4:1"); n < keys/10 || n > keys*3/10 {
			t.Errorf("%d of %d keys moved to the fifth endpoint", n, keys)
		}
		w.register(addrsOf(4)...)
		time.Sleep(time.Second)
		if n := moved("none"); n != 0 {
			t.Errorf("%d keys moved", n)
		}
		w.stop("s2:1")
		if got := moved(""); got != n["s2:1"] {
			t.Errorf("%d keys moved, %d were there", got, n["s2:1"])
		}
	}, addrsOf(4)...)
}

func TestKeysThatPanicFailTheCall(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clientOf("list://a:1", fleet.Options{Balancer: fleet.Ketama, Key: func(context.Context, string, metadata.MD) string { panic("no key") }})
		for range 3 {
			if _, err := who(c); err == nil || !strings.Contains(err.Error(), "Options.Key panicked") {
				t.Errorf("%v", err)
			}
			if _, err := c.Open(t.Context(), "echo", nil); err == nil {
				t.Error("opened")
			}
			if _, err := c.OpenN(t.Context(), "echo", nil, kernel.StreamOptions{}); err == nil {
				t.Error("opened")
			}
		}
	}, "a:1")
}

// A client uses a part of the fleet, and the clients together all of it.
func TestSubsets(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const servers, subset, clients = 20, 4, 50
		all := strings.Join(addrsOf(servers), ",")
		used := map[string]int{}
		for range clients {
			got := w.used(w.clientOf("list://"+all, fleet.Options{Subset: subset}))
			if len(got) != subset {
				t.Fatalf("%v", got)
			}
			for addr := range got {
				used[addr]++
			}
		}
		if len(used) != servers {
			t.Errorf("%d servers are used: %v", len(used), used)
		}
		c := w.client(fleet.Options{Subset: subset}) // where one goes, one comes
		w.register(addrsOf(servers)...)
		before := w.used(c)
		gone := ""
		for gone = range before {
			break
		}
		var left []string
		for _, addr := range addrsOf(servers) {
			if addr != gone {
				left = append(left, addr)
			}
		}
		w.register(left...)
		time.Sleep(time.Second)
		kept, after := 0, w.used(c)
		for addr := range after {
			if before[addr] > 0 {
				kept++
			}
		}
		if len(after) != subset || kept != subset-1 {
			t.Errorf("from %v to %v", before, after)
		}
	}, addrsOf(20)...)
}

// used is who answers, once all are connected.
func (w *world) used(c kernel.Caller) map[string]int {
	for range 40 {
		_ = w.spread(c, 1)
		time.Sleep(time.Millisecond)
	}
	return w.spread(c, 40)
}

func TestOptionsThatCanNotBe(t *testing.T) {
	for _, o := range []fleet.Options{
		{Drain: -7}, {Balancer: 9}, {Subset: -1}, {Balancer: fleet.Ketama}, {Balancer: fleet.Ketama, Key: byUser, Subset: 3},
		{Client: kernel.ClientOptions{Conns: -1}},
	} {
		if _, err := fleet.NewClient("list://a:1", &o); !errors.Is(err, kernel.ErrLimits) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
