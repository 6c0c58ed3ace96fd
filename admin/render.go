package admin

import (
	"cmp"
	"html/template"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// pages is the template of every page.
var pages = template.Must(template.ParseFS(static, "static/page.html"))

// A document is what the template makes a page of.
type document struct {
	*view
	Base    string // leads from the page's path to that of "/"
	Self    string // the last part of the page's path
	Program string
	Nav     []navigation
	Live    bool // it changes
	Level   string
	Token   bool // there is one
	Known   bool // the request has it
	Footer  string
}

type navigation struct {
	Name, Href string
	Here       bool
}

// Every method of template.Template may be called at the same time.
func (h *Handler) writeHTML(w http.ResponseWriter, r *http.Request, v *view) {
	d := &document{
		view: v, Base: base(v.path), Self: cmp.Or(v.path[strings.LastIndexByte(v.path, '/')+1:], "./"),
		Program: h.program(), Live: v.footer != "", Token: h.opts.Token != "", Known: h.knows(r), Footer: v.footer,
	}
	for _, name := range []string{"", "streams", "conns", "fleets", "loops", "closed", "methods", "config"} {
		d.Nav = append(d.Nav, navigation{
			Name: cmp.Or(name, "overview"), Href: d.Base + name,
			Here: v.path == "/"+name || name != "" && strings.HasPrefix(v.path, "/"+name+"/"),
		})
	}
	if err := pages.Execute(w, d); err != nil && r.Context().Err() == nil {
		h.opts.Logger.Warn("sluice: admin: page", "error", cleanTo(err.Error(), mostReason), "path", clean(v.path))
	}
}

// base leads from a path to that of the overview, so that the pages can be mounted anywhere.
func base(path string) string {
	if n := strings.Count(path, "/"); n > 1 {
		return strings.Repeat("../", n-1)
	}
	return "./"
}

// program is what the pages call the program, and where it runs.
func (h *Handler) program() string {
	name := filepath.Base(os.Args[0])
	if host, err := os.Hostname(); err == nil {
		name += " on " + host
	}
	return name
}

// appendText appends the page as plain text.
func (v *view) appendText(b []byte) []byte {
	b = append(b, v.Title+"\n"...)
	for _, l := range v.Lead {
		b = append(b, l.Text+"\n"...)
	}
	b = append(b, '\n')
	for _, f := range v.Figures {
		b = appendPadded(b, f.Name, 18, false)
		b = appendPadded(b, f.Value, 12, true)
		if f.Note != "" {
			b = append(b, "  "+f.Note...)
		}
		b = append(b, '\n')
	}
	for i := range v.Tables {
		b = v.Tables[i].appendText(append(b, '\n'))
	}
	return append(b, "\n"+v.footer+"\n"...)
}

func (t *table) appendText(b []byte) []byte {
	b = append(b, strings.ToUpper(t.Title)...)
	if t.Note != "" {
		b = append(b, "  ("+t.Note+")"...)
	}
	b = append(b, '\n')
	if len(t.Rows) == 0 {
		return append(b, t.Empty+"\n"...)
	}
	widths := make([]int, len(t.Columns))
	for i, c := range t.Columns {
		widths[i] = utf8.RuneCountInString(c.Name)
		for _, r := range t.Rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(r.Cells[i].Text))
		}
	}
	line := func(text func(i int) string) {
		for i, c := range t.Columns {
			b = append(appendPadded(b, text(i), widths[i], c.Class == "n"), "  "...)
		}
		b = append([]byte(strings.TrimRight(string(b), " ")), '\n')
	}
	line(func(i int) string { return t.Columns[i].Name })
	for _, r := range t.Rows {
		line(func(i int) string { return r.Cells[i].Text })
	}
	return b
}

func appendPadded(b []byte, s string, width int, right bool) []byte {
	pad := strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
	if right {
		return append(append(b, pad...), s...)
	}
	return append(append(b, s...), pad...)
}
