package fleet_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/fleet"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

func TestRoundRobinIsEven(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clientOf("list://a:1,b:1,c:1", fleet.Options{})
		w.warm(c, time.Second, "a:1", "b:1", "c:1")
		for addr, n := range w.spread(c, 300) {
			if n != 100 {
				t.Errorf("%s: %d of 300", addr, n)
			}
		}
	}, "a:1", "b:1", "c:1")
}

// From 2 servers to 4 and back: the new ones have traffic within a second, the load is even,
// streams to those that are removed go on, and their connections end with the streams.
func TestServersComeAndGo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client(fleet.Options{})
		w.register("a:1", "b:1")
		w.warm(c, time.Second, "a:1", "b:1")
		w.wantSpread(c, map[string]int{"a:1": 1, "b:1": 1})

		w.register("a:1", "b:1", "c:1", "d:1")
		w.warm(c, time.Second, "c:1", "d:1")
		w.wantSpread(c, map[string]int{"a:1": 1, "b:1": 1, "c:1": 1, "d:1": 1})

		var open []*kernel.Stream
		for range 8 {
			open = append(open, w.open(c))
		}
		w.register("a:1", "c:1")
		time.Sleep(time.Hour / 12)
		w.wantSpread(c, map[string]int{"a:1": 1, "c:1": 1})
		for _, s := range open {
			w.works(s)
		}
		if b, d := w.conns("b:1"), w.conns("d:1"); b != 1 || d != 1 {
			t.Errorf("%d and %d connections to servers that drain, want 1", b, d)
		}
		for _, s := range open {
			end(s)
		}
		time.Sleep(time.Second)
		for addr, want := range map[string]int{"a:1": 1, "b:1": 0, "c:1": 1, "d:1": 0} {
			if n := w.conns(addr); n != want {
				t.Errorf("%s: %d connections, want %d", addr, n, want)
			}
		}
	}, "a:1", "b:1", "c:1", "d:1")
}

func TestWhatDrainsHasALimit(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client(fleet.Options{Drain: time.Minute})
		w.register("a:1")
		s := w.open(c)
		w.register("b:1")
		time.Sleep(59 * time.Second)
		w.works(s)
		time.Sleep(2 * time.Second)
		if err := s.Err(); !errors.Is(err, status.ErrDisconnected) {
			t.Errorf("%v", err)
		}
		end(s)
	}, "a:1", "b:1")
}

// An endpoint that comes back while it drains has its connection still.
func TestWhatComesBackDoesNotConnectAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client(fleet.Options{})
		w.register("a:1")
		s := w.open(c)
		w.register("b:1")
		w.warm(c, time.Second, "b:1")
		w.register("a:1")
		time.Sleep(time.Second)
		w.wantSpread(c, map[string]int{"a:1": 1})
		w.works(s)
		end(s)
		time.Sleep(time.Second)
		if n := len(w.dials); n != 2 || w.conns("a:1") != 1 {
			t.Errorf("%d dials, %d connections", n, w.conns("a:1"))
		}
	}, "a:1", "b:1")
}

// Whatever the registry does after a good set, the fleet goes on with that, and asks again.
func TestBadRegistriesKeepTheLastGoodSet(t *testing.T) {
	good := fleet.Set{Endpoints: []fleet.Endpoint{{Addr: "a:1"}, {Addr: "b:1"}}}
	closed := make(chan fleet.Set)
	close(closed)
	var bad fleet.Resolver = func(context.Context, string, <-chan struct{}) <-chan fleet.Set { panic("down") }
	for name, then := range map[string]fleet.Resolver{
		"panics": bad,
		"exits":  func(context.Context, string, <-chan struct{}) <-chan fleet.Set { runtime.Goexit(); return nil },
		"nil":    func(context.Context, string, <-chan struct{}) <-chan fleet.Set { return nil },
		"closed": func(context.Context, string, <-chan struct{}) <-chan fleet.Set { return closed },
		"blocks": func(ctx context.Context, _ string, _ <-chan struct{}) <-chan fleet.Set { <-ctx.Done(); return nil },
		"empty":  sends(fleet.Set{}),
		"error":  sends(fleet.Set{Err: errors.New("down")}),
		"nonsense": sends(fleet.Set{Err: evil{}, Endpoints: []fleet.Endpoint{
			{}, {Addr: "x"}, {Addr: "a:1", Weight: -1}, {Addr: strings.Repeat("x", 5000) + ":1"}, {Addr: "c:1", Name: "::"},
		}}),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				asked := 0
				c := w.client(fleet.Options{Resolvers: map[string]fleet.Resolver{"test": func(ctx context.Context, n string, again <-chan struct{}) <-chan fleet.Set {
					asked++
					if asked > 1 {
						return then(ctx, n, again)
					}
					sets := make(chan fleet.Set, 1)
					sets <- good
					time.AfterFunc(time.Minute, func() { close(sets) })
					return sets
				}}})
				w.warm(c, time.Second, "a:1", "b:1")
				s := w.open(c)
				time.Sleep(time.Hour)
				w.wantSpread(c, map[string]int{"a:1": 1, "b:1": 1})
				w.works(s)
				end(s)
				if asked < 2 || asked > 100 {
					t.Errorf("asked %d times in an hour", asked)
				}
			}, "a:1", "b:1")
		})
	}
}

func sends(s fleet.Set) fleet.Resolver {
	return func(context.Context, string, <-chan struct{}) <-chan fleet.Set {
		sets := make(chan fleet.Set, 1)
		sets <- s
		return sets
	}
}

// evil is an error that can't be asked.
type evil struct{}

func (evil) Error() string { panic("no text") }

func TestFilter(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client(fleet.Options{Filter: func(e fleet.Endpoint) bool {
			if e.Tag == "bad" {
				panic("bad")
			}
			return e.Tag == "blue"
		}})
		w.sets <- fleet.Set{Endpoints: []fleet.Endpoint{{Addr: "a:1", Tag: "blue"}, {Addr: "b:1", Tag: "green"}}}
		w.wantSpread(c, map[string]int{"a:1": 1})
		w.sets <- fleet.Set{Endpoints: []fleet.Endpoint{{Addr: "b:1", Tag: "blue"}, {Addr: "a:1", Tag: "bad"}}}
		time.Sleep(time.Second)
		w.wantSpread(c, map[string]int{"a:1": 1})
		w.sets <- fleet.Set{Endpoints: []fleet.Endpoint{{Addr: "b:1", Tag: "blue"}, {Addr: "a:1", Tag: "red"}}}
		time.Sleep(time.Second)
		w.wantSpread(c, map[string]int{"b:1": 1})
	}, "a:1", "b:1")
}

// A server that is down fails no call, and has its share again when it is back.
func TestAServerThatIsDownFailsNoCall(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clientOf("list://a:1,b:1,c:1", fleet.Options{Client: kernel.ClientOptions{Backoff: kernel.Backoff{Most: 10 * time.Second}}})
		w.warm(c, time.Second, "a:1", "b:1", "c:1")
		w.stop("b:1")
		for range 1000 { // 100 s
			if addr, err := who(c); err != nil || addr == "b:1" {
				t.Fatalf("%q, %v", addr, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(w.dials); n > 3+20 {
			t.Errorf("%d dials", n)
		}
		w.wantSpread(c, map[string]int{"a:1": 1, "c:1": 1})
		w.serve("b:1")
		for range 150 {
			_, _ = who(c)
			time.Sleep(100 * time.Millisecond)
		}
		w.wantSpread(c, map[string]int{"a:1": 1, "b:1": 1, "c:1": 1})
	}, "a:1", "b:1", "c:1")
}

func TestWhereNothingListensOpensFail(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clientOf("list://a:1,b:1,c:1,d:1,e:1", fleet.Options{})
		start := time.Now()
		for i := range 3 {
			_, err := c.Open(t.Context(), "echo", nil)
			var ce *status.ConnError
			if !errors.As(err, &ce) || ce.Op != "dial" || !errors.Is(err, errNobody) {
				t.Errorf("open %d: %v", i, err)
			}
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("open %d: after %v", i, d)
			}
		}
		w.serve("d:1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		s, err := c.Open(ctx, "echo", &kernel.OpenOptions{WaitForReady: true})
		if err != nil {
			t.Fatal(err)
		}
		w.works(s)
		end(s)
	})
}

func TestOpensWaitForTheFirstSet(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client(fleet.Options{})
		time.AfterFunc(time.Minute, func() { w.register("a:1") })
		start := time.Now()
		end(w.open(c))
		if d := time.Since(start); d != time.Minute {
			t.Errorf("after %v", d)
		}
	}, "a:1")
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client(fleet.Options{Resolvers: map[string]fleet.Resolver{"test": sends(fleet.Set{Err: errors.New("registry down")})}})
		_, err := c.Open(t.Context(), "echo", nil)
		if code, _ := status.Of(err); code != status.Unavailable || !strings.Contains(err.Error(), "registry down") {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err = c.Open(ctx, "echo", &kernel.OpenOptions{WaitForReady: true}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

// An endpoint that swallows what is sent to it keeps nobody waiting if there is another one.
func TestAnEndpointThatDoesNotAnswerIsNotWaitedFor(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		o := w.options(fleet.Options{})
		o.Client.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != "a:1" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return w.dial(ctx, network, addr)
		}
		for range 20 { // each has an order of its own
			start := time.Now()
			c, err := fleet.Dial(t.Context(), "list://a:1,b:1", o)
			if err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); d > 250*time.Millisecond {
				t.Errorf("connected after %v", d)
			}
			start = time.Now()
			if got := w.spread(c, 100); got["a:1"] != 100 || time.Since(start) > time.Second {
				t.Errorf("%v in %v", got, time.Since(start))
			}
			_ = c.Close()
		}
	}, "a:1")
}

func TestCloseWakesWhoWaits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client(fleet.Options{})
		var g sync.WaitGroup
		for range 10 {
			g.Go(func() {
				if _, err := c.Open(context.Background(), "echo", nil); !errors.Is(err, kernel.ErrClosed) {
					t.Errorf("%v", err)
				}
			})
		}
		synctest.Wait()
		_ = c.Close()
		_ = c.Close()
		g.Wait()
		if _, err := who(c); !errors.Is(err, kernel.ErrClosed) {
			t.Errorf("%v", err)
		}
	})
}

// A drained server gets no new streams, and no call fails for it.
func TestADrainingServerFailsNoCall(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clientOf("list://a:1,b:1", fleet.Options{})
		w.warm(c, time.Second, "a:1", "b:1")
		srv := w.servers["a:1"].srv
		s := w.open(c)
		for s.Conn() == nil || w.conns("a:1") == 0 {
			t.Fatal("no connection")
		}
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_ = srv.Shutdown(ctx)
		}()
		for range 100 {
			if _, err := who(c); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		w.works(s)
		end(s)
		time.Sleep(time.Hour)
	}, "a:1", "b:1")
}

func TestEveryWire(t *testing.T) {
	for _, p := range []frame.Protocol{native.Protocol{}, &strm.Protocol{}, &seastar.Protocol{}, &triple.Protocol{}} {
		for _, how := range []kernel.ConnType{kernel.ConnSingle, kernel.ConnPooled, kernel.ConnShort} {
			t.Run(p.Name(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.protocols = []frame.Protocol{p}
					method := "who"
					if p.Caps().StreamsByID {
						method = kernel.Verb(7)
					}
					for _, addr := range []string{"a:1", "b:1"} {
						w.serve(addr).Handle(method+suffix(method), func(ctx context.Context, s *kernel.Stream) error {
							return s.Send(ctx, pool.MessageOf([]byte(addr)))
						})
					}
					c := w.clientOf("list://a:1,b:1", fleet.Options{Client: kernel.ClientOptions{ConnType: how}})
					if c.Caps().MaxGroup != p.Caps().MaxGroup {
						t.Error("other capabilities")
					}
					got := map[string]int{}
					for range 100 {
						reply, err := c.Call(t.Context(), method+suffix(method), pool.MessageOf([]byte("x")), nil)
						if err != nil {
							t.Fatal(err)
						}
						got[string(reply.Bytes())]++
						reply.Release()
						time.Sleep(time.Millisecond)
					}
					if got["a:1"] < 45 || got["b:1"] < 45 {
						t.Errorf("%v", got)
					}
				})
			})
		}
	}
}

// suffix makes another method of one that all servers of the tests have.
func suffix(method string) string {
	if strings.HasPrefix(method, "#") {
		return ""
	}
	return ".er/m"
}

func TestTargets(t *testing.T) {
	for target, ok := range map[string]bool{
		"a:1": true, "unix:/x": true, "list://a:1": true, "grpc://a:1": true, "grpc+list://a:1": true, "grpcs+dns://a:1": true,
		"etcd://a": false, "other+list://a:1": false, "grpc+etcd://a": false,
	} {
		c, err := fleet.NewClient(target, &fleet.Options{Client: kernel.ClientOptions{Logger: quiet, Protocols: []frame.Protocol{&triple.Protocol{}}}})
		if err == nil {
			_ = c.Close()
		}
		if (err == nil) != ok {
			t.Errorf("%s: %v", target, err)
		}
	}
	if _, err := fleet.NewClient("list://a:1", &fleet.Options{Drain: -7}); !errors.Is(err, kernel.ErrLimits) {
		t.Errorf("%v", err)
	}
}

// The address is dialled, and the name is the authority.
func TestNamesAreForTheServer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client(fleet.Options{})
		w.sets <- fleet.Set{Endpoints: []fleet.Endpoint{{Addr: "10.0.0.1:443", Name: "svc.test:443"}}}
		if _, err := who(c); err != nil {
			t.Fatal(err)
		}
		if w.dials[0].addr != "10.0.0.1:443" {
			t.Errorf("dialled %v", w.dials)
		}
	}, "10.0.0.1:443")
}

// 500 clients lose all connections: in the first second they dial 1,000 times at most, whether
// the servers are there again or not.
func TestAHerdOfClients(t *testing.T) {
	for _, back := range []bool{true, false} {
		inWorld(t, func(t *testing.T, w *world) {
			var clients []*fleet.Client
			for range 500 {
				c := w.clientOf("list://a:1,b:1", fleet.Options{})
				w.warm(c, time.Second, "a:1", "b:1")
				clients = append(clients, c)
			}
			w.stop("a:1")
			w.stop("b:1")
			if back {
				w.serve("a:1")
				w.serve("b:1")
			}
			start := time.Now()
			var g sync.WaitGroup
			for _, c := range clients {
				g.Go(func() {
					for time.Since(start) < 3*time.Second {
						_, err := who(c)
						if (err == nil) != back {
							t.Errorf("%v", err)
							return
						}
						time.Sleep(100 * time.Millisecond)
					}
				})
			}
			g.Wait()
			if n := w.dialled(start, time.Second); n < 500 || n > 1000 {
				t.Errorf("servers are back: %v: %d dials in the first second", back, n)
			}
			t.Logf("servers are back: %v: %d dials in the first second, %d in three", back, w.dialled(start, time.Second), w.dialled(start, 3*time.Second))
		}, "a:1", "b:1")
	}
}
