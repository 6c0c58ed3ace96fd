package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sluicerpc/sluice/cmd/greeter/greeterpb"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// A caller calls the methods of a Greeter, and prints what comes back.
type caller struct {
	greeterpb.GreeterCaller
	out io.Writer
}

// callAll calls every method.
func callAll(ctx context.Context, c *kernel.Client, out io.Writer) error {
	g := &caller{greeterpb.NewGreeterCaller(c), out}
	for _, section := range []struct {
		name string
		call func(context.Context) error
	}{
		{"unary call", g.unary},
		{"client stream", g.clientStream},
		{"bi stream", g.biStream},
		{"server stream", g.serverStream},
		{"bi stream that is stopped", g.stoppedStream},
	} {
		fmt.Fprintf(out, "# %s\n", section.name)
		err := section.call(ctx)
		if errors.Is(err, kernel.ErrNotSupported) { // the wire can't carry this one
			fmt.Fprintln(out, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", section.name, err)
		}
	}
	return nil
}

func (g *caller) unary(ctx context.Context) error {
	var header, trailer metadata.MD
	reply, err := g.Greet(ctx, &greeterpb.GreeterRequest{Name: "message from client"},
		&rpc.CallOptions{CallOptions: kernel.CallOptions{Header: &header, Trailer: &trailer}})
	if err != nil {
		return err
	}
	printFields(g.out, "header", header)
	fmt.Fprintf(g.out, "reply: %s\n", reply.Message)
	printFields(g.out, "trailer", trailer)
	return nil
}

func (g *caller) clientStream(ctx context.Context) error {
	s, err := g.GreetClientStream(ctx, nil)
	if err != nil {
		return err
	}
	for _, name := range names("client streaming") {
		if err := s.Out.Send(ctx, &greeterpb.GreeterRequest{Name: name}); err != nil {
			return err
		}
	}
	reply, err := s.CloseAndReceive(ctx)
	if err != nil {
		return err
	}
	if err := g.header(ctx, s.Stream()); err != nil {
		return err
	}
	fmt.Fprintf(g.out, "reply: %s\n", reply.Message)
	printFields(g.out, "trailer", s.Stream().Trailer())
	return nil
}

// names are what a stream of the client's sends.
func names(from string) (all []string) {
	for i := range 3 {
		all = append(all, fmt.Sprintf("msg%d from %s", i+1, from))
	}
	return all
}

// header prints the header of a stream that was answered.
func (g *caller) header(ctx context.Context, s *kernel.Stream) error {
	reply, header, err := s.Accepted(ctx)
	if err != nil {
		return err
	}
	reply.Release()
	printFields(g.out, "header", header)
	return nil
}

func (g *caller) biStream(ctx context.Context) error {
	return g.talk(ctx, names("client")...)
}

// stoppedStream asks the server to end the stream with a status.
func (g *caller) stoppedStream(ctx context.Context) error {
	err := g.talk(ctx, "msg1 from client", stop)
	var ended *status.StreamError
	if errors.As(err, &ended) && ended.Remote {
		fmt.Fprintf(g.out, "status: %v: %s\n", ended.Code, ended.Reason)
		return nil
	}
	return err
}

// talk sends names, and prints the reply to each as it comes.
func (g *caller) talk(ctx context.Context, names ...string) error {
	b, err := g.GreetStream(ctx, nil)
	if err != nil {
		return err
	}
	for i, name := range names {
		if err := b.Out.Send(ctx, &greeterpb.GreeterRequest{Name: name}); err != nil {
			return err
		}
		reply, err := b.In.Receive(ctx)
		if err != nil {
			return err
		}
		if i == 0 {
			if err := g.header(ctx, b.Stream()); err != nil {
				return err
			}
		}
		fmt.Fprintf(g.out, "reply: %s\n", reply.Message)
	}
	err = b.Out.CloseSend()
	if errors.Is(err, kernel.ErrNotSupported) { // one direction has no end of its own
		return b.Close(ctx)
	}
	if err != nil {
		return err
	}
	if reply, err := b.In.Receive(ctx); err != io.EOF {
		return fmt.Errorf("behind the last reply: %v, %w", reply, err)
	}
	printFields(g.out, "trailer", b.Stream().Trailer())
	return nil
}

func (g *caller) serverStream(ctx context.Context) error {
	in, err := g.GreetServerStream(ctx, &greeterpb.GreeterRequest{Name: "server streaming req"}, nil)
	if err != nil {
		return err
	}
	if err := g.header(ctx, in.Stream()); err != nil {
		return err
	}
	for reply, err := range in.All(ctx) {
		if err != nil {
			return err
		}
		fmt.Fprintf(g.out, "reply: %s\n", reply.Message)
	}
	printFields(g.out, "trailer", in.Stream().Trailer())
	return nil
}

// disconnect begins a stream and closes its connection.
func disconnect(ctx context.Context, c *kernel.Client) error {
	b, err := greeterpb.NewGreeterCaller(c).GreetStream(ctx, nil)
	if err != nil {
		return err
	}
	if err := b.Out.Send(ctx, &greeterpb.GreeterRequest{Name: "msg1 from client"}); err != nil {
		return err
	}
	if _, err := b.In.Receive(ctx); err != nil {
		return err
	}
	return c.Close()
}
