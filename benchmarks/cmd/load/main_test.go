package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/alecthomas/kong"
	"go.uber.org/goleak"

	"github.com/sluicerpc/sluice/benchmarks/load"
	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/kernel"
)

// asCommand makes the test binary the command itself, for demo's server and
// for tests that need a process.
const asCommand = "SLUICE_LOAD_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Setenv(asCommand, "1")
	// Libraries that a peer links start goroutines of their own.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// command runs the command in this process.
func command(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	return commandUntil(ctx, nil, args...)
}

// commandUntil runs the command and calls measured when it tells of its first interval.
func commandUntil(ctx context.Context, measured func(), args ...string) (code int, stdout, stderr string) {
	var out bytes.Buffer
	errs := progressed{f: measured}
	code = run(env{ctx, args, &out, &errs})
	return code, out.String(), errs.String()
}

// progressed is a standard error that calls f, once, when an interval is printed there.
type progressed struct {
	bytes.Buffer
	f func()
}

func (p *progressed) Write(b []byte) (int, error) {
	if p.f != nil && bytes.Contains(b, []byte("/s  p50")) {
		p.f()
		p.f = nil
	}
	return p.Buffer.Write(b)
}

var quick = []string{"--peer=raw", "--duration=200ms", "--warmup=50ms", "--interval=50ms"}

func demo(t *testing.T, preset string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return command(t.Context(), append(append([]string{"demo", preset}, quick...), args...)...)
}

func TestBadUsageHasAClearError(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.json")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, want string }{
		{"", "expected one of"},
		{"fly", "unexpected argument fly"},
		{"run", "load: expected a preset: pingpong, fan, "},
		{"demo", "load: expected a preset: pingpong, fan, "},
		{"run nosuch", "load: no preset \"nosuch\"; there are pingpong, fan, "},
		{"demo nosuch --conns=0", "load: no preset"},
		{"run fan --nosuch", "unknown flag --nosuch\n"},
		{"run fan --zz", "unknown flag --zz\n"},
		{"run fan --rat=5", "unknown flag --rat, did you mean"},
		{"serve --adr=x", "did you mean \"--addr\""},
		{"run fan --durration=5s", "did you mean \"--duration\""},
		{"run fan --peer=nosuch", "no peer"},
		{"run fan --streams=0", "--streams must be"},
		{"run fan --streams=many", "--streams"},
		{"run fan --size=8", "a message needs"},
		{"run fan --size=huge", "is not a size"},
		{"run fan --rate=fast", "want a number a second"},
		{"run fan --stage=10s", "want DURATION@RATE"},
		{"run fan --at=5s=melt:5%", "want AT=kill-conns"},
		{"run fan --slo=p98<2ms", "no figure"},
		{"run fan --find-knee", "needs an --slo"},
		{"run fan --find-knee --slo=p99<1ms --runs=2", "no --runs"},
		{"run fan --find-knee --slo=p99<1ms --knee-max=1", "--knee-max"},
		{"run fan --find-knee --slo=p99<1ms --rate=5k", "no --rate"},
		{"run hol --stage=1s@1k --rate=5", "leave --rate out"},
		{"run fan --runs=0", "--runs must be"},
		{"run fan --duration=0s", "--duration"},
		{"run fan --peer=quic --at=5s=kill-conns:5%", "quic runs over another protocol"},
		{"run fan --max-lateness=-1s", "--max-lateness"},
		{"run fan --rate=1e308k", "want a number a second"},
		{"run idle --rate=5", "no --rate"},
		{"serve --peer=nosuch", "no peer"},
		{"compare " + junk + " " + junk, "not a report"},
		{"report " + junk, "not a report"},
		{"report /nowhere/at/all.json", "no such file"},
	} {
		code, _, stderr := command(t.Context(), strings.Fields(tt.args)...)
		if code != exitUsage || !strings.Contains(stderr, tt.want) {
			t.Errorf("load %s: exit %d, %q; want %q", tt.args, code, stderr, tt.want)
		}
	}
}

// flagsOf returns what a command line comes to.
func flagsOf(t *testing.T, args ...string) load.Config {
	t.Helper()
	var c cli
	parser, err := kong.New(&c, kong.Resolvers(presetValues))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c.Run.Config
}

func TestAScheduleReplacesThePresets(t *testing.T) {
	for _, preset := range []string{"hol", "conns"} {
		c := flagsOf(t, "run", preset, "--stage=1s@1k")
		if c.Rate != 0 || len(c.Stage) != 1 {
			t.Errorf("%s: rate %v beside stages %v", preset, c.Rate, c.Stage)
		}
		if c := flagsOf(t, "run", preset); c.Rate == 0 {
			t.Errorf("%s has no rate", preset)
		}
	}
}

func TestTheOpenModelMeasuresEveryMessage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"fan"}, 64}, {[]string{"fan", "--rate=500"}, 1}, {[]string{"fan", "--stage=1s@500"}, 1},
		{[]string{"fan", "--rate=500", "--sample=8"}, 8}, {[]string{"firehose", "--rate=500"}, 1}, {[]string{"firehose"}, 0},
	} {
		if c := flagsOf(t, append([]string{"run"}, tt.args...)...); c.Sample != tt.want {
			t.Errorf("%v: every %dth message is measured, want %d", tt.args, c.Sample, tt.want)
		}
	}
}

func TestHelp(t *testing.T) {
	code, stdout, _ := command(t.Context(), "--help")
	if code != exitOK || !strings.Contains(stdout, "firehose") || !strings.Contains(stdout, "Exit codes") {
		t.Errorf("exit %d: %s", code, stdout)
	}
}

func TestAnUnreachableServer(t *testing.T) {
	code, _, stderr := command(t.Context(), "run", "fan", "--peer=raw", "--addr=127.0.0.1:1", "--admin=")
	if code != exitConnect || !strings.Contains(stderr, "can't connect") || !strings.Contains(stderr, "127.0.0.1:1") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// What listens is no server of load. It is not one that was lost.
func TestAServerOfAnotherKind(t *testing.T) {
	srv, err := kernel.NewServer(&kernel.ServerOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv.Handle("echo", func(context.Context, *kernel.Stream) error { return nil })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	defer func() {
		_ = srv.Close()
		<-served
	}()
	for args, want := range map[string]string{
		"fan": "another kind of server", "firehose": "another kind of server", "churn": "another kind of server",
		"hol": "another kind of server", "idle": "no such method", "fan --peer=raw": "answered nothing",
		"fan --admin=" + ln.Addr().String(): "needs --admin=",
	} {
		given := append([]string{"run", "--addr=" + ln.Addr().String(), "--admin=", "--duration=30s"}, strings.Fields(args)...)
		code, stdout, stderr := command(t.Context(), given...)
		if code != exitConnect || !strings.Contains(stderr, "can't connect: ") || !strings.Contains(stderr, want) || stdout != "" {
			t.Errorf("%s: exit %d: %s%s", args, code, stdout, stderr)
		}
		if n := strings.Count(stderr, "refused"); n > 1 {
			t.Errorf("%s: it is said %d times: %s", args, n, stderr)
		}
	}
}

func TestDemoWritesEveryForm(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	code, stdout, stderr := demo(t, "fan", "-runs=2", "--json="+file("r.json"), "--csv="+file("r.csv"), "--hlog="+file("r.hlog"),
		"--html="+file("r.html"), "--bench="+file("r.txt"), "-slo", "p99<10s,errors==0")
	if code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if !strings.Contains(stdout, "fan over raw") || !strings.Contains(stdout, "PASS") || !strings.Contains(stdout, "2 runs") {
		t.Error(stdout)
	}
	if strings.Count(stderr, "/s  p50") < 4 {
		t.Errorf("want a line an interval:\n%s", stderr)
	}
	for name, want := range map[string]string{"r.json": report.Schema, "r.csv": "response_p99_ns", "r.hlog": "Histogram log", "r.html": "<!DOCTYPE html>", "r.txt": "BenchmarkLoad/fan/peer=raw"} {
		text, err := os.ReadFile(file(name))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v, want %q in it", name, err, want)
		}
	}
	r, err := report.Read(file("r.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Runs) != 2 || r.Runs[0].Server.Goroutines == 0 || r.Runs[0].Memory.Streams != 64 || r.Environment.Go == "" {
		t.Errorf("%d runs, %+v", len(r.Runs), r.Environment)
	}

	if code, stdout, _ := command(t.Context(), "report", file("r.json")); code != exitOK || !strings.Contains(stdout, "fan over raw") {
		t.Errorf("report: exit %d: %s", code, stdout)
	}
	if code, stdout, _ := command(t.Context(), "report", file("r.json"), "--bench=-"); code != exitOK || !strings.HasPrefix(stdout, "goos:") {
		t.Errorf("report --bench=-: exit %d: %s", code, stdout)
	}
	if code, stdout, _ := command(t.Context(), "compare", file("r.json"), file("r.json")); code != exitOK || !strings.Contains(stdout, "unknown") {
		t.Errorf("compare: exit %d: %s", code, stdout)
	}
}

func TestProgressTellsWhatIsNotMeasured(t *testing.T) {
	code, stdout, stderr := demo(t, "firehose")
	if code != exitOK || !strings.Contains(stderr, "latency not measured") || strings.Contains(stderr+stdout, "p50") {
		t.Errorf("exit %d: %s%s", code, stderr, stdout)
	}
	i := report.Interval{Client: report.Gauge{Cores: 1.5, RSS: 5 << 20, Goroutines: 7}}
	p := &panel{}
	p.show(i)
	text := strings.Join(p.text[:], "\n")
	for _, want := range []string{"latency  not measured\n", "client   1.50 CPUs  5 MiB  7 goroutines   server not measured\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if got := costs(i.Client, i.Server); got != "client's cpu 1.50  rss 5 MiB" {
		t.Error(got)
	}
	i.Server = report.Gauge{Cores: 0.5, RSS: 1 << 20, Goroutines: 3, Streams: 64}
	i.Response, i.Lateness = report.Latency{Count: 1, P50: 1000, Max: 2000}, report.Latency{Count: 1, P99: 3000}
	p.show(i)
	text = strings.Join(p.text[:], "\n")
	for _, want := range []string{"p50 1us", "max 2us   pacer late p99 3us", "server 0.50 CPUs  1 MiB  3 goroutines  64 streams"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

func TestCompareGate(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, rates ...float64) string {
		r := report.Report{Schema: report.Schema, Preset: "fan"}
		for _, rate := range rates {
			r.Runs = append(r.Runs, &report.Run{Model: "closed", Workload: "echo", Rate: rate})
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, b := write("a.json", 100, 101, 99, 100), write("b.json", 50, 51, 49, 50)
	if code, stdout, _ := command(t.Context(), "compare", a, b); code != exitOK || !strings.Contains(stdout, "worse") {
		t.Errorf("exit %d: %s", code, stdout)
	}
	if code, _, stderr := command(t.Context(), "compare", "--gate", a, b); code != exitSLO {
		t.Errorf("exit %d: %s", code, stderr)
	}
	few := write("few.json", 50, 51, 49)
	if code, stdout, stderr := command(t.Context(), "compare", "--gate", a, few); code != exitUsage || !strings.Contains(stdout, "unknown") || !strings.Contains(stderr, "--runs=4") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if code, stdout, _ := command(t.Context(), "compare", "--gate", "--json", b, a); code != exitOK || !strings.Contains(stdout, `"overall": "better"`) {
		t.Errorf("exit %d: %s", code, stdout)
	}
}

func TestAMissedSLOHasItsOwnExitCode(t *testing.T) {
	code, stdout, stderr := demo(t, "pingpong", "--slo=p50<1ns,errors==0")
	if code != exitSLO || !strings.Contains(stderr, "p50<1ns") || strings.Contains(stderr, "errors==0") || !strings.Contains(stdout, "FAIL") {
		t.Errorf("exit %d: %s\n%s", code, stderr, stdout)
	}
}

func TestAnInvalidRunHasItsOwnExitCode(t *testing.T) {
	code, stdout, stderr := demo(t, "pingpong", "--rate=1k", "--max-lateness=1ns")
	if code != exitInvalid || !strings.Contains(stderr, "INVALID") || !strings.Contains(stdout, "INVALID") {
		t.Errorf("exit %d: %s\n%s", code, stderr, stdout)
	}
}

func TestAViolationHasItsOwnExitCode(t *testing.T) {
	r := &report.Report{Runs: []*report.Run{{Checks: report.Checks{Lost: 1}}, {Checks: report.Checks{Corrupted: 2}}}}
	said := new(bytes.Buffer)
	e := env{stderr: said}
	if code := e.fail(worst(verdictOf(r, nil), exit(exitWrite, os.ErrPermission))); code != exitViolation {
		t.Errorf("exit %d", code)
	}
	if !strings.Contains(said.String(), "1 lost") || !strings.Contains(said.String(), os.ErrPermission.Error()) {
		t.Errorf("not both errors are printed: %s", said)
	}
	if code := e.fail(worst(exit(exitSLO, os.ErrInvalid), exit(exitWrite, os.ErrPermission))); code != exitWrite {
		t.Errorf("exit %d", code)
	}
}

func TestUnconfirmedDeliveryHasItsOwnExitCode(t *testing.T) {
	for name, run := range map[string]*report.Run{
		"unconfirmed": {Checks: report.Checks{Unconfirmed: 1}},
		"errors":      {Errors: 1},
		"not recover": {Faults: []report.Fault{{Broken: 2, Recovered: 1}}},
	} {
		e := env{stderr: new(bytes.Buffer)}
		if code := e.fail(verdictOf(&report.Report{Runs: []*report.Run{run}}, nil)); code != exitUnconfirmed {
			t.Errorf("%s: exit %d", name, code)
		}
	}
}

// A step that the client was too slow for says nothing about the SLO.
func TestAnInvalidStepIsNoMissedSLO(t *testing.T) {
	invalid := report.Probe{Rate: 1000, Invalid: []string{"the pacer was late"}}
	r := &report.Report{Runs: []*report.Run{{Invalid: invalid.Invalid}}, Knee: []report.Probe{invalid}}
	e := env{stderr: new(bytes.Buffer)}
	if code := e.fail(verdictOf(r, nil)); code != exitInvalid {
		t.Errorf("exit %d", code)
	}
	// Nor is the client's limit the server's knee.
	passed := report.Probe{Rate: 500, Pass: true}
	r = &report.Report{Runs: []*report.Run{{}}, Knee: []report.Probe{passed, invalid}}
	if code := e.fail(verdictOf(r, nil)); code != exitInvalid {
		t.Errorf("exit %d for a knee that is the client's", code)
	}
	r.Knee = append(r.Knee, report.Probe{Rate: 510})
	if code := e.fail(verdictOf(r, nil)); code != exitOK {
		t.Errorf("exit %d for a knee that is the server's", code)
	}
	r.Knee = []report.Probe{{Rate: 500}}
	if code := e.fail(verdictOf(r, nil)); code != exitSLO {
		t.Errorf("exit %d for an SLO that is missed everywhere", code)
	}
	if got := invalid.Outcome(); got != "INVALID the pacer was late" {
		t.Error(got)
	}
}

func TestFindKnee(t *testing.T) {
	code, stdout, stderr := demo(t, "pingpong", "--in-flight=64", "--find-knee", "--knee-min=500", "--knee-max=1k", "--slo=p50<1s", "--max-lateness=1s")
	if code != exitOK && code != exitInvalid {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if !strings.Contains(stdout, "no knee found: ") {
		t.Error(stdout)
	}
}

// A report that can't be written must not take the figures with it.
func TestAFullDiskLosesNoFigures(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full here")
	}
	for _, form := range []string{"json", "csv", "hlog", "html", "bench"} {
		code, stdout, stderr := demo(t, "pingpong", "-q", "--"+form+"=/dev/full")
		if code != exitWrite || !strings.Contains(stderr, "no space left") {
			t.Errorf("%s: exit %d: %s", form, code, stderr)
		}
		var r report.Report
		if err := json.Unmarshal([]byte(stdout), &r); err != nil || len(r.Runs) != 1 || r.Runs[0].Messages == 0 {
			t.Errorf("%s: the figures are not on standard output: %v\n%s", form, err, stdout)
		}
	}
}

// full is a disk that takes nothing more.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestAReportFallsBackToStandardError(t *testing.T) {
	r := &report.Report{Schema: report.Schema, Preset: "fan", Runs: []*report.Run{{Messages: 12345}}}
	var stderr bytes.Buffer
	err := (&outputs{JSON: filepath.Join(t.TempDir(), "no", "such", "dir.json")}).write(r, full{}, &stderr, true)
	if x, ok := errors.AsType[*exitError](err); !ok || x.code != exitWrite {
		t.Error(err)
	}
	if !strings.Contains(stderr.String(), `"messages": 12345`) || strings.Contains(stderr.String(), "on standard output as JSON") {
		t.Error(stderr.String())
	}
}

func TestAnExistingReportSurvivesAFailedWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	if err := os.WriteFile(path, []byte("good"), 0o600); err != nil {
		t.Fatal(err)
	}
	half := form{path, func(w io.Writer) error {
		_, err := io.WriteString(w, "ha")
		return errors.Join(err, syscall.ENOSPC)
	}}
	if err := half.to(nil); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if text, err := os.ReadFile(path); string(text) != "good" {
		t.Errorf("%q, %v", text, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	whole := form{path, func(w io.Writer) error {
		_, err := io.WriteString(w, "whole")
		return err
	}}
	if err := whole.to(nil); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(path); string(text) != "whole" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestAnInterruptReportsWhatThereIs(t *testing.T) {
	interrupted, stop := context.WithCancel(t.Context())
	defer stop()
	code, stdout, stderr := commandUntil(interrupted, stop, "demo", "pingpong", "--peer=raw", "--duration=1h", "--warmup=0s", "--interval=100ms")
	if code != exitInterrupted || !strings.Contains(stdout, "INTERRUPTED") || !strings.Contains(stdout, "p99") {
		t.Errorf("exit %d: %s\n%s", code, stderr, stdout)
	}
}

// Two processes, and the server's is killed.
func TestAServerLostInMidRun(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "serve", "--peer=raw", "--addr=127.0.0.1:0", "--admin=127.0.0.1:0", "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var a announcement
	if err := json.NewDecoder(out).Decode(&a); err != nil {
		t.Fatal(err)
	}
	kill := func() { cmd.Process.Kill() }
	defer kill()
	code, stdout, stderr := commandUntil(t.Context(), kill, "run", "fan", "--peer=raw", "--addr="+a.Addr, "--admin="+a.Admin, "--duration=30s", "--warmup=100ms", "--interval=100ms")
	_ = cmd.Wait()
	if code != exitGone || !strings.Contains(stderr, "lost the server in mid-run") || !strings.Contains(stdout, "ENDED EARLY") || !strings.Contains(stdout, "msg") {
		t.Errorf("exit %d: %s\n%s", code, stderr, stdout)
	}
}
