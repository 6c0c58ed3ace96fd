package admin

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A lensMaker makes of a request what looks for it.
type lensMaker func(*http.Request) (lens, error)

// page serves a page in the form that is asked for.
func (h *Handler) page(lensOf lensMaker) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		form := formOf(r)
		l, err := lensOf(r)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		switch form {
		case "events":
			h.events(w, r, l)
		case "html", "text", "json":
			v := h.sampler.look(h.all(), []lens{l}, time.Now())[0]
			v.path = r.URL.Path
			h.write(w, r, form, v)
		default:
			h.fail(w, r, badRequest("format is html, text, json or events"))
		}
	}
}

// formOf returns the form that a request asks for: browsers get HTML, and curl text.
func formOf(r *http.Request) string {
	if f := r.URL.Query().Get("format"); f != "" {
		return f
	}
	switch accept := r.Header.Get("Accept"); {
	case strings.Contains(accept, "text/html"):
		return "html"
	case strings.Contains(accept, "text/event-stream"):
		return "events"
	case strings.Contains(accept, "application/json"):
		return "json"
	}
	return "text"
}

// write answers with a view.
func (h *Handler) write(w http.ResponseWriter, r *http.Request, form string, v *view) {
	switch form {
	case "json":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(envelope{schema, v.path, time.Now(), v.data()})
	case "html":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		h.writeHTML(w, r, v)
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(v.appendText(nil))
	}
}

// A badRequest is a request that can't be understood, and a notFound is one for something
// that is not there.
type (
	badRequest string
	notFound   string
)

func (e badRequest) Error() string { return string(e) }
func (e notFound) Error() string   { return string(e) }

func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	code := http.StatusBadRequest
	if errors.As(err, new(notFound)) {
		code = http.StatusNotFound
	}
	if formOf(r) != "html" {
		http.Error(w, err.Error(), code)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	h.writeHTML(w, r, &view{Title: http.StatusText(code), Lead: []line{{Text: err.Error(), Class: "warn"}}, path: r.URL.Path})
}

// most is how many rows a table has, and mostJSON how many can be asked for at once.
const (
	mostRows = 200
	mostJSON = 10_000
)

// A list is which rows of a table are asked for.
type list struct {
	query  url.Values
	sort   string
	up     bool // the smallest first
	offset int
	limit  int
}

// listOf reads which rows are asked for. The keys are the ways to sort, by the first unless another
// is asked for.
func listOf[K any](r *http.Request, first string, keys map[string]K) (list, error) {
	q := r.URL.Query()
	l := list{query: q, sort: cmp.Or(q.Get("sort"), first), up: q.Get("up") != "", limit: mostRows}
	if _, ok := keys[l.sort]; !ok {
		return l, badRequest("sort is one of " + strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
	}
	for name, to := range map[string]*int{"offset": &l.offset, "limit": &l.limit} {
		if v := q.Get(name); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 || n > 10_000_000 {
				return l, badRequest(name + " is a number from 0 on")
			}
			*to = n
		}
	}
	l.limit = min(l.limit, mostJSON)
	if f := formOf(r); f == "html" || f == "events" {
		l.limit = min(l.limit, mostRows)
	}
	return l, nil
}

// most is how many rows must be kept.
func (l *list) most() int { return l.offset + l.limit }

// with returns the link to the same page with some parameters changed; an empty value takes
// one away.
func (l *list) with(pairs ...string) string {
	q := url.Values{}
	for k, v := range l.query {
		if k != "format" && k != "offset" && len(v) > 0 && v[0] != "" {
			q.Set(k, v[0])
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		if q.Del(pairs[i]); pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return "?" + q.Encode()
}

// sorted marks the column that the table is sorted by, and links the others.
func (l *list) sorted(columns []column) []column {
	for i := range columns {
		c := &columns[i]
		switch {
		case c.Sort == "":
			continue
		case c.Sort != l.sort:
			c.Sort = l.with("sort", c.Sort, "up", "")
		case l.up:
			c.Sort, c.Is = l.with("sort", c.Sort, "up", ""), "ascending"
		default:
			c.Sort, c.Is = l.with("sort", c.Sort, "up", "1"), "descending"
		}
	}
	return columns
}

// key turns a value into one that the largest of comes first.
func (l *list) key(v float64) float64 {
	if l.up {
		return -v
	}
	return v
}

// pages are the links to the rows before and behind, and what is said of them.
func (l *list) pages(shown, all int) (note string, more []link) {
	if shown == all && l.offset == 0 {
		return plural(all, "row"), nil
	}
	note = count(l.offset+min(1, shown)) + " to " + count(l.offset+shown) + " of " + count(all)
	if l.offset > 0 {
		more = append(more, link{"← before", l.with("offset", strconv.Itoa(max(0, l.offset-l.limit)))})
	}
	if l.offset+shown < all {
		more = append(more, link{"next →", l.with("offset", strconv.Itoa(l.offset+l.limit))})
	}
	return note, more
}
