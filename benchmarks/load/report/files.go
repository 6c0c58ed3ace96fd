package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/sluicerpc/sluice/benchmarks/load/hist"
)

// JSON writes all there is.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// columns are those of the CSV form.
var columns = []struct {
	name string
	get  func(Interval) any
}{
	{"t_s", func(i Interval) any { return i.T }},
	{"seconds", func(i Interval) any { return i.Seconds }},
	{"sent", func(i Interval) any { return i.Sent }},
	{"received", func(i Interval) any { return i.Received }},
	{"in_flight", func(i Interval) any { return i.InFlight }},
	{"bulk_bytes", func(i Interval) any { return i.Bulk }},
	{"deferred_credit", func(i Interval) any { return i.Deferred.Credit }},
	{"deferred_mailbox", func(i Interval) any { return i.Deferred.Mailbox }},
	{"deferred_socket", func(i Interval) any { return i.Deferred.Socket }},
	{"deferred_blocked", func(i Interval) any { return i.Deferred.Blocked }},
	{"deferred_inflight", func(i Interval) any { return i.Deferred.InFlight }},
	{"dropped", func(i Interval) any { return i.Deferred.Dropped }},
	{"response_p50_ns", func(i Interval) any { return ns(i.Response, i.Response.P50) }},
	{"response_p90_ns", func(i Interval) any { return ns(i.Response, i.Response.P90) }},
	{"response_p99_ns", func(i Interval) any { return ns(i.Response, i.Response.P99) }},
	{"response_p99_9_ns", func(i Interval) any { return ns(i.Response, i.Response.P999) }},
	{"response_p99_99_ns", func(i Interval) any { return ns(i.Response, i.Response.P9999) }},
	{"response_max_ns", func(i Interval) any { return ns(i.Response, i.Response.Max) }},
	{"service_p50_ns", func(i Interval) any { return ns(i.Service, i.Service.P50) }},
	{"service_p99_ns", func(i Interval) any { return ns(i.Service, i.Service.P99) }},
	{"service_max_ns", func(i Interval) any { return ns(i.Service, i.Service.Max) }},
	{"lateness_p99_ns", func(i Interval) any { return ns(i.Lateness, i.Lateness.P99) }},
	{"client_cores", func(i Interval) any { return i.Client.Cores }},
	{"client_rss_bytes", func(i Interval) any { return i.Client.RSS }},
	{"client_goroutines", func(i Interval) any { return i.Client.Goroutines }},
	{"server_cores", func(i Interval) any { return of(i.Server, i.Server.Cores) }},
	{"server_rss_bytes", func(i Interval) any { return of(i.Server, i.Server.RSS) }},
	{"server_goroutines", func(i Interval) any { return of(i.Server, i.Server.Goroutines) }},
	{"server_streams", func(i Interval) any { return of(i.Server, i.Server.Streams) }},
	{"lost", func(i Interval) any { return i.Checks.Lost }},
	{"duplicated", func(i Interval) any { return i.Checks.Duplicated }},
	{"reordered", func(i Interval) any { return i.Checks.Reordered }},
	{"corrupted", func(i Interval) any { return i.Checks.Corrupted }},
	{"unconfirmed", func(i Interval) any { return i.Checks.Unconfirmed }},
	{"marks", func(i Interval) any { return strings.Join(i.Marks, " ") }},
}

// ns is a figure of l for a cell; nil, an empty one, if there is none.
func ns(l Latency, v int64) any {
	if l.Count == 0 {
		return nil
	}
	return v
}

// of is a figure of g for a cell; nil if g was not read.
func of(g Gauge, v any) any {
	if !g.Measured() {
		return nil
	}
	return v
}

// CSV writes the time series, a row an interval. A figure that was not measured is empty.
func (r *Report) CSV(w io.Writer) error {
	out := csv.NewWriter(w)
	header := []string{"run"}
	for _, c := range columns {
		header = append(header, c.name)
	}
	if err := out.Write(header); err != nil {
		return err
	}
	for n, run := range r.Runs {
		for _, i := range run.Series {
			row := []string{strconv.Itoa(n + 1)}
			for _, c := range columns {
				row = append(row, cell(c.get(i)))
			}
			if err := out.Write(row); err != nil {
				return err
			}
		}
	}
	out.Flush()
	return out.Error()
}

func cell(v any) string {
	if v == nil {
		return ""
	}
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'f', 6, 64)
	}
	return fmt.Sprint(v)
}

// HLog writes the histograms as an HDR histogram log, one line each, tagged
// with what it is.
func (r *Report) HLog(w io.Writer) error {
	out := hdrhistogram.NewHistogramLogWriter(w)
	err := out.OutputComment(fmt.Sprintf("[%s over %s; nanoseconds]", r.Preset, r.Peer))
	if err == nil {
		err = out.OutputLogFormatVersion()
	}
	if err == nil {
		err = out.OutputStartTime(r.Environment.Date.UnixMilli())
	}
	if err == nil {
		err = out.OutputLegend()
	}
	for _, run := range r.Runs {
		for _, d := range []struct {
			tag string
			l   Latency
		}{{"response", run.Response}, {"service", run.Service}, {"lateness", run.Lateness}} {
			if err == nil {
				err = logLine(out, run, d.tag, d.l)
			}
		}
	}
	return err
}

func logLine(out *hdrhistogram.HistogramLogWriter, run *Run, tag string, l Latency) error {
	if l.HDR == "" {
		return nil
	}
	h, err := hist.Decode(l.HDR)
	if err != nil {
		return err
	}
	begin := run.Start.UnixMilli()
	h.SetTag(tag)
	h.SetStartTimeMs(begin)
	h.SetEndTimeMs(begin + int64(run.Seconds*1000))
	return out.OutputIntervalHistogram(h)
}

// Bench writes a line a run as go test -bench does, for benchstat.
func (r *Report) Bench(w io.Writer) error {
	_, err := fmt.Fprintf(w, "goos: %s\ngoarch: %s\ncpu: %s\n", r.Environment.OS, r.Environment.Arch, r.Environment.CPU)
	for _, run := range r.Runs {
		if err == nil {
			_, err = fmt.Fprintln(w, r.benchLine(run))
		}
	}
	return err
}

func (r *Report) benchLine(run *Run) string {
	var b strings.Builder
	fmt.Fprintf(&b, "BenchmarkLoad/%s/peer=%s-%d\t%d", strings.ReplaceAll(r.Preset, " ", "/"), r.Peer, r.Environment.GOMAXPROCS, run.Messages)
	if run.Rate > 0 {
		fmt.Fprintf(&b, "\t%.4g ns/op\t%.4g MB/s", 1e9/run.Rate, run.ByteRate/1e6)
	}
	if run.bothMeasured() {
		fmt.Fprintf(&b, "\t%.4g cpu-ns/op\t%.4g allocs/op", run.CPUPerMillion*1e3, run.Client.AllocsPerMsg+run.Server.AllocsPerMsg)
	}
	if l := run.Response; l.Count > 0 {
		fmt.Fprintf(&b, "\t%d p50-ns\t%d p99-ns", l.P50, l.P99)
	}
	if run.Bulk != nil {
		fmt.Fprintf(&b, "\t%.4g bulk-MB/s", run.Bulk.ByteRate/1e6)
	}
	if m := run.Memory; m != nil && m.ClientPerStream > 0 {
		fmt.Fprintf(&b, "\t%.4g client-B/stream", m.ClientPerStream)
	}
	if m := run.Memory; m != nil && m.ServerPerStream > 0 {
		fmt.Fprintf(&b, "\t%.4g server-B/stream", m.ServerPerStream)
	}
	return b.String()
}
