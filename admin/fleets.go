package admin

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/fleet"
	"github.com/sluicerpc/sluice/kernel"
)

// A fleetsLens is the clients of many servers, and their endpoints.
type fleetsLens struct {
	blind
	h      *Handler
	list   list
	search string
	fleet  string
}

// A fleetJSON is a fleet in JSON.
type fleetJSON struct {
	Name      string  `json:"name"`
	Target    string  `json:"target"`
	Balancer  string  `json:"balancer"`
	State     string  `json:"state"`
	Sets      uint64  `json:"sets"`
	SetAge    float64 `json:"set_age_s"`
	Err       string  `json:"error"`
	Failures  uint64  `json:"failures"`
	Endpoints int     `json:"endpoints"`
}

// A fleetEndpointJSON is an endpoint of a fleet in JSON.
type fleetEndpointJSON struct {
	Fleet     string  `json:"fleet"`
	Addr      string  `json:"address"`
	Name      string  `json:"name"`
	Weight    int     `json:"weight"`
	Tag       string  `json:"tag"`
	State     string  `json:"state"`
	Conns     int     `json:"conns"`
	Streams   int     `json:"streams"`
	Opens     uint64  `json:"opens"`
	Ejections uint64  `json:"ejections"`
	Left      float64 `json:"left_s"`
	Err       string  `json:"error"`
}

// A fleetRow is an endpoint of a fleet.
type fleetRow struct {
	fleet string
	fleet.EndpointInfo
}

var fleetKeys = map[string]func(*fleetRow) float64{
	"state":     func(r *fleetRow) float64 { return stateKey(r.State) },
	"streams":   func(r *fleetRow) float64 { return float64(r.Streams) },
	"opens":     func(r *fleetRow) float64 { return float64(r.Opens) },
	"ejections": func(r *fleetRow) float64 { return float64(r.Ejections) },
	"weight":    func(r *fleetRow) float64 { return float64(r.Weight) },
}

// stateKey puts endpoints that get no calls first.
func stateKey(s kernel.State) float64 {
	switch s {
	case kernel.StateTransientFailure:
		return 5
	case fleet.StateEjected:
		return 4
	case fleet.StateDraining:
		return 3
	case kernel.StateConnecting:
		return 2
	case kernel.StateReady:
		return 1
	}
	return 0
}

func (h *Handler) fleets(r *http.Request) (lens, error) {
	l, err := listOf(r, "state", fleetKeys)
	return &fleetsLens{h: h, list: l, search: strings.ToLower(l.query.Get("q")), fleet: l.query.Get("fleet")}, err
}

func (l *fleetsLens) view(*sample) *view {
	fleets, names, ranks := []fleetJSON{}, []string{}, top[fleetRow]{most: l.list.most()}
	t := l.table()
	for _, s := range l.h.all() {
		if s.fleet == nil {
			continue
		}
		names = append(names, s.name)
		i := s.fleet.Snapshot()
		d := fleetJSON{
			Name: s.name, Target: i.Target, Balancer: i.Balancer.String(), State: fleetState(&i), Sets: i.Sets,
			SetAge: seconds(i.SetAge), Err: i.Err, Failures: i.Failures, Endpoints: len(i.Endpoints),
		}
		fleets = append(fleets, d)
		t.Rows = append(t.Rows, d.cells(i.SetAge))
		l.rank(&ranks, s.name, &i)
	}
	rows := ranks.rows(l.list.offset)
	f := &filter{
		Search:  field{"q", l.list.query.Get("q"), "address, tag or state"},
		Choices: []choice{choices("fleet", "of", l.fleet, "all fleets", names...)},
	}
	if l.fleet+l.search != "" {
		f.Clear = "fleets"
	}
	return &view{Title: "Fleets", Filter: f, Tables: []table{t, l.endpoints(rows, ranks.seen)}, data: func() any {
		d := struct {
			Fleets []fleetJSON `json:"fleets"`
			listJSON[fleetEndpointJSON]
		}{fleets, listJSON[fleetEndpointJSON]{ranks.seen, l.list.offset, []fleetEndpointJSON{}}}
		for i := range rows {
			d.Rows = append(d.Rows, rows[i].row.json())
		}
		return d
	}}
}

// rank adds the endpoints of a fleet that match.
func (l *fleetsLens) rank(ranks *top[fleetRow], name string, i *fleet.Info) {
	if l.fleet != "" && l.fleet != name {
		return
	}
	for _, e := range i.Endpoints {
		if l.search != "" && !strings.Contains(strings.ToLower(e.Addr+" "+e.Tag+" "+string(e.State)), l.search) {
			continue
		}
		r := fleetRow{name, e}
		at := order{l.list.key(fleetKeys[l.list.sort](&r)), uint64(ranks.seen), 0}
		if ranks.takes(at) {
			ranks.add(at, r)
		}
	}
}

// table is the fleets, without rows.
func (l *fleetsLens) table() table {
	return table{Key: "fleets", Title: "Fleets", Empty: "Handler.AddFleet has been given none.", Columns: []column{
		{Name: "name", Class: "t", Width: 14}, {Name: "target", Class: "t", Width: 30}, {Name: "balancer", Class: "t", Width: 14},
		{Name: "ready", Class: "t", Width: 12, Help: "endpoints that are connected and not ejected"},
		{Name: "sets", Class: "n", Width: 8, Help: "sets of endpoints that the registry has given"}, {Name: "the last", Class: "n", Width: 10, Help: "since then"},
		{Name: "failures", Class: "n", Width: 10, Help: "to connect"}, {Name: "the registry's error", Class: "w", Width: 44},
	}}
}

func (d *fleetJSON) cells(age time.Duration) row {
	err := dim(unknown, true)
	if d.Err != "" {
		err = cell{Text: clean(d.Err), Class: "warn"}
	}
	return row{d.Name, []cell{
		linked(d.Name, "fleets?fleet="+url.QueryEscape(d.Name)), text(clean(d.Target)), text(d.Balancer), text(d.State),
		number(d.Sets), dim(duration(age), d.Sets == 0), number(d.Failures), err,
	}}
}

// fleetState is how many endpoints of a fleet get calls.
func fleetState(i *fleet.Info) string {
	ready, all := 0, 0
	for _, e := range i.Endpoints {
		if e.State != fleet.StateDraining {
			all++
		}
		if e.State == kernel.StateReady {
			ready++
		}
	}
	return count(ready) + " of " + count(all)
}

func (l *fleetsLens) endpoints(rows []ranked[fleetRow], matching int) table {
	t := table{Key: "endpoints", Title: "Endpoints", Empty: "No endpoint matches.", Columns: l.list.sorted([]column{
		{Name: "address", Class: "t", Width: 24}, {Name: "fleet", Class: "t", Width: 14}, {Name: "state", Class: "t", Width: 18, Sort: "state", Help: "those first that get no calls"},
		{Name: "again in", Class: "n", Width: 9, Help: "until it is tried again"}, {Name: "connections", Class: "n", Width: 11},
		{Name: "streams", Class: "n", Width: 8, Sort: "streams"}, {Name: "opens", Class: "n", Width: 12, Sort: "opens", Help: "calls and opens that went there"},
		{Name: "ejections", Class: "n", Width: 9, Sort: "ejections"}, {Name: "weight", Class: "n", Width: 7, Sort: "weight"},
		{Name: "tag", Class: "t", Width: 12}, {Name: "error", Class: "w", Width: 40},
	})}
	t.Note, t.More = l.list.pages(len(rows), matching)
	for i := range rows {
		t.Rows = append(t.Rows, rows[i].row.cells())
	}
	return t
}

func (r *fleetRow) cells() row {
	state := cell{Text: string(r.State)}
	switch r.State {
	case kernel.StateTransientFailure, fleet.StateEjected:
		state.Class = "warn"
	}
	return row{r.fleet + " " + r.Addr + " " + r.Name, []cell{
		text(clean(r.Addr)), text(r.fleet), state, dim(duration(r.Left), r.Left == 0), number(r.Conns), number(r.Streams), number(r.Opens),
		loud(r.Ejections), number(r.Weight), text(clean(r.Tag)), text(clean(r.Err)),
	}}
}

func (r *fleetRow) json() fleetEndpointJSON {
	return fleetEndpointJSON{
		Fleet: r.fleet, Addr: r.Addr, Name: r.Name, Weight: r.Weight, Tag: r.Tag, State: string(r.State), Conns: r.Conns, Streams: r.Streams,
		Opens: r.Opens, Ejections: r.Ejections, Left: seconds(r.Left), Err: r.Err,
	}
}
