package report

import (
	"embed"
	"encoding/json"
	"html/template"
	"io"
	"math"

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
	"outcome": Fault.outcome,
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
	var charts [][]chart
	for _, run := range r.Runs {
		charts = append(charts, run.charts())
	}
	return page.Execute(w, map[string]any{
		"Preset": r.Preset, "Peer": r.Peer, "Command": r.Command, "Environment": r.Environment, "Notes": r.Notes,
		"SLO": r.SLO, "Knee": r.Knee, "Runs": r.Runs, "Settings": string(settings),
		"Charts": charts, "Data": r,
		"PlotCSS": template.CSS(asset("uPlot.min.css")), "PlotJS": template.JS(asset("uPlot.iife.min.js")),
		"OwnJS": template.JS(asset("report.js")),
	})
}

// A chart is what the page's script draws.
type chart struct {
	Title  string        `json:"title"`
	X      string        `json:"x"`
	Log    bool          `json:"log"` // both axes; x is 1/(1-quantile)
	Series []chartSeries `json:"series"`
	Data   [][]float64   `json:"data"` // x, then each series
	Marks  []float64     `json:"marks,omitempty"`
}

type chartSeries struct {
	Label string `json:"label"`
}

// charts are the plots of a run that it has figures for.
func (r *Run) charts() (cs []chart) {
	if c, ok := r.percentileChart(); ok {
		cs = append(cs, c)
	}
	if len(r.Series) > 0 {
		cs = append(cs, r.rateChart())
		if r.Service.Count > 0 {
			cs = append(cs, r.timeChart("Latency over time, ms", map[string]func(Interval) float64{
				"p50": func(i Interval) float64 { return float64(i.Response.P50) / 1e6 },
				"p99": func(i Interval) float64 { return float64(i.Response.P99) / 1e6 },
				"max": func(i Interval) float64 { return float64(i.Response.Max) / 1e6 },
			}, "p50", "p99", "max"))
		}
		cs = append(cs, r.sidesChart("CPUs in use", func(g Gauge) float64 { return g.Cores }),
			r.sidesChart("RSS, MiB", func(g Gauge) float64 { return float64(g.RSS) / (1 << 20) }),
			r.sidesChart("Goroutines", func(g Gauge) float64 { return float64(g.Goroutines) }))
	}
	if s := r.Fairness.Spread; len(s) > 0 {
		c := chart{Title: "Messages a stream, from the least served to the most", X: "% of streams", Series: []chartSeries{{"messages"}}, Data: [][]float64{{}, {}}}
		for i, n := range s {
			c.Data[0] = append(c.Data[0], float64(5*i))
			c.Data[1] = append(c.Data[1], float64(n))
		}
		cs = append(cs, c)
	}
	return cs
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
		"server": func(i Interval) float64 { return get(i.Server) },
	}, "client", "server")
}

func (r *Run) timeChart(title string, get map[string]func(Interval) float64, order ...string) chart {
	c := chart{Title: title, X: "s", Data: make([][]float64, 1+len(order))}
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

func round(v float64) float64 { return math.Round(v*1e4) / 1e4 }

// percentileChart draws the histograms, up to the percentile of the last value.
func (r *Run) percentileChart() (chart, bool) {
	c := chart{Title: "Latency by percentile, ms", X: "percentile", Log: true, Data: make([][]float64, 1)}
	if r.Service.Count == 0 {
		return c, false
	}
	for exp := 0; math.Pow10(exp/10) <= float64(r.Service.Count) && exp <= 60; exp++ {
		c.Data[0] = append(c.Data[0], math.Pow(10, float64(exp)/10))
	}
	add := func(label string, l Latency) {
		h, err := hist.Decode(l.HDR)
		if err != nil {
			return // a report without the whole histogram has no curve
		}
		var ys []float64
		for _, x := range c.Data[0] {
			ys = append(ys, float64(h.ValueAtQuantile(100-100/x))/1e6)
		}
		c.Series, c.Data = append(c.Series, chartSeries{label}), append(c.Data, ys)
	}
	if r.Model == "open" {
		add("response", r.Response)
	}
	add("service", r.Service)
	return c, len(c.Series) > 0
}
