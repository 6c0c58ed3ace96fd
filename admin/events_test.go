package admin_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
)

// A watching is a page that is watched.
type watching struct {
	t    testing.TB
	resp *http.Response
	in   *bufio.Reader
	http *http.Transport
}

// An event is what has changed.
type event struct {
	Lead    []struct{ T string }
	Figures map[string]struct{ V, S string }
	Tables  map[string]struct {
		Note  string
		Order *[]string
		Rows  map[string]map[int]struct{ T, H, C string }
	}
	Footer string
}

func watch(t testing.TB, url, host string) *watching {
	t.Helper()
	w := &watching{t: t, http: &http.Transport{}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	if w.resp, err = w.http.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	w.in = bufio.NewReader(w.resp.Body)
	return w
}

func (w *watching) next() (e event) {
	w.t.Helper()
	line, err := w.in.ReadString('\n')
	if err == nil {
		_, err = w.in.ReadString('\n')
	}
	data, ok := strings.CutPrefix(line, "data: ")
	if err != nil || !ok || json.Unmarshal([]byte(data), &e) != nil {
		w.t.Fatalf("%d %q, %v", w.resp.StatusCode, line, err)
	}
	return e
}

func (w *watching) end() {
	_ = w.resp.Body.Close()
	w.http.CloseIdleConnections()
}

// The first event has all of a page, the later ones what has changed.
func TestEventsAreChanges(t *testing.T) {
	s, id := stuckScenario(t, nil)
	w := watch(t, s.url+"/streams?format=events&endpoint=shop", "localhost")
	defer w.end()
	first := w.next().Tables["streams"]
	if len(first.Rows) != 200 || len(*first.Order) != 200 || first.Rows[id][0].T != id || first.Rows[id][0].H != "streams/"+id {
		t.Errorf("%d rows, %v", len(first.Rows), first.Rows[id])
	}
	e := w.next()
	for n := 0; len(e.Tables["streams"].Rows) == 0 && n < 10; n++ {
		e = w.next()
	}
	rows := e.Tables["streams"].Rows
	if len(rows) == 0 || len(rows) == 200 && len(rows[id]) == len(first.Rows[id]) {
		t.Errorf("%d rows have changed, the first in %d cells", len(rows), len(rows[id]))
	}
	if _, ok := rows[id][1]; ok {
		t.Errorf("the method has not changed: %v", rows[id])
	}
	over := watch(t, s.url+"/?format=events", "localhost")
	defer over.end()
	if f := over.next().Figures["streams"]; f.V == "" {
		t.Errorf("%+v", f)
	}
	testkit.Eventually(t, "a figure to have a past", func() bool { return strings.Contains(over.next().Figures["in"].S, " ") })
}

// A stream that is watched shows its end.
func TestWatchedStreamEnds(t *testing.T) {
	s := newScenario(t, nil, 0)
	st := s.stuck(s.dial())
	var rows []streamRow
	testkit.Eventually(t, "the stream to be there", func() bool { return s.rows("/streams", &rows) == 1 })
	w := watch(t, s.url+"/streams/"+rows[0].ID+"?format=events", "localhost")
	defer w.end()
	w.next()
	st.Abort(13, "no more")
	testkit.Eventually(t, "its end to be shown", func() bool {
		e := w.next()
		return len(e.Lead) > 0 && strings.HasPrefix(e.Lead[0].T, "It is over: ")
	})
}

// While nobody watches, nothing runs.
func TestNothingRunsWhileNobodyWatches(t *testing.T) {
	s := newScenario(t, nil, 0)
	testkit.Eventually(t, "what other tests have watched to end", func() bool { return !running() })
	s.get("/")
	s.get("/streams?format=json")
	if running() {
		t.Error("something runs after a look")
	}
	a, b := watch(t, s.url+"/?format=events", "localhost"), watch(t, s.url+"/streams?format=events", "localhost")
	a.next()
	b.next()
	if !running() {
		t.Error("nothing runs while two watch")
	}
	a.end()
	b.end()
	testkit.Eventually(t, "the goroutine to end", func() bool { return !running() })
	c := watch(t, s.url+"/?format=events", "localhost")
	defer c.end()
	c.next()
}

// running reports whether the goroutine runs that looks.
func running() bool {
	stacks := make([]byte, 1<<20)
	return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "admin.(*watch).run")
}

// No more than 64 pages can be watched.
func TestWatchersAreBounded(t *testing.T) {
	s := newScenario(t, nil, 0)
	for range 64 {
		w := watch(t, s.url+"/config?format=events", "localhost")
		defer w.end()
	}
	if a := s.get("/config?format=events"); a.code != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("the 65th: %d", a.code)
	}
}
