package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/fleet"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A world is servers in memory, by address, and the registry that knows them.
type world struct {
	t         testing.TB
	protocols []frame.Protocol
	sets      chan fleet.Set // what the registry says

	mu      sync.Mutex
	servers map[string]*server
	dials   []dial
}

type server struct {
	srv    *kernel.Server
	ln     *kerneltest.Listener
	served chan error
}

type dial struct {
	addr string
	at   time.Time
}

var quiet = slog.New(slog.DiscardHandler)

// inWorld runs f in a bubble, with servers at some addresses.
func inWorld(t *testing.T, f func(t *testing.T, w *world), addrs ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, addr := range addrs {
			w.serve(addr)
		}
		f(t, w)
	})
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, servers: map[string]*server{}, sets: make(chan fleet.Set, 1)}
	t.Cleanup(func() {
		for addr := range w.servers {
			w.stop(addr)
		}
	})
	return w
}

// serve begins to serve at an address.
func (w *world) serve(addr string) *kernel.Server {
	w.t.Helper()
	srv, err := kernel.NewServer(&kernel.ServerOptions{Logger: quiet, Protocols: w.protocols})
	if err != nil {
		w.t.Fatal(err)
	}
	srv.Handle("who", func(ctx context.Context, s *kernel.Stream) error {
		return s.Send(ctx, pool.MessageOf([]byte(addr)))
	})
	srv.Handle("echo", func(ctx context.Context, s *kernel.Stream) error {
		for m, err := range s.All(ctx) {
			if err != nil {
				return err
			}
			if err := s.Send(ctx, m); err != nil {
				m.Release()
				return err
			}
		}
		return nil
	})
	s := &server{srv, kerneltest.Listen(), make(chan error, 1)}
	go func() { s.served <- srv.Serve(context.Background(), s.ln) }()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.servers[addr] = s
	return srv
}

// stop ends a server and all its connections.
func (w *world) stop(addr string) {
	w.t.Helper()
	w.mu.Lock()
	s := w.servers[addr]
	delete(w.servers, addr)
	w.mu.Unlock()
	_ = s.ln.Close()
	_ = s.srv.Close()
	if err := <-s.served; err != nil && !errors.Is(err, kernel.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		w.t.Errorf("%s: Serve: %v", addr, err)
	}
}

var errNobody = errors.New("nobody listens")

func (w *world) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	s := w.servers[addr]
	w.dials = append(w.dials, dial{addr, time.Now()})
	w.mu.Unlock()
	if s == nil {
		return nil, errNobody
	}
	return s.ln.Dial(ctx, network, addr)
}

// resolver gives what is put into sets.
func (w *world) resolver(context.Context, string, <-chan struct{}) <-chan fleet.Set { return w.sets }

// options are those of a client of the world.
func (w *world) options(o fleet.Options) *fleet.Options {
	o.Client.Dial, o.Client.Logger, o.Client.Protocols = w.dial, quiet, w.protocols
	if o.Resolvers == nil {
		o.Resolvers = map[string]fleet.Resolver{"test": w.resolver}
	}
	return &o
}

// client returns a client of the registry, gone when the test is.
func (w *world) client(o fleet.Options) *fleet.Client {
	w.t.Helper()
	return w.clientOf("test://", o)
}

func (w *world) clientOf(target string, o fleet.Options) *fleet.Client {
	w.t.Helper()
	c, err := fleet.NewClient(target, w.options(o))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// register has the registry say that these are the endpoints.
func (w *world) register(addrs ...string) {
	var set fleet.Set
	for _, addr := range addrs {
		set.Endpoints = append(set.Endpoints, fleet.Endpoint{Addr: addr})
	}
	w.sets <- set
}

// who makes a call and returns the address that has answered.
func who(c kernel.Caller) (string, error) {
	reply, err := c.Call(context.Background(), "who", pool.Message{}, nil)
	if err != nil {
		return "", err
	}
	defer reply.Release()
	return string(reply.Bytes()), nil
}

// spread makes n calls and counts who answers. None may fail.
func (w *world) spread(c kernel.Caller, n int) map[string]int {
	w.t.Helper()
	got := map[string]int{}
	for range n {
		addr, err := who(c)
		if err != nil {
			w.t.Fatalf("%v, after %v", err, got)
		}
		got[addr]++
	}
	return got
}

// wantSpread checks that calls are spread as want says, within 10 %.
func (w *world) wantSpread(c kernel.Caller, want map[string]int) {
	w.t.Helper()
	n, all := 1000, 0
	for _, share := range want {
		all += share
	}
	got := w.spread(c, n)
	for addr, share := range want {
		due := float64(n*share) / float64(all)
		if d := float64(got[addr]) - due; d > due/10 || d < -due/10 {
			w.t.Errorf("%s: %d of %d calls, its share is %.0f: %v", addr, got[addr], n, due, got)
		}
	}
	if len(got) != len(want) {
		w.t.Errorf("%v, want those of %v", got, want)
	}
}

// warm calls until each of the addresses has answered, within d.
func (w *world) warm(c kernel.Caller, d time.Duration, addrs ...string) {
	w.t.Helper()
	missing := map[string]bool{}
	for _, addr := range addrs {
		missing[addr] = true
	}
	for end := time.Now().Add(d); len(missing) > 0; {
		addr, err := who(c)
		if err != nil {
			w.t.Fatal(err)
		}
		delete(missing, addr)
		if time.Now().After(end) {
			w.t.Fatalf("%v have answered nothing for %v", missing, d)
		}
		time.Sleep(time.Millisecond)
	}
}

// open opens a stream of echo, and sees that it works.
func (w *world) open(c kernel.Caller) *kernel.Stream {
	w.t.Helper()
	s, err := c.Open(context.Background(), "echo", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.works(s)
	return s
}

// works checks that a stream of echo does.
func (w *world) works(s *kernel.Stream) {
	w.t.Helper()
	if err := s.Send(context.Background(), pool.MessageOf([]byte("x"))); err != nil {
		w.t.Fatal(err)
	}
	m, err := s.Receive(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	m.Release()
}

func end(s *kernel.Stream) {
	s.Abort(status.Cancelled, "test over")
	for m := range s.In() {
		m.Release()
	}
}

// conns is how many connections a server has.
func (w *world) conns(addr string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.servers[addr].srv.Conns())
}

// dialled is how many dials there were from a time on, for d.
func (w *world) dialled(from time.Time, d time.Duration) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.dials {
		if !x.at.Before(from) && x.at.Before(from.Add(d)) {
			n++
		}
	}
	return n
}

func addrsOf(n int) (addrs []string) {
	for i := range n {
		addrs = append(addrs, fmt.Sprintf("s%d:1", i))
	}
	return addrs
}
