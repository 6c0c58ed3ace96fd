package workload

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// A Path is how a long path was used.
type Path struct {
	RTT   float64 `json:"rtt"`   // seconds
	Dial  float64 `json:"dial"`  // how long the connection took, in round trips
	First float64 `json:"first"` // how long the first MiB of its first stream took, open and answer included, in round trips
	Least float64 `json:"least"` // bytes a second of the stream with the fewest
	Most  float64 `json:"most"`  // of that with the most
}

// firstBytes is how much of a stream is timed by itself.
const firstBytes = 1 << 20

// growing is how many round trips windows have to grow before the rate is measured, beside the
// warm-up.
const growing = 30

// longPath times the first MiB on a connection of its own, and then measures the rate of streams
// that have had time to grow (W9).
func (r *run) longPath() error {
	r.result.Path = &Path{RTT: r.w.RTT.Seconds()}
	if err := r.firstMiB(r.result.Path); err != nil {
		return err
	}
	if err := r.dial(); err != nil {
		return err
	}
	r.work(r.w.Streams, func(i int, l *lane) error { return r.flood(i, r.w.Size, l.count.Store) })
	if err := r.sleep(growing * r.w.RTT); err != nil {
		return err
	}
	return r.measure()
}

// firstMiB sends one MiB on a fresh connection, and waits for the server's count of it.
func (r *run) firstMiB(path *Path) error {
	start := time.Now()
	c, err := r.peer.Dial(r.ctx, r.cfg.Addr, r.opts)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	dialled := time.Now()
	trips := func(d time.Duration) float64 { return d.Seconds() / path.RTT }
	path.Dial = trips(dialled.Sub(start))
	return errors.Join(r.sendFirst(c, func() { path.First = trips(time.Since(dialled)) }), c.Close())
}

func (r *run) sendFirst(c peer.Conn, arrived func()) error {
	s, err := c.Open(r.ctx, peer.Discard)
	if err != nil {
		return err
	}
	n := int64(firstBytes / r.w.Size)
	for i := range n {
		b := s.Buf(r.w.Size)
		peer.Stamp(b, 0, uint64(i))
		if err := s.Send(b); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	if err := s.CloseSend(); err != nil {
		return errors.Join(err, s.Close())
	}
	err = r.summary(s, n, arrived)
	return errors.Join(err, s.Close())
}

// share notes what the streams got of the rate between two edges.
func (p *Path) share(from, to []int64, size int, seconds float64) {
	rates := make([]float64, len(to))
	for i := range to {
		rates[i] = float64(to[i]-from[i]) * float64(size) / seconds
	}
	p.Least, p.Most = slices.Min(rates), slices.Max(rates)
}
