package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/sluicerpc/sluice/benchmarks/load/hist"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", path, got)
	}
}

var day = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// latencyAround returns a distribution from base up to ten times that.
func latencyAround(base time.Duration) Latency {
	h := hist.New()
	for i := range int64(10_000) {
		_ = h.RecordValue(int64(base) * (1 + 9*i*i/100_000_000))
	}
	return LatencyOf(h, true)
}

// sample is a report as an open run with a fault makes it.
func sample() *Report {
	run := &Run{
		Start: day, Model: "open", Workload: "echo", Seconds: 3,
		Messages: 30_000, Bytes: 1_920_000, Rate: 10_000, ByteRate: 640_000, Scheduled: 10_001,
		Response: latencyAround(300 * time.Microsecond), Service: latencyAround(200 * time.Microsecond), Lateness: latencyAround(10 * time.Microsecond),
		Deferred: Deferred{Credit: 3, Mailbox: 2, Socket: 1, InFlight: 4}, Checks: Checks{Messages: 40_000},
		Client:        Usage{UserCPU: 1, SystemCPU: 0.5, Cores: 0.5, RSS: 50 << 20, PeakRSS: 60 << 20, LiveBytes: 10 << 20, AllocsPerMsg: 0.01, GCs: 3, GCPause: 0.0001, Goroutines: 20, SwitchesMsg: 2, ReadCallsMsg: 1.5, WriteCallsMsg: 1},
		Server:        Usage{UserCPU: 0.5, SystemCPU: 0.5, Cores: 0.333, RSS: 40 << 20, PeakRSS: 41 << 20, LiveBytes: 5 << 20, Goroutines: 12},
		CPUPerMillion: 83.3, Fairness: FairnessOf([]uint64{7400, 7500, 7500, 7600}),
		Memory: &Memory{Streams: 4, Conns: 2, ClientPerStream: 700, ServerPerStream: 800, ClientPerConn: 1400, ServerPerConn: 1600, OpenSeconds: 0.002},
		Bulk:   &Bulk{Messages: 300, Bytes: 300 << 20, ByteRate: 100 << 20},
		Faults: []Fault{{At: 1.5, What: "1.5s=kill-conns:50%", Hit: 1, Broken: 2, Recovered: 2, Lost: 5, Recovery: 0.0123}},
	}
	for n := range 3 {
		run.Series = append(run.Series, Interval{
			T: float64(n + 1), Seconds: 1, Sent: 10_000, Received: uint64(10_000 - n), InFlight: uint64(n), Response: run.Response,
			Client: Gauge{Cores: 0.5, RSS: 50 << 20, Goroutines: 20}, Server: Gauge{Cores: 0.3, RSS: 40 << 20, Goroutines: 12, Streams: 4},
		})
		run.Series[n].Response.HDR = ""
	}
	run.Series[1].Marks = []string{"1.5s=kill-conns:50%"}
	return &Report{
		Schema: Schema, Preset: "pingpong", Peer: "raw", Command: "load demo pingpong --rate 10k",
		Environment: Environment{Go: "go1.26", OS: "linux", Arch: "amd64", CPU: "A <CPU>", CPUs: 2, GOMAXPROCS: 2, Kernel: "6.1", Date: day},
		Config:      json.RawMessage(`{"Conns":2}`), Notes: []string{"Raised for this preset: nothing."}, Runs: []*Run{run},
		SLO:  []Verdict{{"p99<2ms", 2.9e6, "2.9ms", false}, {"errors==0", 0, "0", true}},
		Knee: []Probe{{Rate: 1000, Got: 999, P99: 1e6, Pass: true}, {Rate: 2000, Got: 1500, P99: 9e6, Failed: []string{"p99<2ms (9ms)"}}},
	}
}

func written(t *testing.T, write func(*bytes.Buffer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestForms(t *testing.T) {
	r := sample()
	golden(t, "report.txt", written(t, func(b *bytes.Buffer) error { return r.Text(b) }))
	golden(t, "report.csv", written(t, func(b *bytes.Buffer) error { return r.CSV(b) }))
	golden(t, "bench.txt", written(t, func(b *bytes.Buffer) error { return r.Bench(b) }))
	r.Runs[0].Response.HDR, r.Runs[0].Service.HDR, r.Runs[0].Lateness.HDR = "", "", "" // a compressor's output may change
	golden(t, "report.json", written(t, func(b *bytes.Buffer) error { return r.JSON(b) }))
}

func TestSeveralRunsAreSummedUp(t *testing.T) {
	r := sample()
	for _, rate := range []float64{9000, 12000} {
		more := *r.Runs[0]
		more.Rate = rate
		r.Runs = append(r.Runs, &more)
	}
	text := written(t, func(b *bytes.Buffer) error { return r.Text(b) })
	if !strings.Contains(text, "run 3 of 3") || !strings.Contains(text, "10k/s") || !strings.Contains(text, "9k/s") || !strings.Contains(text, "12k/s") {
		t.Error(text)
	}
}

func TestThePacersLatenessIsShownWithoutAnyLatency(t *testing.T) {
	r := sample()
	r.Runs[0].Response, r.Runs[0].Service = Latency{}, Latency{}
	text := written(t, func(b *bytes.Buffer) error { return r.Text(b) })
	if !strings.Contains(text, "pacer late") || strings.Contains(text, "service") {
		t.Error(text)
	}
}

// A figure that was not measured is not a 0.
func TestWhatWasNotMeasuredIsNoFigure(t *testing.T) {
	r := sample()
	run := r.Runs[0]
	run.Response, run.Service, run.Lateness, run.Server = Latency{}, Latency{}, Latency{}, Usage{}
	run.Memory.ClientRSS, run.Memory.ServerRSS = -60_000, 0
	run.Memory.ServerPerStream, run.Memory.ServerPerConn = -5, 0
	r.Knee[0].P99 = 0
	for n := range run.Series {
		run.Series[n].Response, run.Series[n].Server = Latency{}, Gauge{}
	}
	text := written(t, func(b *bytes.Buffer) error { return r.Text(b) })
	for _, want := range []string{`latency +not measured\n`, `server +not measured\n`, `server not measured a stream, not measured a connection`, `1k/s +999/s +not measured +PASS`} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if regexp.MustCompile(`both |p50|\b0 B|-5 B|[^.\d]0ns +PASS`).MatchString(text) {
		t.Errorf("a figure of nothing:\n%s", text)
	}
	page := written(t, func(b *bytes.Buffer) error { return r.HTML(b) })
	tables, _, _ := strings.Cut(page, `<div class="plots" id="plots0">`)
	if n := strings.Count(tables, "<td>not measured</td>"); n != 15 || !strings.Contains(tables, `<h3>Latency</h3><div class="dim">not measured</div>`) || strings.Contains(tables, "KiB</td><td>-") || strings.Contains(tables, "-58.6 KiB") {
		t.Errorf("%d figures are not measured, want RSS a stream of both, memory of the server, the ten figures of its process, and a p99", n)
	}
	rows := strings.Split(written(t, func(b *bytes.Buffer) error { return r.CSV(b) }), "\n")
	header, cells := strings.Split(rows[0], ","), strings.Split(rows[1], ",")
	for i, name := range header {
		if latency := strings.HasSuffix(name, "_ns"); (latency || strings.HasPrefix(name, "server_")) != (cells[i] == "" && name != "marks") {
			t.Errorf("CSV: %s is %q", name, cells[i])
		}
	}
	if line := written(t, func(b *bytes.Buffer) error { return r.Bench(b) }); strings.Contains(line, "server-B") || strings.Contains(line, "p50") || strings.Contains(line, "cpu-ns") {
		t.Error(line)
	}
}

// Nor does it meet a condition.
func TestAServerWithoutFiguresMeetsNoSLO(t *testing.T) {
	run := sample().Runs[0]
	run.Server = Usage{}
	for _, figure := range []string{"server_cores<9", "server_rss<1GiB", "cpu_per_m<1000", "allocs<9", "server_bytes_per_stream<1GiB", "server_bytes_per_conn<1GiB"} {
		slo, err := ParseSLO(figure)
		if err != nil {
			t.Fatal(err)
		}
		if v, pass := slo.Judge([]*Run{run}); pass || v[0].Text != notMeasured {
			t.Errorf("%s: %+v", figure, v)
		}
	}
}

func TestJSONRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	r := sample()
	text := written(t, func(b *bytes.Buffer) error { return r.JSON(b) })
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	back, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if again := written(t, func(b *bytes.Buffer) error { return back.JSON(b) }); again != text {
		t.Error("it is not what was written")
	}
	for bad, content := range map[string]string{"not a report": "hello", "schema": `{"schema":"other/1"}`, "no run": `{"schema":"` + Schema + `"}`,
		"run 1 is empty": `{"schema":"` + Schema + `","runs":[null]}`, "run 2 is empty": `{"schema":"` + Schema + `","runs":[{"model":"open","workload":"echo"},{}]}`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", content, err)
		}
	}
}

func TestHLogIsReadable(t *testing.T) {
	r := sample()
	text := written(t, func(b *bytes.Buffer) error { return r.HLog(b) })
	log := hdrhistogram.NewHistogramLogReader(strings.NewReader(text))
	for _, want := range []Latency{r.Runs[0].Response, r.Runs[0].Service, r.Runs[0].Lateness} {
		h, err := log.NextIntervalHistogram()
		if err != nil || h == nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if h.TotalCount() != int64(want.Count) || h.ValueAtQuantile(99) != want.P99 {
			t.Errorf("%d values, p99 %d; want %d, %d", h.TotalCount(), h.ValueAtQuantile(99), want.Count, want.P99)
		}
	}
}

func TestSLO(t *testing.T) {
	runs := sample().Runs
	for text, want := range map[string]bool{
		"p99<5ms": true, "p99<1ms": false, "p50>=300us": true, "errors==0": true, "errors!=0": false,
		"deferred<0.1%": true, "deferred<0.01%": false, "cpu_per_m<100": true, "cpu_per_m<=83": false,
		"rate>9.9k": true, "rate>1M": false, "server_rss<64MiB": true, "server_bytes_per_stream<0.8KiB": true,
		"bulk_rate>50MiB/s": true, "jain>0.99": true, "service_p50<650us,violations==0": true, "p99 < 5ms , lost == 1": false,
	} {
		slo, err := ParseSLO(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if v, pass := slo.Judge(runs); pass != want {
			t.Errorf("%s: %+v", text, v)
		}
	}
	for _, bad := range []string{"", "p99", "p99<", "p99<2", "p99=2ms", "p98<2ms", "errors==x", "p99<2ms,"} {
		if _, err := ParseSLO(bad); err == nil {
			t.Errorf("slo %q accepted", bad)
		}
	}
	slo, err := ParseSLO("p99<5ms")
	if err != nil {
		t.Fatal(err)
	}
	if v, pass := slo.Judge([]*Run{{}}); pass || v[0].Text != "not measured" {
		t.Errorf("a figure that was not measured passes: %+v", v)
	}
}

func TestSLOTakesMediansButTheWorstCounter(t *testing.T) {
	runs := []*Run{{Rate: 1}, {Rate: 5, Errors: 1}, {Rate: 9}}
	slo, err := ParseSLO("rate==5,errors==0")
	if err != nil {
		t.Fatal(err)
	}
	v, _ := slo.Judge(runs)
	if !v[0].Pass || v[1].Pass {
		t.Errorf("%+v", v)
	}
}

// runsOf makes runs of the given rates.
func runsOf(rates ...float64) *Report {
	r := &Report{Preset: "fan", Peer: "raw"}
	for _, rate := range rates {
		measured := Usage{Goroutines: 1}
		r.Runs = append(r.Runs, &Run{Rate: rate, Messages: 1, CPUPerMillion: 1e6 / rate, Client: measured, Server: measured})
	}
	return r
}

func TestCompare(t *testing.T) {
	base := runsOf(100, 101, 99, 100, 102)
	for name, tt := range map[string]struct {
		b    *Report
		want string
	}{
		"the same again":       {runsOf(101, 100, 100, 99, 101), Same},
		"steadily slower":      {runsOf(80, 81, 79, 80, 82), Worse},
		"steadily faster":      {runsOf(120, 121, 119, 118, 122), Better},
		"faster, but unsteady": {runsOf(90, 150, 60, 140, 110), Same},
		"steady, but slight":   {runsOf(101.1, 101.2, 101.3, 101.1, 101.2), Same},
		"three runs":           {runsOf(50, 51, 49), Unknown},
	} {
		cs, err := Compare(base, tt.b)
		if err != nil {
			t.Fatal(err)
		}
		if len(cs) < 2 || Overall(cs) != tt.want {
			t.Errorf("%s: %s: %+v", name, Overall(cs), cs)
		}
	}
	other := runsOf(1)
	other.Preset = "bulk"
	if _, err := Compare(base, other); err == nil {
		t.Error("different presets compared")
	}
}

// noisy makes a report of four runs whose figures vary by 3 %, the slower the higher
// slower is.
func noisy(rng *rand.Rand, slower float64) *Report {
	r := &Report{Preset: "fan", Peer: "raw"}
	for range 4 {
		about := func(v float64) float64 { return v * (1 + 0.03*rng.NormFloat64()) }
		pace := about(1) // what makes a run quick makes all of it quick
		time := func(v float64) int64 { return int64(about(v) * slower * pace) }
		r.Runs = append(r.Runs, &Run{
			Messages: 1, Rate: about(1e6) / slower / pace, CPUPerMillion: about(10) * slower * pace,
			Response: Latency{Count: 1, Mean: float64(time(1e5)), P50: time(9e4), P90: time(2e5), P99: time(1e6), P999: time(4e6)},
			Client:   Usage{RSS: uint64(about(5e7)), Goroutines: 1}, Server: Usage{RSS: uint64(about(4e7)), Goroutines: 1},
			Memory: &Memory{ClientPerStream: about(700), ServerPerStream: about(900)},
		})
	}
	return r
}

// Reports of the same thing differ in some figure by chance, and in eleven figures more
// often than in one.
func TestEqualReportsCompareAsTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const pairs = 200
	wrong, found := 0, 0
	for range pairs {
		for slower, n := range map[float64]*int{1: &wrong, 1.2: &found} {
			cs, err := Compare(noisy(rng, 1), noisy(rng, slower))
			if err != nil || len(cs) != 11 {
				t.Fatalf("%d figures, %v", len(cs), err)
			}
			if Overall(cs) != Same {
				*n++
			}
		}
	}
	if wrong > pairs/10 {
		t.Errorf("%d of %d pairs of equal reports differ, want 5 %% or so", wrong, pairs)
	}
	if found < pairs*8/10 {
		t.Errorf("a difference of 20 %% is seen in %d of %d pairs", found, pairs)
	}
}

func TestChances(t *testing.T) {
	nan := math.NaN()
	for name, tt := range map[string]struct {
		a, b [][]float64
		want []float64
	}{
		// Of 70 divisions this one and its reverse.
		"apart":        {[][]float64{{1, 2, 3, 4}}, [][]float64{{11, 12, 13, 14}}, []float64{2.0 / 70}},
		"the same":     {[][]float64{{1, 2, 3, 4}}, [][]float64{{1, 2, 3, 4}}, []float64{1}},
		"constant":     {[][]float64{{5, 5, 5, 5}}, [][]float64{{5, 5, 5, 5}}, []float64{1}},
		"steady":       {[][]float64{{5, 5, 5, 5}}, [][]float64{{6, 6, 6, 6}}, []float64{2.0 / 70}},
		"one beside":   {[][]float64{{1, 2, 3, 4}, {7, 7, 7, 7}}, [][]float64{{11, 12, 13, 14}, {7, 7, 7, 7}}, []float64{2.0 / 70, 1}},
		"not measured": {[][]float64{{1, 2, 3, 4}, {nan, nan, nan, nan}}, [][]float64{{11, 12, 13, 14}, {1, 2, nan, 3}}, []float64{2.0 / 70, 1}},
		"unequal":      {[][]float64{{1, 2}}, [][]float64{{11, 12, 13, 14}}, []float64{1.0 / 15}},
		"no figure":    {nil, nil, nil},
	} {
		got := adjusted(tt.a, tt.b)
		if len(got) != len(tt.want) {
			t.Errorf("%s: %v", name, got)
			continue
		}
		for i, p := range got {
			if math.Abs(p-tt.want[i]) > 1e-9 {
				t.Errorf("%s: %v, want %v", name, got, tt.want)
			}
		}
	}
	var a, b [2][]float64
	for i := range 20 { // more divisions than are looked at
		a[0], b[0] = append(a[0], float64(i)), append(b[0], float64(i+30))
		a[1], b[1] = append(a[1], float64(i)), append(b[1], float64(i))
	}
	if p := adjusted(a[:], b[:]); p[0] > 0.001 || p[1] != 1 {
		t.Errorf("20 runs a side: %v", p)
	}
}

func TestCompareFailsFiguresThatBLacks(t *testing.T) {
	whole := func(change func(*Run)) *Report {
		r := &Report{Preset: "hol", Peer: "raw", Runs: []*Run{{
			Rate: 100, Response: Latency{Count: 1, P50: 5, P99: 9}, Bulk: &Bulk{ByteRate: 7}, Client: Usage{RSS: 1 << 20},
		}}}
		change(r.Runs[0])
		return r
	}
	a := whole(func(*Run) {})
	for name, change := range map[string]func(*Run){
		"rate":       func(r *Run) { r.Rate = 0 },
		"p99":        func(r *Run) { r.Response = Latency{} },
		"bulk_rate":  func(r *Run) { r.Bulk.ByteRate = 0 },
		"client_rss": func(r *Run) { r.Client.RSS = 0 },
		"violations": func(r *Run) { r.Checks.Corrupted = 1 },
		"failed runs": func(r *Run) {
			r.Error = "the server was lost"
		},
	} {
		cs, err := Compare(a, whole(change))
		if err != nil {
			t.Fatal(err)
		}
		found := slices.ContainsFunc(cs, func(c Comparison) bool { return c.Figure == name && c.Verdict == Worse })
		if !found || Overall(cs) != Worse {
			t.Errorf("%s: %+v", name, cs)
		}
	}
	if cs, err := Compare(&Report{Runs: []*Run{{}}}, &Report{Runs: []*Run{{}}}); err == nil {
		t.Errorf("nothing compared, and %+v found", cs)
	}
}

func TestCompareText(t *testing.T) {
	a, b := runsOf(100, 101, 99, 100), runsOf(80, 81, 79, 80)
	b.Environment.Go = "go1.27"
	cs, err := Compare(a, b)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "compare.txt", written(t, func(w *bytes.Buffer) error { return CompareText(w, a, b, cs) }))
	golden(t, "compare.json", written(t, func(w *bytes.Buffer) error { return CompareJSON(w, a, b, cs) }))
}

func TestFairness(t *testing.T) {
	if f := FairnessOf([]uint64{5, 5, 5, 5}); f.Jain != 1 || f.Min != 5 || f.Max != 5 {
		t.Errorf("%+v", f)
	}
	if f := FairnessOf([]uint64{20, 0, 0, 0}); f.Jain != 0.25 || f.Min != 0 || f.Max != 20 {
		t.Errorf("%+v", f)
	}
	if f := FairnessOf([]uint64{0, 0}); f.Jain != 1 {
		t.Errorf("%+v", f)
	}
}

func TestThreeDigits(t *testing.T) {
	for ns, want := range map[int64]string{0: "0ns", 999: "999ns", 1500: "1.50us", 182_000: "182us", 940_000: "940us", 2_800_000: "2.80ms", 61_234_000: "61.2ms", 1_500_000_000: "1.50s", -1500: "-1.50us"} {
		if got := Duration(ns); got != want {
			t.Errorf("%d: %s, want %s", ns, got, want)
		}
	}
	for n, want := range map[float64]string{0: "0", 5: "5", 0.35: "0.35", 999: "999", 999.9: "1.00k", 1234: "1.23k", 999_960: "1.00M", 25.6e6: "25.6M", -1500: "-1.50k"} {
		if got := Number(n); got != want {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
}

// Calls that a service answered with errors are told by code, most of them first.
func TestFailedCallsAreTold(t *testing.T) {
	r := sample()
	r.Runs[0].Failed = map[string]uint64{"UNAVAILABLE": 2, "INTERNAL": 1, "RESOURCE_EXHAUSTED": 7}
	const want = "RESOURCE_EXHAUSTED 7, UNAVAILABLE 2, INTERNAL 1"
	for name, text := range map[string]string{
		"text": written(t, func(b *bytes.Buffer) error { return r.Text(b) }),
		"page": written(t, func(b *bytes.Buffer) error { return r.HTML(b) }),
	} {
		if !strings.Contains(text, want) || !strings.Contains(text, "CALLS FAILED") {
			t.Errorf("%s does not tell: %s", name, text)
		}
	}
	slo, err := ParseSLO("failed<11,p99<1s")
	if err != nil {
		t.Fatal(err)
	}
	verdicts, pass := slo.Judge(r.Runs)
	if !pass || verdicts[0].Value != 10 || !Judges(verdicts, "failed") || Judges(verdicts[1:], "failed") {
		t.Errorf("%+v", verdicts)
	}
}

// A figure that was not measured is none beside others that were.
func TestTheTableOfLatencies(t *testing.T) {
	run := sample().Runs[0]
	table := run.LatencyTable()
	if got := table.Rows[0]; len(table.Columns) != 3 || got[0] != "p50" || got[1] != "900us" || got[2] != "600us" || got[3] != "30.0us" {
		t.Errorf("%v: %v", table.Columns, got)
	}
	run.Response, run.Service = Latency{}, Latency{}
	table = run.LatencyTable()
	if got := table.Rows[0]; len(table.Columns) != 2 || got[1] != notMeasured || got[2] != "30.0us" {
		t.Errorf("%v: %v", table.Columns, got)
	}
	if run.Lateness = (Latency{}); run.LatencyTable() != nil {
		t.Error("a table of nothing")
	}
}
