package admin

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/fleet"
	"github.com/sluicerpc/sluice/kernel"
)

// Options configure a Handler. Nil and the zero value are the defaults.
type Options struct {
	// Token is the password for what changes something, for profiles and for traces: as a
	// Bearer token, or by HTTP's basic authentication with any user name. It has 16 bytes or
	// more. Empty: there is none of that.
	Token string
	// Private has every page ask for the token, except /healthz, /readyz and /version.
	Private bool
	// Hosts are the names by which browsers may ask, besides localhost and addresses.
	Hosts []string
	// Level, if set, is a level of logging that the pages show and an action changes.
	Level *slog.LevelVar
	// Ready, if set, is asked by /readyz while no server drains: an error means not ready.
	Ready func(context.Context) error
	// Logger is told of actions and of refused attempts. Nil is slog.Default.
	Logger *slog.Logger
}

// A Handler serves the pages. It is also the kernel.Observer of the servers and clients that
// /closed and /methods are to know of, alone or as one of kernel.Observers. Its methods may be
// called at the same time.
type Handler struct {
	opts     Options
	began    time.Time
	mux      *http.ServeMux
	sampler  sampler
	watch    watch
	recorder recorder
	tracing  sync.Mutex // held by who makes a CPU profile or an execution trace

	mu      sync.Mutex
	sources []*source // by name
}

// leastToken is how many bytes a token has, so that nobody guesses it.
const leastToken = 16

// NewHandler returns a Handler without servers and clients. It fails if the token is too
// short, or Private has none.
func NewHandler(opts *Options) (*Handler, error) {
	h := &Handler{began: time.Now()}
	if opts != nil {
		h.opts = *opts
	}
	switch n := len(h.opts.Token); {
	case n > 0 && n < leastToken:
		return nil, fmt.Errorf("sluice: admin: the token has %d bytes, it must have %d", n, leastToken)
	case n == 0 && h.opts.Private:
		return nil, errors.New("sluice: admin: Private pages need a token")
	}
	if h.opts.Logger == nil {
		h.opts.Logger = slog.Default()
	}
	h.opts.Hosts = slices.Clone(h.opts.Hosts)
	h.watch.h, h.watch.watchers = h, map[*watcher]struct{}{}
	h.mux = h.routes()
	return h, nil
}

// AddServer has the pages show a server, under a name. It takes the place of what had the
// name.
func (h *Handler) AddServer(name string, s *kernel.Server) { h.add(&source{name: name, srv: s}) }

// AddClient has the pages show a client, under a name. It takes the place of what had the
// name.
func (h *Handler) AddClient(name string, c *kernel.Client) { h.add(&source{name: name, client: c}) }

// AddFleet has the pages show a client of many servers, under a name. It takes the place of what
// had the name.
func (h *Handler) AddFleet(name string, c *fleet.Client) { h.add(&source{name: name, fleet: c}) }

func (h *Handler) add(s *source) {
	h.Remove(s.name)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sources = append(slices.Clone(h.sources), s)
	slices.SortStableFunc(h.sources, func(a, b *source) int { return strings.Compare(a.name, b.name) })
}

// Remove has the pages show a server, client or fleet no more.
func (h *Handler) Remove(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sources = slices.DeleteFunc(slices.Clone(h.sources), func(s *source) bool { return s.name == name })
}

// all returns the servers and clients by name.
func (h *Handler) all() []*source {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sources
}

//go:embed static
var static embed.FS

// routes are the pages and their paths.
func (h *Handler) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for path, lensOf := range map[string]lensMaker{
		"/{$}":          h.overview,
		"/conns":        h.conns,
		"/conns/{id}":   h.oneConn,
		"/streams":      h.streams,
		"/streams/{id}": h.oneStream,
		"/fleets":       h.fleets,
		"/loops":        h.loops,
		"/closed":       h.closed,
		"/methods":      h.methods,
		"/config":       h.config,
	} {
		mux.Handle("GET "+path, h.page(lensOf))
	}
	mux.HandleFunc("GET /healthz", h.healthz)
	mux.HandleFunc("GET /readyz", h.readyz)
	mux.HandleFunc("GET /version", h.version)
	mux.HandleFunc("GET /login", h.login)
	mux.HandleFunc("GET /debug/pprof/", h.profiles)
	mux.HandleFunc("GET /debug/pprof/{name}", h.profile)
	mux.HandleFunc("POST /actions/{name}", h.act)
	files, err := fs.Sub(static, "static")
	if err == nil { // it is embedded
		mux.Handle("GET /static/", http.StripPrefix("/static/", http.FileServerFS(files)))
	}
	return mux
}

// ServeHTTP implements http.Handler. The Handler may be mounted at any path that ends with a
// slash, with http.StripPrefix.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	if !h.admits(w, r) {
		return
	}
	h.mux.ServeHTTP(w, r)
}
