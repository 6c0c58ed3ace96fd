// Package hist records latencies: HDR histograms from 64 ns to an hour with
// three digits, behind locks that recorders rarely contend for.
package hist

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	lowest  = 64
	highest = int64(time.Hour)
	digits  = 3
)

// H is a histogram of nanoseconds, for one goroutine at a time.
type H = hdrhistogram.Histogram

// New returns an empty histogram.
func New() *H { return hdrhistogram.New(lowest, highest, digits) }

// Encode returns h in the base64 form that .hlog files use too.
func Encode(h *H) (string, error) {
	p, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	return string(p), err
}

// Decode reads what Encode wrote.
func Decode(s string) (*H, error) { return hdrhistogram.Decode([]byte(s)) }

// A Recorder takes values from any goroutine.
type Recorder struct {
	mu    sync.Mutex
	now   *H
	spare *H
}

// NewRecorder returns an empty recorder.
func NewRecorder() *Recorder { return &Recorder{now: New(), spare: New()} }

// Record adds one value; one outside the range counts as the nearer end of it.
func (r *Recorder) Record(d time.Duration) {
	v := min(max(int64(d), lowest), highest)
	r.mu.Lock()
	_ = r.now.RecordValue(v) // can't fail: v is in range
	r.mu.Unlock()
}

// Drain adds what was recorded since the last Drain to each of to. Only one
// goroutine may call it.
func (r *Recorder) Drain(to ...*H) {
	r.mu.Lock()
	r.now, r.spare = r.spare, r.now
	r.mu.Unlock()
	for _, h := range to {
		h.Merge(r.spare)
	}
	r.spare.Reset()
}
