package kernel_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/status"
)

// A lifeWire is a wire on which connections come of age.
type lifeWire struct {
	name   string
	proto  frame.Protocol
	method string
	// untold: nothing tells a client that the connection takes no more calls. Those that come
	// before its end are refused.
	untold bool
	// closes: the client closes a connection that it knows to be drained, with no word.
	closes bool
}

var lifeWires = []lifeWire{
	{name: "native", proto: native.Protocol{}, method: "echo"},
	{name: "brpc", proto: strm.Protocol{}, method: "a.Service/Echo", closes: true},
	{name: "seastar", proto: &seastar.Protocol{}, method: kernel.Verb(1), untold: true},
	{name: "grpc", proto: triple.Protocol{}, method: "a.Service/Echo"},
}

// overLifeWires runs f in a bubble over each wire. The server has a handler of calls, which
// takes as long as the call says in hours of its one byte.
func overLifeWires(t *testing.T, l kernel.Limits, f func(t *testing.T, w *world, x *lifeWire, call func(hours byte) error)) {
	for _, x := range lifeWires {
		t.Run(x.name, func(t *testing.T) {
			so := &kernel.ServerOptions{Limits: l, Protocols: []frame.Protocol{x.proto}}
			co := &kernel.ClientOptions{Protocols: []frame.Protocol{x.proto}}
			inBubble(t, so, co, func(t *testing.T, w *world) {
				w.Loose = true
				w.Srv.Handle(x.method, func(ctx context.Context, s *kernel.Stream) error {
					m, err := s.Request(ctx)
					if err != nil {
						return err
					}
					select {
					case <-time.After(time.Duration(m.Bytes()[0]) * time.Hour):
					case <-ctx.Done():
					}
					if err = s.Send(ctx, m); err != nil {
						m.Release()
					}
					return err
				})
				f(t, w, &x, func(hours byte) error {
					m := text("%c", hours)
					reply, err := w.Client.Call(context.Background(), x.method, m, &kernel.CallOptions{Timeout: kernel.Unlimited})
					if err != nil {
						m.Release()
						return err
					}
					reply.Release()
					return nil
				})
			})
		})
	}
}

// A connection that has reached its age is drained: what is called on it and elsewhere
// meanwhile goes well.
func TestAConnectionOfAgeIsDrained(t *testing.T) {
	overLifeWires(t, kernel.Limits{MaxConnAge: 10 * time.Hour, IdleConn: kernel.Unlimited}, func(t *testing.T, w *world, x *lifeWire, call func(byte) error) {
		ok(t, call(0)) // brpc's server hears of a connection by its first call
		first, start := w.Srv.Conns()[0], time.Now()
		long := make(chan error, 1)
		go func() { long <- call(30) }()
		synctest.Wait()
		<-first.GoingAway()
		if d := time.Since(start); d < 9*time.Hour || d > 11*time.Hour {
			t.Errorf("drained after %v", d)
		}
		for range 100 {
			if err := call(0); err != nil && (!x.untold || first.Err() != nil) {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
		}
		if first.Err() != nil {
			t.Errorf("cut while a call runs: %v", first.Err())
		}
		if err := <-long; err != nil {
			t.Errorf("the call that outlives its connection's age: %v", err)
		}
		<-first.Done()
		if d := time.Since(start); d > 30*time.Hour+time.Minute {
			t.Errorf("it has ended after %v, its last call after 30h", d)
		}
		if !errors.Is(first.Err(), &status.ConnError{Code: status.OK}) && !x.closes {
			t.Errorf("its end is %v", first.Err())
		}
	})
}

// What runs when the grace is over is cut.
func TestTheGraceOfAnAgeEnds(t *testing.T) {
	l := kernel.Limits{MaxConnAge: 10 * time.Hour, ConnAgeGrace: 5 * time.Hour}
	overLifeWires(t, l, func(t *testing.T, w *world, _ *lifeWire, call func(byte) error) {
		ok(t, call(0)) // brpc's server hears of a connection by its first call
		first, start := w.Srv.Conns()[0], time.Now()
		long := make(chan error, 1)
		go func() { long <- call(100) }()
		synctest.Wait()
		<-first.GoingAway()
		drained := time.Now()
		<-first.Done()
		if d := time.Since(drained); d < 5*time.Hour || d > 5*time.Hour+time.Minute {
			t.Errorf("cut %v after it was drained, %v in all", d, time.Since(start))
		}
		if !errors.Is(first.Err(), &status.ConnError{Code: status.GoingAway}) {
			t.Errorf("its end is %v", first.Err())
		}
		if err := <-long; err == nil {
			t.Error("the call that was cut has no error")
		}
	})
}

// Connections that were made at once don't end at once.
func TestAgesVary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, ln := serverOnly(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxConnAge: time.Hour, IdleConn: kernel.Unlimited}})
		start := time.Now()
		for range 50 {
			c, err := kernel.Dial(t.Context(), kerneltest.Target, quietClient(&kernel.ClientOptions{Dial: ln.Dial}))
			ok(t, err)
			defer c.Close()
		}
		synctest.Wait()
		type end struct {
			at  time.Duration
			err error
		}
		ends := make(chan end)
		for _, c := range srv.Conns() {
			go func() {
				<-c.Done()
				ends <- end{time.Since(start), c.Err()}
			}()
		}
		seen := map[time.Duration]bool{}
		for range 50 {
			e := <-ends
			seen[e.at] = true
			if e.at < 54*time.Minute || e.at > 66*time.Minute+time.Second {
				t.Errorf("one has ended after %v: %v", e.at, e.err)
			}
		}
		if len(seen) < 40 {
			t.Errorf("50 connections have ended at %d times", len(seen))
		}
	})
}

// An age and an idle time that are not set leave a connection that is used alone.
func TestByDefaultNoConnectionIsTooOld(t *testing.T) {
	noPings := kernel.Limits{KeepaliveInterval: kernel.Unlimited} // days of them take minutes
	overLifeWires(t, noPings, func(t *testing.T, w *world, _ *lifeWire, call func(byte) error) {
		ok(t, call(0))
		first := w.Srv.Conns()[0]
		ok(t, call(100))
		wantOpen(t, "GoingAway", first.GoingAway())
	})
}

// A connection that has had no streams for long is drained in two steps: a stream that
// the client has opened before it can know is served.
func TestAStreamThatMeetsTheIdleTimeIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg := newTarget(t, true, kernel.ServerOptions{Limits: kernel.Limits{IdleConn: time.Hour, KeepaliveInterval: kernel.Unlimited}})
		r := tg.attack(hello())
		start := time.Now()
		for len(r.all(frame.GoAway, 0)) == 0 {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if d := time.Since(start); d < time.Hour || d > time.Hour+2*time.Second {
			t.Errorf("drained after %v", d)
		}
		id := r.open("echo") // it has not answered the ping behind the GOAWAY
		r.send(data(id, []byte("late")))
		if w := r.words(id); w != `["late"]` {
			t.Errorf("the stream has heard %s", w)
		}
	})
}

// A client that does not answer the ping of a drain can't hold up its second step.
func TestADrainWaitsForItsPingNoLongerThanKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := kernel.Limits{IdleConn: time.Hour, KeepaliveInterval: kernel.Unlimited, KeepaliveTimeout: 20 * time.Second}
		tg := newTarget(t, true, kernel.ServerOptions{Limits: l})
		tg.attack(hello()) // which answers no pings
		synctest.Wait()
		var c *kernel.Conn
		for _, k := range tg.Srv.Conns() {
			if k.Streams() == 0 {
				c = k
			}
		}
		<-c.GoingAway()
		start := time.Now()
		<-c.Done()
		if d := time.Since(start); d < 20*time.Second || d > 21*time.Second {
			t.Errorf("it has ended %v after its first GOAWAY", d)
		}
	})
}
