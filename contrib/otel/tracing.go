package sluiceotel

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sluicerpc/sluice/internal/tally"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

// scope is the name of what makes the spans and metrics.
const scope = "github.com/sluicerpc/sluice/contrib/otel"

// TracingOptions configure a Tracing. A nil pointer and the zero value are the defaults.
type TracingOptions struct {
	// TracerProvider makes the spans. Nil is otel.GetTracerProvider.
	TracerProvider trace.TracerProvider
	// Propagator reads and writes the trace's context in metadata. Nil is W3C's trace context alone.
	// Keys and values that it writes must be metadata that the wire can carry.
	Propagator propagation.TextMapPropagator
	// Public has every stream that a peer opens begin a trace of its own, which has a link to
	// the peer's: for peers that must not decide what is sampled.
	Public bool
}

// Tracing makes a span for each stream: its middleware for those that a peer opens, its Caller for
// those that this side opens. All methods may be called at the same time.
type Tracing struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	public     bool
}

// NewTracing returns a Tracing.
func NewTracing(opts *TracingOptions) *Tracing {
	var o TracingOptions
	if opts != nil {
		o = *opts
	}
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	if o.Propagator == nil {
		o.Propagator = propagation.TraceContext{}
	}
	return &Tracing{
		tracer:     o.TracerProvider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)),
		propagator: o.Propagator, public: o.Public,
	}
}

// Middleware is a kernel.Middleware, for Handlers.Use. The span is that of the handler: it begins
// and ends with it, and ctx has it. Stream.Context has not.
func (t *Tracing) Middleware(next kernel.Handler) kernel.Handler {
	return func(ctx context.Context, s *kernel.Stream) error {
		ctx, span := t.beginServer(ctx, s.Conn(), s.Method(), s.Metadata())
		returned := false
		defer endPanicked(span, &returned)
		err := next(ctx, s)
		returned = true
		code, reason := status.Of(err)
		end(span, false, code, reason, s)
		return err
	}
}

// OfferMiddleware is the same for Handlers.UseOffer. Streams that the handler has accepted may
// live on after its return: the span ends with the last of them.
func (t *Tracing) OfferMiddleware(next kernel.OfferHandler) kernel.OfferHandler {
	return func(ctx context.Context, o *kernel.Offer) error {
		ctx, span := t.beginServer(ctx, o.Conn(), o.Method(), o.Metadata())
		returned := false
		defer endPanicked(span, &returned)
		err := next(ctx, o)
		returned = true
		streams := make([]*kernel.Stream, o.Streams())
		for i := range streams {
			streams[i] = o.Stream(i)
		}
		if err == nil && span.IsRecording() {
			go endAfter(span, false, streams)
			return nil
		}
		code, reason := status.Of(err)
		end(span, false, code, reason, streams...)
		return err
	}
}

// endPanicked ends the span of a handler that has panicked, or ended its goroutine. The kernel
// logs that, and ends the stream.
func endPanicked(span trace.Span, returned *bool) {
	if !*returned {
		end(span, false, status.Internal, "the handler panicked")
	}
}

// beginServer begins the span of a stream that the peer has opened.
func (t *Tracing) beginServer(ctx context.Context, c *kernel.Conn, method string, md metadata.MD) (context.Context, trace.Span) {
	opts := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(peerAttributes(c, method)...)}
	remote := t.propagator.Extract(ctx, carrier{&md})
	if !t.public {
		return t.tracer.Start(remote, valid(method), opts...)
	}
	if sc := trace.SpanContextFromContext(remote); sc.IsRemote() && sc.IsValid() {
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: sc}))
	}
	return t.tracer.Start(remote, valid(method), append(opts, trace.WithNewRoot())...)
}

// end ends a span with the code and reason of what it stands for, and what its streams have carried.
func end(span trace.Span, opener bool, code status.Code, reason string, streams ...*kernel.Stream) {
	defer span.End()
	if !span.IsRecording() {
		return
	}
	name := tally.Code(code)
	span.SetAttributes(semconv.RPCResponseStatusCode(name))
	if tally.Failed(opener, code) {
		span.SetStatus(codes.Error, valid(reason))
		span.SetAttributes(semconv.ErrorTypeKey.String(name))
	}
	if len(streams) > 0 {
		span.SetAttributes(carried(streams)...)
	}
}

// endAfter waits until the streams have ended, and ends their span with the code of the first one
// that has failed. It has a goroutine of its own: where the program's tracer panics, that is logged.
func endAfter(span trace.Span, opener bool, streams []*kernel.Stream) {
	returned := false
	defer func() {
		if p := recover(); !returned {
			if p == nil {
				p = "runtime.Goexit"
			}
			c := streams[0].Conn()
			c.Logger().Error("sluice: hook panicked", "hook", "trace.Span", "peer", c.Peer().Addr,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	code, reason := status.OK, ""
	for _, s := range streams {
		<-s.Done()
		if i := s.Snapshot(); code == status.OK && i.Code != status.OK {
			code = i.Code
			if err := s.Err(); err != nil {
				reason = err.Error()
			}
		}
	}
	end(span, opener, code, reason, streams...)
	returned = true
}

// carried is what streams have carried, all together.
func carried(streams []*kernel.Stream) []attribute.KeyValue {
	var sum kernel.StreamInfo
	for _, s := range streams {
		i := s.Snapshot()
		sum.MessagesSent += i.MessagesSent
		sum.BytesSent += i.BytesSent
		sum.MessagesReceived += i.MessagesReceived
		sum.BytesReceived += i.BytesReceived
	}
	return []attribute.KeyValue{
		attribute.Int64("sluice.stream.messages_sent", int64(sum.MessagesSent)),
		attribute.Int64("sluice.stream.bytes_sent", int64(sum.BytesSent)),
		attribute.Int64("sluice.stream.messages_received", int64(sum.MessagesReceived)),
		attribute.Int64("sluice.stream.bytes_received", int64(sum.BytesReceived)),
	}
}

// peerAttributes are what a span of either side has.
func peerAttributes(c *kernel.Conn, method string) []attribute.KeyValue {
	kvs := []attribute.KeyValue{semconv.RPCMethod(valid(method)), semconv.RPCSystemNameKey.String(c.Protocol())}
	return append(kvs, address(c.Peer().Addr, semconv.NetworkPeerAddressKey, semconv.NetworkPeerPortKey)...)
}

// address is an address under two keys.
func address(a net.Addr, host, port attribute.Key) []attribute.KeyValue {
	if a == nil {
		return nil
	}
	h, p, err := net.SplitHostPort(a.String())
	if err != nil { // a Unix socket, a pipe
		return []attribute.KeyValue{host.String(valid(a.String()))}
	}
	kvs := []attribute.KeyValue{host.String(valid(h))}
	if n, err := strconv.Atoi(p); err == nil {
		kvs = append(kvs, port.Int(n))
	}
	return kvs
}

// valid is what OpenTelemetry takes: a peer chooses methods and reasons.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// A carrier is metadata as a propagator reads and writes it.
type carrier struct{ md *metadata.MD }

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(key string) string { return c.md.Get(strings.ToLower(key)) }

// Values implements propagation.ValuesGetter: baggage may come in several fields.
func (c carrier) Values(key string) []string { return c.md.Values(strings.ToLower(key)) }

// Set implements propagation.TextMapCarrier. It replaces what there is.
func (c carrier) Set(key, value string) {
	key = strings.ToLower(key)
	kept := make(metadata.MD, 0, len(*c.md)+1)
	for _, f := range *c.md {
		if f.Key != key {
			kept = append(kept, f)
		}
	}
	*c.md = append(kept, metadata.Field{Key: key, Value: value})
}

// Keys implements propagation.TextMapCarrier.
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(*c.md))
	for _, f := range *c.md {
		keys = append(keys, f.Key)
	}
	return keys
}
