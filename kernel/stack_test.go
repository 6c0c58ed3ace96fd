package kernel_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
)

// withFrame calls f with what a program's own functions may take on the stack.
//
//go:noinline
func withFrame(f func() error) error {
	var frame [300]byte
	err := f()
	runtime.KeepAlive(&frame)
	return err
}

// A handler that receives and sends has a stack of 4 KiB. One that has to grow to 8 KiB makes
// a server with many quiet streams a third larger.
func TestStackOfAHandler(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's frames are larger")
	}
	const n, most = 200, 6000 // the average, which has the stacks of others in it
	w := newWorld(t, loops, nil, nil)
	w.Srv.Handle("echo", func(ctx context.Context, s *kernel.Stream) error {
		return withFrame(func() error { return echo(ctx, s) })
	})
	clients := make([]*kernel.Client, n) // one each: a connection that is not quiet is written by another goroutine
	for i := range clients {
		c, err := kernel.Dial(w.Ctx, w.Srv.Addr().String(), quietClient(nil))
		ok(t, err)
		defer c.Close()
		clients[i] = c
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	ss := make([]*kernel.Stream, n)
	for i, c := range clients {
		s, err := c.Open(w.Ctx, "echo", nil)
		ok(t, err)
		w.Send(s, "ping")
		w.Want(s, "ping")
		ss[i] = s
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := int(after.StackInuse-before.StackInuse) / n; each > most {
		t.Errorf("%d bytes of stack a stream, at most %d", each, most)
	}
	for _, s := range ss {
		ok(t, s.CloseSend())
		w.WantEOF(s)
	}
}
