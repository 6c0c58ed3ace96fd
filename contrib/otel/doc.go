// Package sluiceotel gives traces and metrics of package kernel's servers and clients to
// OpenTelemetry.
//
//	traces := sluiceotel.NewTracing(nil)
//	srv.Use(traces.Middleware)       // a span for each stream that a handler serves
//	srv.UseOffer(traces.OfferMiddleware)
//	caller := traces.Caller(client)  // a span for each call and stream that is opened
//
//	m, err := sluiceotel.NewMetrics("orders", nil)
//	if err != nil {
//		return err
//	}
//	srv, err := kernel.NewServer(&kernel.ServerOptions{Observer: m})
//	if err != nil {
//		return err
//	}
//	m.Watch(srv)
//
// A trace's context travels in the metadata of the open, as W3C's traceparent unless
// TracingOptions say otherwise: over sluice's own wire, brpc's and HTTP/2, where programs of gRPC's
// read and write it too. Seastar's wire has no metadata, and a trace ends there.
//
// There is a span for each stream and call, and none for a message. Counters and gauges are read from
// snapshots when a reader of OpenTelemetry collects, and latencies are recorded when a stream ends.
// Names follow OpenTelemetry's conventions for RPC, version 1.43, and docs/metrics.md lists them.
package sluiceotel
