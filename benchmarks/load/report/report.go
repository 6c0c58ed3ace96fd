// Package report has the results of a load run and writes them as text, JSON, CSV, HDR
// log, HTML and Go benchmark lines. It also judges reports by an SLO, and compares them.
package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/hist"
	"github.com/sluicerpc/sluice/benchmarks/load/proc"
)

// Schema names the version of the JSON form. A field is only ever added; any
// other change makes a new version.
const Schema = "sluice.load/1"

// A Report is one or more runs of the same workload over the same peer.
type Report struct {
	Schema      string          `json:"schema"`
	Preset      string          `json:"preset"`
	Peer        string          `json:"peer"`
	Command     string          `json:"command"`
	Environment Environment     `json:"environment"`
	Config      json.RawMessage `json:"config"`
	Notes       []string        `json:"notes,omitempty"` // on the preset
	Runs        []*Run          `json:"runs"`
	SLO         []Verdict       `json:"slo,omitempty"`
	Knee        []Probe         `json:"knee,omitempty"`
}

// An Environment is where a run took place.
type Environment struct {
	Commit     string    `json:"commit,omitempty"`
	Modified   bool      `json:"modified,omitempty"` // the work tree differed from Commit
	Go         string    `json:"go"`
	OS         string    `json:"os"`
	Arch       string    `json:"arch"`
	CPU        string    `json:"cpu,omitempty"`
	CPUs       int       `json:"cpus"`
	GOMAXPROCS int       `json:"gomaxprocs"`
	Kernel     string    `json:"kernel,omitempty"`
	Date       time.Time `json:"date"`
}

// Environ describes this process's environment.
func Environ() Environment {
	e := Environment{
		Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		CPUs: runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0), Date: time.Now(),
		CPU: cpuName(), Kernel: firstLine("/proc/sys/kernel/osrelease"),
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				e.Commit = s.Value
			case "vcs.modified":
				e.Modified = s.Value == "true"
			}
		}
	}
	return e
}

func cpuName() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func firstLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// A Run is the result of one run. Figures are of the measured window unless noted.
type Run struct {
	Start    time.Time `json:"start"`
	Model    string    `json:"model"` // "open" or "closed"
	Workload string    `json:"workload"`
	Seconds  float64   `json:"seconds"` // measured, without warm-up

	// Messages are round trips in echo workloads, messages sent in one-way
	// ones, opens in churn and idle.
	Messages  uint64  `json:"messages"`
	Bytes     uint64  `json:"bytes"`
	Rate      float64 `json:"messages_per_s"`
	ByteRate  float64 `json:"bytes_per_s"`
	Scheduled float64 `json:"scheduled_per_s,omitempty"` // open model: due in the window

	// Response is from when a message was due, in the open model; in the
	// closed model it is Service. Service is from when it was sent. Both end
	// when the echo has come or, one way, when the library took the message.
	Response Latency `json:"response"`
	Service  Latency `json:"service"`
	// Lateness is the pacer's own: released less due.
	Lateness Latency `json:"lateness"`

	Deferred Deferred `json:"deferred"`
	Checks   Checks   `json:"checks"`
	Errors   uint64   `json:"errors"`
	Error    string   `json:"error,omitempty"` // what ended the run early
	// Failed are the unary calls of the whole run that the service answered with an error, or
	// not in time, by code. They are no Messages, and no latency is theirs.
	Failed map[string]uint64 `json:"failed,omitempty"`

	Client Usage `json:"client"`
	Server Usage `json:"server"`
	// CPUPerMillion is CPU seconds of both processes per million messages.
	CPUPerMillion float64 `json:"cpu_s_per_million"`

	Fairness Fairness `json:"fairness"`
	Bulk     *Bulk    `json:"bulk,omitempty"`
	Memory   *Memory  `json:"memory,omitempty"`
	Faults   []Fault  `json:"faults,omitempty"`

	Interrupted bool       `json:"interrupted,omitempty"`
	Invalid     []string   `json:"invalid,omitempty"` // why the figures say nothing about the server
	Series      []Interval `json:"series"`
}

// FailedCalls counts Failed.
func (r *Run) FailedCalls() (n uint64) {
	for _, c := range r.Failed {
		n += c
	}
	return n
}

// FailedText writes Failed, most of them first; "" if there are none.
func (r *Run) FailedText() string {
	codes := slices.SortedFunc(maps.Keys(r.Failed), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.Failed[b], r.Failed[a]), cmp.Compare(a, b))
	})
	for i, c := range codes {
		codes[i] = fmt.Sprintf("%s %d", c, r.Failed[c])
	}
	return strings.Join(codes, ", ")
}

// A Latency is a distribution in nanoseconds.
type Latency struct {
	Count uint64  `json:"count"`
	Min   int64   `json:"min_ns"`
	Mean  float64 `json:"mean_ns"`
	P50   int64   `json:"p50_ns"`
	P90   int64   `json:"p90_ns"`
	P99   int64   `json:"p99_ns"`
	P999  int64   `json:"p99_9_ns"`
	P9999 int64   `json:"p99_99_ns"`
	Max   int64   `json:"max_ns"`
	HDR   string  `json:"hdr,omitempty"` // the whole histogram, as in .hlog
}

// LatencyOf summarizes h; whole keeps the histogram too.
func LatencyOf(h *hist.H, whole bool) Latency {
	if h.TotalCount() == 0 {
		return Latency{}
	}
	l := Latency{
		Count: uint64(h.TotalCount()), Min: h.Min(), Mean: h.Mean(), Max: h.Max(),
		P50: h.ValueAtQuantile(50), P90: h.ValueAtQuantile(90), P99: h.ValueAtQuantile(99),
		P999: h.ValueAtQuantile(99.9), P9999: h.ValueAtQuantile(99.99),
	}
	if whole {
		l.HDR, _ = hist.Encode(h) // fails only for versions that don't exist
	}
	return l
}

// Text writes a figure of l: p50, p99, max. A zero of nothing is no figure.
func (l Latency) Text(ns int64) string {
	if l.Count == 0 {
		return notMeasured
	}
	return Duration(ns)
}

// Deferred counts messages that could not be sent when they were due, by reason. They were
// sent later, and their response time includes the wait.
type Deferred struct {
	Credit   uint64 `json:"credit"`   // the receiver's window was used up
	Mailbox  uint64 `json:"mailbox"`  // a queue inside the library was full
	Socket   uint64 `json:"socket"`   // the socket took no more
	Blocked  uint64 `json:"blocked"`  // Send waited, for an unknown reason
	InFlight uint64 `json:"inflight"` // the workload's own limit
	Dropped  uint64 `json:"dropped"`  // never sent: the backlog was at its bound, or the run ended
}

// Total is all of them.
func (d Deferred) Total() uint64 {
	return d.Credit + d.Mailbox + d.Socket + d.Blocked + d.InFlight + d.Dropped
}

// Checks are the correctness counters of the whole run, warm-up and end
// included. Anything but Messages and Unconfirmed is a violation.
type Checks struct {
	Messages   uint64 `json:"messages"`
	Lost       uint64 `json:"lost"`
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"`
	// Corrupted were damaged, or another stream's. Every byte counts up to
	// 4 KiB; of what is longer, 8 bytes of each 4,096 beyond that, and the last 8.
	Corrupted uint64 `json:"corrupted"`
	// Unconfirmed were sent on streams that ended before it was known whether they
	// arrived. Those on streams that a fault broke are counted with the fault.
	Unconfirmed uint64 `json:"unconfirmed"`
}

// Violations counts what must not happen.
func (c Checks) Violations() uint64 { return c.Lost + c.Duplicated + c.Reordered + c.Corrupted }

// Usage is what one process used.
type Usage struct {
	// Messages is how many went through meanwhile: fewer than the run's if the
	// process was lost.
	Messages      uint64             `json:"messages"`
	UserCPU       float64            `json:"user_cpu_s"`
	SystemCPU     float64            `json:"system_cpu_s"`
	Cores         float64            `json:"cores"` // CPU seconds a second
	RSS           uint64             `json:"rss_bytes"`
	PeakRSS       uint64             `json:"peak_rss_bytes"` // since the process started
	LiveBytes     uint64             `json:"live_bytes"`     // heap objects and stacks
	AllocsPerMsg  float64            `json:"allocs_per_message"`
	BytesPerMsg   float64            `json:"alloc_bytes_per_message"`
	GCs           uint64             `json:"gcs"`
	GCPause       float64            `json:"gc_pause_s"`
	GCCPU         float64            `json:"gc_cpu_s"`
	Goroutines    uint64             `json:"goroutines"`
	SwitchesMsg   float64            `json:"context_switches_per_message"`
	ReadCallsMsg  float64            `json:"read_calls_per_message"`  // read(2) and its variants; see proc.Stats
	WriteCallsMsg float64            `json:"write_calls_per_message"` // write(2) and its variants
	Library       map[string]float64 `json:"library,omitempty"`
}

// UsageOf returns what a process used between two readings, in which that
// many messages went through.
func UsageOf(a, b proc.Stats, messages uint64) Usage {
	seconds := max(b.At.Sub(a.At).Seconds(), 1e-9)
	per := func(x, y uint64) float64 { return float64(y-x) / float64(max(messages, 1)) }
	return Usage{
		Messages: messages,
		UserCPU:  b.UserCPU - a.UserCPU, SystemCPU: b.SystemCPU - a.SystemCPU,
		Cores: (b.CPU() - a.CPU()) / seconds,
		RSS:   b.RSS, PeakRSS: b.PeakRSS, LiveBytes: b.LiveBytes,
		AllocsPerMsg: per(a.Allocs, b.Allocs), BytesPerMsg: per(a.AllocBytes, b.AllocBytes),
		GCs: b.GCs - a.GCs, GCPause: b.GCPause - a.GCPause, GCCPU: b.GCCPU - a.GCCPU,
		Goroutines: b.Goroutines, SwitchesMsg: per(a.Switches, b.Switches),
		ReadCallsMsg: per(a.ReadCalls, b.ReadCalls), WriteCallsMsg: per(a.WriteCalls, b.WriteCalls),
		Library: b.Library,
	}
}

// Measured reports whether the process's figures were read at all: a server without an admin
// endpoint has none.
func (u Usage) Measured() bool { return u.Goroutines > 0 }

// bothMeasured reports whether figures of both processes together are known.
func (r *Run) bothMeasured() bool { return r.Client.Measured() && r.Server.Measured() }

// CPUPerMsg returns CPU seconds a message.
func (u Usage) CPUPerMsg() float64 { return (u.UserCPU + u.SystemCPU) / float64(max(u.Messages, 1)) }

// Fairness is how evenly the streams were served.
type Fairness struct {
	Streams int     `json:"streams"`
	Min     uint64  `json:"min"` // messages of the stream with the fewest
	Max     uint64  `json:"max"`
	Jain    float64 `json:"jain"` // Jain's index; 1: all the same; 1/n: one had everything
	// Spread is the messages of the streams at every 5% of them, from the one
	// with the fewest to the one with the most.
	Spread []uint64 `json:"spread,omitempty"`
}

// FairnessOf computes it from each stream's messages.
func FairnessOf(counts []uint64) Fairness {
	if len(counts) == 0 {
		return Fairness{}
	}
	sorted := slices.Sorted(slices.Values(counts))
	last := len(sorted) - 1
	f := Fairness{Streams: len(counts), Min: sorted[0], Max: sorted[last], Jain: 1}
	for i := 0; i <= 20 && last > 0; i++ {
		f.Spread = append(f.Spread, sorted[i*last/20])
	}
	var sum, squares float64
	for _, n := range counts {
		sum += float64(n)
		squares += float64(n) * float64(n)
	}
	if squares > 0 {
		f.Jain = sum * sum / (float64(len(counts)) * squares)
	}
	return f
}

// Bulk is the background traffic beside the measured messages.
type Bulk struct {
	Messages uint64  `json:"messages"`
	Bytes    uint64  `json:"bytes"`
	ByteRate float64 `json:"bytes_per_s"`
}

// Memory is what open streams cost, measured between collections: nothing
// open, then all open and idle.
type Memory struct {
	Streams         int     `json:"streams"`
	Conns           int     `json:"connections"`
	ClientPerStream float64 `json:"client_bytes_per_stream"` // heap objects and stacks
	ServerPerStream float64 `json:"server_bytes_per_stream"`
	ClientPerConn   float64 `json:"client_bytes_per_connection"`
	ServerPerConn   float64 `json:"server_bytes_per_connection"`
	ClientRSS       float64 `json:"client_rss_per_stream"`
	ServerRSS       float64 `json:"server_rss_per_stream"`
	OpenSeconds     float64 `json:"open_seconds"`
}

// A Fault is one injected fault and its effects.
type Fault struct {
	At        float64 `json:"at_s"` // in the measured window
	What      string  `json:"what"`
	Hit       int     `json:"hit"`       // connections or streams
	Broken    int     `json:"broken"`    // streams that it broke
	Recovered int     `json:"recovered"` // how many of these recovered
	Lost      uint64  `json:"lost"`      // messages sent and not answered on them
	// Unconfirmed is, one way, the messages sent on streams that broke: it is not
	// known how many of them arrived.
	Unconfirmed uint64  `json:"unconfirmed"`
	Recovery    float64 `json:"recovery_s"` // from the fault, or from its end if it lasted; -1: never
	// Ceiling is the rate at which raw bytes get through the delay, one way on one connection,
	// measured when the run was over; 0: not measured.
	Ceiling float64 `json:"ceiling_bytes_s,omitzero"`
}

// An Interval is one row of the time series.
type Interval struct {
	T        float64  `json:"t_s"` // its end, in the measured window
	Seconds  float64  `json:"seconds"`
	Sent     uint64   `json:"sent"`
	Received uint64   `json:"received"`
	InFlight uint64   `json:"in_flight"`
	Bulk     uint64   `json:"bulk_bytes"`
	Deferred Deferred `json:"deferred"`
	Response Latency  `json:"response"`
	Service  Latency  `json:"service"`
	Lateness Latency  `json:"lateness"`
	Client   Gauge    `json:"client"`
	Server   Gauge    `json:"server"`
	Checks   Checks   `json:"checks"`           // so far
	Failed   uint64   `json:"failed,omitempty"` // calls, so far
	Marks    []string `json:"marks,omitempty"`
}

// Rate is messages a second.
func (i Interval) Rate() float64 { return float64(i.Received) / max(i.Seconds, 1e-9) }

// A Gauge is the state of one process at the end of an interval.
type Gauge struct {
	Cores      float64 `json:"cores"`
	RSS        uint64  `json:"rss_bytes"`
	LiveBytes  uint64  `json:"live_bytes"`
	Goroutines uint64  `json:"goroutines"`
	Streams    int64   `json:"streams"`
}

// Measured reports whether the process's state was read.
func (g Gauge) Measured() bool { return g.Goroutines > 0 }

// GaugeOf returns the state at b, and CPU use since a.
func GaugeOf(a, b proc.Stats) Gauge {
	seconds := b.At.Sub(a.At).Seconds()
	g := Gauge{RSS: b.RSS, LiveBytes: b.LiveBytes, Goroutines: b.Goroutines, Streams: b.Streams}
	if seconds > 0 && !a.At.IsZero() {
		g.Cores = (b.CPU() - a.CPU()) / seconds
	}
	return g
}

// Read reads a report from its JSON form.
func Read(path string) (*Report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: not a report: %w", path, err)
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("%s: schema %q, want %q", path, r.Schema, Schema)
	}
	if len(r.Runs) == 0 {
		return nil, fmt.Errorf("%s: no run in it", path)
	}
	for i, run := range r.Runs {
		if run == nil || run.Model == "" || run.Workload == "" {
			return nil, fmt.Errorf("%s: run %d is empty", path, i+1)
		}
	}
	return r, nil
}
