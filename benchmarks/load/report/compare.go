package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A Comparison is how a figure changed from one report to another.
type Comparison struct {
	Figure string  `json:"figure"`
	A      float64 `json:"a"`
	B      float64 `json:"b"`
	Change float64 `json:"change"` // B/A - 1
	// P is how likely a difference like this in any figure is between reports of the same
	// thing; 1 where that is not known.
	P       float64 `json:"p"`
	Verdict string  `json:"verdict"` // better, worse, same, unknown
	textA   string
	textB   string
}

// The verdicts of a Comparison.
const (
	Better  = "better"
	Worse   = "worse"
	Same    = "same"
	Unknown = "unknown" // too few runs
)

// minChange is the smallest change that counts, however steady it is: code alignment and
// scheduling alone cause smaller ones.
const minChange = 0.02

// minRuns is how many runs a side it takes to tell a difference from noise. Within a run
// figures vary less than between runs, so that nothing can be said about fewer. With four
// a side the true division of the runs is one of 35.
const minRuns = 4

// maxP is the largest P that is taken for a difference.
const maxP = 0.05

// compared are the figures that Compare looks at.
var compared = []string{"rate", "bulk_rate", "mean", "p50", "p90", "p99", "p99.9", "cpu_per_m",
	"client_bytes_per_stream", "server_bytes_per_stream", "client_rss", "server_rss"}

// Compare says for each figure that a has whether b is better or worse than the noise
// between runs explains: if the medians differ by 2 % or more, and the chance of such a
// difference in any figure is at most 5 % between reports of the same thing. With fewer
// than four runs a side that is unknown. A figure that b lacks is worse, and so is any
// message lost, duplicated, reordered or corrupted in b, and any of its runs that failed.
func Compare(a, b *Report) ([]Comparison, error) {
	if a.Preset != b.Preset {
		return nil, fmt.Errorf("different workloads: %s and %s", a.Preset, b.Preset)
	}
	out := outcomes(a.Runs, b.Runs)
	var measured []metric
	for _, name := range compared {
		m, err := findMetric(name)
		if err != nil {
			return nil, err
		}
		if _, ok := compare(m, a.Runs, b.Runs, 1); ok {
			measured = append(measured, m)
		}
	}
	p := chances(measured, a.Runs, b.Runs)
	for i, m := range measured {
		c, _ := compare(m, a.Runs, b.Runs, p[i])
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("there is nothing to compare: A measured no figure")
	}
	return out, nil
}

// chances is the P of each figure.
func chances(ms []metric, a, b []*Run) []float64 {
	var rowsA, rowsB [][]float64
	for _, m := range ms {
		rowsA, rowsB = append(rowsA, m.row(a)), append(rowsB, m.row(b))
	}
	return adjusted(rowsA, rowsB)
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
		c := Comparison{Figure: o.name, A: float64(na), B: float64(nb), P: 1, Verdict: Better, textA: fmt.Sprint(na), textB: fmt.Sprint(nb)}
		if nb > 0 {
			c.Verdict = Worse
		}
		out = append(out, c)
	}
	return out
}

func compare(m metric, a, b []*Run, p float64) (c Comparison, ok bool) {
	va, oka := m.over(a)
	vb, okb := m.over(b)
	switch {
	case !oka || va <= 0:
		return c, false
	case !okb, vb <= 0 && m.better > 0:
		return Comparison{Figure: m.name, A: va, B: vb, Change: -1, P: 1, Verdict: Worse, textA: m.unit.format(va), textB: "none"}, true
	case vb <= 0:
		return c, false // so little that the heap shrank meanwhile
	}
	c = Comparison{Figure: m.name, A: va, B: vb, Change: vb/va - 1, P: p, textA: m.unit.format(va), textB: m.unit.format(vb)}
	switch {
	case min(len(m.values(a)), len(m.values(b))) < minRuns:
		c.P, c.Verdict = 1, Unknown
	case p > maxP || (c.Change < minChange && c.Change > -minChange):
		c.Verdict = Same
	case (mean(m.values(b)) > mean(m.values(a))) != (c.Change > 0):
		c.Verdict = Same // medians and means disagree
	case (c.Change > 0) == (m.better > 0):
		c.Verdict = Better
	default:
		c.Verdict = Worse
	}
	return c, true
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// Overall is the verdict on all: worse if anything is, else unknown if anything is, else
// better if anything is.
func Overall(cs []Comparison) string {
	for _, verdict := range []string{Worse, Unknown, Better} {
		if slices.ContainsFunc(cs, func(c Comparison) bool { return c.Verdict == verdict }) {
			return verdict
		}
	}
	return Same
}

// CompareText writes the comparison as a table.
func CompareText(w io.Writer, a, b *Report, cs []Comparison) error {
	t := newTextWriter(w)
	t.line("%s: %s (%d runs) against %s (%d runs)", a.Preset, b.Peer, len(b.Runs), a.Peer, len(a.Runs))
	for _, warning := range differences(a, b) {
		t.line("note: %s", warning)
	}
	t.section()
	t.line("\tA\tB\tchange\tp\tverdict")
	for _, c := range cs {
		p := fmt.Sprintf("%.3f", c.P)
		if c.P == 1 && c.Verdict != Same {
			p = "" // it takes no chance, or is unknown
		}
		t.line("%s\t%s\t%s\t%+.1f%%\t%s\t%s", c.Figure, c.textA, c.textB, 100*c.Change, p, c.Verdict)
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
	note(min(len(a.Runs), len(b.Runs)) < minRuns, "fewer than %d runs a side do not show how much runs differ: make the reports with --runs=%d or more", minRuns, minRuns)
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
