package pace

import (
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/hist"
)

func all(s *Schedule) (due []time.Duration) {
	for d, ok := s.Next(); ok; d, ok = s.Next() {
		due = append(due, d)
	}
	return due
}

func TestAConstantRateIsEven(t *testing.T) {
	due := all(NewSchedule([]Stage{{time.Second, 1000, 1000}}, Arrival{}))
	if len(due) != 999 && len(due) != 1000 {
		t.Fatalf("%d due times, want 1000", len(due))
	}
	for i, d := range due {
		if want := time.Duration(i+1) * time.Millisecond; (d - want).Abs() > time.Microsecond {
			t.Fatalf("message %d due at %v, want %v", i, d, want)
		}
	}
}

func TestARampIsTheIntegralOfItsRate(t *testing.T) {
	stages := []Stage{{time.Second, 100, 100}, {2 * time.Second, 100, 500}, {time.Second, 500, 0}}
	due := all(NewSchedule(stages, Arrival{}))
	if n := len(due); n < 948 || n > 950 {
		t.Fatalf("%d due times, want 950", n)
	}
	count := func(from, to time.Duration) (n int) {
		for _, d := range due {
			if d >= from && d < to {
				n++
			}
		}
		return n
	}
	for _, tt := range []struct{ from, to, want int }{{0, 1, 100}, {1, 2, 200}, {2, 3, 400}, {3, 4, 250}} {
		n := count(time.Duration(tt.from)*time.Second, time.Duration(tt.to)*time.Second)
		if math.Abs(float64(n-tt.want)) > 2 {
			t.Errorf("second %d: %d messages, want %d", tt.from, n, tt.want)
		}
	}
	for i := 1; i < len(due); i++ {
		if due[i] < due[i-1] {
			t.Fatalf("message %d is due before the one before it", i)
		}
	}
}

func TestPoissonKeepsTheRateAndVaries(t *testing.T) {
	due := all(NewSchedule([]Stage{{10 * time.Second, 1000, 1000}}, Arrival{Poisson: true}))
	if n := len(due); n < 9700 || n > 10300 {
		t.Errorf("%d due times, want about 10000", n)
	}
	short := 0
	for i := 1; i < len(due); i++ {
		if due[i]-due[i-1] < time.Millisecond/2 {
			short++
		}
	}
	// P(gap < half the mean) = 1 - e^-0.5 = 0.39.
	if share := float64(short) / float64(len(due)); share < 0.36 || share > 0.43 {
		t.Errorf("%.2f of the gaps are below half the mean, want 0.39", share)
	}
}

func TestABurstIsDueAtOnce(t *testing.T) {
	due := all(NewSchedule([]Stage{{time.Second, 100, 100}}, Arrival{Burst: 10}))
	if n := len(due); n != 90 && n != 100 {
		t.Fatalf("%d due times", n)
	}
	for i, d := range due {
		if want := time.Duration(i/10+1) * 100 * time.Millisecond; (d - want).Abs() > time.Microsecond {
			t.Fatalf("message %d due at %v, want %v", i, d, want)
		}
	}
}

// A release that takes long must not move what is due later: that is the
// omission which the schedule is there to prevent.
func TestThePacerKeepsItsScheduleAfterAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Pacer{Lateness: hist.NewRecorder(), Sleep: time.Sleep}
		s := NewSchedule([]Stage{{100 * time.Millisecond, 1000, 1000}}, Arrival{})
		start := time.Now()
		var stop atomic.Bool
		var due, released []time.Duration
		p.Run(s, start, &stop, func(d, _ time.Duration) {
			due = append(due, d)
			released = append(released, time.Since(start))
			if len(due) == 10 {
				time.Sleep(20 * time.Millisecond) // as a preempted thread would
			}
		})
		if len(due) < 99 {
			t.Fatalf("%d released", len(due))
		}
		for i := range due {
			late := released[i] - due[i]
			inStall := due[i] > 10*time.Millisecond && due[i] <= 30*time.Millisecond
			if !inStall && late > minSleep {
				t.Errorf("message due at %v was %v late", due[i], late)
			}
			if inStall && released[i] < 30*time.Millisecond {
				t.Errorf("message due at %v released at %v", due[i], released[i])
			}
		}
		h := hist.New()
		p.Lateness.Drain(h)
		if worst := time.Duration(h.Max()); worst < 17*time.Millisecond || worst > 20*time.Millisecond {
			t.Errorf("worst lateness reported is %v, want about 19ms", worst)
		}
	})
}

// A pacer that is slower than its schedule never catches up: it has to look at
// the clock all the same.
func TestAPacerThatCannotKeepUpSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Pacer{Lateness: hist.NewRecorder(), Sleep: time.Sleep}
		s := NewSchedule([]Stage{{10 * time.Millisecond, 1e6, 1e6}}, Arrival{})
		var stop atomic.Bool
		p.Run(s, time.Now(), &stop, func(_, _ time.Duration) { time.Sleep(10 * time.Microsecond) })
		h := hist.New()
		p.Lateness.Drain(h)
		if worst := time.Duration(h.Max()); worst < 80*time.Millisecond {
			t.Errorf("worst lateness reported is %v, want about 90ms", worst)
		}
	})
}

func TestDue(t *testing.T) {
	stages := []Stage{{time.Second, 100, 100}, {2 * time.Second, 100, 500}}
	for by, want := range map[time.Duration]float64{
		-time.Second: 0, 0: 0, time.Second / 2: 50, time.Second: 100, 2 * time.Second: 300, 3 * time.Second: 700, time.Hour: 700,
	} {
		if got := Due(stages, by); math.Abs(got-want) > 1e-6 {
			t.Errorf("by %v: %v due, want %v", by, got, want)
		}
	}
}

func TestThePacerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Pacer{Lateness: hist.NewRecorder(), Sleep: time.Sleep}
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.Run(NewSchedule([]Stage{{time.Hour, 0.001, 0.001}}, Arrival{}), time.Now(), &stop, func(_, _ time.Duration) {
				t.Error("released a message that was not due")
			})
		}()
		time.Sleep(time.Second)
		stop.Store(true)
		<-done
	})
}

func TestTheRealClockIsCloseEnough(t *testing.T) {
	p := Pacer{Lateness: hist.NewRecorder()}
	var stop atomic.Bool
	n := 0
	p.Run(NewSchedule([]Stage{{50 * time.Millisecond, 2000, 2000}}, Arrival{}), time.Now(), &stop, func(_, _ time.Duration) { n++ })
	h := hist.New()
	p.Lateness.Drain(h)
	if n < 98 || h.TotalCount() != int64(n) {
		t.Errorf("released %d of 100, %d latenesses", n, h.TotalCount())
	}
	t.Logf("lateness p50 %v p99 %v", time.Duration(h.ValueAtQuantile(50)), time.Duration(h.ValueAtQuantile(99)))
}

func TestParsing(t *testing.T) {
	got, err := ParseStages("10s@10k,1m@10k..1.5M")
	if err != nil || len(got) != 2 || got[0] != (Stage{10 * time.Second, 1e4, 1e4}) || got[1] != (Stage{time.Minute, 1e4, 1.5e6}) {
		t.Errorf("got %v, %v", got, err)
	}
	if Length(got) != 70*time.Second {
		t.Errorf("length %v", Length(got))
	}
	for _, bad := range []string{"", "10s", "10s@", "x@5", "10s@-5", "0s@5", "10s@0", "10s@5..x", "10s@NaN", "10s@1e308k"} {
		if _, err := ParseStages(bad); err == nil {
			t.Errorf("stages %q accepted", bad)
		}
	}
	for _, text := range []string{"constant", "poisson", "burst:8"} {
		if a, err := ParseArrival(text); err != nil || a.String() != text {
			t.Errorf("arrival %q: %v, %v", text, a, err)
		}
	}
	for _, bad := range []string{"even", "burst", "burst:0", "burst:x"} {
		if _, err := ParseArrival(bad); err == nil {
			t.Errorf("arrival %q accepted", bad)
		}
	}
}
