package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/sluicerpc/sluice/benchmarks/load"
	"github.com/sluicerpc/sluice/benchmarks/load/report"
)

// A watcher shows the progress of a run.
type watcher interface {
	watch(load.Progress)
	end()
}

// newWatcher returns a panel on a terminal, a line a second elsewhere, and nothing with
// --quiet.
func newWatcher(d *driver, c load.Config) watcher {
	if d.Quiet {
		return silence{}
	}
	title := titleOf(d, c)
	if f, ok := d.env.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return newPanel(f, title)
	}
	return &lines{w: d.env.stderr, title: title}
}

func titleOf(d *driver, c load.Config) string {
	model := fmt.Sprintf("closed, %d outstanding", c.Outstanding)
	switch {
	case len(c.Stage) > 0:
		model = "open, staged"
	case c.Open():
		model = "open, " + report.Number(float64(c.Rate)) + "/s"
	case c.Workload == load.OneWay:
		model = "closed"
	case c.Workload == load.Idle:
		model = "idle"
	}
	size := c.Size.String()
	if c.Payload != nil && c.Payload.String() != "" {
		size = "messages of --data or --file"
	}
	return fmt.Sprintf("%s over %s at %s: %s, %d conns x %d streams, %s", d.report.Preset, d.target.Peer.Name(), d.target.Addr, model, c.Conns, c.Streams, size)
}

type silence struct{}

func (silence) watch(load.Progress) {}
func (silence) end()                {}

// lines writes a plain line an interval.
type lines struct {
	w     io.Writer
	title string
	began bool
}

func (l *lines) watch(p load.Progress) {
	if !l.began {
		l.began = true
		fmt.Fprintln(l.w, l.title)
	}
	if p.Phase != load.Measuring {
		return
	}
	i := p.Interval
	fmt.Fprintf(l.w, "%6.1f s  %s/s  %s  deferred %d  %s%s%s\n", i.T, report.Number(i.Rate()), latency(i.Response), i.Deferred.Total(),
		costs(i.Client, i.Server), violations(i.Checks)+failures(i), marks(i))
}

func latency(l report.Latency) string {
	if l.Count == 0 {
		return "latency not measured"
	}
	return fmt.Sprintf("p50 %s  p99 %s  max %s", report.Duration(l.P50), report.Duration(l.P99), report.Duration(l.Max))
}

// costs are those of both processes, or of the client's if the server's are not known.
func costs(client, server report.Gauge) string {
	if !server.Measured() {
		return fmt.Sprintf("client's cpu %.2f  rss %s", client.Cores, report.Bytes(float64(client.RSS)))
	}
	return fmt.Sprintf("cpu %.2f+%.2f  rss %s+%s", client.Cores, server.Cores, report.Bytes(float64(client.RSS)), report.Bytes(float64(server.RSS)))
}

func (l *lines) end() {}

func violations(c report.Checks) string {
	if c.Violations() == 0 {
		return ""
	}
	return fmt.Sprintf("  VIOLATIONS %d", c.Violations())
}

// failures are the calls that failed so far.
func failures(i report.Interval) string {
	if i.Failed == 0 {
		return ""
	}
	return fmt.Sprintf("  failed %d", i.Failed)
}

func marks(i report.Interval) string {
	if len(i.Marks) == 0 {
		return ""
	}
	return "  << " + strings.Join(i.Marks, ", ")
}

// panel redraws a progress bar with the latest figures below it.
type panel struct {
	progress *mpb.Progress
	bar      *mpb.Bar
	rows     []*mpb.Bar

	mu    sync.Mutex // guards what follows: mpb draws from a goroutine of its own
	text  [rowCount]string
	rates []float64
	p99s  []float64
	phase load.Phase
}

const rowCount = 6

func newPanel(w io.Writer, title string) *panel {
	p := &panel{progress: mpb.New(mpb.WithOutput(w), mpb.WithWidth(40), mpb.WithRefreshRate(200*time.Millisecond)), phase: load.Opening}
	fmt.Fprintln(w, title)
	p.bar = p.progress.New(0, mpb.BarStyle().Lbound("[").Filler("#").Tip("#").Padding("-").Rbound("]"),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return p.headline() }, decor.WC{W: 12, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string {
			return fmt.Sprintf(" %.0f/%.0f s", time.Duration(s.Current).Seconds(), time.Duration(s.Total).Seconds())
		})))
	for n := range rowCount {
		row := p.progress.New(0, mpb.NopStyle(), mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return p.row(n) })))
		p.rows = append(p.rows, row)
	}
	return p
}

func (p *panel) headline() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.phase)
}

func (p *panel) row(n int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text[n]
}

func (p *panel) watch(pr load.Progress) {
	if pr.Length > 0 {
		p.bar.SetTotal(int64(pr.Length), false)
		p.bar.SetCurrent(min(int64(pr.Elapsed), int64(pr.Length)-1)) // a full bar would be gone
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase = pr.Phase
	if pr.Phase == load.Measuring {
		p.show(pr.Interval)
	}
}

// history is how many intervals the sparklines show.
const history = 30

func (p *panel) show(i report.Interval) {
	p.rates = last(append(p.rates, i.Rate()), history)
	p.p99s = last(append(p.p99s, float64(i.Response.P99)), history)
	d := i.Deferred
	p.text = [rowCount]string{
		fmt.Sprintf("  rate     %s/s sent, %s/s received, %d in flight, bulk %s/s", report.Number(float64(i.Sent)/max(i.Seconds, 1e-9)), report.Number(i.Rate()), i.InFlight, report.Bytes(float64(i.Bulk)/max(i.Seconds, 1e-9))),
		"  latency  " + latencies(i),
		fmt.Sprintf("  deferred credit %d  mailbox %d  socket %d  blocked %d  in flight %d", d.Credit, d.Mailbox, d.Socket, d.Blocked, d.InFlight),
		"  client   " + process(i.Client) + "   server " + process(i.Server),
		fmt.Sprintf("  checks   lost %d  duplicated %d  reordered %d  corrupted %d%s%s", i.Checks.Lost, i.Checks.Duplicated, i.Checks.Reordered, i.Checks.Corrupted, failures(i), marks(i)),
		fmt.Sprintf("  rate/s   %s   p99 %s", spark(p.rates), spark(p.p99s)),
	}
}

func latencies(i report.Interval) string {
	r, text := i.Response, "not measured"
	if r.Count > 0 {
		text = fmt.Sprintf("p50 %s  p90 %s  p99 %s  p99.9 %s  max %s", report.Duration(r.P50), report.Duration(r.P90),
			report.Duration(r.P99), report.Duration(r.P999), report.Duration(r.Max))
	}
	if i.Lateness.Count > 0 {
		text += "   pacer late p99 " + report.Duration(i.Lateness.P99)
	}
	return text
}

func process(g report.Gauge) string {
	if !g.Measured() {
		return "not measured"
	}
	text := fmt.Sprintf("%.2f CPUs  %s  %d goroutines", g.Cores, report.Bytes(float64(g.RSS)), g.Goroutines)
	if g.Streams > 0 {
		text += fmt.Sprintf("  %d streams", g.Streams)
	}
	return text
}

func last(v []float64, n int) []float64 { return v[max(len(v)-n, 0):] }

// spark draws values as bars from 0 to the highest.
func spark(values []float64) string {
	var top float64
	for _, v := range values {
		top = max(top, v)
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, v := range values {
		n := 0
		if top > 0 {
			n = int(v / top * float64(len(bars)-1))
		}
		b.WriteRune(bars[n])
	}
	return b.String()
}

func (p *panel) end() {
	p.bar.Abort(false)
	for _, r := range p.rows {
		r.Abort(false)
	}
	p.progress.Wait()
}
