package admin

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// A connsLens is the list of connections.
type connsLens struct {
	list
	now              time.Time
	endpoint, search string
	key              func(*connRow) float64
	top              top[connRow]
	endpoints        []string
}

var connKeys = map[string]func(*connRow) float64{
	"blocked": func(r *connRow) float64 { return float64(r.info.BlockedFor / time.Millisecond) },
	"id":      func(*connRow) float64 { return 0 },
	"streams": func(r *connRow) float64 { return float64(r.info.Streams) },
	"rate":    func(r *connRow) float64 { return r.rates.total().messages },
	"bytes":   func(r *connRow) float64 { return r.rates.total().bytes },
	"unread":  func(r *connRow) float64 { return float64(r.info.Unread) },
	"queued":  func(r *connRow) float64 { return float64(r.info.Queued) },
	"memory":  func(r *connRow) float64 { return float64(r.info.Memory) },
	"rtt":     func(r *connRow) float64 { return float64(r.info.RTT) },
	"idle":    func(r *connRow) float64 { return float64(r.info.Idle / time.Millisecond) },
	"age":     func(r *connRow) float64 { return float64(r.info.Age / time.Millisecond) },
}

func (h *Handler) conns(r *http.Request) (lens, error) {
	l, err := listOf(r, "blocked", connKeys)
	k := &connsLens{list: l, endpoint: l.query.Get("endpoint"), search: strings.ToLower(l.query.Get("q")), key: connKeys[l.sort], top: top[connRow]{most: l.most()}}
	for _, s := range h.all() {
		k.endpoints = append(k.endpoints, s.name)
	}
	return k, err
}

func (l *connsLens) looks() bool { return true }

func (l *connsLens) begin(now time.Time) {
	l.now = now
	l.top.reset()
}

func (l *connsLens) conn(r *connRow) bool {
	id := strconv.FormatUint(r.info.ID, 10)
	if l.endpoint != "" && l.endpoint != r.from.name ||
		l.search != "" && !strings.Contains(r.info.Peer, l.search) && !strings.Contains(r.info.Protocol, l.search) && id != l.search {
		return false
	}
	at := order{l.list.key(l.key(r)), r.info.ID, 0}
	if l.top.takes(at) {
		l.top.add(at, *r)
	}
	return false
}

func (l *connsLens) stream(*streamRow) {}

func (l *connsLens) view(*sample) *view {
	rows := l.top.rows(l.offset)
	f := &filter{
		Search:  field{"q", l.query.Get("q"), "peer, protocol or number"},
		Choices: []choice{choices("endpoint", "of", l.endpoint, "all servers and clients", l.endpoints...)},
	}
	if l.query.Get("sort") != "" {
		f.Hidden = []field{{Name: "sort", Value: l.sort}, {Name: "up", Value: l.query.Get("up")}}
	}
	if l.endpoint+l.search != "" {
		f.Clear = "conns"
	}
	t := table{Key: "conns", Title: "Open connections", Columns: l.sorted(connColumns()), Empty: "No open connection matches."}
	t.Note, t.More = l.pages(len(rows), l.top.seen)
	for i := range rows {
		t.Rows = append(t.Rows, connCells(&rows[i].row))
	}
	return &view{Title: "Connections", Filter: f, Tables: []table{t}, data: func() any {
		d := listJSON[connJSON]{l.top.seen, l.offset, []connJSON{}}
		for i := range rows {
			d.Rows = append(d.Rows, rows[i].row.json(l.now))
		}
		return d
	}}
}

func connColumns() []column {
	return []column{
		{Name: "connection", Class: "t", Width: 9, Sort: "id", Help: "its number among all that the process has had"},
		{Name: "peer", Class: "t", Width: 19},
		{Name: "endpoint", Class: "t", Width: 10},
		{Name: "protocol", Class: "t", Width: 10},
		{Name: "state", Class: "t", Width: 8},
		{Name: "blocked on", Class: "t", Width: 15, Help: "what its output waits for, or its reader"},
		{Name: "for", Class: "n", Width: 9, Sort: "blocked"},
		{Name: "streams", Class: "n", Width: 8, Sort: "streams"},
		{Name: "msg/s", Class: "n", Width: 7, Sort: "rate", Help: "messages a second, both ways"},
		{Name: "bytes/s", Class: "n", Width: 10, Sort: "bytes", Help: "bytes a second, both ways"},
		{Name: "unread", Class: "n", Width: 9, Sort: "unread", Help: "bytes of credit that have arrived and were not taken"},
		{Name: "queued", Class: "n", Width: 9, Sort: "queued", Help: "bytes of credit accepted and not written"},
		{Name: "in flight", Class: "n", Width: 9, Help: "bytes written that the peer has not read"},
		{Name: "memory", Class: "n", Width: 9, Sort: "memory", Help: "bytes that count against Limits.Memory"},
		{Name: "rtt", Class: "n", Width: 7, Sort: "rtt", Help: "the shortest round trip"},
		{Name: "loop", Class: "n", Width: 4, Help: "the event loop that reads it; –: a goroutine of its own"},
		{Name: "idle", Class: "n", Width: 9, Sort: "idle", Help: "since bytes arrived"},
		{Name: "age", Class: "n", Width: 9, Sort: "age"},
	}
}

func connCells(r *connRow) row {
	i := &r.info
	id := strconv.FormatUint(i.ID, 10)
	wait := waitCells(i.BlockedOn, i.BlockedFor)
	state := dim(i.State, i.State == "open")
	if i.State == "draining" {
		state.Class = "warn"
	}
	total := r.rates.total()
	return row{id, []cell{
		linked(id, "conns/"+id), text(r.peer()), text(r.from.name), text(r.protocol()), state, wait[0], wait[1], number(i.Streams),
		perSecond(total.messages), byteRate(total.bytes), bytes(i.Unread), bytes(i.Queued), bytes(i.InFlight), bytes(i.Memory),
		roundTrip(i), loopOf(i), dim(duration(i.Idle), i.Idle < time.Second), text(duration(i.Age)),
	}}
}

func (r *connRow) protocol() string {
	if r.info.TLS {
		return r.info.Protocol + ", TLS"
	}
	return r.info.Protocol
}

func roundTrip(i *kernel.ConnInfo) cell {
	if i.RTT == 0 {
		return dim(unknown, true)
	}
	return text(duration(i.RTT))
}

func loopOf(i *kernel.ConnInfo) cell {
	if i.Loop < 0 {
		return dim(unknown, true)
	}
	return text(strconv.Itoa(i.Loop))
}
