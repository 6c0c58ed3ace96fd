package kernel_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// logEnds logs every stream when its handler has returned.
func logEnds(log *slog.Logger) kernel.Middleware {
	return func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			err := next(ctx, s)
			log.Info("stream", "method", s.Method(), "error", err)
			return err
		}
	}
}

// reportPanics reports a handler's panic, and lets the server do the rest: it ends the
// stream with INTERNAL.
func reportPanics(report func(method string, panicked any)) kernel.Middleware {
	return func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			defer func() {
				if r := recover(); r != nil {
					report(s.Method(), r)
					panic(r)
				}
			}()
			return next(ctx, s)
		}
	}
}

// checkToken refuses streams that don't come with the token, before any of it is accepted.
func checkToken(token string) kernel.Middleware {
	denied := &status.HandlerError{Code: status.Unauthenticated, Reason: "wrong token"}
	return func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			if s.Metadata().Get("token") != token {
				return denied
			}
			return next(ctx, s)
		}
	}
}

// counters are the figures of one service.
type counters struct{ begun, failed, running atomic.Int64 }

// count keeps the counters. A stream runs until both sides have ended it, which can be
// later than its handler's return.
func (c *counters) count(next kernel.Handler) kernel.Handler {
	return func(ctx context.Context, s *kernel.Stream) error {
		c.begun.Add(1)
		c.running.Add(1)
		err := next(ctx, s)
		if err != nil {
			c.failed.Add(1)
		}
		go func() {
			<-s.Done()
			c.running.Add(-1)
		}()
		return err
	}
}

// limitRate refuses the streams that the limiter does not allow.
func limitRate(l *rate.Limiter) kernel.Middleware {
	refused := &status.HandlerError{Code: status.ResourceExhausted, Reason: "too many streams a second"}
	return func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			if !l.Allow() {
				return refused
			}
			return next(ctx, s)
		}
	}
}

// Middleware goes around the handlers of all patterns, those that are registered later
// too. The first is the outermost.
func ExampleHandlers_Use() {
	ctx := context.Background()
	plain := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	var figures counters
	var handlers kernel.Handlers
	handlers.Use(
		logEnds(plain),
		reportPanics(func(method string, panicked any) { fmt.Println("panic in", method, "-", panicked) }),
		figures.count,
		checkToken("sesame"),
		limitRate(rate.NewLimiter(rate.Every(time.Hour), 2)),
	)
	handlers.Handle("greet", func(ctx context.Context, s *kernel.Stream) error { return s.Send(ctx, say("hello")) })

	srv, err := kernel.NewServer(&kernel.ServerOptions{Handlers: &handlers})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	for _, token := range []string{"sesame", "tahini", "sesame", "sesame"} {
		reply, err := client.Call(ctx, "greet", say("please"), &kernel.CallOptions{
			Metadata: metadata.MD{{Key: "token", Value: token}},
		})
		code, reason := status.Of(err)
		fmt.Printf("%q %v %q\n", reply.Bytes(), code, reason)
	}
	stop()
	fmt.Println(figures.begun.Load(), "begun,", figures.failed.Load(), "failed")
	// Output:
	// msg=stream method=greet error=<nil>
	// "hello" OK ""
	// msg=stream method=greet error="sluice: UNAUTHENTICATED: wrong token"
	// "" UNAUTHENTICATED "wrong token"
	// msg=stream method=greet error=<nil>
	// "hello" OK ""
	// msg=stream method=greet error="sluice: RESOURCE_EXHAUSTED: too many streams a second"
	// "" RESOURCE_EXHAUSTED "too many streams a second"
	// 4 begun, 2 failed
}

// A pattern that ends in a slash serves every method below it; "" serves the rest.
func ExampleHandlers_Handle() {
	ctx := context.Background()
	who := func(name string) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error { return s.Send(ctx, say(name)) }
	}
	var handlers kernel.Handlers
	handlers.Handle("shop.Orders/Get", who("the method"))
	handlers.Handle("shop.Orders/", who("the service"))
	handlers.Handle("", who("the rest"))

	srv, err := kernel.NewServer(&kernel.ServerOptions{Handlers: &handlers})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()
	for _, method := range []string{"shop.Orders/Get", "shop.Orders/List", "shop.Stock/Get"} {
		reply, err := client.Call(ctx, method, pool.Message{}, nil)
		fmt.Printf("%s: %s %v\n", method, reply.Bytes(), err)
	}
	// Output:
	// shop.Orders/Get: the method <nil>
	// shop.Orders/List: the service <nil>
	// shop.Stock/Get: the rest <nil>
}
