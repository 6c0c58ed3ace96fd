package timers

import (
	"testing"
	"time"
)

func TestStamps(t *testing.T) {
	const round = (1 << 32) * time.Millisecond // 49 days
	for _, c := range []struct{ from, to, want time.Duration }{
		{0, 0, 0},
		{time.Second, 3 * time.Second, 2 * time.Second},
		{3 * time.Second, time.Second, 0}, // a clock that was read earlier
		{round - time.Second, round + time.Second, 2 * time.Second},
		{round + time.Second, round - time.Second, 0},
		{time.Second, 40 * 24 * time.Hour, 40*24*time.Hour - time.Second},
	} {
		if got := StampAt(c.from).Until(StampAt(c.to)); got != c.want {
			t.Errorf("from %v to %v: %v, want %v", c.from, c.to, got, c.want)
		}
	}
	if StampAt(0) == 0 || StampAt(round) == 0 {
		t.Error("a time has the stamp of no time")
	}
}
