package admin

import (
	"net/http"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"time"
)

// net/http/pprof would serve the same, but a program that imports it serves profiles to
// everybody, if it serves http.DefaultServeMux at all.

// mostProfile is how long a profile may take, in seconds.
const mostProfile = 120

// profiles lists the profiles.
func (h *Handler) profiles(w http.ResponseWriter, r *http.Request) {
	if !h.allowed(w, r) {
		return
	}
	t := table{Key: "profiles", Title: "Profiles", Columns: []column{
		{Name: "profile", Class: "t", Width: 20}, {Name: "records", Class: "n", Width: 10}, {Name: "as text", Class: "t", Width: 10}, {Name: "", Class: "w", Width: 50},
	}}
	rows := []string{"profile", "trace"}
	t.Rows = append(t.Rows,
		row{"profile", []cell{linked("profile", "profile?seconds=10"), text(""), text(""), text("CPU, for 10 s")}},
		row{"trace", []cell{linked("trace", "trace?seconds=1"), text(""), text(""), text("execution, for 1 s: go tool trace")}})
	for _, p := range pprof.Profiles() {
		rows = append(rows, p.Name())
		t.Rows = append(t.Rows, row{p.Name(), []cell{linked(p.Name(), p.Name()), number(p.Count()), linked("text", p.Name()+"?debug=1"), text("")}})
	}
	v := &view{Title: "Profiles", Tables: []table{t}, path: r.URL.Path, data: func() any { return rows }}
	h.write(w, r, formOf(r), v.finish())
}

// profile makes one.
func (h *Handler) profile(w http.ResponseWriter, r *http.Request) {
	if !h.allowed(w, r) {
		return
	}
	name := r.PathValue("name")
	if name == "profile" || name == "trace" {
		h.timed(w, r, name)
		return
	}
	p := pprof.Lookup(name)
	if p == nil {
		h.fail(w, r, notFound("there is no such profile"))
		return
	}
	debug, _ := strconv.Atoi(r.URL.Query().Get("debug"))
	if name == "heap" && r.URL.Query().Get("gc") != "" {
		runtime.GC()
	}
	attach(w, name, debug != 0)
	_ = p.WriteTo(w, debug)
}

// timed makes a profile that takes a while.
func (h *Handler) timed(w http.ResponseWriter, r *http.Request, name string) {
	seconds, err := strconv.ParseFloat(r.URL.Query().Get("seconds"), 64)
	if r.URL.Query().Get("seconds") == "" {
		seconds, err = map[string]float64{"profile": 30, "trace": 1}[name], nil
	}
	if err != nil || !(seconds > 0 && seconds <= mostProfile) {
		h.fail(w, r, badRequest("seconds is a number up to "+strconv.Itoa(mostProfile)))
		return
	}
	if !h.tracing.TryLock() {
		http.Error(w, "another profile is being made", http.StatusConflict)
		return
	}
	defer h.tracing.Unlock()
	start, stop := pprof.StartCPUProfile, pprof.StopCPUProfile
	if name == "trace" {
		start, stop = trace.Start, trace.Stop
	}
	attach(w, name, false)
	if err := start(w); err != nil {
		w.Header().Del("Content-Disposition")
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	defer stop()
	end := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer end.Stop()
	select {
	case <-end.C:
	case <-r.Context().Done():
	}
}

// attach says what is sent.
func attach(w http.ResponseWriter, name string, text bool) {
	if text {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
}
