// Package figures counts what a transfer does and how long pings take, and prints that.
package figures

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/cmd/echo/internal/units"
)

// Figures are those of one transfer. Everything but Begin and what it returns may be used
// at the same time.
type Figures struct {
	Messages atomic.Int64 // come back and checked
	Bytes    atomic.Int64 // of those
	Stalls   atomic.Int64 // sends that had to wait for credit

	took time.Duration

	mu    sync.Mutex
	pings []time.Duration
}

// Begin starts the transfer's time. Call what it returns at the transfer's end.
func (f *Figures) Begin() (end func()) {
	start := time.Now()
	return func() { f.took = time.Since(start) }
}

// Ping adds a ping that took d.
func (f *Figures) Ping(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pings = append(f.pings, d)
}

// Status is how many bytes are done so far, and the other figures as text.
func (f *Figures) Status() (done int64, more string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := time.Duration(0)
	if n := len(f.pings); n > 0 {
		last = f.pings[n-1].Round(time.Microsecond)
	}
	return f.Bytes.Load(), fmt.Sprintf("%s messages  ping %v  %s stalls",
		units.Grouped(f.Messages.Load()), last, units.Grouped(f.Stalls.Load()))
}

// Line prints the figures of a transfer over that many streams, without pings, in one
// line.
func (f *Figures) Line(w io.Writer, streams int) error {
	seconds := f.took.Seconds()
	_, err := fmt.Fprintf(w, "%s messages, %s bytes on %d streams came back intact in %.2f s: %.1f MB/s, %s messages/s, %s stalls for credit\n",
		units.Grouped(f.Messages.Load()), units.Grouped(f.Bytes.Load()), streams, seconds,
		float64(f.Bytes.Load())/1e6/seconds, units.Grouped(int64(float64(f.Messages.Load())/seconds)), units.Grouped(f.Stalls.Load()))
	return err
}

// Table prints all figures. longest and ping are the sizes of the longest message and of
// a ping, in bytes.
func (f *Figures) Table(w io.Writer, longest, ping int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := fmt.Fprintf(w, `all of it came back intact
  messages  %s of 1 B to %s
  bytes     %s
  rate      %.1f MB/s each way, for %.2f s
  ping      p50 %v, p99 %v (%s pings of %s)
  stalls    %s sends waited for credit
`, units.Grouped(f.Messages.Load()), units.InBytes(longest), units.Grouped(f.Bytes.Load()),
		float64(f.Bytes.Load())/1e6/f.took.Seconds(), f.took.Seconds(),
		quantile(f.pings, 0.50), quantile(f.pings, 0.99), units.Grouped(int64(len(f.pings))), units.InBytes(ping),
		units.Grouped(f.Stalls.Load()))
	return err
}

// quantile is the shortest time that the part q of all did not exceed, to the microsecond.
func quantile(took []time.Duration, q float64) time.Duration {
	if len(took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(took))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Round(time.Microsecond)
}
