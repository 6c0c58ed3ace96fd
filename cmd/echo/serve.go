package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sluicerpc/sluice/cmd/echo/internal/advice"
	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
	"github.com/sluicerpc/sluice/cmd/echo/internal/flags"
	"github.com/sluicerpc/sluice/cmd/echo/internal/wire"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// serverOptions are the server's. What is left zero is the library's default, so that
// a flag which was not given changes nothing.
func serverOptions(f *flags.Serve, std cli.Std) (*kernel.ServerOptions, error) {
	tlsConfig, token, err := f.Credentials()
	if err != nil {
		return nil, err
	}
	protocols, err := wire.Parse(f.Protocols)
	if err != nil {
		return nil, err
	}
	opts := &kernel.ServerOptions{
		TLS:       tlsConfig, // nil is plain text
		Protocols: protocols, // on one port, told apart by a connection's first bytes
		Limits:    kernel.Limits{MaxStreams: f.MaxStreams, MaxMessage: int(f.MaxMessage), StreamWindow: int(f.Window)},
		Stream:    kernel.StreamOptions{IdleTimeout: f.Idle},
		Logger:    slog.New(slog.NewTextHandler(std.Err, nil)),
	}
	if token != nil {
		opts.Authenticate = knows(token)
	}
	return opts, nil
}

// knows accepts clients that send the token. Handlers find what it returns in
// Conn.Identity. Over TLS a server can look at the client's certificate instead: p.TLS.
func knows(token []byte) func(context.Context, kernel.Peer) (kernel.Identity, error) {
	return func(_ context.Context, p kernel.Peer) (kernel.Identity, error) {
		if subtle.ConstantTimeCompare(p.Token, token) != 1 {
			return nil, &status.HandlerError{Code: status.Unauthenticated, Reason: "wrong token"}
		}
		return "a client with the token", nil
	}
}

// serve runs a server: it listens, serves, and drains.
func serve(f *flags.Serve, std cli.Std) error {
	opts, err := serverOptions(f, std)
	if err != nil {
		return err
	}
	// Signals first: once the line "serving ..." is printed, a signal means drain.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	shown, err := f.Pages.Open(context.Background(), opts) // it becomes the server's Observer
	if err != nil {
		return err
	}
	srv, ln, err := listen(f.Addr, opts)
	if err != nil {
		return advice.OnListen(f.Addr, err)
	}
	defer shown.Serve(srv, std.Out)()
	if f.Verbose {
		srv.Use(logged(opts.Logger))
	}
	fmt.Fprintf(std.Out, "serving %s and %s on %s%s\n", methodEcho, methodSelect, flags.Addr(ln), &f.Server)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	select {
	case err := <-served:
		return err
	case <-signals:
		return drain(srv, f.Drain, signals, std)
	}
}

// listen makes a server, to serve what comes by the listener. ListenAndServe would do both;
// with a listener of our own we can print its address once it listens.
func listen(addr string, opts *kernel.ServerOptions) (*kernel.Server, net.Listener, error) {
	srv, err := kernel.NewServer(opts)
	if err == nil {
		err = register(srv)
	}
	if err != nil {
		return nil, nil, err
	}
	ln, err := kernel.Listen(context.Background(), addr)
	return srv, ln, err
}

// drain lets open streams finish. Clients are sent a GOAWAY; streams that they open
// before they have it are refused as "not processed", and are safe to retry elsewhere.
func drain(srv *kernel.Server, timeLimit time.Duration, signals <-chan os.Signal, std cli.Std) error {
	fmt.Fprintf(std.Out, "draining for at most %v, connections open: %d; a second signal stops at once\n",
		timeLimit, srv.Stats().Conns)
	ctx, cancel := context.WithTimeout(context.Background(), timeLimit)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- srv.Shutdown(ctx) }()
	select {
	case err := <-drained:
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("streams were still open after %v and have been reset", timeLimit)
		}
		return err
	case <-signals:
		return errors.New("stopped at once by a second signal")
	}
}
