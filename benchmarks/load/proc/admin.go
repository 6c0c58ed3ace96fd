package proc

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// An Admin is the admin endpoint of its process: /stats returns Stats as JSON,
// /stats?gc=1 after a garbage collection.
type Admin struct {
	// Serving counts the streams being served.
	Serving atomic.Int64
	// Peer names the library that serves. Set it before Serve.
	Peer string
	// MaxMessage is the longest message that it takes. Set it before Serve.
	MaxMessage int
	// Library, if set, returns figures of the library under test. Set it before Serve.
	Library func() map[string]float64
	// Pages, if set, has all other paths. Set it before Serve.
	Pages http.Handler

	srv http.Server
	ln  net.Listener
}

// Serve listens on addr and answers until Close.
func (a *Admin) Serve(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/stats", a.stats)
	if a.Pages != nil {
		mux.Handle("/", a.Pages)
	}
	a.ln, a.srv.Handler, a.srv.ReadHeaderTimeout = ln, mux, 5*time.Second
	go a.srv.Serve(ln) //nolint:errcheck // it ends, with ErrServerClosed, when Close is called
	return nil
}

// Addr returns where Serve listens.
func (a *Admin) Addr() string { return a.ln.Addr().String() }

// Close stops answering.
func (a *Admin) Close() error { return a.srv.Close() }

func (a *Admin) stats(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("gc") == "1" {
		Collect()
	}
	s := Read()
	s.Peer, s.MaxMessage, s.Streams = a.Peer, a.MaxMessage, a.Serving.Load()
	if a.Library != nil {
		s.Library = a.Library()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s) // fails if the client has closed the connection
}

// A Source fetches the Stats of a server's process.
type Source struct {
	addr      string
	transport http.Transport // its own, so that Close closes only its connections
}

// NewSource returns a source that asks the Admin at addr.
func NewSource(addr string) *Source { return &Source{addr: addr} }

// Fetch requests a reading, after a garbage collection if collect is set.
func (s *Source) Fetch(ctx context.Context, collect bool) (Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	url := "http://" + s.addr + "/stats"
	if collect {
		url += "?gc=1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Stats{}, err
	}
	resp, err := (&http.Client{Transport: &s.transport}).Do(req)
	if err != nil {
		return Stats{}, fmt.Errorf("server's figures: %w; load serve prints where they are, and a server without them needs --admin= in load run", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Stats{}, fmt.Errorf("server's figures: %s from %s: is that the address of its admin endpoint?", resp.Status, s.addr)
	}
	var st Stats
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil {
		return Stats{}, fmt.Errorf("server's figures: %w", err)
	}
	return st, nil
}

// Close closes the connection that Fetch keeps.
func (s *Source) Close() { s.transport.CloseIdleConnections() }
