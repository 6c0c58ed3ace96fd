package sluiceprometheus

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicerpc/sluice/internal/tally"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
)

// Options configure a Collector. A nil pointer and the zero value are the defaults.
type Options struct {
	// Buckets are the upper bounds of the histograms' buckets, in seconds. Nil goes from 100 us to
	// a day.
	Buckets []float64
	// NativeFactor, if it is more than 1, adds native histograms whose buckets grow by no more
	// than that, for Prometheus servers that take them. 1.1 is usual.
	NativeFactor float64
	// MaxMethods bounds how many methods are told apart; the rest is "_OTHER". Zero is 200.
	MaxMethods int
	// NoStreams leaves out the metrics of blocked streams, for which each open stream is looked
	// at in each scrape: less than a microsecond each.
	NoStreams bool
}

const (
	defaultMethods = 200
	nativeBuckets  = 160 // of a native histogram, after which it becomes coarser
)

// A Collector is a prometheus.Collector of one server or client, and the kernel.Observer to give
// to it. A program with several makes one for each, under different names. All methods may be
// called at the same time.
type Collector struct {
	tally     tally.Tally
	methods   *tally.Methods
	noStreams bool
	watched   atomic.Pointer[tally.Endpoint]

	metrics        []tally.Metric
	descs          []*prometheus.Desc // of metrics, by index
	server, client *prometheus.HistogramVec
	acceptance     *prometheus.HistogramVec
}

var (
	_ prometheus.Collector = (*Collector)(nil)
	_ kernel.Observer      = (*Collector)(nil)
)

// An Endpoint is a *kernel.Server or a *kernel.Client.
type Endpoint interface{ Stats() kernel.Stats }

// New returns a Collector. All its metrics have the label sluice_endpoint with that name. Give it to
// kernel.ServerOptions or ClientOptions as Observer, to Watch, and to a prometheus.Registerer.
func New(endpoint string, opts *Options) *Collector {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Buckets == nil {
		o.Buckets = tally.Buckets()
	}
	if o.MaxMethods == 0 {
		o.MaxMethods = defaultMethods
	}
	label := prometheus.Labels{labelName(tally.KeyEndpoint): endpoint}
	c := &Collector{methods: tally.NewMethods(o.MaxMethods), noStreams: o.NoStreams, metrics: tally.Metrics()}
	for _, m := range c.metrics {
		c.descs = append(c.descs, prometheus.NewDesc(metricName(&m), m.Help, labelNames(m.Keys), label))
	}
	histogram := func(m tally.Metric) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metricName(&m), Help: m.Help, ConstLabels: label, Buckets: slices.Clone(o.Buckets),
			NativeHistogramBucketFactor: o.NativeFactor, NativeHistogramMaxBucketNumber: nativeBuckets,
		}, labelNames(m.Keys))
	}
	c.server, c.client = histogram(tally.ServerDuration), histogram(tally.ClientDuration)
	c.acceptance = histogram(tally.Acceptance)
	return c
}

// Watch has what e counts by itself exported too: what it has refused, its memory, panics, and the
// event loops if e is a server. e is the server or client whose Observer c is.
func (c *Collector) Watch(e Endpoint) {
	of := tally.Endpoint(e)
	c.watched.Store(&of)
}

// metricName is a metric's name in Prometheus: its unit stands behind it, and "_total" behind that
// of a counter.
func metricName(m *tally.Metric) string {
	name := labelName(m.Name)
	switch m.Unit {
	case "s":
		name += "_seconds"
	case "By":
		name += "_bytes"
	}
	if m.Counter {
		name += "_total"
	}
	return name
}

func labelName(key string) string { return strings.ReplaceAll(key, ".", "_") }

func labelNames(keys []string) []string {
	names := make([]string, 0, len(keys))
	for _, k := range keys {
		names = append(names, labelName(k))
	}
	return names
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
	c.server.Describe(to)
	c.client.Describe(to)
	c.acceptance.Describe(to)
}

// Collect implements prometheus.Collector. It looks at every open connection, and at every open
// stream unless Options.NoStreams says otherwise. It takes up to 100 ms longer where an event loop
// hangs.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	var of tally.Endpoint
	if e := c.watched.Load(); e != nil {
		of = *e
	}
	c.tally.Each(of, !c.noStreams, func(metric int, value float64, labels ...string) {
		kind := prometheus.GaugeValue
		if c.metrics[metric].Counter {
			kind = prometheus.CounterValue
		}
		to <- prometheus.MustNewConstMetric(c.descs[metric], kind, value, labels...)
	})
	c.server.Collect(to)
	c.client.Collect(to)
	c.acceptance.Collect(to)
}

// ConnBegun implements kernel.Observer.
func (c *Collector) ConnBegun(k *kernel.Conn) { c.tally.ConnBegun(k) }

// ConnEnded implements kernel.Observer.
func (c *Collector) ConnEnded(k *kernel.Conn, i kernel.ConnInfo) { c.tally.ConnEnded(k, i) }

// StreamBegun implements kernel.Observer.
func (c *Collector) StreamBegun(*kernel.Stream) {}

// StreamEnded implements kernel.Observer. It records how long the stream has lasted.
func (c *Collector) StreamEnded(s *kernel.Stream, i kernel.StreamInfo) {
	protocol, method, code := s.Conn().Protocol(), c.methods.Name(s, &i), tally.Code(i.Code)
	failed := "" // which is no label
	if tally.Failed(i.Opener, i.Code) {
		failed = code
	}
	duration, role := c.server, "server"
	if i.Opener {
		duration, role = c.client, "client"
	}
	exemplar := exemplarOf(s.Metadata())
	observe(duration.WithLabelValues(protocol, method, code, failed), i.Age.Seconds(), exemplar)
	if i.Latency > 0 {
		observe(c.acceptance.WithLabelValues(protocol, method, role), i.Latency.Seconds(), exemplar)
	}
}

func observe(o prometheus.Observer, v float64, exemplar prometheus.Labels) {
	if exemplar != nil {
		o.(prometheus.ExemplarObserver).ObserveWithExemplar(v, exemplar)
		return
	}
	o.Observe(v)
}

// exemplarOf returns the trace that a stream is a part of, nil if there is none or it is not
// sampled: then nobody could look at it.
func exemplarOf(md metadata.MD) prometheus.Labels {
	trace, span, sampled := parseTraceParent(md.Get("traceparent"))
	if !sampled {
		return nil
	}
	return prometheus.Labels{"trace_id": trace, "span_id": span}
}

// parseTraceParent reads W3C's traceparent: version, trace, span and flags, as in
// 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01. Later versions may have more behind.
func parseTraceParent(s string) (trace, span string, sampled bool) {
	const length = len("00-") + 32 + len("-") + 16 + len("-01")
	if len(s) < length || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" ||
		len(s) > length && (s[:2] == "00" || s[length] != '-') {
		return "", "", false
	}
	trace, span = s[3:35], s[36:52]
	flags := s[53:55]
	if !hex(s[:2]) || !hex(trace) || !hex(span) || !hex(flags) || strings.Trim(trace, "0") == "" || strings.Trim(span, "0") == "" {
		return "", "", false
	}
	return trace, span, strings.IndexByte("13579bdf", flags[1]) >= 0
}

// hex reports whether s is of small hexadecimal digits.
func hex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }
