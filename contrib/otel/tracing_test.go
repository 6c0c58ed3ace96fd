package sluiceotel_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"

	sluiceotel "github.com/sluicerpc/sluice/contrib/otel"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A trace begins at a client of grpc-go's with otelgrpc, goes through a server of ours, from its
// handler over brpc's wire to another, and from that one over sluice's wire to a third: as a
// call, and as a stream. The third calls a server of grpc-go's with otelgrpc.
func TestATraceCrossesEveryWire(t *testing.T) {
	s := newSpans(t)
	tr := s.tracing()
	propagator := propagation.TraceContext{}

	stock := grpc.NewServer(grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(s.provider), otelgrpc.WithPropagators(propagator))))
	healthpb.RegisterHealthServer(stock, health.NewServer())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stock.Serve(ln) }()
	t.Cleanup(func() { stock.Stop(); <-stopped })
	last := tr.Caller(dial(t, "grpc://"+ln.Addr().String(), nil))

	third := newServer(t, nil)
	third.Use(tr.Middleware)
	third.Handle("shop.Stock/Reserve", func(ctx context.Context, st *kernel.Stream) error {
		call(t, ctx, last, "grpc.health.v1.Health/Check")
		return echo(ctx, st)
	})
	toThird := tr.Caller(dial(t, "sluice://"+serve(t, third), nil))

	second := newServer(t, nil)
	second.Use(tr.Middleware)
	second.Handle("shop.Prices/Get", func(ctx context.Context, st *kernel.Stream) error {
		out, err := toThird.Open(ctx, "shop.Stock/Reserve", nil)
		if err != nil {
			return err
		}
		if err := out.Send(ctx, pool.New(10)); err != nil {
			return err
		}
		if err := out.CloseSend(); err != nil {
			return err
		}
		for m, err := range out.All(ctx) {
			if err != nil {
				return err
			}
			m.Release()
		}
		<-out.Done()
		return answer(ctx, st)
	})
	toSecond := tr.Caller(dial(t, "brpc://"+serve(t, second), nil))

	first := newServer(t, nil)
	first.Use(tr.Middleware)
	first.Handle("shop.Orders/Get", func(ctx context.Context, st *kernel.Stream) error {
		call(t, ctx, toSecond, "shop.Prices/Get")
		return answer(ctx, st)
	})
	conn, err := grpc.NewClient(serve(t, first), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelgrpc.WithTracerProvider(s.provider), otelgrpc.WithPropagators(propagator))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.Invoke(t.Context(), "/shop.Orders/Get", &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}

	chain := s.want(t, 8)
	wantChain(t, chain)
	for i, want := range []struct {
		name, system string
		kind         trace.SpanKind
	}{
		{"shop.Orders/Get", "grpc", trace.SpanKindClient}, // grpc-go's
		{"shop.Orders/Get", "grpc", trace.SpanKindServer},
		{"shop.Prices/Get", "brpc", trace.SpanKindClient},
		{"shop.Prices/Get", "brpc", trace.SpanKindServer},
		{"shop.Stock/Reserve", "sluice", trace.SpanKindClient},
		{"shop.Stock/Reserve", "sluice", trace.SpanKindServer},
		{"grpc.health.v1.Health/Check", "grpc", trace.SpanKindClient},
		{"grpc.health.v1.Health/Check", "grpc", trace.SpanKindServer}, // grpc-go's
	} {
		if chain[i].Name() != want.name || chain[i].SpanKind() != want.kind {
			t.Errorf("span %d is %v of %s, want %+v", i, chain[i].SpanKind(), chain[i].Name(), want)
		}
		if i > 0 && i < 7 { // otelgrpc's own ones have what its conventions say
			wantAttributes(t, chain[i], map[attribute.Key]any{
				"rpc.system.name": want.system, "rpc.method": want.name, "rpc.response.status_code": "OK",
			})
		}
	}
	wantAttributes(t, chain[4], map[attribute.Key]any{"server.address": "127.0.0.1", "sluice.stream.messages_sent": int64(1), "sluice.stream.messages_received": int64(1)})
	wantAttributes(t, chain[5], map[attribute.Key]any{"network.peer.address": "127.0.0.1", "sluice.stream.messages_received": int64(1)})
}

// Calls and streams carry the context over every wire that has metadata. Over Seastar's, which has
// none, calls work, and the server's span begins a trace.
func TestEachWire(t *testing.T) {
	for _, wire := range []string{"sluice", "brpc", "grpc", "seastar"} {
		t.Run(wire, func(t *testing.T) {
			s := newSpans(t)
			tr := s.tracing()
			srv := newServer(t, nil)
			srv.Use(tr.Middleware)
			method := "pkg.Service/Answer"
			if wire == "seastar" {
				method = kernel.Verb(7)
			}
			srv.Handle(method, answer)
			c := tr.Caller(dial(t, wire+"://"+serve(t, srv), nil))
			call(t, t.Context(), c, method)
			two := s.want(t, 2)
			if wire != "seastar" {
				wantChain(t, two)
				return
			}
			if two[0].SpanContext().TraceID() == two[1].SpanContext().TraceID() || two[1].Parent().IsValid() {
				t.Error("a trace crosses a wire without metadata")
			}
		})
	}
}

// A handler that opens streams to its client, on the same connection, is in the same trace.
func TestTheServerOpens(t *testing.T) {
	s := newSpans(t)
	tr := s.tracing()
	hs := &kernel.Handlers{}
	hs.Use(tr.Middleware)
	hs.Handle("back", answer)
	srv, client := kerneltest.Start(t, nil, &kernel.ClientOptions{Handlers: hs})
	srv.Use(tr.Middleware)
	srv.Handle("there", func(ctx context.Context, st *kernel.Stream) error {
		call(t, ctx, tr.Caller(st.Conn()), "back")
		return answer(ctx, st)
	})
	call(t, t.Context(), tr.Caller(client), "there")
	wantChain(t, s.want(t, 4))
}

// Errors are errors where the conventions say so: all at a client, the server's own at a server.
func TestStatuses(t *testing.T) {
	for _, c := range []struct {
		err            error
		code           string
		client, server codes.Code
	}{
		{&status.HandlerError{Code: status.NotFound, Reason: "no such order"}, "NOT_FOUND", codes.Error, codes.Unset},
		{&status.HandlerError{Code: status.Unavailable, Reason: "no database"}, "UNAVAILABLE", codes.Error, codes.Error},
		{errors.New("disk full"), "UNKNOWN", codes.Error, codes.Error},
		{errPanic, "INTERNAL", codes.Error, codes.Error},
		{&status.HandlerError{Code: 4711, Reason: "made up"}, "_OTHER", codes.Error, codes.Unset},
	} {
		s := newSpans(t)
		tr := s.tracing()
		srv, client := kerneltest.Start(t, &kernel.ServerOptions{Logger: slog.New(slog.DiscardHandler)}, nil)
		srv.Use(tr.Middleware)
		srv.Handle("fail", func(context.Context, *kernel.Stream) error {
			if c.err == errPanic {
				panic(c.err)
			}
			return c.err
		})
		if _, err := tr.Caller(client).Call(t.Context(), "fail", pool.Message{}, nil); err == nil {
			t.Fatal("no error")
		}
		two := s.want(t, 2)
		for i, want := range []codes.Code{c.client, c.server} {
			if two[i].Status().Code != want {
				t.Errorf("%v: %v has %+v, want %v", c.err, two[i].SpanKind(), two[i].Status(), want)
			}
			wantAttributes(t, two[i], map[attribute.Key]any{"rpc.response.status_code": c.code})
		}
		wantAttributes(t, two[0], map[attribute.Key]any{"error.type": c.code})
	}
}

var errPanic = errors.New("a bug")

// A call that never becomes one has a span too.
func TestNoConnection(t *testing.T) {
	s := newSpans(t)
	_, client := kerneltest.Start(t, nil, nil)
	_ = client.Close()
	c := s.tracing().Caller(client)
	_, err := c.Call(t.Context(), "m", pool.Message{}, nil)
	_, err2 := c.Open(t.Context(), "m", nil)
	_, err3 := c.OpenN(t.Context(), "m", nil, kernel.StreamOptions{})
	if err == nil || err2 == nil || err3 == nil {
		t.Fatal(err, err2, err3)
	}
	for _, span := range s.want(t, 3) {
		if span.Status().Code != codes.Error {
			t.Errorf("%+v", span.Status())
		}
	}
}

// An offer's span lives as long as the streams that its handler has accepted, not just the
// handler.
func TestOffers(t *testing.T) {
	s := newSpans(t)
	tr := s.tracing()
	srv, client := kerneltest.Start(t, nil, nil)
	srv.UseOffer(tr.OfferMiddleware)
	handled := make(chan struct{}, 2)
	srv.HandleOffer("two", func(_ context.Context, o *kernel.Offer) error {
		defer func() { handled <- struct{}{} }()
		_, err := o.AcceptAll(pool.Message{}, nil)
		return err
	})
	srv.HandleOffer("none", func(_ context.Context, o *kernel.Offer) error {
		defer func() { handled <- struct{}{} }()
		return &status.HandlerError{Code: status.Unavailable, Reason: "not now"}
	})
	streams, err := tr.Caller(client).OpenN(t.Context(), "two", nil, kernel.StreamOptions{}, kernel.StreamOptions{})
	if err != nil {
		t.Fatal(err)
	}
	<-handled
	if _, _, err := streams[0].Accepted(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.want(t, 0)
	for _, st := range streams {
		st.Abort(status.Aborted, "enough")
	}
	two := s.want(t, 2)
	wantChain(t, two)
	wantAttributes(t, two[0], map[attribute.Key]any{"rpc.response.status_code": "ABORTED"})

	if st, err := client.Open(t.Context(), "none", nil); err != nil {
		t.Fatal(err)
	} else {
		<-handled
		<-st.Done()
	}
	three := s.want(t, 3)
	wantAttributes(t, three[2], map[attribute.Key]any{"rpc.response.status_code": "UNAVAILABLE", "error.type": "UNAVAILABLE"})
}

// What is not sampled costs no goroutine, and its context still travels.
func TestUnsampled(t *testing.T) {
	p := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	tr := sluiceotel.NewTracing(&sluiceotel.TracingOptions{TracerProvider: p})
	srv, client := kerneltest.Start(t, nil, nil)
	srv.Use(tr.Middleware)
	got := make(chan string, 1)
	srv.Handle("m", func(_ context.Context, st *kernel.Stream) error {
		got <- st.Metadata().Get("traceparent")
		return nil
	})
	st, err := tr.Caller(client).Open(t.Context(), "m", nil)
	if err != nil {
		t.Fatal(err)
	}
	if tp := <-got; len(tp) != 55 || tp[53:] != "00" {
		t.Errorf("%q", tp)
	}
	_ = st.Close(t.Context())
}

// With Public a client decides neither which trace a span is of nor whether it is sampled.
func TestPublic(t *testing.T) {
	s := newSpans(t)
	tr := sluiceotel.NewTracing(&sluiceotel.TracingOptions{TracerProvider: s.provider, Public: true})
	srv, client := kerneltest.Start(t, nil, nil)
	srv.Use(tr.Middleware)
	srv.Handle("m", answer)
	call(t, t.Context(), tr.Caller(client), "m")
	two := s.want(t, 2)
	theirs, ours := two[0], two[1]
	if ours.Parent().IsValid() || ours.SpanContext().TraceID() == theirs.SpanContext().TraceID() {
		t.Error("the client's trace goes on")
	}
	if l := ours.Links(); len(l) != 1 || l[0].SpanContext.SpanID() != theirs.SpanContext().SpanID() {
		t.Errorf("links: %+v", l)
	}
}

// What a program sends on of the metadata that it has got does not hide the span.
func TestTheContextIsReplaced(t *testing.T) {
	s := newSpans(t)
	tr := s.tracing()
	srv, client := kerneltest.Start(t, nil, nil)
	srv.Use(tr.Middleware)
	srv.Handle("m", answer)
	md := metadata.MD{
		{Key: "user", Value: "ada"},
		{Key: "traceparent", Value: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
	}
	m, err := tr.Caller(client).Call(t.Context(), "m", pool.Message{}, &kernel.CallOptions{Metadata: md})
	if err != nil {
		t.Fatal(err)
	}
	m.Release()
	wantChain(t, s.want(t, 2))
	if len(md) != 2 || md[1].Value[3:5] != "4b" {
		t.Errorf("the program's metadata was changed: %v", md)
	}
}

// Names that are no text are made one: they would keep every span from being exported.
func TestNotUTF8(t *testing.T) {
	s := newSpans(t)
	tr := s.tracing()
	srv, client := kerneltest.Start(t, nil, nil)
	srv.Use(tr.Middleware)
	srv.Handle("", answer)
	call(t, t.Context(), tr.Caller(client), "a\xffb")
	for _, span := range s.want(t, 2) {
		if span.Name() != "a\uFFFDb" {
			t.Errorf("%q", span.Name())
		}
	}
}

// A spoiltEnd is a span processor that does harm when a span ends.
type spoiltEnd struct {
	sdktrace.SpanProcessor
	harm func()
	hits chan struct{}
}

func (p spoiltEnd) OnEnd(sdktrace.ReadOnlySpan) {
	p.hits <- struct{}{}
	p.harm()
}

// The spans of streams end in goroutines of their own. A tracer of the program's that panics there
// is logged, and the process lives.
func TestATracerThatPanics(t *testing.T) {
	for name, harm := range map[string]func(){"panic": func() { panic("secret") }, "exit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			hits := make(chan struct{}, 10)
			provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spoiltEnd{tracetest.NewSpanRecorder(), harm, hits}))
			tr := sluiceotel.NewTracing(&sluiceotel.TracingOptions{TracerProvider: provider})
			var journal testkit.Journal
			srv := newServer(t, &kernel.ServerOptions{Logger: journal.Logger()})
			srv.UseOffer(tr.OfferMiddleware)
			srv.HandleOffer("offer", func(ctx context.Context, o *kernel.Offer) error {
				_, err := o.Accept(pool.Message{}, nil)
				return err
			})
			srv.Handle("echo", echo)
			srv.Handle("answer", answer)
			c := dial(t, "sluice://"+serve(t, srv), &kernel.ClientOptions{Logger: journal.Logger()})
			for method, caller := range map[string]kernel.Caller{"offer": c, "echo": tr.Caller(c)} {
				s, err := caller.Open(t.Context(), method, nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := s.Accepted(t.Context()); err != nil && method == "offer" {
					t.Fatal(err)
				}
				s.Abort(status.Cancelled, "")
				<-hits
			}
			for end := time.Now().Add(patience); strings.Count(journal.String(), "hook panicked") < 2; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("logged: %s", &journal)
				}
			}
			call(t, t.Context(), c, "answer")
		})
	}
}
