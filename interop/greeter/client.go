package greeter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sluicerpc/sluice/interop/check"
	"github.com/sluicerpc/sluice/interop/greeter/greeterpb"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// many is how many messages a long stream has, each way.
const many = 10_000

// Cases are the checks, in their order.
func Cases() []check.Case {
	return []check.Case{
		{Name: "unary", Run: unary},
		{Name: "client stream", Run: clientStream},
		{Name: "server stream", Run: serverStream},
		{Name: "bidi stream", Run: bidiStream},
		{Name: "error", Run: failing},
		{Name: "metadata", Run: echoed},
		{Name: "cancel unary", Run: cancelUnary},
		{Name: "cancel server stream", Run: cancelServerStream},
		{Name: "cancel bidi stream", Run: cancelBidi},
		{Name: "deadline", Run: deadline},
	}
}

func call(ctx context.Context, c *kernel.Client, name string, o kernel.CallOptions) (*greeterpb.Greeting, error) {
	return rpc.Call[*greeterpb.Greeting](ctx, c, service+"Greet", &greeterpb.Hello{Name: name}, &rpc.CallOptions{CallOptions: o})
}

func often(ctx context.Context, c *kernel.Client, n int64) (*rpc.Source[*greeterpb.Greeting], error) {
	return rpc.CallServerStream[*greeterpb.Greeting](ctx, c, service+"GreetOften", &greeterpb.Hello{Name: "Ada", Count: n}, nil)
}

func each(ctx context.Context, c *kernel.Client, md metadata.MD) (*rpc.Bidi[*greeterpb.Greeting, *greeterpb.Hello], error) {
	return rpc.CallBidi[*greeterpb.Greeting, *greeterpb.Hello](ctx, c, service+"GreetEach",
		&rpc.OpenOptions{OpenOptions: kernel.OpenOptions{Metadata: md}})
}

func unary(ctx context.Context, c *kernel.Client) error {
	g, err := call(ctx, c, "Ada", kernel.CallOptions{})
	if err != nil {
		return err
	}
	return check.Equal("the greeting", g.Text, "hello Ada")
}

func clientStream(ctx context.Context, c *kernel.Client) error {
	s, err := rpc.CallClientStream[*greeterpb.Hello, *greeterpb.Greeting](ctx, c, service+"GreetAll", nil)
	if err != nil {
		return err
	}
	for range many {
		if err := s.Out.Send(ctx, &greeterpb.Hello{Name: "Ada"}); err != nil {
			return err
		}
	}
	g, err := s.CloseAndReceive(ctx)
	if err != nil {
		return err
	}
	return check.Equal("the number of names", g.Number, many)
}

// all receives what many names are answered with.
func all(ctx context.Context, in *rpc.Source[*greeterpb.Greeting]) error {
	n := int64(0)
	for g, err := range in.All(ctx) {
		if err != nil {
			return err
		}
		if err := errors.Join(check.Equal("the number", g.Number, n), check.Equal("the greeting", g.Text, "hello Ada")); err != nil {
			return err
		}
		n++
	}
	return check.Equal("the number of greetings", n, many)
}

func serverStream(ctx context.Context, c *kernel.Client) error {
	in, err := often(ctx, c, many)
	if err != nil {
		return err
	}
	return all(ctx, in)
}

func bidiStream(ctx context.Context, c *kernel.Client) error {
	b, err := each(ctx, c, nil)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		for range many {
			if err := b.Out.Send(ctx, &greeterpb.Hello{Name: "Ada"}); err != nil {
				sent <- err
				return
			}
		}
		sent <- b.Out.CloseSend()
	}()
	return errors.Join(all(ctx, b.In), <-sent)
}

func failing(ctx context.Context, c *kernel.Client) error {
	_, err := call(ctx, c, "error", kernel.CallOptions{})
	var e *status.StreamError
	if !errors.As(err, &e) {
		return fmt.Errorf("the error is %v", err)
	}
	return errors.Join(
		check.Equal("the code", e.Code, status.FailedPrecondition), check.Equal("the reason", e.Reason, reason),
		check.Equal("the trailer", e.Details.Get(keyWhy), why),
	)
}

func echoed(ctx context.Context, c *kernel.Client) error {
	md := metadata.MD{{Key: echoHeader, Value: "one, two"}, {Key: echoTrailer, Value: "\x00\x01\xfe\xff"}}
	check := func(header, trailer metadata.MD) error {
		return errors.Join(
			check.Equal("the header", header.Get(echoHeader), md[0].Value), check.Equal("the trailer", trailer.Get(echoTrailer), md[1].Value),
		)
	}
	var header, trailer metadata.MD
	if _, err := call(ctx, c, "Ada", kernel.CallOptions{Metadata: md, Header: &header, Trailer: &trailer}); err != nil {
		return err
	}
	if err := check(header, trailer); err != nil {
		return err
	}
	b, err := each(ctx, c, md)
	if err != nil {
		return err
	}
	if err := b.Out.CloseSend(); err != nil {
		return err
	}
	if _, err := b.In.Receive(ctx); err != io.EOF {
		return fmt.Errorf("an empty stream gives %v", err)
	}
	_, header, err = b.Stream().Accepted(ctx)
	if err != nil {
		return err
	}
	return check(header, b.Stream().Trailer())
}

// noticed runs a call that it cancels, and checks that the server counts that.
func noticed(ctx context.Context, c *kernel.Client, run func(ctx context.Context, cancel func()) error) error {
	before, err := call(ctx, c, "cancelled", kernel.CallOptions{})
	if err != nil {
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var e *status.StreamError
	if err := run(inner, cancel); !errors.As(err, &e) || e.Code != status.Cancelled {
		return fmt.Errorf("the cancelled call has ended with %v", err)
	}
	return countsOneMore(ctx, c, before.Number)
}

// countsOneMore asks until the server has seen a call more cancelled than before.
func countsOneMore(ctx context.Context, c *kernel.Client, before int64) error {
	for {
		g, err := call(ctx, c, "cancelled", kernel.CallOptions{})
		if err != nil {
			return fmt.Errorf("the server does not notice: %w", err)
		}
		if g.Number > before {
			return check.Equal("the number of cancelled calls", g.Number, before+1)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func cancelUnary(ctx context.Context, c *kernel.Client) error {
	return noticed(ctx, c, func(ctx context.Context, cancel func()) error {
		defer time.AfterFunc(50*time.Millisecond, cancel).Stop()
		_, err := call(ctx, c, "sleep", kernel.CallOptions{})
		return err
	})
}

func cancelServerStream(ctx context.Context, c *kernel.Client) error {
	return noticed(ctx, c, func(ctx context.Context, cancel func()) error {
		in, err := often(ctx, c, 1<<40)
		if err != nil {
			return err
		}
		n := 0
		for _, err = range in.All(context.WithoutCancel(ctx)) {
			if n++; n == 100 {
				cancel()
			}
		}
		return err
	})
}

func cancelBidi(ctx context.Context, c *kernel.Client) error {
	return noticed(ctx, c, func(ctx context.Context, cancel func()) error {
		b, err := each(ctx, c, nil)
		if err != nil {
			return err
		}
		if err := b.Out.Send(ctx, &greeterpb.Hello{Name: "sleep"}); err != nil {
			return err
		}
		if _, err := b.In.Receive(ctx); err != nil {
			return err
		}
		cancel()
		_, err = b.In.Receive(context.WithoutCancel(ctx))
		return err
	})
}

// deadline checks that the server counts a call whose time is up, too.
func deadline(ctx context.Context, c *kernel.Client) error {
	before, err := call(ctx, c, "cancelled", kernel.CallOptions{})
	if err != nil {
		return err
	}
	_, err = call(ctx, c, "sleep", kernel.CallOptions{Timeout: 100 * time.Millisecond})
	if !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the call has ended with %v", err)
	}
	return countsOneMore(ctx, c, before.Number)
}
