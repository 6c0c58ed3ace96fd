package fleet

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
)

// many returns n endpoints, from number from on.
func many(from, n int) []Endpoint {
	es := make([]Endpoint, n)
	for i := range es {
		es[i] = Endpoint{Addr: fmt.Sprintf("10.%d.%d.1:7000", (from+i)/250, (from+i)%250), Weight: 1 + i%3}
	}
	return es
}

// still is a client whose registry says nothing.
func still(t testing.TB, o Options) *Client {
	t.Helper()
	o.Resolvers = map[string]Resolver{"test": func(context.Context, string, <-chan struct{}) <-chan Set { return make(chan Set) }}
	c, err := NewClient("test://", &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func key(context.Context, string, metadata.MD) string { return "key" }

// BenchmarkChange is what a change of a fleet of 10,000 endpoints costs, of which 1 in 100 goes
// and another one comes, with all that is done between the registry and the next pick.
func BenchmarkChange(b *testing.B) {
	for name, o := range map[string]Options{
		"RoundRobin": {}, "Weighted": {Balancer: Weighted}, "Ketama": {Balancer: Ketama, Key: key}, "Subset": {Subset: 50},
	} {
		b.Run(name, func(b *testing.B) {
			c := still(b, o)
			sets := [2]Set{{Endpoints: many(0, 10_000)}, {Endpoints: many(100, 10_000)}}
			c.take(sound(sets[1], nil))
			for i := 0; b.Loop(); i++ {
				c.take(sound(sets[i%2], nil))
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/change")
		})
	}
}

// 10,000 endpoints that nobody has dialled take less than 50 MiB.
func TestMemoryOfALargeFleet(t *testing.T) {
	for _, o := range []Options{{}, {Balancer: Ketama, Key: key}} {
		c := still(t, o)
		before := heap()
		c.take(sound(Set{Endpoints: many(0, 10_000)}, nil))
		n := heap() - before
		if n > 50<<20 {
			t.Errorf("%v: %d MiB", o.Balancer, n>>20)
		}
		t.Logf("%v: %.1f MiB", o.Balancer, float64(n)/(1<<20))
		if got := len(c.table.Load().members); got != 10_000 {
			t.Errorf("%d members", got)
		}
		runtime.KeepAlive(c)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// connected is a client with n endpoints that are connected, in memory.
func connected(t testing.TB, n int, o Options) *Client {
	t.Helper()
	srv, err := kernel.NewServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	ln := kerneltest.Listen()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	o.Client = kernel.ClientOptions{Dial: ln.Dial}
	c := still(t, o)
	c.take(sound(Set{Endpoints: many(0, n)}, nil))
	for _, m := range c.table.Load().members {
		if err := m.connect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

const ringHash = 0xc060321bc8526c97

var balancers = []Options{{}, {Balancer: Weighted}, {Balancer: LeastStreams}, {Balancer: Ketama, Key: key}}

func TestPicksDoNotAllocate(t *testing.T) {
	for _, o := range balancers {
		c := connected(t, 8, o)
		if n := testing.AllocsPerRun(1000, func() {
			m, _ := c.pick(uint64(time.Now().Nanosecond()))
			m.release()
		}); n != 0 {
			t.Errorf("%v: %v allocations", o.Balancer, n)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, o := range balancers {
		b.Run(o.Balancer.String(), func(b *testing.B) {
			c := connected(b, 8, o)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for at := uint64(0); pb.Next(); at += 1 << 55 {
					m, _ := c.pick(at)
					m.release()
				}
			})
		})
	}
}

// Turns by weight are close to the shares at any moment, whatever the weights are.
func TestTurnsByWeightAreEven(t *testing.T) {
	for _, weights := range [][]int{{1}, {1, 1}, {1, 2, 7}, {1, 100}, {5, 5, 5, 1, 1, 1, 9}, {MaxWeight, 1}} {
		c := still(t, Options{Balancer: Weighted})
		es := many(0, len(weights))
		sum := 0
		for i := range es {
			es[i].Weight = weights[i]
			sum += weights[i]
		}
		c.take(sound(Set{Endpoints: es}, nil))
		table := c.table.Load()
		got := map[*member]float64{}
		for turn := range 10_000 {
			got[table.byWeight(uint64(turn))]++
			for i, m := range table.members {
				due := float64(turn+1) * float64(table.weights[i]) / float64(sum)
				if d := got[m] - due; d > 6 || d < -6 {
					t.Fatalf("%v: after %d turns %d has had %.0f, its share is %.1f", weights, turn+1, table.weights[i], got[m], due)
				}
			}
		}
	}
}

// The ring of an endpoint is the same in all programs: clients of other versions agree.
func TestTheRingStaysAsItIs(t *testing.T) {
	if h := hash("10.0.0.1:7000", 1); h != ringHash {
		t.Errorf("%#x", h)
	}
	c := still(t, Options{Balancer: Ketama, Key: key})
	c.take(sound(Set{Endpoints: many(0, 10_000)}, nil))
	table := c.table.Load()
	if n := len(table.ring); n < 120_000 || n > 160_000 || !slices.IsSorted(table.ring) {
		t.Errorf("%d points", n)
	}
}
