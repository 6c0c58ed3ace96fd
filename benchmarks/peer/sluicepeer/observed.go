package sluicepeer

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	sluiceotel "github.com/sluicerpc/sluice/contrib/otel"
	sluiceprometheus "github.com/sluicerpc/sluice/contrib/prometheus"
)

// An observing is what a process looks at itself with, while it has servers or clients that are
// observed: metrics that are scraped every 15 s, and a span for each stream, of which all are
// sampled and then dropped where an exporter would send them.
type observing struct {
	metrics *sluiceprometheus.Collector
	traces  *sluiceotel.Tracing
	stop    func()
}

// observed is that of this process, and how many use it.
var observed struct {
	mu    sync.Mutex
	users int
	by    *observing
}

const scrapePeriod = 15 * time.Second // as a Prometheus is usually told; the first comes at any time of it

// observe returns the process's, which release gives back.
func observe() *observing {
	observed.mu.Lock()
	defer observed.mu.Unlock()
	if observed.users++; observed.users == 1 {
		observed.by = newObserving()
	}
	return observed.by
}

func (o *observing) release() {
	if o == nil {
		return
	}
	observed.mu.Lock()
	defer observed.mu.Unlock()
	if observed.users--; observed.users == 0 {
		observed.by.stop()
		observed.by = nil
	}
}

func newObserving() *observing {
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(dropped{}))
	o := &observing{
		metrics: sluiceprometheus.New("bench", nil),
		traces:  sluiceotel.NewTracing(&sluiceotel.TracingOptions{TracerProvider: provider}),
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(o.metrics)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTimer(rand.N(scrapePeriod))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_, _ = reg.Gather()
				tick.Reset(scrapePeriod)
			case <-done:
				return
			}
		}
	})
	o.stop = func() {
		close(done)
		wg.Wait()
		_ = provider.Shutdown(context.Background())
	}
	return o
}

// dropped is an exporter to nowhere.
type dropped struct{}

func (dropped) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (dropped) Shutdown(context.Context) error                             { return nil }
