package fleet_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/sluicerpc/sluice/fleet"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
)

// serveAll serves in memory at each of the addresses. The method "who" answers with the address.
func serveAll(addrs ...string) (dial func(ctx context.Context, network, addr string) (net.Conn, error), stop func()) {
	listeners := map[string]*kerneltest.Listener{}
	var stops []func()
	for _, addr := range addrs {
		srv, ln, served := testkit.ExampleServer(), kerneltest.Listen(), make(chan error, 1)
		rpc.HandleUnary(srv, "who", func(context.Context, string) (string, error) { return addr, nil }, nil)
		go func() { served <- srv.Serve(context.Background(), ln) }()
		listeners[addr] = ln
		stops = append(stops, func() { _ = srv.Close(); <-served })
	}
	dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if ln := listeners[addr]; ln != nil {
			return ln.Dial(ctx, network, addr)
		}
		return nil, fmt.Errorf("nobody listens at %s", addr)
	}
	return dial, func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// ask calls until every endpoint has answered, and prints how many those are.
func ask(ctx context.Context, c kernel.Caller, n int) {
	seen := map[string]bool{}
	for len(seen) < n {
		addr, err := rpc.Call[string](ctx, c, "who", "", nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		seen[addr] = true
		time.Sleep(time.Millisecond) // others connect in the background
	}
	fmt.Println(len(seen), "servers have answered")
}

// A fleet's client is a kernel.Caller: whatever takes one takes many servers. A program leaves
// Dial alone, and has addresses of its network in the target.
func ExampleNewClient() {
	ctx := context.Background()
	dial, stop := serveAll("a:7000", "b:7000", "c:7000")
	defer stop()
	c, err := fleet.NewClient("list://a:7000,b:7000,c:7000", &fleet.Options{
		Client: kernel.ClientOptions{Dial: dial},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ask(ctx, c, 3)
	// Output: 3 servers have answered
}

// Dial waits for a first connection. The address and the weight of each endpoint stand in a file
// here, which may change at any time.
func ExampleDial() {
	ctx := context.Background()
	dial, stop := serveAll("a:7000", "b:7000")
	defer stop()
	dir, err := os.MkdirTemp("", "fleet")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "servers")
	if err := os.WriteFile(name, []byte("a:7000 3  # the large one\nb:7000 1\n"), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	c, err := fleet.Dial(ctx, "file://"+name, &fleet.Options{
		Balancer: fleet.Weighted,
		Client:   kernel.ClientOptions{Dial: dial},
		Filter:   func(e fleet.Endpoint) bool { return e.Weight < fleet.MaxWeight },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ask(ctx, c, 2)
	fmt.Println(c.Options().Balancer, "of", c.Snapshot().Endpoints[0].Tag)
	// Output:
	// 2 servers have answered
	// weighted of 3
}

// A Resolver is one function. This one gives a set, and could give more on the same channel for
// as long as its context lives.
func ExampleResolver() {
	ctx := context.Background()
	dial, stop := serveAll("a:7000", "b:7000")
	defer stop()
	var registry fleet.Resolver = func(ctx context.Context, name string, again <-chan struct{}) <-chan fleet.Set {
		sets := make(chan fleet.Set, 1)
		sets <- fleet.Set{Endpoints: []fleet.Endpoint{{Addr: "a:7000", Tag: name}, {Addr: "b:7000", Tag: name}}}
		return sets
	}
	c, err := fleet.NewClient("registry://shops", &fleet.Options{
		Resolvers: map[string]fleet.Resolver{
			"registry": registry,
			"file":     fleet.File(time.Minute),     // looked at less often than file:// is
			"dns":      fleet.DNS(time.Minute, nil), // the same
		},
		Client: kernel.ClientOptions{Dial: dial},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ask(ctx, c, 2)
	// Output: 2 servers have answered
}

// With Ketama a user's calls go to the same endpoint, from any program that knows the same ones.
func ExampleKeyFunc() {
	ctx := context.Background()
	dial, stop := serveAll("a:7000", "b:7000", "c:7000")
	defer stop()
	var byUser fleet.KeyFunc = func(_ context.Context, method string, md metadata.MD) string { return md.Get("user") }
	c, err := fleet.NewClient("list://a:7000,b:7000,c:7000", &fleet.Options{
		Balancer: fleet.Ketama,
		Key:      byUser,
		Client:   kernel.ClientOptions{Dial: dial},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	seen := map[string]bool{}
	for range 100 {
		opts := &rpc.CallOptions{CallOptions: kernel.CallOptions{Metadata: metadata.MD{{Key: "user", Value: "Ada"}}}}
		addr, err := rpc.Call[string](ctx, c, "who", "", opts)
		if err != nil {
			fmt.Println(err)
			return
		}
		seen[addr] = true
	}
	fmt.Println(len(seen), "server for one user")
	// Output: 1 server for one user
}

// What a fleet looks like at a moment; the admin pages show it too.
func ExampleClient_Snapshot() {
	ctx := context.Background()
	dial, stop := serveAll("a:7000")
	defer stop()
	c, err := fleet.Dial(ctx, "list://a:7000", &fleet.Options{
		Balancer: fleet.LeastStreams,
		Subset:   20, // of a large fleet
		Failures: 3, MostEjected: 0.25,
		Client: kernel.ClientOptions{Dial: dial, Conns: 2},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	s, err := c.Open(ctx, "who", nil) // stays on its connection
	if err != nil {
		fmt.Println(err)
		return
	}
	show(c.Snapshot())
	fmt.Println(len(c.Conns()), "connection, of the stream:", c.Conns()[0] == s.Conn())
	// Output:
	// list://a:7000: least streams
	// a:7000 READY, 1 stream: serves
	// 1 connection, of the stream: true
}

func show(i fleet.Info) {
	fmt.Printf("%s: %v\n", i.Target, i.Balancer)
	for _, e := range i.Endpoints {
		fmt.Printf("%s %s, %d stream: %s\n", e.Addr, e.State, e.Streams, meaning(e))
	}
}

// meaning says what an endpoint's state is.
func meaning(e fleet.EndpointInfo) string {
	switch e.State {
	case fleet.StateEjected:
		return "fails, and is asked again in " + e.Left.String()
	case fleet.StateDraining:
		return "was removed, and has streams"
	case kernel.StateTransientFailure:
		return "can't be reached: " + e.Err
	case kernel.StateReady:
		return "serves"
	}
	return "will be connected when it is its turn"
}

// A fleet has the methods of a kernel.Client.
func ExampleClient() {
	ctx := context.Background()
	dial, stop := serveAll("a:7000")
	defer stop()
	var balancer fleet.Balancer = fleet.RoundRobin // what zero is, too
	c, err := fleet.NewClient("list://a:7000", &fleet.Options{Balancer: balancer, Client: kernel.ClientOptions{Dial: dial}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	reply, err := c.Call(ctx, "nobody", pool.Message{}, nil)
	reply.Release()
	fmt.Println(err)
	conn, err := c.Conn(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	several, err := c.OpenN(ctx, "who", nil, kernel.StreamOptions{}, kernel.StreamOptions{})
	fmt.Println(len(several), err, conn.Streams() >= 0, c.Caps().MaxGroup > 1)
	// Output:
	// sluice: stream 1 (nobody): refused (not processed): UNIMPLEMENTED: no such method: nobody
	// 2 <nil> true true
}
