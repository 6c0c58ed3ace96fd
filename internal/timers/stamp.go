package timers

import (
	"math"
	"time"
)

// A Stamp is a time in milliseconds since a beginning that its users agree on, in 32 bits:
// streams are many, and have to be small. It starts again after 49 days. 0 is no time.
type Stamp uint32

// StampAt returns the stamp of the time that is since after the beginning.
func StampAt(since time.Duration) Stamp { return max(Stamp(since/time.Millisecond), 1) }

// Until returns the time from t to now, 0 if t is up to a minute later.
func (t Stamp) Until(now Stamp) time.Duration {
	d := now - t
	if d > math.MaxUint32-60_000 {
		return 0
	}
	return time.Duration(d) * time.Millisecond
}
