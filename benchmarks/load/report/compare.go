package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
)

// A Comparison is how a figure changed from one report to another.
type Comparison struct {
	Figure  string  `json:"figure"`
	A       float64 `json:"a"`
	B       float64 `json:"b"`
	Change  float64 `json:"change"` // B/A - 1
	Low     float64 `json:"low"`    // of the 95% interval of Change
	High    float64 `json:"high"`
	Verdict string  `json:"verdict"` // better, worse, same
	textA   string
	textB   string
}

// The verdicts of a Comparison.
const (
	Better = "better"
	Worse  = "worse"
	Same   = "same"
)

// minChange is the smallest change that counts, however steady it is: code alignment and
// scheduling alone cause smaller ones.
const minChange = 0.02

// minRuns is how many runs a side it takes to estimate the noise from the runs. With fewer
// it is estimated from the intervals of the time series.
const minRuns = 4

// compared are the figures that Compare looks at.
var compared = []string{"rate", "bulk_rate", "mean", "p50", "p90", "p99", "p99.9", "cpu_per_m",
	"client_bytes_per_stream", "server_bytes_per_stream", "client_rss", "server_rss"}

// Compare says for each figure that a has whether b is better or worse than the noise
// explains: when the 95% bootstrap interval of the ratio of their medians does not contain
// 1. A figure that b lacks is worse, and so is any message lost, duplicated, reordered or
// corrupted in b, and any of its runs that failed.
func Compare(a, b *Report) ([]Comparison, error) {
	if a.Preset != b.Preset {
		return nil, fmt.Errorf("different workloads: %s and %s", a.Preset, b.Preset)
	}
	out := outcomes(a.Runs, b.Runs)
	for _, name := range compared {
		m, err := findMetric(name)
		if err != nil {
			return nil, err
		}
		if c, ok := compare(m, a.Runs, b.Runs); ok {
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("there is nothing to compare: A measured no figure")
	}
	return out, nil
}

// outcomes compares what must not happen at all: a single case in b is worse.
func outcomes(a, b []*Run) (out []Comparison) {
	for _, o := range []struct {
		name string
		of   func(*Run) uint64
	}{
		{"violations", func(r *Run) uint64 { return r.Checks.Violations() }},
		{"failed runs", func(r *Run) uint64 {
			if r.Error != "" || r.Unsettled() {
				return 1
			}
			return 0
		}},
	} {
		var na, nb uint64
		for _, r := range a {
			na += o.of(r)
		}
		for _, r := range b {
			nb += o.of(r)
		}
		if na == 0 && nb == 0 {
			continue
		}
		c := Comparison{Figure: o.name, A: float64(na), B: float64(nb), Verdict: Better, textA: fmt.Sprint(na), textB: fmt.Sprint(nb)}
		if nb > 0 {
			c.Verdict = Worse
		}
		out = append(out, c)
	}
	return out
}

func compare(m metric, a, b []*Run) (c Comparison, ok bool) {
	va, oka := m.over(a)
	vb, okb := m.over(b)
	switch {
	case !oka || va <= 0:
		return c, false
	case !okb, vb <= 0 && m.better > 0:
		return Comparison{Figure: m.name, A: va, B: vb, Change: -1, Low: -1, High: -1, Verdict: Worse, textA: m.unit.format(va), textB: "none"}, true
	case vb <= 0:
		return c, false // so little that the heap shrank meanwhile
	}
	c = Comparison{Figure: m.name, A: va, B: vb, Change: vb/va - 1, textA: m.unit.format(va), textB: m.unit.format(vb)}
	sa, sb := m.samples(a), m.samples(b)
	if len(sa) < minRuns || len(sb) < minRuns {
		// One value a side does not show its noise: only a change above any noise
		// counts.
		c.Low, c.High = c.Change-oneRunNoise, c.Change+oneRunNoise
	} else {
		c.Low, c.High = bootstrap(sa, sb)
	}
	c.Verdict = m.verdict(c)
	return c, true
}

// oneRunNoise is the noise assumed where there is one value a side.
const oneRunNoise = 0.25

// samples returns the runs' values, or the intervals' where the runs are few.
func (m metric) samples(runs []*Run) (values []float64) {
	if len(runs) >= minRuns || m.row == nil {
		return m.values(runs)
	}
	for _, r := range runs {
		for _, i := range r.Series {
			if v, ok := m.row(i); ok {
				values = append(values, v)
			}
		}
	}
	return values
}

func (m metric) verdict(c Comparison) string {
	noise := c.Low <= 0 && c.High >= 0
	disagree := (c.Change > 0) != (c.Low > 0) // the runs and their intervals disagree
	if noise || disagree || (c.Change < minChange && c.Change > -minChange) {
		return Same
	}
	if (c.Change > 0) == (m.better > 0) {
		return Better
	}
	return Worse
}

// bootstrapRounds is how many samples the bootstrap draws.
const bootstrapRounds = 2000

// bootstrap returns the 95% interval of median(b)/median(a) - 1.
func bootstrap(a, b []float64) (low, high float64) {
	rng := rand.New(rand.NewPCG(5, 6)) // the same reports, the same verdict
	ratios := make([]float64, 0, bootstrapRounds)
	for range bootstrapRounds {
		if ma := median(resample(rng, a)); ma > 0 {
			ratios = append(ratios, median(resample(rng, b))/ma-1)
		}
	}
	if len(ratios) == 0 {
		return -1, 1
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/40], ratios[len(ratios)-1-len(ratios)/40]
}

func resample(rng *rand.Rand, from []float64) []float64 {
	to := make([]float64, len(from))
	for i := range to {
		to[i] = from[rng.IntN(len(from))]
	}
	return to
}

// Overall is the verdict on all: worse if anything is, else better if anything
// is.
func Overall(cs []Comparison) string {
	verdict := Same
	for _, c := range cs {
		switch c.Verdict {
		case Worse:
			return Worse
		case Better:
			verdict = Better
		}
	}
	return verdict
}

// CompareText writes the comparison as a table.
func CompareText(w io.Writer, a, b *Report, cs []Comparison) error {
	t := newTextWriter(w)
	t.line("%s: %s (%d runs) against %s (%d runs)", a.Preset, b.Peer, len(b.Runs), a.Peer, len(a.Runs))
	for _, warning := range differences(a, b) {
		t.line("note: %s", warning)
	}
	t.section()
	t.line("\tA\tB\tchange\t95%% interval\tverdict")
	for _, c := range cs {
		t.line("%s\t%s\t%s\t%+.1f%%\t%+.1f%% .. %+.1f%%\t%s", c.Figure, c.textA, c.textB, 100*c.Change, 100*c.Low, 100*c.High, c.Verdict)
	}
	t.line("all\t\t\t\t\t%s", Overall(cs))
	return t.end()
}

// differences names what makes the reports hard to compare.
func differences(a, b *Report) (notes []string) {
	note := func(differ bool, format string, args ...any) {
		if differ {
			notes = append(notes, fmt.Sprintf(format, args...))
		}
	}
	x, y := a.Environment, b.Environment
	note(x.CPU != y.CPU || x.CPUs != y.CPUs, "different machines: %s (%d) and %s (%d)", x.CPU, x.CPUs, y.CPU, y.CPUs)
	note(x.Go != y.Go, "different Go: %s and %s", x.Go, y.Go)
	note(x.Kernel != y.Kernel, "different kernels: %s and %s", x.Kernel, y.Kernel)
	note(string(a.Config) != string(b.Config), "different settings: see config in the reports")
	for i, r := range []*Report{a, b} {
		for _, run := range r.Runs {
			note(run.Status() != "ok", "a run of %c is %s", 'A'+i, run.Status())
		}
	}
	return notes
}

// CompareJSON writes the comparison as JSON.
func CompareJSON(w io.Writer, a, b *Report, cs []Comparison) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Overall string       `json:"overall"`
		Notes   []string     `json:"notes,omitempty"`
		Figures []Comparison `json:"figures"`
	}{Overall(cs), differences(a, b), cs})
}
