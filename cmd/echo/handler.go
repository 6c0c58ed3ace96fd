package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/cmd/echo/internal/wire"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// The methods that the server offers: the same service in two styles.
const (
	methodEcho   = "echo"
	methodSelect = "echo.select"
)

// register gives the server its handlers. A handler runs in a goroutine of its own for each
// stream that a client opens.
func register(srv *kernel.Server) error {
	srv.Handle(methodEcho, echo)
	srv.Handle(methodSelect, echoSelect)
	return wire.Register(srv.Handlers, echo) // what clients of brpc and Seastar call an echo
}

// echo is the short style, and the fast one. All ends when the client ends its half,
// and yields the error if the stream ended in any other way, so that it can't be
// forgotten. Send waits while the client takes nothing: then nothing is received
// either, the client's credit runs out, and it has to wait as well. This is the
// backpressure.
//
// A received message belongs to the handler. Send takes it over, so there is nothing to
// release here.
func echo(ctx context.Context, s *kernel.Stream) error {
	for m, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		err := s.Send(ctx, m)
		if errors.Is(err, kernel.ErrNotReadable) {
			m.Release() // the client does not read: there is nothing to echo
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil // ends our half too, after everything that was sent
}

// echoSelect is the same in a select, the style for a handler that waits for more than
// one stream.
//
// It holds at most one message. It receives while it holds none, and sends while it
// holds one; the channel of the other case is nil, which disables that case. There is no
// case for ctx: however the stream ends, both of these channels are closed.
func echoSelect(_ context.Context, s *kernel.Stream) error {
	var held pool.Message
	in, slots := s.In(), (<-chan actor.Slot)(nil)
	for {
		select {
		case m, ok := <-in:
			if !ok {
				return s.Err() // nil if the client ended its half cleanly
			}
			held, in, slots = m, nil, s.Writable()
		case slot, ok := <-slots: // there is credit to send one message
			if !ok {
				return s.Err()
			}
			if err := slot.Send(held); err != nil {
				return err
			}
			in, slots = s.In(), nil
		case since := <-s.Idle(): // nil, and never ready, without an -idle
			return &status.HandlerError{
				Code:   status.IdleTimeout,
				Reason: fmt.Sprintf("nothing received since %s", since.Format("15:04:05")),
			}
		}
	}
}

// logged is a middleware: it makes of a handler one that logs how each stream went. What is
// served by HandleOffer has middleware of its own: Handlers.UseOffer.
func logged(log *slog.Logger) kernel.Middleware {
	return func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			begun := time.Now()
			err := next(ctx, s)
			code, _ := status.Of(err)
			log.Info("stream", "method", s.Method(), "peer", s.Conn().Peer().Addr, "status", code,
				"received", s.Snapshot().MessagesReceived, "took", time.Since(begun))
			return err
		}
	}
}
