package report

import (
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"

	"github.com/sluicerpc/sluice/benchmarks/load/hist"
)

// uPlot 1.6.32 is MIT-licensed: see assets/uPlot.LICENSE.
//
//go:embed assets
var assets embed.FS

func asset(name string) string {
	text, err := assets.ReadFile("assets/" + name)
	if err != nil {
		panic(err) // it is compiled in
	}
	return string(text)
}

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"dur": Duration, "num": Number, "bytes": Bytes,
	"mem":     func(n uint64) string { return Bytes(float64(n)) },
	"inc":     func(n int) int { return n + 1 },
	"outcome": Fault.outcome, "grown": grown, "p99": Probe.p99,
}).Parse(asset("report.html.tmpl")))

// HTML writes one self-contained page: it needs no network, and its tables no JavaScript.
func (r *Report) HTML(w io.Writer) error {
	settings, err := json.MarshalIndent(struct {
		Config      json.RawMessage
		Environment Environment
	}{r.Config, r.Environment}, "", "  ")
	if err != nil {
		return err
	}
	charts := map[string][]chart{"knee": r.kneeCharts()} // by the id of the element that they are drawn in
	for n, run := range r.Runs {
		charts[fmt.Sprintf("plots%d", n)] = run.charts()
	}
	return page.Execute(w, map[string]any{
		"Preset": r.Preset, "Peer": r.Peer, "Command": r.Command, "Environment": r.Environment, "Notes": r.Notes,
		"SLO": r.SLO, "Knee": r.Knee, "Verdict": KneeOf(r.Knee), "Runs": r.Runs, "Settings": string(settings),
		"Charts": charts, "Data": r,
		"PlotCSS": template.CSS(asset("uPlot.min.css")), "PlotJS": template.JS(asset("uPlot.iife.min.js")),
		"OwnJS": template.JS(asset("report.js")),
	})
}

// A chart is what the page's script draws.
type chart struct {
	Title  string        `json:"title"`
	X      string        `json:"x"`
	Rank   bool          `json:"rank,omitempty"` // x is 1/(1-quantile)
	LogX   bool          `json:"log_x,omitempty"`
	LogY   bool          `json:"log_y,omitempty"`
	Form   string        `json:"form,omitempty"` // "": lines; "steps"; "points"
	Series []chartSeries `json:"series"`
	Data   [][]value     `json:"data"` // x, then each series
	Marks  []float64     `json:"marks,omitempty"`
}

type chartSeries struct {
	Label string `json:"label"`
}

// A value is a number of a chart. NaN is none.
type value float64

// MarshalJSON writes null for NaN.
func (v value) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(v)) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(v))
}

// charts are the plots of a run that it has figures for.
func (r *Run) charts() (cs []chart) {
	if c, ok := r.percentileChart(); ok {
		cs = append(cs, c)
	}
	if c, ok := r.histogramChart(); ok {
		cs = append(cs, c)
	}
	if len(r.Series) > 0 {
		cs = append(cs, r.rateChart())
		if r.Service.Count > 0 {
			cs = append(cs, r.latencyChart())
		}
		cs = append(cs, r.sidesChart("CPUs in use", func(g Gauge) float64 { return g.Cores }),
			r.sidesChart("RSS, MiB", func(g Gauge) float64 { return float64(g.RSS) / (1 << 20) }),
			r.sidesChart("Goroutines", func(g Gauge) float64 { return float64(g.Goroutines) }))
	}
	if s := r.Fairness.Spread; len(s) > 0 {
		c := chart{Title: "Messages a stream, from the least served to the most", X: "% of streams", Series: []chartSeries{{"messages"}}, Data: [][]value{{}, {}}}
		for i, n := range s {
			c.Data[0] = append(c.Data[0], value(5*i))
			c.Data[1] = append(c.Data[1], value(n))
		}
		cs = append(cs, c)
	}
	return cs
}

// latencyChart has a logarithmic axis: the worst message of a second takes a hundred times as
// long as most, and would make one line of all the others. An interval in which nothing was
// measured is a gap.
func (r *Run) latencyChart() chart {
	ms := func(get func(Latency) int64) func(Interval) float64 {
		return func(i Interval) float64 {
			if i.Response.Count == 0 {
				return math.NaN()
			}
			return float64(get(i.Response)) / 1e6
		}
	}
	c := r.timeChart("Latency over time, ms", map[string]func(Interval) float64{
		"p50": ms(func(l Latency) int64 { return l.P50 }),
		"p99": ms(func(l Latency) int64 { return l.P99 }),
		"max": ms(func(l Latency) int64 { return l.Max }),
	}, "p50", "p99", "max")
	c.LogY = true
	return c
}

func (r *Run) rateChart() chart {
	return r.timeChart("Messages a second", map[string]func(Interval) float64{
		"received": Interval.Rate,
		"sent":     func(i Interval) float64 { return float64(i.Sent) / max(i.Seconds, 1e-9) },
		"deferred": func(i Interval) float64 { return float64(i.Deferred.Total()) / max(i.Seconds, 1e-9) },
	}, "received", "sent", "deferred")
}

func (r *Run) sidesChart(title string, get func(Gauge) float64) chart {
	return r.timeChart(title, map[string]func(Interval) float64{
		"client": func(i Interval) float64 { return get(i.Client) },
		"server": func(i Interval) float64 {
			if !i.Server.Measured() {
				return math.NaN()
			}
			return get(i.Server)
		},
	}, "client", "server")
}

func (r *Run) timeChart(title string, get map[string]func(Interval) float64, order ...string) chart {
	c := chart{Title: title, X: "s", Data: make([][]value, 1+len(order))}
	for _, name := range order {
		c.Series = append(c.Series, chartSeries{name})
	}
	for _, i := range r.Series {
		c.Data[0] = append(c.Data[0], round(i.T))
		for n, name := range order {
			c.Data[n+1] = append(c.Data[n+1], round(get[name](i)))
		}
	}
	for _, f := range r.Faults {
		c.Marks = append(c.Marks, f.At)
	}
	return c
}

func round(v float64) value { return value(math.Round(v*1e4) / 1e4) }

// percentileChart draws the histograms, up to the percentile of the last value.
func (r *Run) percentileChart() (chart, bool) {
	c := chart{Title: "Latency by percentile, ms", X: "percentile", Rank: true, LogX: true, LogY: true, Data: make([][]value, 1)}
	if r.Service.Count == 0 {
		return c, false
	}
	for exp := 0; math.Pow10(exp/10) <= float64(r.Service.Count) && exp <= 60; exp++ {
		c.Data[0] = append(c.Data[0], value(math.Pow(10, float64(exp)/10)))
	}
	r.eachHistogram(func(label string, h *hist.H) {
		var ys []value
		for _, x := range c.Data[0] {
			ys = append(ys, value(float64(h.ValueAtQuantile(100-100/float64(x)))/1e6))
		}
		c.Series, c.Data = append(c.Series, chartSeries{label}), append(c.Data, ys)
	})
	return c, len(c.Series) > 0
}

// eachHistogram calls f with the response time's histogram, in the open model, and with the
// service time's. A report without whole histograms has none.
func (r *Run) eachHistogram(f func(label string, h *hist.H)) {
	for _, d := range []struct {
		label string
		l     Latency
	}{{"response", r.Response}, {"service", r.Service}} {
		if d.label == "response" && r.Model != "open" {
			continue // it is the service time
		}
		if h, err := hist.Decode(d.l.HDR); err == nil && h.TotalCount() > 0 {
			f(d.label, h)
		}
	}
}

// perDecade is how many bars of the histogram there are from 1 ms to 10 ms.
const perDecade = 20

// histogramChart draws how many messages took how long. A step goes to the next x.
func (r *Run) histogramChart() (chart, bool) {
	c := chart{Title: "Messages by latency, % of all", X: "ms", LogX: true, Form: "steps", Data: make([][]value, 1)}
	bar := func(ns int64) int { return int(math.Floor(perDecade * math.Log10(float64(max(ns, 1))))) }
	first, last := math.MaxInt, math.MinInt
	r.eachHistogram(func(_ string, h *hist.H) {
		first, last = min(first, bar(h.Min())), max(last, bar(h.Max()))
	})
	for i := first; i <= last+1; i++ {
		c.Data[0] = append(c.Data[0], value(math.Pow(10, float64(i)/perDecade)/1e6))
	}
	r.eachHistogram(func(label string, h *hist.H) {
		shares := make([]value, len(c.Data[0]))
		for _, b := range h.Distribution() {
			if b.Count > 0 {
				at := min(max(bar(b.To), first), last) - first
				shares[at] += value(100 * float64(b.Count) / float64(h.TotalCount()))
			}
		}
		c.Series, c.Data = append(c.Series, chartSeries{label}), append(c.Data, shares)
	})
	return c, len(c.Series) > 0
}

// kneeCharts draw the search for the knee: the p99 at each rate, and how the step ended.
func (r *Report) kneeCharts() []chart {
	if len(r.Knee) == 0 {
		return nil
	}
	outcomes := []string{"SLO held", "SLO missed", "INVALID"}
	c := chart{Title: "p99 by rate due, ms", X: "messages a second", LogX: true, LogY: true, Form: "points", Data: make([][]value, 1+len(outcomes))}
	for _, name := range outcomes {
		c.Series = append(c.Series, chartSeries{name})
	}
	steps := slices.SortedStableFunc(slices.Values(r.Knee), func(a, b Probe) int { return cmp.Compare(a.Rate, b.Rate) })
	for _, p := range steps {
		which := 2
		switch {
		case p.Pass:
			which = 0
		case p.Missed():
			which = 1
		}
		c.Data[0] = append(c.Data[0], value(p.Rate))
		for n := range outcomes {
			v := value(math.NaN())
			if n == which && p.P99 > 0 {
				v = value(float64(p.P99) / 1e6)
			}
			c.Data[n+1] = append(c.Data[n+1], v)
		}
	}
	return []chart{c}
}
