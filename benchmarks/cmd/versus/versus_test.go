package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/all"
	"github.com/sluicerpc/sluice/benchmarks/workload"
)

// TestMain lets the test's binary be the processes that versus starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"serve", "run", "relay"}, os.Args[1]) {
		os.Exit(dispatch(context.Background(), os.Args[1:]))
	}
	os.Exit(m.Run())
}

func must(t *testing.T, args ...string) *settings {
	t.Helper()
	s, err := parse(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func runs(t *testing.T, s *settings) *report {
	t.Helper()
	rep := newReport(s)
	if err := runAll(t.Context(), s, rep); err != nil {
		t.Fatal(err)
	}
	return rep
}

func TestTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	md, js := filepath.Join(dir, "v.md"), filepath.Join(dir, "v.json")
	s := must(t, "-peers", "raw,grpc", "-workloads", "w1,w3-64,w6-10k", "-rounds", "2", "-messages", "500",
		"-warmup", "0s", "-cap", "20", "-gomaxprocs", "1", "-md", md, "-json", js, "-profiles", filepath.Join(dir, "p"))
	rep := runs(t, s)
	var out bytes.Buffer
	if err := rep.write(&out, s); err != nil {
		t.Fatal(err)
	}
	if code := rep.exitCode(); code != 0 {
		t.Errorf("exit code %d\n%s", code, out.String())
	}
	file, err := os.ReadFile(md)
	if err != nil || string(file) != out.String() {
		t.Errorf("-md differs from the output: %v", err)
	}
	for _, want := range []string{"### w1:", "### w3-64:", "bytes each", "| raw |", "rate / grpc", "GOMAXPROCS 1"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the report:\n%s", want, out.String())
		}
	}
	wholeJSON(t, js)
	for _, name := range []string{"w1-raw-serve.pprof", "w3-64-grpc-run.pprof"} {
		if info, err := os.Stat(filepath.Join(dir, "p", name)); err != nil || info.Size() == 0 {
			t.Errorf("profile %s: %v", name, err)
		}
	}
}

func wholeJSON(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if back.Version != formatVersion || len(back.Tables) != 3 || back.Environment.CPUs == 0 {
		t.Errorf("JSON: %+v", back)
	}
	for _, tab := range back.Tables {
		for _, r := range tab.Rows {
			if len(r.Runs) != 2 || r.Runs[0] == nil || r.Runs[1].Count == 0 {
				t.Errorf("%s, %s: runs %+v", tab.Name, r.Peer, r.Runs)
			}
		}
	}
}

// TestEveryPeer runs everything for a moment.
func TestEveryPeer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts hundreds of processes")
	}
	var short []string // TestALongPath has the others, with a few peers: each takes seconds
	for _, w := range workload.All() {
		if !strings.HasPrefix(w.Name, "w9") {
			short = append(short, w.Name)
		}
	}
	s := must(t, "-rounds", "1", "-messages", "5", "-warmup", "0s", "-cap", "5", "-limit", "20s", "-workloads", strings.Join(short, ","))
	rep := runs(t, s)
	if code := rep.exitCode(); code != 0 {
		t.Errorf("exit code %d\n%s", code, rep.markdown())
	}
	if got, want := len(rep.Tables), len(short); got != want {
		t.Errorf("%d tables, want %d", got, want)
	}
	for _, tab := range rep.Tables {
		if got, want := len(tab.Rows), len(all.Peers()); got != want {
			t.Errorf("%s: %d peers, want %d", tab.Name, got, want)
		}
	}
}

// unknownPeer is a peer that the child processes don't know.
type unknownPeer struct{ peer.Peer }

func (unknownPeer) Name() string { return "unknown" }

func TestFailureDoesNotEndTheRun(t *testing.T) {
	s := must(t, "-peers", "raw", "-workloads", "w1", "-rounds", "1", "-messages", "10", "-warmup", "0s")
	s.peers = append([]peer.Peer{unknownPeer{}}, s.peers...)
	rep := runs(t, s)
	if code := rep.exitCode(); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	md := rep.markdown()
	for _, want := range []string{"| unknown | failed |", "### Failures", `no peer "unknown"`, "| raw |"} {
		if !strings.Contains(md, want) {
			t.Errorf("no %q in the report:\n%s", want, md)
		}
	}
}

func TestATableOfFailuresHasItsColumns(t *testing.T) {
	var b strings.Builder
	(&table{Name: "w1", Rows: []*row{{Peer: "raw", Runs: []*workload.Result{nil}}}}).markdown(&b)
	if want := "| peer | outcome |\n| --- | --- |\n| raw | failed |\n"; !strings.Contains(b.String(), want) {
		t.Errorf("no %q in\n%s", want, b.String())
	}
}

func TestHelpIsNotAnError(t *testing.T) {
	if code := compare(t.Context(), []string{"-h"}); code != 0 {
		t.Errorf("-h: exit code %d", code)
	}
	if code := compare(t.Context(), []string{"-nonsense"}); code != exitUsage {
		t.Errorf("-nonsense: exit code %d", code)
	}
}

func TestLimit(t *testing.T) {
	s := must(t, "-peers", "raw", "-workloads", "w1", "-rounds", "1", "-messages", "1000000000000", "-warmup", "0s", "-time", "10ms", "-limit", "50ms")
	rep := runs(t, s)
	if md := rep.markdown(); !strings.Contains(md, "not done after 60ms") {
		t.Errorf("no limit in the report:\n%s", md)
	}
}

func TestInterrupt(t *testing.T) {
	s := must(t, "-peers", "raw", "-workloads", "w1", "-time", "1h")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	rep := newReport(s)
	if err := runAll(ctx, s, rep); err != nil {
		t.Fatal(err)
	}
	if len(rep.Tables) != 0 {
		t.Error("a run that was cut short is reported")
	}
}

func TestReportThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	s := must(t, "-md", filepath.Join(dir, "none", "v.md"), "-json", filepath.Join(dir, "v.json"))
	if err := newReport(s).write(io.Discard, s); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(filepath.Join(dir, "v.json")); err != nil {
		t.Errorf("the other report was not written: %v", err)
	}
}

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{
		{"-peers", "none"}, {"-workloads", "w0"}, {"-rounds", "0"}, {"-time", "0s"}, {"-time", "-1s"},
		{"-warmup", "-1s"}, {"-cap", "-1"}, {"-limit", "0s"}, {"-nonsense"}, {"extra"}, {"-peers", ""},
		{"-peers", "raw,grpc,raw"}, {"-workloads", "w3,w3-64"},
	} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func TestDeliveryHasItsOwnExitCode(t *testing.T) {
	rep := &report{Tables: []*table{{Rows: []*row{{Errors: []string{"x"}}, {Errors: []string{"y"}, Faulty: true}}}}}
	if code := rep.exitCode(); code != exitDelivery {
		t.Errorf("exit code %d, want %d", code, exitDelivery)
	}
	if code := rep.outcome(t.Context(), nil, os.ErrPermission); code != exitDelivery {
		t.Errorf("exit code %d where the report can't be written, want %d", code, exitDelivery)
	}
	if code := new(report).outcome(t.Context(), nil, os.ErrPermission); code != exitReport {
		t.Errorf("exit code %d, want %d", code, exitReport)
	}
}

func results(rates ...int64) *row {
	r := &row{}
	for _, n := range rates {
		if n == 0 {
			r.Runs = append(r.Runs, nil)
			continue
		}
		r.Runs = append(r.Runs, &workload.Result{Count: n, Seconds: 1})
	}
	return r
}

func TestMedianAndRatio(t *testing.T) {
	if got := results(5, 1, 3).median(rate); got != 3 {
		t.Errorf("median %v, want 3", got)
	}
	if got := results(4, 0, 1, 2, 3).median(rate); got != 2.5 {
		t.Errorf("median of four %v, want 2.5", got)
	}
	if got := results(0).median(rate); !math.IsNaN(got) {
		t.Errorf("median of nothing %v", got)
	}
	// The machine gets slower by the round: the rounds' ratios are steady.
	if got := results(40, 20, 0, 10).ratio(results(20, 10, 7, 5), rate); got != 2 {
		t.Errorf("ratio %v, want 2", got)
	}
	if got := results(1).ratio(nil, rate); !math.IsNaN(got) {
		t.Errorf("ratio to no row %v", got)
	}
}

func TestCells(t *testing.T) {
	c := column{"rate/s", rate, si}
	for want, r := range map[string]*row{
		"2k (1k..3.5k)": results(3500, 1000, 2000),
		"1.5k (1k..2k)": results(2000, 0, 1000),
		"7":             results(7, 7, 7),
		"44.1k":         results(44101, 44102), // which look the same
		"-":             results(0),
	} {
		if got := c.text(r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestDigits(t *testing.T) {
	for f, want := range map[float64]string{
		0: "0", 1: "1", 1.2345: "1.23", 0.0012345: "0.00123", 99.94: "99.9", 12345.6: "12346", math.NaN(): "-",
	} {
		if got := digits(f); got != want {
			t.Errorf("digits(%v) = %q, want %q", f, got, want)
		}
	}
	for f, want := range map[float64]string{12.3: "12.3", 44100: "44.1k", 5.93e6: "5.93M"} {
		if got := si(f); got != want {
			t.Errorf("si(%v) = %q, want %q", f, got, want)
		}
	}
}

// What a long path shows is in the table, and the relay is a process of its own.
func TestALongPath(t *testing.T) {
	s := must(t, "-peers", "raw,sluice+send", "-workloads", "w9-50ms", "-rounds", "1", "-messages", "20", "-warmup", "0s", "-cap", "10")
	rep := runs(t, s)
	if code := rep.exitCode(); code != 0 {
		t.Fatalf("exit code %d\n%s", code, rep.markdown())
	}
	for _, r := range rep.Tables[0].Rows {
		p := r.Runs[0].Path
		switch {
		case p == nil || p.RTT != 0.01:
			t.Errorf("%s: %+v", r.Peer, p)
		case p.First < 1 || p.Least <= 0 || p.Most < p.Least:
			t.Errorf("%s: a path without a delay: %+v", r.Peer, p)
		}
	}
	md := rep.markdown()
	for _, want := range []string{"| first MiB, round trips | more than raw | least / most of a stream |", "| raw |"} {
		if !strings.Contains(md, want) {
			t.Errorf("no %q in the report:\n%s", want, md)
		}
	}
}
