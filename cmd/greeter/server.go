package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/sluicerpc/sluice/cmd/greeter/greeterpb"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// A greeter serves Greeter, and prints what it is asked.
type greeter struct {
	out     io.Writer
	running sync.WaitGroup // handlers
}

// counted counts a handler while it runs. A server does not wait for those whose connections are
// gone, and what they print shall still be seen.
func (g *greeter) counted(next kernel.Handler) kernel.Handler {
	return func(ctx context.Context, s *kernel.Stream) error {
		g.running.Add(1)
		defer g.running.Done()
		return next(ctx, s)
	}
}

// begin prints what came with a call.
func (g *greeter) begin(ctx context.Context, method string) {
	s := kernel.FromContext(ctx)
	fmt.Fprintf(g.out, "%s\n", method)
	printFields(g.out, "  request", s.Metadata())
}

// printFields prints metadata, a field a line.
func printFields(w io.Writer, what string, md metadata.MD) {
	for _, f := range md {
		fmt.Fprintf(w, "%s: %s: %s\n", what, f.Key, f.Value)
	}
}

// Greet implements greeterpb.GreeterHandler.
func (g *greeter) Greet(ctx context.Context, req *greeterpb.GreeterRequest) (*greeterpb.GreeterReply, error) {
	g.begin(ctx, "greet")
	fmt.Fprintf(g.out, "  name: %s\n", req.Name)
	return &greeterpb.GreeterReply{Message: "hello, dubbo-rust"}, nil
}

// GreetClientStream implements greeterpb.GreeterHandler.
func (g *greeter) GreetClientStream(ctx context.Context, in *rpc.Source[*greeterpb.GreeterRequest]) (*greeterpb.GreeterReply, error) {
	g.begin(ctx, "greetClientStream")
	if err := g.each(ctx, in, func(string) error { return nil }); err != nil {
		return nil, err
	}
	return &greeterpb.GreeterReply{Message: "hello client streaming"}, nil
}

// GreetServerStream implements greeterpb.GreeterHandler.
func (g *greeter) GreetServerStream(ctx context.Context, req *greeterpb.GreeterRequest, out *rpc.Sink[*greeterpb.GreeterReply]) error {
	g.begin(ctx, "greetServerStream")
	fmt.Fprintf(g.out, "  name: %s\n", req.Name)
	for i := range 3 {
		if err := out.Send(ctx, &greeterpb.GreeterReply{Message: fmt.Sprintf("msg%d from server", i+1)}); err != nil {
			return g.ended(err)
		}
	}
	return g.ended(nil)
}

// GreetStream implements greeterpb.GreeterHandler.
func (g *greeter) GreetStream(ctx context.Context, b *rpc.Bidi[*greeterpb.GreeterRequest, *greeterpb.GreeterReply]) error {
	g.begin(ctx, "greetStream")
	return g.each(ctx, b.In, func(name string) error {
		if name == stop {
			return &status.HandlerError{Code: status.FailedPrecondition, Reason: "asked to stop"}
		}
		return b.Out.Send(ctx, &greeterpb.GreeterReply{Message: fmt.Sprintf("server reply: %q", name)})
	})
}

// stop is the name that ends greetStream with a status.
const stop = "stop"

// each prints every name as it comes and calls f with it, up to the stream's end.
func (g *greeter) each(ctx context.Context, in *rpc.Source[*greeterpb.GreeterRequest], f func(name string) error) error {
	for req, err := range in.All(ctx) {
		if err != nil {
			return g.ended(err)
		}
		fmt.Fprintf(g.out, "  name: %s\n", req.Name)
		if err := f(req.Name); err != nil {
			return g.ended(err)
		}
	}
	return g.ended(nil)
}

// ended prints how a stream has ended.
func (g *greeter) ended(err error) error {
	switch {
	case errors.Is(err, status.ErrDisconnected):
		fmt.Fprintf(g.out, "  client disconnected: %v\n", syscall.EPIPE)
	case err != nil:
		fmt.Fprintf(g.out, "  stream ended: %v\n", err)
	default:
		fmt.Fprintln(g.out, "  stream ended")
	}
	return err
}
