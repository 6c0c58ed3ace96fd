package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"
)

// healthz says that the process answers.
func (h *Handler) healthz(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("ok\n"))
}

// readyz says whether to send the process new work: not once a server drains.
func (h *Handler) readyz(w http.ResponseWriter, r *http.Request) {
	for _, s := range h.all() {
		if s.drains() {
			http.Error(w, s.name+" is draining", http.StatusServiceUnavailable)
			return
		}
	}
	if h.opts.Ready != nil {
		if why := h.askReady(r.Context()); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
	}
	_, _ = w.Write([]byte("ready\n"))
}

// askReady returns why the program is not ready, "" if it is. A Ready that panics says that it is not.
func (h *Handler) askReady(ctx context.Context) (why string) {
	defer func() {
		if p := recover(); p != nil {
			why = "Options.Ready panicked"
			h.opts.Logger.Error("sluice: hook panicked", "hook", "admin.Options.Ready", "peer", "", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	if err := h.opts.Ready(ctx); err != nil {
		why = cmp.Or(err.Error(), "not ready")
	}
	return why
}

type versionJSON struct {
	Program  string    `json:"program"`
	Version  string    `json:"version"`
	Sluice   string    `json:"sluice"`
	Revision string    `json:"revision"`
	Modified bool      `json:"modified"`
	Go       string    `json:"go"`
	System   string    `json:"system"`
	Began    time.Time `json:"began"`
}

// modulePath is this module's.
const modulePath = "github.com/sluicerpc/sluice"

func (h *Handler) build() versionJSON {
	v := versionJSON{Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Began: h.began}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Program, v.Version = info.Main.Path, info.Main.Version
	if info.Main.Path == modulePath {
		v.Sluice = info.Main.Version
	}
	for _, d := range info.Deps {
		if d.Path == modulePath {
			v.Sluice = d.Version
		}
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

// version says what runs.
func (h *Handler) version(w http.ResponseWriter, r *http.Request) {
	v := h.build()
	if formOf(r) == "json" {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(envelope{schema, r.URL.Path, time.Now(), v})
		return
	}
	b := []byte(nil)
	for _, f := range [][2]string{
		{"program", v.Program}, {"version", v.Version}, {"sluice", v.Sluice}, {"revision", v.Revision}, {"modified", yes(v.Modified)},
		{"go", v.Go}, {"system", v.System}, {"began", v.Began.Format(time.RFC3339)},
	} {
		b = append(append(appendPadded(b, f[0], 10, false), cmp.Or(f[1], unknown)...), '\n')
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(b)
}
