package sluiceprometheus

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sluicerpc/sluice/internal/tally"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A world is a server and a client in memory, each with a Collector.
type world struct {
	srv    *kernel.Server
	client *kernel.Client
	reg    *prometheus.Registry
}

func newWorld(t *testing.T, opts *Options) *world {
	t.Helper()
	w := &world{reg: prometheus.NewPedanticRegistry()}
	here, there := New("client", opts), New("server", opts)
	w.srv, w.client = kerneltest.Start(t, &kernel.ServerOptions{Observer: there}, &kernel.ClientOptions{Observer: here})
	here.Watch(w.client)
	there.Watch(w.srv)
	w.reg.MustRegister(here, there)
	w.srv.Handle("orders/Get", reply)
	w.srv.Handle("orders/Fail", func(context.Context, *kernel.Stream) error {
		return &status.HandlerError{Code: status.NotFound, Reason: "no such order"}
	})
	w.srv.Handle("orders/Echo", func(ctx context.Context, s *kernel.Stream) error {
		for m, err := range s.All(ctx) {
			if err != nil {
				return err
			}
			if err := s.Send(ctx, m); err != nil {
				return err
			}
		}
		return nil
	})
	return w
}

// reply answers a call.
func reply(ctx context.Context, s *kernel.Stream) error { return s.Send(ctx, pool.Message{}) }

// call makes a call, whatever its result.
func (w *world) call(t *testing.T, method string, md metadata.MD) {
	t.Helper()
	m, _ := w.client.Call(t.Context(), method, pool.Message{}, &kernel.CallOptions{Metadata: md})
	m.Release()
}

// scrape asks as Prometheus does.
func (w *world) scrape(t *testing.T, accept string) string {
	t.Helper()
	h := promhttp.HandlerFor(w.reg, promhttp.HandlerOpts{EnableOpenMetrics: true, ErrorHandling: promhttp.HTTPErrorOnError})
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if rec.Code != http.StatusOK {
		t.Fatalf("%d: %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

const openMetrics = "application/openmetrics-text; version=1.0.0"

// patience is how long something may take that must happen.
const patience = 20 * time.Second

// want waits until the text has every pattern: an Observer is told after the fact.
func (w *world) want(t *testing.T, accept string, patterns ...string) string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		text := w.scrape(t, accept)
		missing := ""
		for _, p := range patterns {
			if !regexp.MustCompile("(?m)^" + p + "$").MatchString(text) {
				missing = p
			}
		}
		if missing == "" {
			return text
		}
		if time.Now().After(deadline) {
			t.Fatalf("no line %s in:\n%s", missing, text)
		}
	}
}

// Each stream and connection is counted once, on both sides, and messages are read from
// snapshots.
func TestWhatIsExported(t *testing.T) {
	w := newWorld(t, nil)
	for range 3 {
		w.call(t, "orders/Get", nil)
	}
	w.call(t, "orders/Fail", nil)
	w.call(t, "made/Up", nil)
	s, err := w.client.Open(t.Context(), "orders/Echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := s.Send(t.Context(), pool.New(100)); err != nil {
			t.Fatal(err)
		}
		m, err := s.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m.Release()
	}
	w.want(t, "",
		`rpc_client_call_duration_seconds_count{error_type="",rpc_method="orders/Get",rpc_response_status_code="OK",rpc_system_name="sluice",sluice_endpoint="client"} 3`,
		`rpc_server_call_duration_seconds_count{error_type="",rpc_method="orders/Get",rpc_response_status_code="OK",rpc_system_name="sluice",sluice_endpoint="server"} 3`,
		`rpc_client_call_duration_seconds_count{error_type="NOT_FOUND",rpc_method="orders/Fail",rpc_response_status_code="NOT_FOUND",rpc_system_name="sluice",sluice_endpoint="client"} 1`,
		`rpc_server_call_duration_seconds_count{error_type="",rpc_method="orders/Fail",rpc_response_status_code="NOT_FOUND",rpc_system_name="sluice",sluice_endpoint="server"} 1`,
		`rpc_client_call_duration_seconds_count{error_type="UNIMPLEMENTED",rpc_method="made/Up",.*} 1`,
		`sluice_stream_acceptance_duration_seconds_count{rpc_method="orders/Get",rpc_system_name="sluice",sluice_endpoint="server",sluice_role="server"} 3`,
		`sluice_connections{rpc_system_name="sluice",sluice_endpoint="server"} 1`,
		`sluice_streams{rpc_system_name="sluice",sluice_endpoint="client"} 1`,
		`sluice_messages_total{network_io_direction="transmit",rpc_system_name="sluice",sluice_endpoint="client"} 1[345]`, // the requests of refused calls may not have been written
		`sluice_messages_total{network_io_direction="receive",rpc_system_name="sluice",sluice_endpoint="client"} 13`,
		`sluice_memory_bytes{sluice_endpoint="server"} [1-9].*`,
	)
	_ = w.client.Close()
	w.want(t, "",
		`sluice_connections{rpc_system_name="sluice",sluice_endpoint="server"} 0`,
		`sluice_connections_ended_total{rpc_response_status_code="CANCELLED",rpc_system_name="sluice",sluice_endpoint="server"} 1`,
		`sluice_messages_total{network_io_direction="transmit",rpc_system_name="sluice",sluice_endpoint="server"} 13`,
		`rpc_client_call_duration_seconds_count{error_type="CONNECTION_LOST",rpc_method="orders/Echo",.*} 1`,
	)
}

// Names, units and help are what promlint asks for.
func TestNamesAreConventional(t *testing.T) {
	w := newWorld(t, nil)
	w.call(t, "orders/Get", nil)
	w.want(t, openMetrics, `rpc_client_call_duration_seconds_count{.*} 1`)
	problems, err := testutil.GatherAndLint(w.reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID  = "00f067aa0ba902b7"
)

// A latency of a sampled trace has it as an exemplar, on both sides; that of another has none.
func TestExemplars(t *testing.T) {
	w := newWorld(t, nil)
	w.call(t, "orders/Fail", metadata.MD{{Key: "traceparent", Value: "00-" + traceID + "-" + spanID + "-00"}})
	w.call(t, "orders/Get", metadata.MD{{Key: "traceparent", Value: "00-" + traceID + "-" + spanID + "-01"}})
	exemplar := ` # \{(span_id="` + spanID + `"|trace_id="` + traceID + `"|,){3}\} .*`
	text := w.want(t, openMetrics,
		`rpc_client_call_duration_seconds_bucket{.*rpc_method="orders/Get".*} 1`+exemplar,
		`rpc_server_call_duration_seconds_bucket{.*rpc_method="orders/Get".*} 1`+exemplar,
		`rpc_server_call_duration_seconds_count{.*rpc_method="orders/Fail".*} 1`,
	)
	if regexp.MustCompile(`orders/Fail.*} 1 #`).MatchString(text) {
		t.Errorf("an exemplar of a trace that nobody kept:\n%s", text)
	}
}

func TestTraceParent(t *testing.T) {
	good := "-" + traceID + "-" + spanID + "-"
	for s, want := range map[string]bool{
		"00" + good + "01":      true,
		"00" + good + "03":      true,
		"cc" + good + "01-more": true,
		"00" + good + "00":      false,
		"00" + good + "01-more": false,
		"cc" + good + "01more":  false,
		"ff" + good + "01":      false,
		"00" + good + "0g":      false,
		"00" + good + "1":       false,
		"":                      false,
		"00_" + good[1:] + "01": false,
		"00-" + strings.Repeat("0", 32) + "-" + spanID + "-01":  false,
		"00-" + traceID + "-" + strings.Repeat("0", 16) + "-01": false,
		"00-" + strings.ToUpper(traceID) + "-" + spanID + "-01": false,
	} {
		trace, span, got := parseTraceParent(s)
		if got != want || got && (trace != traceID || span != spanID) {
			t.Errorf("%q: %q, %q, %t", s, trace, span, got)
		}
	}
}

func FuzzTraceParent(f *testing.F) {
	f.Add("00-" + traceID + "-" + spanID + "-01")
	f.Add("cc-" + traceID + "-" + spanID + "-01-x")
	f.Fuzz(func(t *testing.T, s string) {
		trace, span, sampled := parseTraceParent(s)
		if sampled && (len(trace) != 32 || len(span) != 16 || !hex(trace) || !hex(span)) {
			t.Errorf("%q: %q, %q", s, trace, span)
		}
	})
}

// A client can't make a server keep more labels than MaxMethods, whatever it asks for.
func TestLabelsAreBounded(t *testing.T) {
	w := newWorld(t, &Options{MaxMethods: 5, Buckets: []float64{1}})
	w.srv.Handle("any/", reply)
	const calls = 50
	for i := range calls {
		w.call(t, "any/"+strconv.Itoa(i), nil)
		w.call(t, "none/"+strconv.Itoa(i), nil)
	}
	text := w.want(t, "",
		fmt.Sprintf(`rpc_server_call_duration_seconds_count{error_type="",rpc_method="_OTHER",.*} %d`, calls-5),
	)
	if n := strings.Count(text, "rpc_server_call_duration_seconds_count"); n != 5+1 { // what nobody serves is no stream
		t.Errorf("%d rows:\n%s", n, text)
	}
}

// Options leave out what they say, and add native histograms.
func TestOptions(t *testing.T) {
	w := newWorld(t, &Options{NoStreams: true, NativeFactor: 1.1})
	w.call(t, "orders/Get", nil)
	text := w.want(t, "", `rpc_server_call_duration_seconds_count{.*} 1`)
	if strings.Contains(text, "sluice_streams_blocked") || !strings.Contains(text, "sluice_connections_blocked") {
		t.Errorf("without streams:\n%s", text)
	}
	families, err := w.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	native := false
	for _, f := range families {
		if f.GetName() == metricName(&tally.ServerDuration) {
			native = f.GetMetric()[0].GetHistogram().Schema != nil
		}
	}
	if !native {
		t.Error("no native histogram")
	}
}
