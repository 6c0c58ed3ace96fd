package kerneltest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

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
