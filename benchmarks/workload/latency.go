package workload

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latency holds percentiles of the round trip in microseconds.
type Latency struct {
	Samples int64   `json:"samples"`
	P50     float64 `json:"p50"`
	P90     float64 `json:"p90"`
	P99     float64 `json:"p99"`
	P999    float64 `json:"p999"`
	Max     float64 `json:"max"`
}

// A recorder collects round trips from all workers.
type recorder struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram
}

const longest = time.Minute

func (r *recorder) add(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.h == nil {
		r.h = hdrhistogram.New(1, int64(longest), 3)
	}
	_ = r.h.RecordValue(int64(min(max(d, 1), longest)))
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.h != nil {
		r.h.Reset()
	}
}

// result returns nil if nothing was recorded.
func (r *recorder) result() *Latency {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.h == nil || r.h.TotalCount() == 0 {
		return nil
	}
	us := func(q float64) float64 { return float64(r.h.ValueAtQuantile(q)) / 1e3 }
	return &Latency{
		Samples: r.h.TotalCount(),
		P50:     us(50), P90: us(90), P99: us(99), P999: us(99.9), Max: float64(r.h.Max()) / 1e3,
	}
}
