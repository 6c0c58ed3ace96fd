package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/sluicerpc/sluice/benchmarks/workload"
)

// The peers that the others are compared with.
const (
	baseRaw  = "raw"
	baseGRPC = "grpc"
)

// A figure picks one number from a run, NaN if the run has none.
type figure func(*workload.Result) float64

var missing = math.NaN()

func rate(r *workload.Result) float64 { return r.Rate() }
func gbps(r *workload.Result) float64 { return r.GBps() }
func cpu(r *workload.Result) float64  { return r.CPU() }
func serverCPU(r *workload.Result) float64 {
	return r.ServerCPU()
}
func share(r *workload.Result) float64    { return 100 * r.UserShare() }
func allocs(r *workload.Result) float64   { return r.Allocs() }
func switches(r *workload.Result) float64 { return r.Switches() }
func cores(r *workload.Result) float64    { return r.Cores() }
func clientMB(r *workload.Result) float64 { return float64(r.Client.RSS) / 1e6 }
func serverMB(r *workload.Result) float64 { return float64(r.Server.RSS) / 1e6 }
func client(r *workload.Result) float64   { return orMissing(r.Client.Each) }
func server(r *workload.Result) float64   { return orMissing(r.Server.Each) }

func clientRSS(r *workload.Result) float64 {
	return orMissing(r.Client.EachRSS)
}

func serverRSS(r *workload.Result) float64 {
	return orMissing(r.Server.EachRSS)
}

func orMissing(f float64) float64 {
	if f == 0 {
		return missing
	}
	return f
}

// onPath picks a figure of runs over a long path.
func onPath(f func(*workload.Path) float64) figure {
	return func(r *workload.Result) float64 {
		if r.Path == nil {
			return missing
		}
		return f(r.Path)
	}
}

var (
	dialTrips  = onPath(func(p *workload.Path) float64 { return p.Dial })
	firstTrips = onPath(func(p *workload.Path) float64 { return p.First })
	evenness   = onPath(func(p *workload.Path) float64 { return p.Least / p.Most })
)

func p50(r *workload.Result) float64 {
	if r.Latency == nil {
		return missing
	}
	return r.Latency.P50
}

func p99(r *workload.Result) float64 {
	if r.Latency == nil {
		return missing
	}
	return r.Latency.P99
}

// values returns a figure of the runs that succeeded and have it, sorted.
func (r *row) values(f figure) []float64 {
	var vs []float64
	for _, run := range r.Runs {
		if run == nil {
			continue
		}
		if v := f(run); !math.IsNaN(v) {
			vs = append(vs, v)
		}
	}
	slices.Sort(vs)
	return vs
}

func (r *row) median(f figure) float64 { return median(r.values(f)) }

func median(sorted []float64) float64 {
	n := len(sorted)
	if n == 0 {
		return missing
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratio returns the median over the rounds of this row's figure by the
// other's in the same round.
func (r *row) ratio(to *row, f figure) float64 {
	if to == nil {
		return missing
	}
	var vs []float64
	for i, run := range r.Runs {
		if run == nil || i >= len(to.Runs) || to.Runs[i] == nil {
			continue
		}
		if v := f(run) / f(to.Runs[i]); !math.IsNaN(v) {
			vs = append(vs, v)
		}
	}
	slices.Sort(vs)
	return median(vs)
}

// columns returns the columns of a workload's table, without those that no row has a
// value for.
func (t *table) columns() []column {
	cols := []column{
		{"rate/s", rate, si},
		{"GB/s", t.figureIf(t.bytes(), gbps), digits},
		{"dial, round trips", dialTrips, digits},
		{"first MiB, round trips", firstTrips, digits},
		{"more than raw", t.moreThanRaw(firstTrips), digits},
		{"least / most of a stream", evenness, digits},
		{"p50 us", p50, digits},
		{"p99 us", p99, digits},
		{"CPU us " + t.each(), cpu, digits},
		{"server's", serverCPU, digits},
		{"user %", share, digits},
		{"cores", cores, digits},
		{"allocs", allocs, digits},
		{"switches", switches, digits},
		{"client RSS MB", clientMB, digits},
		{"server RSS MB", serverMB, digits},
		{"client bytes each", client, digits},
		{"server bytes each", server, digits},
		{"client RSS bytes each", clientRSS, digits},
		{"server RSS bytes each", serverRSS, digits},
	}
	return slices.DeleteFunc(cols, func(c column) bool {
		return !slices.ContainsFunc(t.Rows, func(r *row) bool { return len(r.values(c.figure)) > 0 })
	})
}

// moreThanRaw is by how much a figure exceeds the median of raw TCP's.
func (t *table) moreThanRaw(f figure) figure {
	raw := t.row(baseRaw)
	if raw == nil {
		return func(*workload.Result) float64 { return missing }
	}
	least := raw.median(f)
	return func(r *workload.Result) float64 { return f(r) - least }
}

// each says what costs are divided by.
func (t *table) each() string {
	if t.Name == "w5" {
		return "per MiB"
	}
	return "each"
}

// bytes reports whether the workload is about moving bytes.
func (t *table) bytes() bool {
	return strings.HasPrefix(t.Name, "w3") || strings.HasPrefix(t.Name, "w4") || strings.HasPrefix(t.Name, "w9") || t.Name == "w5"
}

func (t *table) figureIf(ok bool, f figure) figure {
	if ok {
		return f
	}
	return func(*workload.Result) float64 { return missing }
}

type column struct {
	title  string
	figure figure
	digits func(float64) string
}

// text is the median, with minimum and maximum where they look different.
func (c *column) text(r *row) string {
	vs := r.values(c.figure)
	text := c.digits(median(vs))
	if len(vs) == 0 {
		return text
	}
	if low, high := c.digits(vs[0]), c.digits(vs[len(vs)-1]); low != high {
		text += " (" + low + ".." + high + ")"
	}
	return text
}

func (t *table) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s: %s\n\n", t.Name, t.About)
	cols := t.columns()
	titles := []string{"peer"}
	for _, c := range cols {
		titles = append(titles, c.title)
	}
	if len(cols) == 0 { // every peer failed
		titles = append(titles, "outcome")
	}
	head(b, titles)
	rows := slices.Clone(t.Rows)
	slices.SortStableFunc(rows, t.better)
	for _, r := range rows {
		cells := []string{r.Peer}
		if len(r.values(rate)) == 0 {
			cells = append(cells, "failed")
		} else {
			for _, c := range cols {
				cells = append(cells, c.text(r))
			}
		}
		line(b, cells, len(titles))
	}
}

// better orders rows by rate, or by memory or CPU where the workload fixes the rate.
func (t *table) better(x, y *row) int {
	switch {
	case strings.HasPrefix(t.Name, "w6"):
		return first(x.median(client), y.median(client))
	case strings.HasPrefix(t.Name, "w10"):
		return first(x.median(server), y.median(server))
	case strings.HasPrefix(t.Name, "w8"):
		return first(x.median(cpu), y.median(cpu))
	}
	return first(-x.median(rate), -y.median(rate))
}

// first puts the smaller in front and a missing figure last.
func first(x, y float64) int {
	switch {
	case math.IsNaN(x) && math.IsNaN(y):
		return 0
	case math.IsNaN(x):
		return 1
	case math.IsNaN(y):
		return -1
	}
	return cmp.Compare(x, y)
}

func head(b *strings.Builder, titles []string) {
	line(b, titles, len(titles))
	fmt.Fprintf(b, "|%s\n", strings.Repeat(" --- |", len(titles)))
}

func line(b *strings.Builder, cells []string, n int) {
	for len(cells) < n {
		cells = append(cells, "")
	}
	fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
}

// ratios writes each peer's figures divided by those of raw TCP and of grpc.
func (r *report) ratios(b *strings.Builder) {
	if !slices.ContainsFunc(r.Tables, func(t *table) bool { return t.row(baseRaw) != nil || t.row(baseGRPC) != nil }) {
		return
	}
	b.WriteString("\n### Ratios to raw TCP and to grpc\n\nMedian of the ratios within each round. Rate: more is better; latency and CPU: less is.\n\n")
	titles := []string{"workload", "peer"}
	for _, base := range []string{baseRaw, baseGRPC} {
		for _, what := range []string{"rate", "p50", "p99", "CPU"} {
			titles = append(titles, what+" / "+base)
		}
	}
	head(b, titles)
	for _, t := range r.Tables {
		for _, x := range t.Rows {
			line(b, t.ratios(x), len(titles))
		}
	}
}

func (t *table) ratios(x *row) []string {
	cells := []string{t.Name, x.Peer}
	for _, base := range []string{baseRaw, baseGRPC} {
		for _, f := range []figure{rate, p50, p99, cpu} {
			cells = append(cells, digits(x.ratio(t.row(base), f)))
		}
	}
	return cells
}

// si writes a rate with a suffix and three digits.
func si(f float64) string {
	switch {
	case f >= 1e6:
		return digits(f/1e6) + "M"
	case f >= 1e3:
		return digits(f/1e3) + "k"
	}
	return digits(f)
}

// digits writes three significant digits, and all of those before the point.
func digits(f float64) string {
	switch {
	case math.IsNaN(f):
		return "-"
	case math.Abs(f) >= 100:
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.3g", f)
}
