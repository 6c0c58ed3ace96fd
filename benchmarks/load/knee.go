package load

import (
	"context"

	"github.com/sluicerpc/sluice/benchmarks/load/report"
)

// closeEnough ends the search for the knee: the next rate would differ by
// less.
const closeEnough = 1.05

// FindKnee looks for the highest rate that passes, between low and high: it doubles the rate
// until one does not pass, and then halves the gap. probe makes one run. One that is INVALID
// says nothing about the server, and noise makes some so: it is made again, once. It returns
// the run at the highest rate that passed, or the last one if none did.
func FindKnee(ctx context.Context, low, high float64, probe func(ctx context.Context, rate float64) (*report.Run, report.Probe, error)) (best *report.Run, probes []report.Probe, err error) {
	pass, fail, again := 0.0, 0.0, false
	for rate := low; ; {
		run, p, err := probe(ctx, rate)
		if run != nil {
			probes = append(probes, p)
		}
		if err != nil {
			if best == nil {
				best = run
			}
			return best, probes, err
		}
		if !p.Pass && pass == 0 {
			best = run
		}
		if again = len(p.Invalid) > 0 && !again; again {
			continue
		}
		if p.Pass {
			pass, best = rate, run
		} else {
			fail = rate
		}
		switch {
		case fail == 0 && rate >= high, fail > 0 && pass == 0 && fail <= low, fail > 0 && pass > 0 && fail/pass < closeEnough:
			return best, probes, nil
		case fail == 0:
			rate = min(2*rate, high)
		default:
			rate = (pass + fail) / 2
		}
	}
}
