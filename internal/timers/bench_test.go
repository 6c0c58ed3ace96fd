package timers

import (
	"fmt"
	"testing"
	"time"
)

type nobody struct{}

func (nobody) Expire(*Timer, time.Time) {}

// What a stream with a deadline costs beside many others that have one.
func BenchmarkSetStop(b *testing.B) {
	for _, others := range []int{0, 100, 100_000} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			var q Queue
			start := time.Now()
			ts := make([]Timer, others)
			for i := range ts {
				q.Set(&ts[i], nobody{}, start.Add(time.Hour+time.Duration(i)*time.Millisecond))
			}
			var t Timer
			due := start.Add(2 * time.Hour)
			b.ReportAllocs()
			for b.Loop() {
				q.Set(&t, nobody{}, due)
				q.Stop(&t)
			}
			for i := range ts {
				q.Stop(&ts[i])
			}
		})
	}
}

func BenchmarkMove(b *testing.B) {
	var q Queue
	start := time.Now()
	ts := make([]Timer, 10_000)
	for i := range ts {
		q.Set(&ts[i], nobody{}, start.Add(time.Hour))
	}
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		q.Set(&ts[i%len(ts)], nobody{}, start.Add(time.Hour+time.Duration(i)*time.Microsecond))
	}
	for i := range ts {
		q.Stop(&ts[i])
	}
}
