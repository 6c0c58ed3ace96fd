package admin_test

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/fleet"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// The page has each endpoint with its state, those first that get no calls, and the connections
// are among the others.
func TestFleets(t *testing.T) {
	s := newScenario(t, nil, 0)
	addr := s.dial().Conns()[0].Peer().Addr.String()
	c, err := fleet.NewClient("list://"+addr+" 3 blue,127.0.0.1:1,bad", &fleet.Options{Client: kernel.ClientOptions{Logger: slog.New(slog.DiscardHandler), Token: []byte("secret token")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	s.pages.AddFleet("shops", c)
	for c.Snapshot().Failures == 0 {
		reply, err := c.Call(t.Context(), "none", pool.Message{}, nil)
		if err == nil {
			reply.Release()
		}
	}
	var d struct {
		Data struct {
			Fleets   []struct{ Name, State, Error, Balancer string }
			Matching int
			Rows     []struct {
				Address, State, Tag, Error string
				Weight, Conns              int
				Left                       float64 `json:"left_s"`
			}
		}
	}
	if err := json.Unmarshal([]byte(s.get("/fleets?format=json").body), &d); err != nil {
		t.Fatal(err)
	}
	f, rows := d.Data.Fleets, d.Data.Rows
	if len(f) != 1 || f[0].Name != "shops" || f[0].State != "1 of 2" || !strings.Contains(f[0].Error, "endpoint bad") || f[0].Balancer != "round robin" {
		t.Errorf("%+v", f)
	}
	if len(rows) != 2 || d.Data.Matching != 2 || rows[0].Address != "127.0.0.1:1" || rows[0].State != "TRANSIENT_FAILURE" || rows[0].Error == "" {
		t.Fatalf("%+v", rows)
	}
	if r := rows[1]; r.Address != addr || r.State != "READY" || r.Weight != 3 || r.Tag != "3 blue" || r.Conns != 1 {
		t.Errorf("%+v", r)
	}
	for _, path := range []string{"/fleets", "/fleets?q=blue&fleet=shops", "/conns?endpoint=shops", "/", "/config"} {
		a := s.get(path)
		if !strings.Contains(strings.ToLower(a.body), "shops") || a.contains("secret token") || path == "/fleets?q=blue&fleet=shops" && a.contains("127.0.0.1:1 ") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	s.pages.Remove("shops")
	if a := s.get("/fleets"); a.contains("shops") {
		t.Errorf("%s", a.body)
	}
}
