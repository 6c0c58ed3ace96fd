package admin

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/status"
)

// A methodsLens is what was counted of methods.
type methodsLens struct {
	blind
	h    *Handler
	list list
}

// A methodRow is a method at one moment.
type methodRow struct {
	Method      string            `json:"method"`
	Open        int               `json:"open"`
	Ended       uint64            `json:"ended"`
	Failed      uint64            `json:"failed"`
	Codes       map[string]uint64 `json:"codes"`
	AcceptedP50 float64           `json:"accepted_p50_s"`
	AcceptedP99 float64           `json:"accepted_p99_s"`
	WholeP50    float64           `json:"whole_p50_s"`
	WholeP99    float64           `json:"whole_p99_s"`
	Messages    float64           `json:"messages_per_stream"`
	BytesIn     float64           `json:"bytes_received_per_stream"`
	BytesOut    float64           `json:"bytes_sent_per_stream"`
	accepted    [2]time.Duration
	whole       [2]time.Duration
}

var methodKeys = map[string]func(*methodRow) float64{
	"ended": func(r *methodRow) float64 { return float64(r.Ended) }, "open": func(r *methodRow) float64 { return float64(r.Open) },
	"failed": func(r *methodRow) float64 { return float64(r.Failed) }, "accepted": func(r *methodRow) float64 { return r.AcceptedP99 },
	"whole": func(r *methodRow) float64 { return r.WholeP99 }, "bytes": func(r *methodRow) float64 { return r.BytesIn + r.BytesOut },
}

func (h *Handler) methods(r *http.Request) (lens, error) {
	l, err := listOf(r, "ended", methodKeys)
	return &methodsLens{h: h, list: l}, err
}

// all returns what was counted, by name.
func (r *recorder) all() (rows []methodRow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.methods {
		rows = append(rows, m.row())
	}
	slices.SortFunc(rows, func(a, b methodRow) int { return strings.Compare(a.Method, b.Method) })
	return rows
}

func (m *method) row() methodRow {
	n := float64(max(m.ended, 1))
	r := methodRow{
		Method: m.name, Open: m.open, Ended: m.ended, Failed: m.ended - m.codes[status.OK], Codes: map[string]uint64{},
		accepted: [2]time.Duration{m.accepted.percentile(0.5), m.accepted.percentile(0.99)},
		whole:    [2]time.Duration{m.whole.percentile(0.5), m.whole.percentile(0.99)},
		Messages: float64(m.messages) / n, BytesIn: float64(m.bytesIn) / n, BytesOut: float64(m.bytesOut) / n,
	}
	r.AcceptedP50, r.AcceptedP99 = seconds(r.accepted[0]), seconds(r.accepted[1])
	r.WholeP50, r.WholeP99 = seconds(r.whole[0]), seconds(r.whole[1])
	for c, n := range m.codes {
		name := codeName(c)
		if c == otherCodes {
			name = "(other codes)"
		}
		r.Codes[name] = n
	}
	return r
}

// failures names the codes, the most frequent first.
func (r *methodRow) failures() string {
	type coded struct {
		name string
		n    uint64
	}
	var cs []coded
	for name, n := range r.Codes {
		if name != status.OK.String() {
			cs = append(cs, coded{name, n})
		}
	}
	slices.SortFunc(cs, func(a, b coded) int {
		if a.n != b.n {
			return int(b.n) - int(a.n)
		}
		return strings.Compare(a.name, b.name)
	})
	words := make([]string, len(cs))
	for i, c := range cs {
		words[i] = count(c.n) + " " + c.name
	}
	return strings.Join(words, ", ")
}

func (l *methodsLens) view(*sample) *view {
	rows := l.h.recorder.all()
	ranks := top[methodRow]{most: l.list.most()}
	for i := range rows {
		at := order{l.list.key(methodKeys[l.list.sort](&rows[i])), uint64(i), 0}
		if ranks.takes(at) {
			ranks.add(at, rows[i])
		}
	}
	shown := ranks.rows(l.list.offset)
	t := table{Key: "methods", Title: "Methods", Empty: "No stream has begun.", Columns: l.list.sorted([]column{
		{Name: "method", Class: "w", Width: 34}, {Name: "open", Class: "n", Width: 8, Sort: "open"}, {Name: "ended", Class: "n", Width: 14, Sort: "ended"},
		{Name: "failed", Class: "n", Width: 12, Sort: "failed"}, {Name: "%", Class: "n", Width: 6, Help: "of those that have ended, in percent"},
		{Name: "accepted p50", Class: "n", Width: 14, Help: "from the open to the acceptance"}, {Name: "p99", Class: "n", Width: 10, Sort: "accepted"},
		{Name: "whole p50", Class: "n", Width: 12, Help: "from the open to the end"}, {Name: "p99", Class: "n", Width: 10, Sort: "whole"},
		{Name: "messages", Class: "n", Width: 10, Help: "of a stream, both ways"}, {Name: "received", Class: "n", Width: 10, Sort: "bytes", Help: "bytes of a stream"},
		{Name: "sent", Class: "n", Width: 10, Help: "bytes of a stream"}, {Name: "failed with", Class: "w", Width: 40},
	})}
	t.Note, t.More = l.list.pages(len(shown), len(rows))
	for i := range shown {
		t.Rows = append(t.Rows, shown[i].row.cells())
	}
	return &view{Title: "Methods", Lead: l.h.unobserved(), Tables: []table{t}, data: func() any {
		d := listJSON[methodRow]{len(rows), l.list.offset, []methodRow{}}
		for _, r := range shown {
			d.Rows = append(d.Rows, r.row)
		}
		return d
	}}
}

func (r *methodRow) cells() row {
	failed := 0.0
	if r.Ended > 0 {
		failed = 100 * float64(r.Failed) / float64(r.Ended)
	}
	ms := func(d time.Duration) cell { return dim(duration(d), d == 0) }
	return row{r.Method, []cell{
		linked(clean(r.Method), "streams?method="+url.QueryEscape(r.Method)), number(r.Open), number(r.Ended), loud(r.Failed), dim(rate(failed), failed == 0),
		ms(r.accepted[0]), ms(r.accepted[1]), ms(r.whole[0]), ms(r.whole[1]),
		perSecond(r.Messages), bytes(uint64(r.BytesIn)), bytes(uint64(r.BytesOut)), text(r.failures()),
	}}
}
