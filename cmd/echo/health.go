package main

import (
	"context"
	"fmt"

	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
	"github.com/sluicerpc/sluice/cmd/echo/internal/flags"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// health sends one message, and wants it back: for supervisors, which look at the exit code. A server
// that drains is not healthy, for it takes no connections.
func health(f *flags.Health, std cli.Std) error {
	tlsConfig, token, err := f.Credentials()
	if err != nil {
		return err
	}
	ctx, cancel := f.Context()
	defer cancel()
	client, err := kernel.Dial(ctx, f.Addr, &kernel.ClientOptions{TLS: tlsConfig, Token: token})
	if err != nil {
		return f.On(err)
	}
	defer client.Close()
	f.Method = methodEcho
	if err := echoes(ctx, client, f.Method); err != nil {
		return f.On(err)
	}
	_, err = fmt.Fprintln(std.Out, "healthy")
	return err
}

// echoes sends a message on a stream of a method, and receives one.
func echoes(ctx context.Context, client *kernel.Client, method string) error {
	s, err := client.Open(ctx, method, nil)
	if err != nil {
		return err
	}
	m := pool.MessageOf([]byte("healthy?"))
	if err := s.Send(ctx, m); err != nil {
		m.Release()
		return err
	}
	reply, err := s.Receive(ctx)
	if err != nil {
		return err
	}
	reply.Release()
	return s.Close(ctx)
}
