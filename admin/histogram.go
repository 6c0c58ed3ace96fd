package admin

import (
	"math/bits"
	"time"
)

// A histogram counts times by their size: four buckets for each doubling, so a percentile is
// off by an eighth at most.
type histogram struct {
	buckets [64 * 4]uint64
	n       uint64
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(d)]++
	h.n++
}

func bucketOf(d time.Duration) int {
	v := uint64(max(d, 4)) // below 4 ns there are no quarters
	e := bits.Len64(v) - 1
	return e<<2 | int(v>>(e-2)&3)
}

// middle is the time that stands for a bucket.
func middle(bucket int) time.Duration {
	e := bucket >> 2
	low := uint64(4|bucket&3) << e >> 2
	return time.Duration(low + 1<<e>>3)
}

// percentile returns the time that p of all are not above; 0 if there are none.
func (h *histogram) percentile(p float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rest := int64(p * float64(h.n))
	for i, n := range h.buckets {
		if rest -= int64(n); rest < 0 {
			return middle(i)
		}
	}
	return 0
}
