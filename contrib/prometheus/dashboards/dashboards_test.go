package dashboards

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"

	sluiceprometheus "github.com/sluicerpc/sluice/contrib/prometheus"
	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

func TestMain(m *testing.M) { leak.Main(m) }

const operations = "../../../docs/operations.md"

// exported is what a server and a client export after a call over TCP: the labels of each
// metric, by its name in expressions.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	here, there := sluiceprometheus.New("client", nil), sluiceprometheus.New("server", nil)
	srv, err := kernel.NewServer(&kernel.ServerOptions{Observer: there})
	if err != nil {
		t.Fatal(err)
	}
	there.Watch(srv)
	srv.Handle("m", func(ctx context.Context, s *kernel.Stream) error { return s.Send(ctx, pool.Message{}) })
	ln, err := kernel.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.WithoutCancel(t.Context()), ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	client, err := kernel.Dial(t.Context(), ln.Addr().String(), &kernel.ClientOptions{Observer: here})
	if err != nil {
		t.Fatal(err)
	}
	here.Watch(client)
	m, err := client.Call(t.Context(), "m", pool.Message{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Release()
	_ = client.Close()
	reg := prometheus.NewRegistry()
	reg.MustRegister(here, there)
	found := map[string][]string{}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			add(found, f)
		}
		if found["rpc_server_call_duration_seconds_bucket"] != nil && found["rpc_client_call_duration_seconds_bucket"] != nil || time.Now().After(deadline) {
			return found
		}
	}
}

func add(found map[string][]string, f *dto.MetricFamily) {
	names, more := []string{f.GetName()}, []string(nil)
	if f.GetType() == dto.MetricType_HISTOGRAM {
		names, more = []string{f.GetName() + "_count", f.GetName() + "_sum", f.GetName() + "_bucket"}, []string{"le"}
	}
	for _, l := range f.GetMetric()[0].GetLabel() {
		more = append(more, l.GetName())
	}
	for _, name := range names {
		found[name] = more
	}
}

// target are the labels that Prometheus adds.
var target = []string{"job", "instance"}

// check parses an expression, and checks that every metric and label in it is exported. It
// returns the metrics' names.
func check(t *testing.T, where, expr string, metrics map[string][]string) (names []string) {
	t.Helper()
	expr = strings.ReplaceAll(expr, "$__rate_interval", "5m")
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return nil
	}
	var known []string // labels of all metrics in it
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		names = append(names, s.Name)
		of, ok := metrics[s.Name]
		if !ok {
			t.Errorf("%s: %s is not exported", where, s.Name)
		}
		known = append(known, of...)
		for _, m := range s.LabelMatchers {
			if m.Name != model.MetricNameLabel && !slices.Contains(of, m.Name) {
				t.Errorf("%s: %s has no label %s", where, s.Name, m.Name)
			}
		}
		return nil
	})
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if a, ok := n.(*parser.AggregateExpr); ok {
			for _, l := range a.Grouping {
				if !slices.Contains(known, l) && !slices.Contains(target, l) {
					t.Errorf("%s: nothing in it has the label %s", where, l)
				}
			}
		}
		return nil
	})
	if len(names) == 0 {
		t.Errorf("%s: no metric in %s", where, expr)
	}
	return names
}

// A dashboard is what is read of one.
type dashboard struct {
	Panels []struct {
		ID      int
		Title   string
		Type    string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr, LegendFormat string }
	}
	Templating struct {
		List []struct{ Name, Query string }
	}
}

// Every expression of the dashboard parses and names what is exported, and every metric is in a
// panel.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("sluice.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	metrics := exported(t)
	shown := map[string]bool{}
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s: id %d, at %+v", p.Title, p.ID, p.GridPos)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			for _, name := range check(t, p.Title, target.Expr, metrics) {
				shown[name] = true
			}
			for _, m := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				if !strings.Contains(target.Expr, m[1]) && !slices.ContainsFunc(slices.Collect(maps.Keys(metrics)), func(name string) bool {
					return strings.Contains(target.Expr, name+"{") && slices.Contains(metrics[name], m[1])
				}) {
					t.Errorf("%s: the legend has %s, %s has not", p.Title, m[1], target.Expr)
				}
			}
		}
	}
	for name := range metrics {
		if !shown[name] && !strings.HasSuffix(name, "_sum") && !strings.HasSuffix(name, "_count") {
			t.Errorf("%s is in no panel", name)
		}
	}
	for _, v := range d.Templating.List {
		if m := regexp.MustCompile(`label_values\((\w+), (\w+)\)`).FindStringSubmatch(v.Query); m != nil && !slices.Contains(metrics[m[1]], m[2]) {
			t.Errorf("variable %s: %s", v.Name, v.Query)
		}
	}
}

// Every rule parses and names what is exported, and leads to a section of the runbook, which names
// the rule.
func TestAlerts(t *testing.T) {
	groups, errs := rulefmt.ParseFile("alerts.yaml", false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	page, err := os.ReadFile(operations)
	if err != nil {
		t.Fatal(err)
	}
	metrics := exported(t)
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			check(t, r.Alert, r.Expr, metrics)
			if r.Labels["severity"] == "" || r.Annotations["summary"] == "" {
				t.Errorf("%s has no severity, or no summary", r.Alert)
			}
			_, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "docs/operations.md#")
			if !strings.Contains(section(string(page), anchor), "`"+r.Alert+"`") {
				t.Errorf("%s: the section %q of the runbook is not there, or does not name it", r.Alert, anchor)
			}
		}
	}
	for _, m := range regexp.MustCompile("`(Sluice[A-Z]\\w+)`").FindAllStringSubmatch(string(page), -1) {
		if !slices.ContainsFunc(groups.Groups[0].Rules, func(r rulefmt.Rule) bool { return r.Alert == m[1] }) {
			t.Errorf("the runbook has the alert %s, the rules have not", m[1])
		}
	}
	for _, m := range regexp.MustCompile("`((?:sluice|rpc)_[a-z_]+)`").FindAllStringSubmatch(string(page), -1) {
		isLabel := slices.ContainsFunc(slices.Collect(maps.Values(metrics)), func(of []string) bool { return slices.Contains(of, m[1]) })
		if metrics[m[1]] == nil && metrics[m[1]+"_count"] == nil && !isLabel {
			t.Errorf("the runbook has %s, which is neither a metric nor a label", m[1])
		}
	}
}

// section is the text below the heading with an anchor, "" if there is none.
func section(page, anchor string) string {
	var text []string
	in := false
	for _, line := range strings.Split(page, "\n") {
		if heading := strings.TrimLeft(line, "#"); heading != line {
			in = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(heading)), " ", "-") == anchor
		} else if in {
			text = append(text, line)
		}
	}
	return strings.Join(text, "\n")
}
