package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A metric is one figure of a run, under the name that SLOs, comparisons and
// benchmark lines use.
type metric struct {
	name   string
	unit   unit
	better int  // 1: more is better; -1: less is better
	worst  bool // over several runs the worst counts, not the median
	get    func(*Run) (v float64, measured bool)
}

// unit says how a figure is written.
type unit int

const (
	plain unit = iota
	nanoseconds
	bytesUnit
	perSecond
	bytesPerSecond
	percent
)

func quantiles(prefix string, of func(*Run) Latency) (ms []metric) {
	for _, q := range []struct {
		name string
		get  func(Latency) float64
	}{
		{"mean", func(l Latency) float64 { return l.Mean }},
		{"p50", func(l Latency) float64 { return float64(l.P50) }},
		{"p90", func(l Latency) float64 { return float64(l.P90) }},
		{"p99", func(l Latency) float64 { return float64(l.P99) }},
		{"p99.9", func(l Latency) float64 { return float64(l.P999) }},
		{"p99.99", func(l Latency) float64 { return float64(l.P9999) }},
		{"max", func(l Latency) float64 { return float64(l.Max) }},
	} {
		ms = append(ms, metric{name: prefix + q.name, unit: nanoseconds, better: -1, get: func(r *Run) (float64, bool) {
			l := of(r)
			return q.get(l), l.Count > 0
		}})
	}
	return ms
}

func figure(name string, u unit, better int, get func(*Run) float64) metric {
	return metric{name: name, unit: u, better: better, get: func(r *Run) (float64, bool) { return get(r), true }}
}

func counter(name string, get func(*Run) uint64) metric {
	m := figure(name, plain, -1, func(r *Run) float64 { return float64(get(r)) })
	m.worst = true
	return m
}

// metrics are all of them.
var metrics = slices.Concat(
	quantiles("", func(r *Run) Latency { return r.Response }),
	quantiles("service_", func(r *Run) Latency { return r.Service }),
	quantiles("lateness_", func(r *Run) Latency { return r.Lateness }),
	[]metric{
		{name: "rate", unit: perSecond, better: 1,
			get: func(r *Run) (float64, bool) { return r.Rate, r.Rate > 0 }},
		figure("byte_rate", bytesPerSecond, 1, func(r *Run) float64 { return r.ByteRate }),
		{name: "bulk_rate", unit: bytesPerSecond, better: 1, get: func(r *Run) (float64, bool) {
			if r.Bulk == nil {
				return 0, false
			}
			return r.Bulk.ByteRate, true
		}},
		{name: "cpu_per_m", better: -1, get: func(r *Run) (float64, bool) {
			return r.CPUPerMillion, r.Messages > 0 && r.bothMeasured()
		}},
		{name: "client_cores", better: -1, get: func(r *Run) (float64, bool) { return r.Client.Cores, r.Client.Measured() }},
		{name: "server_cores", better: -1, get: func(r *Run) (float64, bool) { return r.Server.Cores, r.Server.Measured() }},
		rss("client_rss", func(r *Run) uint64 { return r.Client.RSS }),
		rss("server_rss", func(r *Run) uint64 { return r.Server.RSS }),
		{name: "allocs", better: -1, get: func(r *Run) (float64, bool) {
			return r.Client.AllocsPerMsg + r.Server.AllocsPerMsg, r.bothMeasured()
		}},
		memory("client_bytes_per_stream", client, func(m *Memory) float64 { return m.ClientPerStream }),
		memory("server_bytes_per_stream", server, func(m *Memory) float64 { return m.ServerPerStream }),
		memory("client_bytes_per_conn", client, func(m *Memory) float64 { return m.ClientPerConn }),
		memory("server_bytes_per_conn", server, func(m *Memory) float64 { return m.ServerPerConn }),
		{name: "jain", better: 1, get: func(r *Run) (float64, bool) { return r.Fairness.Jain, r.Fairness.Streams > 0 }},
		{name: "deferred", unit: percent, better: -1, worst: true, get: func(r *Run) (float64, bool) {
			due := r.Scheduled * r.Seconds
			return float64(r.Deferred.Total()) / max(due, 1), due > 0
		}},
		counter("errors", func(r *Run) uint64 { return r.Errors }),
		counter("failed", (*Run).FailedCalls),
		counter("lost", func(r *Run) uint64 { return r.Checks.Lost }),
		counter("duplicated", func(r *Run) uint64 { return r.Checks.Duplicated }),
		counter("reordered", func(r *Run) uint64 { return r.Checks.Reordered }),
		counter("corrupted", func(r *Run) uint64 { return r.Checks.Corrupted }),
		counter("unconfirmed", func(r *Run) uint64 { return r.Checks.Unconfirmed }),
		counter("violations", func(r *Run) uint64 { return r.Checks.Violations() }),
	},
)

func rss(name string, get func(*Run) uint64) metric {
	return metric{name: name, unit: bytesUnit, better: -1, get: func(r *Run) (float64, bool) {
		return float64(get(r)), get(r) > 0 // unknown on some systems
	}}
}

func client(r *Run) Usage { return r.Client }
func server(r *Run) Usage { return r.Server }

func memory(name string, side func(*Run) Usage, get func(*Memory) float64) metric {
	return metric{name: name, unit: bytesUnit, better: -1, get: func(r *Run) (float64, bool) {
		if r.Memory == nil || !side(r).Measured() {
			return 0, false
		}
		return get(r.Memory), true
	}}
}

// Metrics lists the names that an SLO may use.
func Metrics() []string {
	var names []string
	for _, m := range metrics {
		names = append(names, m.name)
	}
	return names
}

func findMetric(name string) (metric, error) {
	for _, m := range metrics {
		if m.name == name {
			return m, nil
		}
	}
	return metric{}, fmt.Errorf("no figure %q; there are %s", name, strings.Join(Metrics(), ", "))
}

// over returns the metric of several runs: the median, or the worst.
func (m metric) over(runs []*Run) (v float64, measured bool) {
	values := m.values(runs)
	if len(values) == 0 {
		return 0, false
	}
	if m.worst {
		return slices.Max(values), true
	}
	return median(values), true
}

func (m metric) values(runs []*Run) (values []float64) {
	for _, r := range runs {
		if v, ok := m.get(r); ok {
			values = append(values, v)
		}
	}
	return values
}

// row is the runs' values, NaN where one was not measured.
func (m metric) row(runs []*Run) (values []float64) {
	for _, r := range runs {
		v, ok := m.get(r)
		if !ok {
			v = math.NaN()
		}
		values = append(values, v)
	}
	return values
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// format writes v in its unit.
func (u unit) format(v float64) string {
	switch u {
	case nanoseconds:
		return Duration(int64(v))
	case bytesUnit:
		return Bytes(v)
	case perSecond:
		return Number(v) + "/s"
	case bytesPerSecond:
		return Bytes(v) + "/s"
	case percent:
		return fmt.Sprintf("%.3g%%", 100*v)
	}
	return Number(v)
}

// Duration writes nanoseconds with three digits.
func Duration(ns int64) string {
	d := time.Duration(ns)
	switch {
	case d < 0:
		return "-" + Duration(-ns)
	case d < time.Microsecond:
		return fmt.Sprintf("%dns", d)
	case d < time.Millisecond:
		return three(float64(d)/1e3) + "us"
	case d < time.Second:
		return three(float64(d)/1e6) + "ms"
	}
	return three(d.Seconds()) + "s"
}

// Bytes writes a number of bytes with three digits.
func Bytes(n float64) string { return scaled(n, 1024, " B", " KiB", " MiB", " GiB", " TiB") }

// Number writes a number with three digits.
func Number(n float64) string { return scaled(n, 1000, "", "k", "M", "G", "T") }

func scaled(n, by float64, units ...string) string {
	if n < 0 {
		return "-" + scaled(-n, by, units...)
	}
	i := 0
	for n >= 0.9995*by && i < len(units)-1 {
		n /= by
		i++
	}
	return three(n) + units[i]
}

// three writes v with three digits, and no fewer before the point.
func three(v float64) string {
	switch {
	case v == float64(int64(v)) && v < 1e6:
		return fmt.Sprintf("%d", int64(v))
	case v >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.9995:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
