package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// The methods of a session that spoiltSession leaves to the one inside for TestNoFunction…

func (s *spoiltSession) Run(p []byte, id uint64, a *pool.Arena, q *pool.Queue) int {
	s.p.hit("Run")
	return s.Session.Run(p, id, a, q)
}

func (s *spoiltSession) Begun() (int64, bool) { s.p.hit("Begun"); return s.Session.Begun() }
func (s *spoiltSession) Full() <-chan struct{} {
	s.p.hit("Full")
	return s.Session.Full()
}

func (s *spoiltSession) Fragment(o *frame.Out, id uint64, m pool.Message, off, n int) {
	s.p.hit("Fragment")
	s.Session.Fragment(o, id, m, off, n)
}

func (s *spoiltSession) Tick(o *frame.Out) { s.p.hit("Tick"); s.Session.Tick(o) }

func (s *spoiltSession) Pack(m pool.Message, c pool.Compression) pool.Message {
	s.p.hit("Pack")
	return s.Session.Pack(m, c)
}

func (s *spoiltSession) Unpack(id uint64, m pool.Message, most int) (pool.Message, error) {
	s.p.hit("Unpack")
	return s.Session.Unpack(id, m, most)
}

func (s *spoiltSession) Allows(open, n int) bool { s.p.hit("Allows"); return s.Session.Allows(open, n) }

// A session of the program's that does not return from one of its methods, or panics there,
// holds up no other connection, and neither Close of the side that it belongs to.
func TestASessionThatBlocksKeepsNoCloseFromReturning(t *testing.T) {
	for _, method := range []string{
		"Next", "Run", "Begun", "Buffered", "Full", "Messages", "Fragment", "Control", "Flush", "Event", "Wake", "Pack", "Unpack", "Allows", "Closed",
	} {
		for _, kind := range []string{blocking, panicking, exiting} {
			if method == "Allows" && kind == blocking {
				continue // it is asked under a lock of the connection's, and must return
			}
			for _, side := range []string{"server", "client"} {
				t.Run(method+"/"+kind+"/"+side, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { closesAllTheSame(t, method, kind, side) })
				})
			}
		}
	}
}

func closesAllTheSame(t *testing.T, method, kind, side string) {
	p := &plight{T: t, f: &fault{kind: kind, release: make(chan struct{})}, ctx: context.Background()}
	p.so.Logger = p.log.Logger()
	if side == "server" {
		speaking(method)(p)
	} else {
		p.co.Protocols = []frame.Protocol{spoiltProtocol{f: p.f, method: method}}
	}
	p.start()
	p.f.marks.Store(true)
	c := p.client(p.co)
	_, err := c.Conn(p.ctx)
	ok(t, err)
	p.f.marks.Store(false)
	p.f.armed.Store(true)
	ended := make(chan struct{})
	go func() { // what uses all methods, on a goroutine that may be ended
		defer close(ended)
		ctx, cancel := context.WithTimeout(p.ctx, time.Second)
		defer cancel()
		for range 2 {
			alone(func() { echoesPacked(ctx, c) })
		}
	}()
	time.Sleep(2 * time.Second)
	p.honest(p.good, "meanwhile")
	closes := func(name string, f func() error) {
		done := make(chan error, 1)
		go func() { done <- f() }()
		select {
		case err := <-done:
			ok(t, err)
		case <-time.After(5 * time.Second):
			t.Errorf("%s does not return", name)
			close(p.f.release)
			<-done
			p.f.release = make(chan struct{})
		}
	}
	closes("Client.Close", c.Close)
	closes("the other Client.Close", p.good.Close)
	closes("Server.Close", p.srv.Close)
	if err := <-p.served; !errors.Is(err, kernel.ErrServerClosed) {
		t.Errorf("Serve has returned %v", err)
	}
	p.f.armed.Store(false)
	close(p.f.release)
	<-ended
}

// echoesPacked sends messages that are compressed, and others, of one frame and of several,
// and receives what comes back.
func echoesPacked(ctx context.Context, c *kernel.Client) {
	s, err := c.Open(ctx, "echo", nil)
	if err != nil {
		return
	}
	defer drain(s)
	defer s.Abort(1, "over")
	for _, n := range []int{10, 200_000} {
		for _, z := range []pool.Compression{pool.NoCompression, pool.Gzip} {
			m := pool.Copy(bytes.Repeat([]byte("text"), n/4))
			m.SetCompression(z)
			if s.Send(ctx, m) != nil {
				m.Release()
				return
			}
			if receive(s, ctx) != nil {
				return
			}
		}
	}
}
