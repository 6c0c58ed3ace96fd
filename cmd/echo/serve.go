package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// defaultAddr is where serve listens and call connects.
const defaultAddr = "127.0.0.1:7000"

type serveFlags struct {
	addr       string
	protos     string
	tls        serverTLS
	maxStreams int
	maxMessage byteCount
	window     byteCount
	idle       time.Duration
	drain      time.Duration
}

func (f *serveFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.addr, "addr", defaultAddr, "`HOST:PORT` to listen on, where port 0 takes a free one, or unix:PATH")
	fs.StringVar(&f.protos, "proto", wireNames(), "`PROTOCOLS` to serve on the one port, told apart by a connection's first bytes")
	f.tls.register(fs)
	fs.IntVar(&f.maxStreams, "max-streams", 0, "streams that a client may have open on a connection (default 1000)")
	fs.Var(&f.maxMessage, "max-message", "`SIZE` of the largest message taken (default 4M)")
	fs.Var(&f.window, "window", "`SIZE` of what a client may have unread on one stream (default 1M)")
	fs.DurationVar(&f.idle, "idle", 0, "end "+methodSelect+" streams on which nothing was received for this long (default never)")
	fs.DurationVar(&f.drain, "drain", 30*time.Second, "how long open streams may go on after the first signal")
}

// options are the server's. What is left zero is the library's default, so that
// a flag which was not given changes nothing.
func (f *serveFlags) options(std stdio) (*kernel.ServerOptions, error) {
	tlsConfig, err := f.tls.config()
	if err != nil {
		return nil, err
	}
	ps, err := protocols(f.protos)
	if err != nil {
		return nil, err
	}
	return &kernel.ServerOptions{
		TLS:       tlsConfig,
		Protocols: ps,
		Limits: kernel.Limits{
			MaxStreams:   f.maxStreams,
			MaxMessage:   int(f.maxMessage),
			StreamWindow: int(f.window),
		},
		Stream: kernel.StreamOptions{IdleTimeout: f.idle},
		Logger: slog.New(slog.NewTextHandler(std.err, nil)),
	}, nil
}

// serve runs a server: it listens, serves, and drains.
func serve(c *command, args []string, std stdio) error {
	var f serveFlags
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	f.register(fs)
	if _, err := c.parse(fs, args, 0, std); err != nil {
		return err
	}
	opts, err := f.options(std)
	if err != nil {
		return err
	}
	srv, err := kernel.NewServer(opts)
	if errors.Is(err, kernel.ErrLimits) {
		return usageError{err}
	} else if err != nil {
		return err
	}
	if err := handle(srv); err != nil {
		return err
	}

	// Signals first: once the line "serving ..." is printed, a signal means drain.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	// ListenAndServe would do. With a listener of our own we can print its address
	// once it listens: a client that reads the line can connect.
	ln, err := kernel.Listen(context.Background(), f.addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another program; choose another one with -addr", f.addr)
	} else if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "serving %s and %s on %s%s\n", methodEcho, methodSelect, address(ln), f.tls.describe())

	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	select {
	case err := <-served:
		return err
	case <-signals:
		return drain(srv, f.drain, signals, std)
	}
}

// address is what a client takes as -addr.
func address(ln net.Listener) string {
	if a := ln.Addr(); a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return ln.Addr().String()
}

// drain lets open streams finish. Clients are sent a GOAWAY; streams that they open
// before they have it are refused as "not processed", and are safe to retry elsewhere.
func drain(srv *kernel.Server, timeLimit time.Duration, signals <-chan os.Signal, std stdio) error {
	fmt.Fprintf(std.out, "draining for at most %v, connections open: %d; a second signal stops at once\n",
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
