package admin

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"
)

// A delta is what has changed of a page: a field that is not there has not.
type delta struct {
	Lead    []line                `json:"lead,omitempty"`
	Figures map[string]figure     `json:"figures,omitempty"`
	Tables  map[string]tableDelta `json:"tables,omitempty"`
	Footer  string                `json:"footer"`
}

// A tableDelta is what has changed of a table. Order is the keys of its rows, if it is
// another one. A row that is new has all its cells.
type tableDelta struct {
	Note  string                  `json:"note"`
	Order *[]string               `json:"order,omitempty"`
	Rows  map[string]map[int]cell `json:"rows,omitempty"`
}

// changes returns what has changed since the old view.
func (v *view) changes(old *view) delta {
	d := delta{Figures: map[string]figure{}, Tables: map[string]tableDelta{}, Footer: v.footer}
	if !slices.Equal(v.Lead, old.Lead) {
		d.Lead = v.Lead
	}
	for i, f := range v.Figures {
		if i >= len(old.Figures) || old.Figures[i] != f {
			d.Figures[f.Key] = f
		}
	}
	for i := range v.Tables {
		var before table
		if i < len(old.Tables) {
			before = old.Tables[i]
		}
		if t, changed := v.Tables[i].changes(&before); changed {
			d.Tables[v.Tables[i].Key] = t
		}
	}
	return d
}

func (t *table) changes(old *table) (d tableDelta, changed bool) {
	d = tableDelta{Note: t.Note, Rows: map[string]map[int]cell{}}
	before := make(map[string][]cell, len(old.Rows))
	for _, r := range old.Rows {
		before[r.Key] = r.Cells
	}
	same := len(t.Rows) == len(old.Rows)
	for i, r := range t.Rows {
		same = same && old.Rows[i].Key == r.Key
		cells := map[int]cell{}
		was := before[r.Key]
		for n, c := range r.Cells {
			if n >= len(was) || was[n] != c {
				cells[n] = c
			}
		}
		if len(cells) > 0 {
			d.Rows[r.Key] = cells
		}
	}
	if !same {
		order := make([]string, len(t.Rows))
		for i, r := range t.Rows {
			order[i] = r.Key
		}
		d.Order = &order
	}
	return d, !same || len(d.Rows) > 0 || t.Note != old.Note
}

// writeTime is how long a browser may take to read what has changed.
const writeTime = 10 * time.Second

// events sends what changes of a page, once a second, until the browser leaves. The first
// one has everything.
func (h *Handler) events(w http.ResponseWriter, r *http.Request, l lens) {
	k, ok := h.watch.join(l)
	if !ok {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many pages are watched", http.StatusServiceUnavailable)
		return
	}
	defer h.watch.leave(k)
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	_ = out.Flush() // it is open; the first look may take a while
	old := &view{}
	for {
		select {
		case <-r.Context().Done():
			return
		case v := <-k.views:
			text, err := json.Marshal(v.changes(old))
			if err != nil {
				return
			}
			old = v
			_ = out.SetWriteDeadline(time.Now().Add(writeTime)) // not every writer has one
			if _, err = w.Write(append(append([]byte("data: "), text...), "\n\n"...)); err != nil || out.Flush() != nil {
				return
			}
		}
	}
}
