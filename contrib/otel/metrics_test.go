package sluiceotel_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	sluiceotel "github.com/sluicerpc/sluice/contrib/otel"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

const page = "../../docs/metrics.md"

func readPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A measured world is a server and a client, each with Metrics, on loopback.
type measured struct {
	reader *sdkmetric.ManualReader
	here   *sluiceotel.Metrics
	srv    *kernel.Server
	client *kernel.Client
}

func newMeasured(t *testing.T) *measured {
	t.Helper()
	w := &measured{reader: sdkmetric.NewManualReader()}
	p := sdkmetric.NewMeterProvider(sdkmetric.WithReader(w.reader))
	t.Cleanup(func() { _ = p.Shutdown(context.WithoutCancel(t.Context())) })
	opts := &sluiceotel.MetricsOptions{MeterProvider: p}
	var err error
	if w.here, err = sluiceotel.NewMetrics("client", opts); err != nil {
		t.Fatal(err)
	}
	there, err := sluiceotel.NewMetrics("server", opts)
	if err != nil {
		t.Fatal(err)
	}
	w.srv = newServer(t, &kernel.ServerOptions{Observer: there})
	w.client = dial(t, serve(t, w.srv), &kernel.ClientOptions{Observer: w.here})
	there.Watch(w.srv)
	w.here.Watch(w.client)
	return w
}

// collect returns the metrics by name.
func (w *measured) collect(t *testing.T) map[string]metricdata.Metrics {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := w.reader.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	found := map[string]metricdata.Metrics{}
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			found[m.Name] = m
		}
	}
	return found
}

// points writes a metric's points as attributes and value.
func points(m metricdata.Metrics) (lines []string) {
	switch d := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range d.DataPoints {
			lines = append(lines, fmt.Sprint(encoded(p.Attributes.ToSlice()), " ", p.Value))
		}
	case metricdata.Gauge[float64]:
		for _, p := range d.DataPoints {
			lines = append(lines, fmt.Sprint(encoded(p.Attributes.ToSlice()), " ", p.Value))
		}
	case metricdata.Histogram[float64]:
		for _, p := range d.DataPoints {
			lines = append(lines, fmt.Sprint(encoded(p.Attributes.ToSlice()), " ", p.Count))
		}
	}
	return lines
}

func encoded[T interface{ Valid() bool }](kvs []T) string {
	var s []string
	for _, kv := range kvs {
		s = append(s, strings.Trim(fmt.Sprint(kv), "{}"))
	}
	return strings.Join(s, ",")
}

// Every metric of the page is there, with its unit and kind, and no other.
func TestThePageHasTheMetrics(t *testing.T) {
	w := newMeasured(t)
	w.srv.Handle("m", answer)
	call(t, t.Context(), w.client, "m")
	want := map[string]string{}
	table := regexp.MustCompile(`(?s)<!-- metrics -->\n(.*?)<!-- end -->`).FindStringSubmatch(readPage(t))
	if table == nil {
		t.Fatal("no table")
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `\\w+` \\| `([\\w.]+)`, (\\S+) \\| (\\w+) \\|").FindAllStringSubmatch(table[1], -1) {
		want[m[1]] = m[2] + " " + m[3]
	}
	got := map[string]string{}
	for deadline := time.Now().Add(patience); len(got) < len(want) && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for name, m := range w.collect(t) {
			kind := "gauge"
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				if d.IsMonotonic {
					kind = "counter"
				}
			case metricdata.Histogram[float64]:
				kind = "histogram"
			}
			got[name] = m.Unit + " " + kind
		}
	}
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%s is %q, on the page %q", name, got[name], w)
		}
	}
	for name := range got {
		if want[name] == "" {
			t.Errorf("%s is not on the page", name)
		}
	}
}

// What is counted comes with its attributes, latencies with the trace that they are a part of,
// and after Close nothing is asked any more.
func TestMetrics(t *testing.T) {
	w := newMeasured(t)
	s := newSpans(t)
	w.srv.Handle("m", answer)
	w.srv.Handle("echo", echo)
	call(t, t.Context(), s.tracing().Caller(w.client), "m")
	span := s.want(t, 1)[0]
	st, err := w.client.Open(t.Context(), "echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := st.Send(t.Context(), pool.New(10)); err != nil {
			t.Fatal(err)
		}
		m, err := st.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m.Release()
	}
	ok := "rpc.response.status_code"
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		found := w.collect(t)
		missing := ""
		for name, pattern := range map[string]string{
			"rpc.server.call.duration":          `rpc.method.*m.*` + ok + `.*OK.*rpc.system.name.*sluice.*server.* 1$`,
			"rpc.client.call.duration":          `rpc.method.*m.*` + ok + `.*OK.*rpc.system.name.*sluice.*client.* 1$`,
			"sluice.stream.acceptance.duration": `sluice.role.*server.* 1$`,
			"sluice.messages":                   `transmit.*client.* 6$`,
			"sluice.streams":                    `client.* 1$`,
			"sluice.connections.begun":          `server.* 1$`,
			"sluice.memory":                     `server.* [1-9]\d*$`,
		} {
			if !slices.ContainsFunc(points(found[name]), regexp.MustCompile(pattern).MatchString) {
				missing = fmt.Sprint(name, " ", pattern, " ", points(found[name]))
			}
		}
		if missing == "" {
			wantExemplar(t, found["rpc.server.call.duration"], span.SpanContext().TraceID().String())
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(missing)
		}
	}
	if err := w.here.Close(); err != nil {
		t.Fatal(err)
	}
	for _, line := range points(w.collect(t)["sluice.connections"]) {
		if strings.Contains(line, "client") {
			t.Errorf("after Close: %s", line)
		}
	}
}

func wantExemplar(t *testing.T, m metricdata.Metrics, trace string) {
	t.Helper()
	for _, p := range m.Data.(metricdata.Histogram[float64]).DataPoints {
		for _, e := range p.Exemplars {
			if fmt.Sprintf("%x", e.TraceID) == trace {
				return
			}
		}
	}
	t.Errorf("no exemplar of trace %s", trace)
}

// The page's file for OpenTelemetry builds.
func TestThePagesProgram(t *testing.T) {
	m := regexp.MustCompile("(?ms)^```go\n(// sluice.go\n.*?)^```$").FindStringSubmatch(readPage(t))
	if m == nil {
		t.Fatal("no sluice.go")
	}
	dir, err := os.MkdirTemp(".", "testdata-page-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	main := m[1] + "\nfunc main() { _, _ = newServer(); _, _ = newCaller(\"127.0.0.1:1\") }\n"
	if err := os.WriteFile(filepath.Join(dir, "sluice.go"), []byte(main), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "vet", "./"+dir).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
