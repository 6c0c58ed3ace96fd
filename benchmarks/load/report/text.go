package report

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// Text writes the report as text.
func (r *Report) Text(w io.Writer) error {
	out := newTextWriter(w)
	for i, run := range r.Runs {
		r.heading(out, i, run)
		run.text(out)
	}
	if len(r.Runs) > 1 {
		r.summary(out)
	}
	r.kneeText(out)
	for _, n := range r.Notes {
		out.line("note: %s", n)
	}
	out.section()
	for _, v := range r.SLO {
		out.line("SLO\t%s\t%s\t%s", v.Condition, v.Text, passed(v.Pass))
	}
	return out.end()
}

// textWriter keeps the first error.
type textWriter struct {
	w   *tabwriter.Writer
	err error
}

func newTextWriter(w io.Writer) *textWriter {
	return &textWriter{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

func (t *textWriter) line(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format+"\n", args...)
	}
}

// section ends the alignment of columns.
func (t *textWriter) section() {
	if t.err == nil {
		t.err = t.w.Flush()
	}
}

func (t *textWriter) end() error {
	t.section()
	return t.err
}

// notMeasured stands for a figure that was not.
const notMeasured = "not measured"

func passed(ok bool) string {
	if ok {
		return "PASS"
	}
	return "FAIL"
}

func (r *Report) heading(t *textWriter, i int, run *Run) {
	name := fmt.Sprintf("%s over %s, %s model", r.Preset, r.Peer, run.Model)
	if len(r.Runs) > 1 {
		name += fmt.Sprintf(", run %d of %d", i+1, len(r.Runs))
	}
	t.line("== %s: %s", name, run.Status())
	for _, why := range run.Invalid {
		t.line("INVALID: %s", why)
	}
	if run.Error != "" {
		t.line("ended early: %s", run.Error)
	}
	t.section()
}

// Status is the run's outcome in a word or two.
func (r *Run) Status() string {
	switch {
	case r.Checks.Violations() > 0:
		return "DELIVERY VIOLATED"
	case r.Error != "":
		return "ENDED EARLY"
	case r.Interrupted:
		return "INTERRUPTED"
	case r.Unsettled():
		return "DELIVERY UNCONFIRMED"
	case r.FailedCalls() > 0:
		return "CALLS FAILED"
	case len(r.Invalid) > 0:
		return "INVALID"
	}
	return "ok"
}

// Unsettled reports whether it is unknown what arrived on some streams, or streams did not
// recover from a fault.
func (r *Run) Unsettled() bool {
	notBack := func(f Fault) bool { return f.Recovered < f.Broken }
	return r.Errors > 0 || r.Checks.Unconfirmed > 0 || slices.ContainsFunc(r.Faults, notBack)
}

func (r *Run) text(t *textWriter) {
	t.line("messages\t%d in %.2f s\t%s/s\t%s/s", r.Messages, r.Seconds, Number(r.Rate), Bytes(r.ByteRate))
	if r.Bulk != nil {
		t.line("beside them\t%d bulk messages\t\t%s/s", r.Bulk.Messages, Bytes(r.Bulk.ByteRate))
	}
	t.section()
	r.latencies(t)
	if r.Model == "open" {
		d := r.Deferred
		t.line("deferred\t%d of %.0f due\tcredit %d  mailbox %d  socket %d  blocked %d  in flight %d  never sent %d",
			d.Total(), r.Scheduled*r.Seconds, d.Credit, d.Mailbox, d.Socket, d.Blocked, d.InFlight, d.Dropped)
	}
	c := r.Checks
	t.line("checks\t%d messages\tlost %d  duplicated %d  reordered %d  corrupted %d  unconfirmed %d  errors %d",
		c.Messages, c.Lost, c.Duplicated, c.Reordered, c.Corrupted, c.Unconfirmed, r.Errors)
	if failed := r.FailedText(); failed != "" {
		t.line("failed\t%d calls\t%s", r.FailedCalls(), failed)
	}
	if f := r.Fairness; f.Streams > 1 {
		t.line("fairness\t%d streams\tJain %.4f, %d to %d messages each", f.Streams, f.Jain, f.Min, f.Max)
	}
	t.section()
	r.usage(t)
	r.memoryText(t)
	for _, f := range r.Faults {
		t.line("fault\t%s\t%s", f.What, f.outcome())
	}
	t.section()
}

func (r *Run) latencies(t *textWriter) {
	if r.Service.Count == 0 {
		t.line("latency\t%s", notMeasured)
	}
	t.section()
	if r.Service.Count+r.Lateness.Count == 0 {
		return
	}
	t.line("\tp50\tp90\tp99\tp99.9\tp99.99\tmax\tmean\tmeasured")
	row := func(name string, l Latency) {
		if l.Count == 0 {
			return
		}
		t.line("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d", name, Duration(l.P50), Duration(l.P90), Duration(l.P99),
			Duration(l.P999), Duration(l.P9999), Duration(l.Max), Duration(int64(l.Mean)), l.Count)
	}
	if r.Model == "open" {
		row("response", r.Response)
	}
	row("service", r.Service)
	if a, b := r.Response, r.Service; r.Model == "open" && a.Count > 0 && b.Count > 0 {
		t.line("omission\t%s\t%s\t%s\t%s\t%s\t%s\t%s", Duration(a.P50-b.P50), Duration(a.P90-b.P90), Duration(a.P99-b.P99),
			Duration(a.P999-b.P999), Duration(a.P9999-b.P9999), Duration(a.Max-b.Max), Duration(int64(a.Mean-b.Mean)))
	}
	row("pacer late", r.Lateness)
	t.section()
}

func (r *Run) usage(t *textWriter) {
	t.line("\tcores\tCPU us/msg\tRSS\tpeak\tlive\tallocs/msg\tGCs\tGC pause\tgoroutines\tswitches/msg\tread+write/msg")
	row := func(name string, u Usage) {
		if !u.Measured() {
			t.line("%s\t%s", name, notMeasured)
			return
		}
		if u.Messages == 0 {
			u.Messages = r.Messages // the report is of an earlier version
		}
		t.line("%s\t%.2f\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%d\t%s\t%s", name, u.Cores, Number(1e6*u.CPUPerMsg()), Bytes(float64(u.RSS)),
			Bytes(float64(u.PeakRSS)), Bytes(float64(u.LiveBytes)), Number(u.AllocsPerMsg), u.GCs,
			Duration(int64(u.GCPause*1e9)), u.Goroutines, Number(u.SwitchesMsg), Number(u.ReadCallsMsg+u.WriteCallsMsg))
	}
	row("client", r.Client)
	row("server", r.Server)
	if r.bothMeasured() {
		t.line("both\t%.2f\t%s", r.Client.Cores+r.Server.Cores, Number(r.CPUPerMillion))
	}
	t.section()
}

func (r *Run) memoryText(t *textWriter) {
	m := r.Memory
	if m == nil {
		return
	}
	t.line("opened\t%d streams on %d connections in %s", m.Streams, m.Conns, Duration(int64(m.OpenSeconds*1e9)))
	t.line("memory each\tclient %s a stream, %s a connection\tserver %s a stream, %s a connection",
		grown(m.ClientPerStream), grown(m.ClientPerConn), grown(m.ServerPerStream), grown(m.ServerPerConn))
	t.section()
}

// grown writes by how much memory grew. Other memory may have been freed meanwhile, or the
// process not been looked at: then nothing is known.
func grown(bytes float64) string {
	if bytes <= 0 {
		return notMeasured
	}
	return Bytes(bytes)
}

func (f Fault) outcome() string {
	text := fmt.Sprintf("hit %d", f.Hit)
	if f.Broken > 0 {
		text += fmt.Sprintf("; %d streams broke, %d recovered; %d messages unanswered", f.Broken, f.Recovered, f.Lost)
		if f.Unconfirmed > 0 {
			text += fmt.Sprintf(", %d sent one way and unconfirmed", f.Unconfirmed)
		}
	}
	if f.Ceiling > 0 {
		text += "; raw bytes get through at " + Bytes(f.Ceiling) + "/s"
	}
	if f.Recovery < 0 {
		return text + "; not recovered in the measured window"
	}
	return text + "; recovered in " + Duration(int64(f.Recovery*1e9))
}

// summary shows median, least and most of several runs.
func (r *Report) summary(t *textWriter) {
	t.line("== %d runs\tmedian\tmin\tmax", len(r.Runs))
	for _, name := range []string{"rate", "byte_rate", "bulk_rate", "p50", "p99", "p99.9", "cpu_per_m", "server_bytes_per_stream"} {
		m, err := findMetric(name)
		if err != nil {
			t.err = err
			return
		}
		if s, ok := spreadOf(m, r.Runs); ok {
			t.line("%s\t%s\t%s\t%s", name, m.unit.format(s.Median), m.unit.format(s.Min), m.unit.format(s.Max))
		}
	}
	t.section()
}

// A Spread is a figure over several runs.
type Spread struct{ Median, Min, Max float64 }

func spreadOf(m metric, runs []*Run) (s Spread, ok bool) {
	values := m.values(runs)
	if len(values) == 0 {
		return s, false
	}
	s = Spread{median(values), values[0], values[0]}
	for _, v := range values {
		s.Min, s.Max = min(s.Min, v), max(s.Max, v)
	}
	return s, true
}

func (r *Report) kneeText(t *textWriter) {
	if len(r.Knee) == 0 {
		return
	}
	t.line("rate due\trate\tp99\tSLO")
	for _, p := range r.Knee {
		t.line("%s/s\t%s/s\t%s\t%s", Number(p.Rate), Number(p.Got), p.p99(), p.Outcome())
	}
	t.line("%v", KneeOf(r.Knee))
	t.section()
}
