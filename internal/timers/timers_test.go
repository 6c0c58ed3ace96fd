package timers

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

type recorder struct {
	t     *testing.T
	fired map[*Timer]time.Time
}

func (r *recorder) Expire(t *Timer, now time.Time) { r.fired[t] = now }

func TestEachTimerFiresOnceWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q Queue
		r := &recorder{t, map[*Timer]time.Time{}}
		start := time.Now()
		ts := make([]Timer, 500)
		due := make([]time.Duration, len(ts))
		for i := range ts { // none is due at once: it could fire before it is moved or stopped
			due[i] = time.Duration(1+rand.IntN(10_000)) * time.Millisecond
			q.Set(&ts[i], r, start.Add(due[i]))
		}
		for i := range ts { // move a third, stop a third
			switch i % 3 {
			case 0:
				due[i] = time.Duration(1+rand.IntN(10_000)) * time.Millisecond
				q.Set(&ts[i], r, start.Add(due[i]))
			case 1:
				q.Stop(&ts[i])
			}
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		for i := range ts {
			at, ok := r.fired[&ts[i]]
			if ok == (i%3 == 1) {
				t.Fatalf("timer %d fired: %v", i, ok)
			}
			if ok && at.Sub(start) != due[i] {
				t.Fatalf("timer %d fired after %v, due after %v", i, at.Sub(start), due[i])
			}
		}
		if q.Len() != 0 {
			t.Errorf("%d timers left", q.Len())
		}
	})
}

func TestAnEarlierTimerIsNotLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q Queue
		r := &recorder{t, map[*Timer]time.Time{}}
		var a, b Timer
		start := time.Now()
		q.Set(&a, r, start.Add(time.Hour))
		q.Set(&b, r, start.Add(time.Second))
		time.Sleep(time.Second)
		synctest.Wait()
		if got := r.fired[&b].Sub(start); got != time.Second {
			t.Errorf("fired after %v, want 1s", got)
		}
		q.Stop(&a)
	})
}
