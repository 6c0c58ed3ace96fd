package report

import "fmt"

// A table is one of the page's. A figure has a row, so that none is out of sight on a narrow
// screen.
type table struct {
	Columns []string
	Rows    [][]string // the figure's name first
}

// LatencyTable are the run's latencies; nil if none was measured.
func (r *Run) LatencyTable() *table {
	var t table
	var ls []Latency
	add := func(name string, l Latency) {
		if l.Count > 0 {
			t.Columns, ls = append(t.Columns, name), append(ls, l)
		}
	}
	if r.Model == "open" {
		add("response (from when due)", r.Response)
	}
	add("service (from when sent)", r.Service)
	if r.Service.Count == 0 {
		t.Columns, ls = append(t.Columns, "service (from when sent)"), append(ls, Latency{})
	}
	if r.Model == "open" {
		add("pacer's lateness", r.Lateness)
	}
	if r.Service.Count+r.Response.Count+r.Lateness.Count == 0 {
		return nil
	}
	row := func(name string, get func(Latency) string) {
		cells := []string{name}
		for _, l := range ls {
			if l.Count == 0 {
				cells = append(cells, notMeasured)
				continue
			}
			cells = append(cells, get(l))
		}
		t.Rows = append(t.Rows, cells)
	}
	row("p50", func(l Latency) string { return Duration(l.P50) })
	row("p90", func(l Latency) string { return Duration(l.P90) })
	row("p99", func(l Latency) string { return Duration(l.P99) })
	row("p99.9", func(l Latency) string { return Duration(l.P999) })
	row("p99.99", func(l Latency) string { return Duration(l.P9999) })
	row("max", func(l Latency) string { return Duration(l.Max) })
	row("mean", func(l Latency) string { return Duration(int64(l.Mean)) })
	row("measured", func(l Latency) string { return fmt.Sprint(l.Count) })
	return &t
}

// UsageRows are what both processes used.
func (r *Run) UsageRows() (rows [][]string) {
	for _, f := range []struct {
		name string
		get  func(Usage) string
	}{
		{"cores", func(u Usage) string { return fmt.Sprintf("%.2f", u.Cores) }},
		{"CPU us a message", func(u Usage) string { return Number(1e6 * u.CPUPerMsg()) }},
		{"RSS", func(u Usage) string { return Bytes(float64(u.RSS)) }},
		{"peak RSS", func(u Usage) string { return Bytes(float64(u.PeakRSS)) }},
		{"allocations a message", func(u Usage) string { return Number(u.AllocsPerMsg) }},
		{"garbage collections", func(u Usage) string { return fmt.Sprint(u.GCs) }},
		{"goroutines", func(u Usage) string { return fmt.Sprint(u.Goroutines) }},
		{"context switches a message", func(u Usage) string { return Number(u.SwitchesMsg) }},
		{"reads a message", func(u Usage) string { return Number(u.ReadCallsMsg) }},
		{"writes a message", func(u Usage) string { return Number(u.WriteCallsMsg) }},
	} {
		row := []string{f.name}
		for _, u := range []Usage{r.Client, r.Server} {
			if !u.Measured() {
				row = append(row, notMeasured)
				continue
			}
			if u.Messages == 0 {
				u.Messages = r.Messages // the report is of an earlier version
			}
			row = append(row, f.get(u))
		}
		rows = append(rows, row)
	}
	return rows
}
