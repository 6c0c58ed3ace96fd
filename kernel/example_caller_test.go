package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A logged Caller says what it was asked for. What it does not wrap goes to the Caller that
// it embeds.
type logged struct{ kernel.Caller }

func (l *logged) Open(ctx context.Context, method string, opts *kernel.OpenOptions) (*kernel.Stream, error) {
	s, err := l.Caller.Open(ctx, method, opts)
	fmt.Println("open", method, err)
	return s, err
}

func (l *logged) Call(ctx context.Context, method string, req pool.Message, opts *kernel.CallOptions) (pool.Message, error) {
	reply, err := l.Caller.Call(ctx, method, req, opts)
	code, _ := status.Of(err)
	fmt.Println("call", method, code)
	return reply, err
}

// An authorized Caller sends a token with every call.
type authorized struct {
	kernel.Caller
	token string
}

func (a *authorized) Call(ctx context.Context, method string, req pool.Message, opts *kernel.CallOptions) (pool.Message, error) {
	var with kernel.CallOptions
	if opts != nil {
		with = *opts
	}
	with.Metadata = append(with.Metadata[:len(with.Metadata):len(with.Metadata)], metadata.Field{Key: "token", Value: a.token})
	return a.Caller.Call(ctx, method, req, &with)
}

// A persistent Caller makes a call again that the server was not able to serve.
type persistent struct {
	kernel.Caller
	tries int
	pause time.Duration
}

func (p *persistent) Call(ctx context.Context, method string, req pool.Message, opts *kernel.CallOptions) (pool.Message, error) {
	for try := 1; ; try++ {
		reply, err := p.Caller.Call(ctx, method, req, opts)
		if try == p.tries || !errors.Is(err, &status.StreamError{Code: status.Unavailable}) {
			return reply, err
		}
		select {
		case <-time.After(p.pause << try):
		case <-ctx.Done():
			return reply, err
		}
	}
}

// Whatever takes a Caller takes a wrapped one. In a test, handlers stand for the server.
func ExampleCaller() {
	var handlers kernel.Handlers
	tries := 0
	handlers.Handle("greet", func(ctx context.Context, s *kernel.Stream) error {
		if tries++; tries < 3 {
			return &status.HandlerError{Code: status.Unavailable, Reason: "not yet"}
		}
		return s.Send(ctx, say("hello, "+s.Metadata().Get("token")))
	})
	t := &exampleT{}
	defer t.done()

	var c kernel.Caller = kerneltest.Caller(t, &handlers) // in a program: a *kernel.Client
	c = &persistent{Caller: &authorized{Caller: &logged{c}, token: "friend"}, tries: 5, pause: time.Millisecond}
	reply, err := c.Call(context.Background(), "greet", pool.Message{}, nil)
	fmt.Printf("%s %v\n", reply.Bytes(), err)
	// Output:
	// call greet UNAVAILABLE
	// call greet UNAVAILABLE
	// call greet OK
	// hello, friend <nil>
}

// exampleT stands for a test's *testing.T.
type exampleT struct {
	testing.TB
	cleanups []func()
}

func (t *exampleT) Helper()          {}
func (t *exampleT) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

func (t *exampleT) done() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}
