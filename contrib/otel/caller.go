package sluiceotel

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Caller returns a Caller that makes a span for each Call, Open and OpenN of c, and sends the span's
// context in their metadata where the wire has any. Package rpc takes it like any other. The span
// of a call ends when it returns, that of streams when the last of them has ended. What is
// opened on the connection that its Conn returns has no span.
//
// Each call of this method returns another Caller: sinks of package rpc that go through one call
// must be made with the same.
func (t *Tracing) Caller(c kernel.Caller) kernel.Caller { return &caller{c, t} }

// A caller is a kernel.Caller that traces what it does.
type caller struct {
	of kernel.Caller
	t  *Tracing
}

// begin begins a span and adds its context to the metadata.
func (c *caller) begin(ctx context.Context, method string, md *metadata.MD) (context.Context, trace.Span) {
	ctx, span := c.t.tracer.Start(ctx, valid(method), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(semconv.RPCMethod(valid(method)), semconv.RPCSystemNameKey.String(c.of.Caps().Name)))
	if caps := c.of.Caps(); caps.MaxMetadata > 0 {
		c.t.propagator.Inject(ctx, carrier{md})
	}
	return ctx, span
}

// Call implements kernel.Caller.
func (c *caller) Call(ctx context.Context, method string, req pool.Message, opts *kernel.CallOptions) (pool.Message, error) {
	var o kernel.CallOptions
	if opts != nil {
		o = *opts
	}
	var on *kernel.Conn
	if o.Conn == nil {
		o.Conn = &on
	}
	ctx, span := c.begin(ctx, method, &o.Metadata)
	defer span.End() // also if what is wrapped panics
	m, err := c.of.Call(ctx, method, req, &o)
	if span.IsRecording() {
		span.SetAttributes(serverAddress(*o.Conn)...)
	}
	code, reason := status.Of(err)
	end(span, true, code, reason)
	return m, err
}

// Open implements kernel.Caller.
func (c *caller) Open(ctx context.Context, method string, opts *kernel.OpenOptions) (*kernel.Stream, error) {
	o := openOptions(opts)
	ctx, span := c.begin(ctx, method, &o.Metadata)
	s, err := c.of.Open(ctx, method, o)
	if err != nil {
		code, reason := status.Of(err)
		end(span, true, code, reason)
		return nil, err
	}
	watch(span, s)
	return s, nil
}

// OpenN implements kernel.Caller.
func (c *caller) OpenN(ctx context.Context, method string, opts *kernel.OpenOptions, each ...kernel.StreamOptions) ([]*kernel.Stream, error) {
	o := openOptions(opts)
	ctx, span := c.begin(ctx, method, &o.Metadata)
	streams, err := c.of.OpenN(ctx, method, o, each...)
	if err != nil {
		code, reason := status.Of(err)
		end(span, true, code, reason)
		return nil, err
	}
	watch(span, streams...)
	return streams, nil
}

// watch ends a span when its streams have ended. A span that is not sampled has nothing to tell.
func watch(span trace.Span, streams ...*kernel.Stream) {
	if !span.IsRecording() {
		span.End()
		return
	}
	span.SetAttributes(serverAddress(streams[0].Conn())...)
	go endAfter(span, true, streams)
}

func openOptions(opts *kernel.OpenOptions) *kernel.OpenOptions {
	if opts == nil {
		return &kernel.OpenOptions{}
	}
	o := *opts
	return &o
}

// serverAddress is where the other side of a client's connection is. It may be nil.
func serverAddress(c *kernel.Conn) []attribute.KeyValue {
	if c == nil {
		return nil
	}
	return address(c.Peer().Addr, semconv.ServerAddressKey, semconv.ServerPortKey)
}

// Conn implements kernel.Caller.
func (c *caller) Conn(ctx context.Context) (*kernel.Conn, error) { return c.of.Conn(ctx) }

// Caps implements kernel.Caller.
func (c *caller) Caps() frame.Caps { return c.of.Caps() }
