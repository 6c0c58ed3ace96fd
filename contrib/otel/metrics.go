package sluiceotel

import (
	"context"
	"slices"
	"sync/atomic"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/sluicerpc/sluice/internal/tally"
	"github.com/sluicerpc/sluice/kernel"
)

// MetricsOptions configure Metrics. A nil pointer and the zero value are the defaults.
type MetricsOptions struct {
	// MeterProvider takes the metrics. Nil is otel.GetMeterProvider.
	MeterProvider metric.MeterProvider
	// Propagator reads the trace's context of a stream, for exemplars. Nil is W3C's.
	Propagator propagation.TextMapPropagator
	// Buckets are the upper bounds of the histograms' buckets, in seconds. Nil goes from 100 us to
	// a day. A view of the MeterProvider comes before them.
	Buckets []float64
	// MaxMethods bounds how many methods are told apart; the rest is "_OTHER". Zero is 200.
	MaxMethods int
	// NoStreams leaves out the metrics of blocked streams, for which each open stream is looked
	// at in each collection: less than a microsecond each.
	NoStreams bool
}

const defaultMethods = 200

// Metrics are those of one server or client, and the kernel.Observer to give to it. A program
// with several makes one for each, under different names. All methods may be called at the same
// time.
type Metrics struct {
	tally      tally.Tally
	methods    *tally.Methods
	noStreams  bool
	propagator propagation.TextMapPropagator
	endpoint   attribute.KeyValue
	watched    atomic.Pointer[tally.Endpoint]

	metrics        []tally.Metric
	instruments    []metric.Observable // of metrics, by index
	server, client metric.Float64Histogram
	acceptance     metric.Float64Histogram
	registration   metric.Registration
}

var _ kernel.Observer = (*Metrics)(nil)

// An Endpoint is a *kernel.Server or a *kernel.Client.
type Endpoint interface{ Stats() kernel.Stats }

// NewMetrics returns Metrics. All have the attribute sluice.endpoint with that name. Give them to
// kernel.ServerOptions or ClientOptions as Observer, and to Watch. They fail with an error of the
// MeterProvider's.
func NewMetrics(endpoint string, opts *MetricsOptions) (*Metrics, error) {
	var o MetricsOptions
	if opts != nil {
		o = *opts
	}
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	if o.Propagator == nil {
		o.Propagator = propagation.TraceContext{}
	}
	if o.Buckets == nil {
		o.Buckets = tally.Buckets()
	}
	if o.MaxMethods == 0 {
		o.MaxMethods = defaultMethods
	}
	m := &Metrics{
		methods: tally.NewMethods(o.MaxMethods), noStreams: o.NoStreams, propagator: o.Propagator,
		endpoint: attribute.String(tally.KeyEndpoint, endpoint), metrics: tally.Metrics(),
	}
	return m, m.register(o.MeterProvider.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL)), o.Buckets)
}

// register makes the instruments.
func (m *Metrics) register(meter metric.Meter, buckets []float64) error {
	for _, d := range m.metrics {
		i, err := observable(meter, &d)
		if err != nil {
			return err
		}
		m.instruments = append(m.instruments, i)
	}
	for to, d := range map[*metric.Float64Histogram]tally.Metric{
		&m.server: tally.ServerDuration, &m.client: tally.ClientDuration, &m.acceptance: tally.Acceptance,
	} {
		h, err := meter.Float64Histogram(d.Name, metric.WithUnit(d.Unit), metric.WithDescription(d.Help),
			metric.WithExplicitBucketBoundaries(slices.Clone(buckets)...))
		if err != nil {
			return err
		}
		*to = h
	}
	r, err := meter.RegisterCallback(m.observe, m.instruments...)
	m.registration = r
	return err
}

// observable makes the instrument of a metric: times are floats, all else is whole.
func observable(meter metric.Meter, d *tally.Metric) (metric.Observable, error) {
	unit, help := metric.WithUnit(d.Unit), metric.WithDescription(d.Help)
	switch {
	case d.Counter:
		return meter.Int64ObservableCounter(d.Name, unit, help)
	case d.Unit == "s":
		return meter.Float64ObservableGauge(d.Name, unit, help)
	}
	return meter.Int64ObservableUpDownCounter(d.Name, unit, help)
}

// Close has the MeterProvider ask no more. What was recorded stays.
func (m *Metrics) Close() error { return m.registration.Unregister() }

// Watch has what e counts by itself exported too: what it has refused, its memory, panics, and the
// event loops if e is a server. e is the server or client whose Observer m is.
func (m *Metrics) Watch(e Endpoint) {
	of := tally.Endpoint(e)
	m.watched.Store(&of)
}

// observe is called when the metrics are collected. It looks at every open connection, and at
// every open stream unless MetricsOptions.NoStreams says otherwise.
func (m *Metrics) observe(_ context.Context, to metric.Observer) error {
	var of tally.Endpoint
	if e := m.watched.Load(); e != nil {
		of = *e
	}
	m.tally.Each(of, !m.noStreams, func(index int, value float64, values ...string) {
		kvs := m.attributes(m.metrics[index].Keys, values...)
		switch i := m.instruments[index].(type) {
		case metric.Int64Observable:
			to.ObserveInt64(i, int64(value), metric.WithAttributeSet(kvs))
		case metric.Float64Observable:
			to.ObserveFloat64(i, value, metric.WithAttributeSet(kvs))
		}
	})
	return nil
}

// attributes are keys with their values, but those that are empty, and the endpoint's.
func (m *Metrics) attributes(keys []string, values ...string) attribute.Set {
	kvs := make([]attribute.KeyValue, 1, len(keys)+1)
	kvs[0] = m.endpoint
	for i, k := range keys {
		if values[i] != "" {
			kvs = append(kvs, attribute.String(k, values[i]))
		}
	}
	return attribute.NewSet(kvs...)
}

// ConnBegun implements kernel.Observer.
func (m *Metrics) ConnBegun(c *kernel.Conn) { m.tally.ConnBegun(c) }

// ConnEnded implements kernel.Observer.
func (m *Metrics) ConnEnded(c *kernel.Conn, i kernel.ConnInfo) { m.tally.ConnEnded(c, i) }

// StreamBegun implements kernel.Observer.
func (m *Metrics) StreamBegun(*kernel.Stream) {}

// StreamEnded implements kernel.Observer. It records how long the stream has lasted, in the context
// of its trace.
func (m *Metrics) StreamEnded(s *kernel.Stream, i kernel.StreamInfo) {
	protocol, method, code := s.Conn().Protocol(), m.methods.Name(s, &i), tally.Code(i.Code)
	failed := ""
	if tally.Failed(i.Opener, i.Code) {
		failed = code
	}
	duration, role := m.server, "server"
	if i.Opener {
		duration, role = m.client, "client"
	}
	md := s.Metadata()
	ctx := m.propagator.Extract(context.Background(), carrier{&md})
	duration.Record(ctx, i.Age.Seconds(), metric.WithAttributeSet(m.attributes(tally.ServerDuration.Keys, protocol, method, code, failed)))
	if i.Latency > 0 {
		m.acceptance.Record(ctx, i.Latency.Seconds(), metric.WithAttributeSet(m.attributes(tally.Acceptance.Keys, protocol, method, role)))
	}
}
