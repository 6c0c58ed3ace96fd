package load

import (
	"context"

	"github.com/sluicerpc/sluice/benchmarks/load/report"
)

// closeEnough ends the search for the knee: the next rate would differ by
// less.
const closeEnough = 1.05

// FindKnee looks for the highest rate that passes, between low and high: it
// doubles the rate until one fails, and then halves the gap. probe makes one
// run. It returns the run at the knee, or the last one if none passed.
func FindKnee(ctx context.Context, low, high float64, probe func(ctx context.Context, rate float64) (*report.Run, report.Probe, error)) (best *report.Run, probes []report.Probe, err error) {
	pass, fail := 0.0, 0.0
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
		if p.Pass {
			pass, best = rate, run
		} else {
			fail = rate
			if pass == 0 {
				best = run
			}
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
