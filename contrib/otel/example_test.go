package sluiceotel_test

import (
	"context"
	"fmt"
	"slices"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	sluiceotel "github.com/sluicerpc/sluice/contrib/otel"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

// A call is two spans of one trace: the client's, and below it the server's.
func ExampleTracing() {
	ctx := context.Background()
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	traces := sluiceotel.NewTracing(&sluiceotel.TracingOptions{TracerProvider: provider})

	srv, err := kernel.NewServer(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	srv.Use(traces.Middleware)
	srv.Handle("greet", func(ctx context.Context, s *kernel.Stream) error {
		return s.Send(ctx, pool.MessageOf([]byte("hello")))
	})
	ln := kerneltest.Listen()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, ln) }()
	client, err := kernel.Dial(ctx, kerneltest.Target, &kernel.ClientOptions{Dial: ln.Dial})
	if err != nil {
		fmt.Println(err)
		return
	}
	reply, err := traces.Caller(client).Call(ctx, "greet", pool.Message{}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	reply.Release()
	_ = client.Close()
	_ = srv.Close()
	<-served

	two := spans.GetSpans()
	slices.SortFunc(two, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	for _, s := range two {
		fmt.Println(s.SpanKind, s.Name)
	}
	fmt.Println("one trace:", two[1].Parent.SpanID() == two[0].SpanContext.SpanID())
	// Output:
	// client greet
	// server greet
	// one trace: true
}
