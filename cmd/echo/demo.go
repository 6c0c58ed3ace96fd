package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
	"github.com/sluicerpc/sluice/cmd/echo/internal/data"
	"github.com/sluicerpc/sluice/cmd/echo/internal/flags"
	"github.com/sluicerpc/sluice/cmd/echo/internal/group"
	"github.com/sluicerpc/sluice/cmd/echo/internal/progress"
	"github.com/sluicerpc/sluice/cmd/echo/internal/units"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// demo runs a server and a client. The client sends data over several streams at once, with
// a ping-pong on a further stream.
func demo(f *flags.Demo, std cli.Std) error {
	parts, source, err := f.Parts()
	if err != nil {
		return err
	}
	defer source.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	warnings := slog.NewTextHandler(std.Err, &slog.HandlerOptions{Level: slog.LevelWarn})
	srv, ln, err := listen("127.0.0.1:0", &kernel.ServerOptions{Logger: slog.New(warnings)})
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()

	fmt.Fprintf(std.Out, "%s echoed on %d streams beside a ping-pong, one connection to %s\n",
		units.InBytes(int64(f.Size)), f.Streams, ln.Addr())
	var t transfer
	bar := progress.Start(std.Err, int64(f.Size), t.Status)
	err = t.demonstrate(ctx, ln.Addr().String(), parts)
	bar.Stop()

	// The client has closed, so there is nothing to drain: Close only waits until the
	// server has noticed.
	err = errors.Join(err, srv.Close())
	<-served // ErrServerClosed
	if ctx.Err() != nil {
		return cli.ErrInterrupted
	} else if err != nil {
		return err
	}
	return t.Table(std.Out, data.MaxMixed, pingSize)
}

// demonstrate is the client's side. The ping-pong goes on until the transfer is over; if
// either fails, both end.
func (t *transfer) demonstrate(ctx context.Context, addr string, parts []data.Part) error {
	client, err := kernel.Dial(ctx, addr, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	g, over := group.New(ctx), make(chan struct{})
	g.Go(func() error { return t.pingPong(g.Context(), client, over) })
	g.Go(func() error {
		defer close(over)
		return t.run(g.Context(), client, methodEcho, parts)
	})
	return g.Wait()
}

const pingSize = 64 // bytes

// pingPong sends a message, waits for it, and does it again, all with channels. It
// is paced, so that its latency shows the effect of the streams beside it and not of itself.
func (t *transfer) pingPong(ctx context.Context, client *kernel.Client, over <-chan struct{}) error {
	s, err := client.Open(ctx, methodSelect, nil)
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := byte(0); ; n++ {
		ping, sent := bytes.Repeat([]byte{n}, pingSize), time.Now()
		// Nothing receives from Out once the stream has ended, so every send to it needs
		// another case.
		select {
		case s.Out() <- pool.Copy(ping):
		case <-s.SendDone():
			return why(s, kernel.ErrSendClosed)
		}
		pong, ok := <-s.In()
		if !ok {
			return why(s, io.ErrUnexpectedEOF)
		}
		t.Ping(time.Since(sent))
		if !bytes.Equal(pong.Bytes(), ping) {
			return errors.New("ping-pong: another message came back")
		}
		pong.Release()
		select {
		case <-tick.C:
		case <-over:
			close(s.Out()) // the same as CloseSend, for its only sender
			if _, ok := <-s.In(); ok {
				return errors.New("ping-pong: an answer too many")
			}
			return s.Err()
		}
	}
}
