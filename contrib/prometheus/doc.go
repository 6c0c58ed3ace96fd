// Package sluiceprometheus gives the figures of a server or client of package kernel to Prometheus.
//
//	m := sluiceprometheus.New("orders", nil)
//	srv, err := kernel.NewServer(&kernel.ServerOptions{Observer: m})
//	if err != nil {
//		return err
//	}
//	m.Watch(srv)
//	prometheus.MustRegister(m)
//
// Counters and gauges are read from snapshots when Prometheus asks, and latencies are recorded when a
// stream ends: no message costs anything. Where a stream came with W3C's trace context, and its
// trace is sampled, the latency has it as an exemplar.
//
// Names and units are those of package sluiceotel in contrib/otel as Prometheus writes them, so one
// dashboard serves both. docs/metrics.md lists them, and dashboards has a dashboard for Grafana and
// alerting rules.
package sluiceprometheus
