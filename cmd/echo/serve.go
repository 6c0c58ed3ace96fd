package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/sluicerpc/sluice/cmd/echo/internal/advice"
	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
	"github.com/sluicerpc/sluice/cmd/echo/internal/flags"
	"github.com/sluicerpc/sluice/cmd/echo/internal/handover"
	"github.com/sluicerpc/sluice/cmd/echo/internal/notify"
	"github.com/sluicerpc/sluice/cmd/echo/internal/pages"
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
		Logger:    f.Pages.Logger(std.Err),
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

// serve runs a server: it listens, serves, serves anew on SIGHUP, and drains.
func serve(f *flags.Serve, std cli.Std) error {
	// Signals first: once the line "serving ..." is printed, a signal means drain.
	signals, hangups := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	shown, err := f.Pages.Open(context.Background(), f.Pages.Logger(std.Err))
	if err != nil {
		return err
	}
	srv, err := configured(f, shown, std)
	if err != nil {
		return advice.OnListen(f.Addr, err)
	}
	ln, err := kernel.Listen(context.Background(), f.Addr)
	if err != nil {
		return advice.OnListen(f.Addr, err)
	}
	defer shown.Serve(std.Out)()
	now := begin(srv, ln)
	status := fmt.Sprintf("serving %s and %s on %s%s", methodEcho, methodSelect, flags.Addr(ln), &f.Server)
	fmt.Fprintln(std.Out, status)
	var before sync.WaitGroup // servers that drain since a SIGHUP
	told := notify.Ready(status)
	for {
		if told != nil {
			fmt.Fprintln(std.Err, "echo: telling the service manager:", told)
		}
		select {
		case err := <-now.served:
			return err
		case <-hangups:
			told = notify.Reloading()
			if next, err := now.handOver(f, shown, std); err != nil {
				fmt.Fprintln(std.Err, "echo: nothing has changed:", err)
			} else {
				old := now.srv
				before.Go(func() {
					_ = shutdown(old, f.Drain)
					shown.Remove(old)
				})
				now = next
			}
			told = errors.Join(told, notify.Ready(status))
		case <-signals:
			_ = notify.Stopping("draining")
			return drain(now.srv, &before, f.Drain, signals, std)
		}
	}
}

// configured makes a server of what the flags and the files that they name say.
func configured(f *flags.Serve, shown *pages.Pages, std cli.Std) (*kernel.Server, error) {
	opts, err := serverOptions(f, std)
	if err != nil {
		return nil, err
	}
	shown.Observe(opts)
	srv, err := newServer(opts)
	if err != nil {
		return nil, err
	}
	if f.Verbose {
		srv.Use(logged(opts.Logger))
	}
	shown.Add(srv)
	return srv, nil
}

func newServer(opts *kernel.ServerOptions) (*kernel.Server, error) {
	srv, err := kernel.NewServer(opts)
	if err == nil {
		err = register(srv)
	}
	return srv, err
}

// listen makes a server, to serve what comes by the listener. ListenAndServe would do both;
// with a listener of our own we can print its address once it listens, and hand its socket over.
func listen(addr string, opts *kernel.ServerOptions) (*kernel.Server, net.Listener, error) {
	srv, err := newServer(opts)
	if err != nil {
		return nil, nil, err
	}
	ln, err := kernel.Listen(context.Background(), addr)
	return srv, ln, err
}

// A running is a server that serves what comes by a listener.
type running struct {
	srv    *kernel.Server
	ln     net.Listener
	served chan error // gets the error of Serve
}

func begin(srv *kernel.Server, ln net.Listener) *running {
	r := &running{srv, ln, make(chan error, 1)}
	go func() { r.served <- srv.Serve(context.Background(), ln) }()
	return r
}

// handOver has a new server serve r's socket too, with the certificates and the token that the
// files have now. r's server can drain then: its clients are told so, and connect to the new one.
func (r *running) handOver(f *flags.Serve, shown *pages.Pages, std cli.Std) (*running, error) {
	ln, err := handover.Again(r.ln)
	if err != nil {
		return nil, err
	}
	srv, err := configured(f, shown, std)
	if err != nil {
		_ = ln.Close()
		return nil, err
	}
	fmt.Fprintln(std.Out, "serving anew, connections that drain:", r.srv.Stats().Conns)
	return begin(srv, ln), nil
}

func shutdown(srv *kernel.Server, timeLimit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeLimit)
	defer cancel()
	return srv.Shutdown(ctx)
}

// drain lets open streams finish. Clients are sent a GOAWAY; streams that they open
// before they have it are refused as "not processed", and are safe to retry elsewhere.
func drain(srv *kernel.Server, before *sync.WaitGroup, timeLimit time.Duration, signals <-chan os.Signal, std cli.Std) error {
	fmt.Fprintf(std.Out, "draining for at most %v, connections open: %d; a second signal stops at once\n",
		timeLimit, srv.Stats().Conns)
	drained := make(chan error, 1)
	go func() {
		err := shutdown(srv, timeLimit)
		before.Wait()
		drained <- err
	}()
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
