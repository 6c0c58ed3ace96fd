package sluiceotel_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	sluiceotel "github.com/sluicerpc/sluice/contrib/otel"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// patience is how long something may take that must happen.
const patience = 20 * time.Second

// protocols are all wires, on one port.
func protocols() []frame.Protocol {
	return []frame.Protocol{native.Protocol{}, strm.Protocol{}, triple.Protocol{}, &seastar.Protocol{}}
}

// spans keeps the spans of a test.
type spans struct {
	rec      *tracetest.SpanRecorder
	provider *sdktrace.TracerProvider
}

func newSpans(t *testing.T) *spans {
	t.Helper()
	rec := tracetest.NewSpanRecorder()
	p := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec))
	t.Cleanup(func() { _ = p.Shutdown(context.WithoutCancel(t.Context())) })
	return &spans{rec, p}
}

func (s *spans) tracing() *sluiceotel.Tracing {
	return sluiceotel.NewTracing(&sluiceotel.TracingOptions{TracerProvider: s.provider})
}

// want waits until n spans have ended, and returns them in the order of their beginning.
func (s *spans) want(t *testing.T, n int) []sdktrace.ReadOnlySpan {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		ended := s.rec.Ended()
		if len(ended) == n {
			slices.SortFunc(ended, func(a, b sdktrace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
			return ended
		}
		if len(ended) > n || time.Now().After(deadline) {
			for _, e := range ended {
				t.Logf("%s %v %v", e.Name(), e.SpanKind(), e.Attributes())
			}
			t.Fatalf("%d spans, want %d", len(ended), n)
		}
	}
}

// wantChain checks that the spans are of one trace, each the parent of the next.
func wantChain(t *testing.T, chain []sdktrace.ReadOnlySpan) {
	t.Helper()
	if chain[0].Parent().IsValid() {
		t.Errorf("%s has a parent", chain[0].Name())
	}
	for i, s := range chain[1:] {
		before := chain[i].SpanContext()
		if s.SpanContext().TraceID() != before.TraceID() {
			t.Errorf("span %d, %s, is of another trace", i+1, s.Name())
		}
		if s.Parent().SpanID() != before.SpanID() {
			t.Errorf("the parent of span %d, %s, is not the one before it", i+1, s.Name())
		}
	}
}

// wantAttributes checks some attributes of a span.
func wantAttributes(t *testing.T, s sdktrace.ReadOnlySpan, want map[attribute.Key]any) {
	t.Helper()
	got := map[attribute.Key]any{}
	for _, kv := range s.Attributes() {
		got[kv.Key] = kv.Value.AsInterface()
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s, %v: %s is %v, want %v", s.Name(), s.SpanKind(), k, got[k], v)
		}
	}
}

// serve serves on loopback until the test ends, and returns the address.
func serve(t *testing.T, srv *kernel.Server) string {
	t.Helper()
	ln, err := kernel.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.WithoutCancel(t.Context()), ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return ln.Addr().String()
}

func newServer(t *testing.T, opts *kernel.ServerOptions) *kernel.Server {
	t.Helper()
	if opts == nil {
		opts = &kernel.ServerOptions{}
	}
	opts.Protocols = protocols()
	srv, err := kernel.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	return srv
}

func dial(t *testing.T, target string, opts *kernel.ClientOptions) *kernel.Client {
	t.Helper()
	if opts == nil {
		opts = &kernel.ClientOptions{}
	}
	opts.Protocols = protocols()
	c, err := kernel.Dial(t.Context(), target, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// call makes a call that must succeed.
func call(t *testing.T, ctx context.Context, c kernel.Caller, method string) {
	t.Helper()
	m, err := c.Call(ctx, method, pool.Message{}, nil)
	if err != nil {
		t.Error(err)
	}
	m.Release()
}

// echo sends back what it gets.
func echo(ctx context.Context, s *kernel.Stream) error {
	for m, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		if err := s.Send(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// answer answers a call.
func answer(ctx context.Context, s *kernel.Stream) error { return s.Send(ctx, pool.Message{}) }
