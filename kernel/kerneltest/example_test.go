package kerneltest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

// t stands for a test's *testing.T.
type t struct {
	testing.TB
	cleanups []func()
}

func (t *t) Helper()          {}
func (t *t) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }
func (t *t) done() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}

// In a test, t is its *testing.T, and nothing has to be closed.
func ExampleStart() {
	t := &t{}
	defer t.done()

	srv, client := kerneltest.Start(t, nil, nil)
	srv.Handle("greet", func(ctx context.Context, s *kernel.Stream) error {
		return s.Send(ctx, pool.MessageOf([]byte("hello")))
	})
	reply, err := client.Call(context.Background(), "greet", pool.Message{}, nil)
	fmt.Printf("%s %v\n", reply.Bytes(), err)
	// Output: hello <nil>
}

// Code that takes a kernel.Caller is tested with handlers in the place of a server.
func ExampleCaller() {
	t := &t{}
	defer t.done()

	var handlers kernel.Handlers
	handlers.Handle("price", func(ctx context.Context, s *kernel.Stream) error {
		return s.Send(ctx, pool.MessageOf([]byte("7")))
	})
	price := func(c kernel.Caller) string { // under test
		reply, err := c.Call(context.Background(), "price", pool.Message{}, nil)
		return fmt.Sprintf("%s %v", reply.Bytes(), err)
	}
	fmt.Println(price(kerneltest.Caller(t, &handlers)))
	// Output: 7 <nil>
}

// Open gives the two ends of a stream between a server and a client of the test's own, whose
// limits decide what happens on it.
func ExampleOpen() {
	t := &t{}
	defer t.done()

	srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxMessage: 10}}, nil)
	a, b := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{})
	fmt.Println(a.Send(context.Background(), pool.New(11)))
	fmt.Println(a.Method() == b.Method())
	// Output:
	// sluice: message too large: 11 bytes, the limit is 10
	// true
}

// A Listener is for tests that make the server and the client themselves. A client that gets
// its Dial can name any target; Target is one.
func ExampleListener() {
	ctx := context.Background()
	srv, err := kernel.NewServer(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ln := kerneltest.Listen()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, ln) }() // calls Accept
	client, err := kernel.Dial(ctx, kerneltest.Target, &kernel.ClientOptions{Dial: ln.Dial})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(client.Stats().Conns, ln.Addr())
	_ = client.Close()
	_ = srv.Close()
	<-served

	_ = ln.Close()
	_, err = ln.Accept()
	fmt.Println(errors.Is(err, net.ErrClosed))
	// Output:
	// 1 pipe
	// true
}

// Pipe gives the two ends of one stream. In a testing/synctest bubble an hour of
// silence takes no time.
func ExamplePipe() {
	t := &t{}
	defer t.done()

	a, b := kerneltest.Pipe(t, kernel.StreamOptions{}, kernel.StreamOptions{IdleTimeout: time.Hour})
	if err := a.Send(context.Background(), pool.MessageOf([]byte("ping"))); err != nil {
		fmt.Println(err)
	}
	select {
	case m := <-b.In():
		fmt.Printf("%s\n", m.Bytes())
	case <-b.Idle():
		fmt.Println("an hour of silence")
	}
	// Output: ping
}

// In a TestMain: goleak.VerifyTestMain(m, kerneltest.LeakOptions()...).
func ExampleLeakOptions() {
	opts := append(kerneltest.LeakOptions(), goleak.IgnoreCurrent()) // what runs examples
	srv, err := kernel.NewServer(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = srv.Close()
	fmt.Println(goleak.Find(opts...))
	// Output: <nil>
}
