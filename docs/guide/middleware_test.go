package guide_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// logStreams logs each stream when its handler has returned.
func logStreams(log func(line string)) kernel.Middleware {
	return func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			start := time.Now()
			err := next(ctx, s)
			code, _ := status.Of(err)
			log(fmt.Sprint(s.Method(), " from ", s.Conn().Peer().Addr, ": ", code, " after ", time.Since(start)))
			return err
		}
	}
}

// onlyWhileOpen refuses streams before they are accepted.
func onlyWhileOpen(isOpen func() bool) kernel.Middleware {
	return func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			if !isOpen() {
				return &status.HandlerError{Code: status.Unavailable, Reason: "closed for the night"}
			}
			return next(ctx, s)
		}
	}
}

type requestID struct{}

// withRequestID gives handlers a value in their context, and the client a header.
func withRequestID(next kernel.Handler) kernel.Handler {
	return func(ctx context.Context, s *kernel.Stream) error {
		id := s.Metadata().Get("request-id")
		if err := s.SetHeader(metadata.MD{{Key: "request-id", Value: id}}); err != nil {
			return err
		}
		return next(context.WithValue(ctx, requestID{}, id), s)
	}
}

func useAll(hs *kernel.Handlers, log func(line string), isOpen func() bool) {
	hs.Use(logStreams(log), onlyWhileOpen(isOpen), withRequestID)
}

// A tracer is a client whose calls and streams all carry an id.
type tracer struct {
	kernel.Caller
	id string
}

func (t *tracer) Call(ctx context.Context, method string, req pool.Message, opts *kernel.CallOptions) (pool.Message, error) {
	with := kernel.CallOptions{}
	if opts != nil {
		with = *opts
	}
	with.Metadata = t.add(with.Metadata)
	return t.Caller.Call(ctx, method, req, &with)
}

func (t *tracer) Open(ctx context.Context, method string, opts *kernel.OpenOptions) (*kernel.Stream, error) {
	with := kernel.OpenOptions{}
	if opts != nil {
		with = *opts
	}
	with.Metadata = t.add(with.Metadata)
	return t.Caller.Open(ctx, method, &with)
}

func (t *tracer) add(md metadata.MD) metadata.MD {
	return append(slices.Clip(md), metadata.Field{Key: "request-id", Value: t.id})
}

func TestMiddleware(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		var lines []string
		open := true
		useAll(w.Srv.Handlers, func(line string) { lines = append(lines, line) }, func() bool { return open })
		testkit.OK(t, rpc.HandleUnary(w.Srv, "greet", func(ctx context.Context, name string) (string, error) {
			return fmt.Sprint("hello ", name, ", ", ctx.Value(requestID{})), nil
		}, nil))
		c := &tracer{w.Client, "7"}
		var header metadata.MD
		got, err := rpc.Call[string](w.Ctx, c, "greet", "Ada", &rpc.CallOptions{CallOptions: kernel.CallOptions{Header: &header}})
		if got != "hello Ada, 7" || err != nil || header.Get("request-id") != "7" {
			t.Errorf("%q, %v, %v", got, err, header)
		}
		w.Quiesce()
		open = false
		_, err = c.Open(w.Ctx, "greet", nil)
		testkit.OK(t, err)
		w.Quiesce()
		_, err = rpc.Call[string](w.Ctx, c, "greet", "Ada", nil)
		if !errors.Is(err, &status.StreamError{Code: status.Unavailable}) || !errors.Is(err, kernel.ErrRefused) {
			t.Error(err)
		}
		w.Quiesce()
		if len(lines) != 3 || lines[0] != "greet from pipe: OK after 0s" || !strings.Contains(lines[2], "UNAVAILABLE") {
			t.Errorf("%q", lines)
		}
	})
}
