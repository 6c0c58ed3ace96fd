// Package pace decides when messages are due, and releases them then: an
// absolute schedule that never waits for the system under test, so that a
// stall is charged to every message that was due during it.
package pace

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// A Stage is a stretch of time over which the rate goes evenly from one value
// to another.
type Stage struct {
	For      time.Duration
	From, To float64 // a second
}

// An Arrival says how due times lie around an even spacing.
type Arrival struct {
	Poisson bool
	Burst   int // this many at once; 0 and 1 are the same
}

// A Schedule yields due times.
type Schedule struct {
	stages  []Stage
	arrival Arrival
	rng     *rand.Rand
	at      time.Duration // start of the first stage
	x       float64       // messages due since then
	left    int           // of the current burst
	due     time.Duration
}

// NewSchedule returns the due times of the stages one after the other. The
// same arguments give the same times.
func NewSchedule(stages []Stage, a Arrival) *Schedule {
	return &Schedule{stages: stages, arrival: a, rng: rand.New(rand.NewPCG(1, 2))}
}

// Next returns when the next message is due, from the start; ok is false when
// the last stage is over.
func (s *Schedule) Next() (due time.Duration, ok bool) {
	if s.left > 0 {
		s.left--
		return s.due, true
	}
	s.x += s.step()
	for len(s.stages) > 0 {
		st := s.stages[0]
		n := st.events()
		if s.x < n {
			s.due = s.at + st.when(s.x)
			s.left = max(s.arrival.Burst, 1) - 1
			return s.due, true
		}
		s.x -= n
		s.at += st.For
		s.stages = s.stages[1:]
	}
	return 0, false
}

func (s *Schedule) step() float64 {
	n := float64(max(s.arrival.Burst, 1))
	if s.arrival.Poisson {
		return n * s.rng.ExpFloat64()
	}
	return n
}

// events returns how many messages are due in the stage.
func (st Stage) events() float64 { return st.For.Seconds() * (st.From + st.To) / 2 }

// when returns the time by which x messages were due: the root of
// From*t + (To-From)*t^2/(2*For) = x.
func (st Stage) when(x float64) time.Duration {
	slope := (st.To - st.From) / st.For.Seconds()
	root := math.Sqrt(max(st.From*st.From+2*slope*x, 0))
	if sum := st.From + root; sum > 0 {
		return time.Duration(2 * x / sum * float64(time.Second))
	}
	return st.For
}

// Due returns how many messages of the stages are due by a time since their start.
func Due(stages []Stage, by time.Duration) (n float64) {
	for _, st := range stages {
		if by < st.For {
			t := max(by, 0).Seconds()
			return n + t*st.From + t*t*(st.To-st.From)/(2*st.For.Seconds())
		}
		n += st.events()
		by -= st.For
	}
	return n
}

// Length returns how long the stages take together.
func Length(stages []Stage) (d time.Duration) {
	for _, st := range stages {
		d += st.For
	}
	return d
}

// ParseStages reads "10s@10k,30s@10k..50k": each stage a duration and a rate,
// or two rates to go evenly from the first to the second.
func ParseStages(text string) ([]Stage, error) {
	var stages []Stage
	for part := range strings.SplitSeq(text, ",") {
		d, rates, ok := strings.Cut(part, "@")
		if !ok {
			return nil, fmt.Errorf("stage %q: want DURATION@RATE or DURATION@RATE..RATE", part)
		}
		from, to, ramp := strings.Cut(rates, "..")
		if !ramp {
			to = from
		}
		var st Stage
		var errs [3]error
		st.For, errs[0] = time.ParseDuration(d)
		st.From, errs[1] = ParseRate(from)
		st.To, errs[2] = ParseRate(to)
		if err := errors.Join(errs[:]...); err != nil {
			return nil, fmt.Errorf("stage %q: %w", part, err)
		}
		if st.For <= 0 || st.From+st.To == 0 {
			return nil, fmt.Errorf("stage %q: duration and rate must be above 0", part)
		}
		stages = append(stages, st)
	}
	return stages, nil
}

// String writes the stage as ParseStages reads it.
func (st Stage) String() string {
	if st.From == st.To {
		return fmt.Sprintf("%v@%g", st.For, st.From)
	}
	return fmt.Sprintf("%v@%g..%g", st.For, st.From, st.To)
}

// ParseRate reads a number a second, with k or M behind it if it is large.
func ParseRate(text string) (float64, error) {
	number, unit := text, 1.0
	switch {
	case strings.HasSuffix(text, "k"):
		number, unit = text[:len(text)-1], 1e3
	case strings.HasSuffix(text, "M"):
		number, unit = text[:len(text)-1], 1e6
	}
	v, err := strconv.ParseFloat(number, 64)
	v *= unit
	if err != nil || v < 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 0, fmt.Errorf("rate %q: want a number a second, like 500, 20k or 1.5M", text)
	}
	return v, nil
}

// ParseArrival reads "constant", "poisson" or "burst:N".
func ParseArrival(text string) (Arrival, error) {
	switch {
	case text == "" || text == "constant":
		return Arrival{}, nil
	case text == "poisson":
		return Arrival{Poisson: true}, nil
	case strings.HasPrefix(text, "burst:"):
		n, err := strconv.Atoi(strings.TrimPrefix(text, "burst:"))
		if err == nil && n > 0 {
			return Arrival{Burst: n}, nil
		}
	}
	return Arrival{}, fmt.Errorf("arrival %q: want constant, poisson or burst:N", text)
}

// String writes a as ParseArrival reads it.
func (a Arrival) String() string {
	switch {
	case a.Poisson:
		return "poisson"
	case a.Burst > 1:
		return fmt.Sprintf("burst:%d", a.Burst)
	}
	return "constant"
}
