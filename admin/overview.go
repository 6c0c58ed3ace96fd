package admin

import (
	"math/bits"
	"net/http"
	"net/url"
	"runtime/metrics"
	"slices"
	"strconv"
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// An overviewLens answers who is blocked, on whom, and since when.
type overviewLens struct {
	h   *Handler
	now time.Time

	conns, streams, draining int
	rates                    both
	waiting, stuck, opening  int
	unread, unreadBytes      int
	queued                   int
	mailboxes                [64]int // streams by how many messages wait in their mailbox, in powers of 2
	groups                   map[waitKey]*waitGroup
	bySource                 map[*source]*sourceCount
}

type sourceCount struct{ conns, streams int }

// A waitKey is what streams wait for, and on whom: a connection, or a method of this program's.
type waitKey struct {
	on     kernel.BlockedOn
	conn   uint64 // 0: any
	method string // empty: any
	opener bool
}

// A waitGroup is the streams, or the connection, that wait for one thing.
type waitGroup struct {
	key     waitKey
	by      string
	from    string
	n       int // streams that have waited for stuckTime; 0: it is the connection itself
	longest time.Duration
	first   string // the stream that has waited the longest
	method  string // its
}

func (h *Handler) overview(*http.Request) (lens, error) { return &overviewLens{h: h}, nil }

func (l *overviewLens) looks() bool { return true }

func (l *overviewLens) begin(now time.Time) {
	*l = overviewLens{h: l.h, now: now, groups: l.groups, bySource: l.bySource}
	if l.groups == nil {
		l.groups, l.bySource = map[waitKey]*waitGroup{}, map[*source]*sourceCount{}
	}
	clear(l.groups)
	clear(l.bySource)
}

func (l *overviewLens) conn(r *connRow) bool {
	c := l.bySource[r.from]
	if c == nil {
		c = &sourceCount{}
		l.bySource[r.from] = c
	}
	c.conns++
	c.streams += r.info.Streams
	l.conns++
	l.queued += r.info.Queued
	if r.info.State == "draining" {
		l.draining++
	}
	if r.rates.in.messages >= 0 {
		add(&l.rates.in, r.rates.in)
		add(&l.rates.out, r.rates.out)
	}
	if on, d := r.info.BlockedOn, r.info.BlockedFor; on != kernel.BlockedOnNothing && d >= stuckTime {
		g := l.group(waitKey{on: on, conn: r.info.ID}, r)
		g.by = r.by()
		g.longest = max(g.longest, d)
	}
	return r.info.Streams > 0
}

func add(to *rates, r rates) {
	to.messages += r.messages
	to.bytes += r.bytes
}

func (l *overviewLens) group(k waitKey, r *connRow) *waitGroup {
	g := l.groups[k]
	if g == nil {
		g = &waitGroup{key: k, from: r.from.name}
		l.groups[k] = g
	}
	return g
}

func (l *overviewLens) stream(r *streamRow) {
	i := &r.info
	l.streams++
	l.unread += i.MailboxMessages
	l.unreadBytes += i.MailboxBytes
	l.mailboxes[bits.Len(uint(i.MailboxMessages))]++
	on, d := r.blockedOn()
	switch {
	case on == kernel.BlockedOnNothing:
		return
	case on == acceptance:
		if d >= stuckTime {
			l.opening++
		}
		return
	}
	l.waiting++
	if d < stuckTime {
		return
	}
	l.stuck++
	k := waitKey{on: on, conn: r.conn.info.ID}
	if on == kernel.BlockedOnReader {
		k = waitKey{on: on, method: i.Method, opener: i.Opener}
	}
	g := l.group(k, r.conn)
	g.n++
	if d > g.longest || g.first == "" {
		g.longest, g.first, g.method, g.by = d, streamID(r.conn.info.ID, i.ID), i.Method, r.by()
	}
}

// sorted returns the groups, the longest wait first.
func (l *overviewLens) sorted() []*waitGroup {
	gs := make([]*waitGroup, 0, len(l.groups))
	for _, g := range l.groups {
		gs = append(gs, g)
	}
	slices.SortFunc(gs, func(a, b *waitGroup) int {
		x, y := order{float64(a.longest / time.Millisecond), a.key.conn, 0}, order{float64(b.longest / time.Millisecond), b.key.conn, 0}
		switch {
		case x.before(y):
			return -1
		case y.before(x):
			return 1
		}
		return 0
	})
	return gs
}

func (l *overviewLens) view(s *sample) *view {
	gs := l.sorted()
	v := &view{Title: "Overview", Lead: l.lead(gs)}
	l.figures(v, s)
	v.Tables = []table{l.blocked(gs), l.endpoints()}
	v.data = func() any { return l.data(gs) }
	return v
}

// lead says in a sentence whether something is blocked.
func (l *overviewLens) lead(gs []*waitGroup) []line {
	if len(gs) == 0 {
		return []line{nothing}
	}
	g := gs[0]
	text := plural(l.stuck, "stream") + " blocked for 1 s or longer. The first"
	if l.stuck == 0 {
		text = "No stream, but a connection is blocked. It"
	}
	if g.first != "" {
		text += " is " + g.first + " (" + clean(g.method) + "): it"
	}
	text += " has waited for " + duration(g.longest) + ", since " + clock(l.now.Add(-g.longest), l.now) + ", for " + g.by + "."
	return []line{{Text: text, Href: g.href(), Class: waitClass(g.key.on, g.longest)}}
}

// href leads to the streams that wait.
func (g *waitGroup) href() string {
	if g.n == 0 {
		return "conns/" + strconv.FormatUint(g.key.conn, 10)
	}
	q := url.Values{"on": {string(g.key.on)}, "sort": {"blocked"}}
	if g.key.conn != 0 {
		q.Set("conn", strconv.FormatUint(g.key.conn, 10))
	}
	if g.key.method != "" {
		q.Set("method", g.key.method)
	}
	return "streams?" + q.Encode()
}

// mostGroups is how many groups of blocked streams the page has.
const mostGroups = 12

func (l *overviewLens) blocked(gs []*waitGroup) table {
	t := table{Key: "blocked", Title: "Blocked for 1 s or longer", Empty: "Nothing.", Columns: []column{
		{Name: "waits for", Class: "t", Width: 16}, {Name: "longest", Class: "n", Width: 10}, {Name: "since", Class: "t", Width: 12}, {Name: "streams", Class: "n", Width: 8},
		{Name: "the first", Class: "t", Width: 11}, {Name: "on whom", Class: "w", Width: 62}, {Name: "endpoint", Class: "t", Width: 12},
	}}
	if l.waiting > l.stuck {
		t.Note = plural(l.waiting-l.stuck, "more stream") + " for less: under load that is so at any moment"
	}
	for i, g := range gs {
		if i == mostGroups {
			t.More = append(t.More, link{"all of them", "streams?on=any&sort=blocked"})
			break
		}
		class := waitClass(g.key.on, g.longest)
		first := dim(unknown, true)
		if g.first != "" {
			first = linked(g.first, "streams/"+g.first)
		}
		t.Rows = append(t.Rows, row{g.rowKey(), []cell{
			{Text: string(g.key.on), Href: g.href(), Class: class}, {Text: duration(g.longest), Class: class}, text(clock(l.now.Add(-g.longest), l.now)), number(g.n),
			first, text(g.by), text(g.from),
		}})
	}
	return t
}

func (g *waitGroup) rowKey() string {
	return string(g.key.on) + " " + strconv.FormatUint(g.key.conn, 10) + " " + strconv.FormatBool(g.key.opener) + " " + g.key.method
}

func (l *overviewLens) endpoints() table {
	t := table{Key: "endpoints", Title: "Servers, clients and fleets", Empty: "Handler.AddServer, AddClient and AddFleet have been given none.", Columns: []column{
		{Name: "name", Class: "t", Width: 16}, {Name: "is a", Class: "t", Width: 8}, {Name: "state", Class: "t", Width: 18},
		{Name: "connections", Class: "n", Width: 12}, {Name: "streams", Class: "n", Width: 10}, {Name: "memory", Class: "n", Width: 10, Help: "bytes that count against Limits.Memory"},
		{Name: "accepted", Class: "n", Width: 12, Help: "connections that completed their handshake"}, {Name: "refused", Class: "n", Width: 10, Help: "connections closed at once, because of a limit"},
		{Name: "failed", Class: "n", Width: 10, Help: "handshakes that failed"}, {Name: "panics", Class: "n", Width: 8},
		{Name: "evicted", Class: "n", Width: 8, Help: "streams and connections ended because of Limits.Memory"},
	}}
	for _, s := range l.h.all() {
		st, c := s.stats(), l.bySource[s]
		if c == nil {
			c = &sourceCount{}
		}
		t.Rows = append(t.Rows, row{s.name, []cell{
			linked(s.name, "conns?endpoint="+url.QueryEscape(s.name)), text(s.kind()), {Text: s.state(), Class: s.stateClass()},
			number(c.conns), number(c.streams), bytes(st.Memory), number(st.Accepted), loud(st.Refused), loud(st.Failed), loud(st.Panics), loud(st.Evicted),
		}})
	}
	return t
}

// loud is a number that should be 0.
func loud(n uint64) cell {
	if n > 0 {
		return cell{Text: count(n), Class: "warn"}
	}
	return number(n)
}

func (s *source) kind() string {
	switch {
	case s.srv != nil:
		return "server"
	case s.fleet != nil:
		return "fleet"
	}
	return "client"
}

func (s *source) stats() kernel.Stats {
	switch {
	case s.srv != nil:
		return s.srv.Stats()
	case s.fleet != nil:
		return kernel.Stats{Conns: len(s.fleet.Conns())}
	}
	return s.client.Stats()
}

func (s *source) drains() bool {
	if s.srv == nil {
		return false
	}
	select {
	case <-s.srv.Draining():
		return true
	default:
		return false
	}
}

func (s *source) state() string {
	switch {
	case s.drains():
		return "draining"
	case s.srv != nil:
		return "serving"
	case s.fleet != nil:
		i := s.fleet.Snapshot()
		return fleetState(&i)
	}
	state, _ := s.client.State()
	return string(state)
}

func (s *source) stateClass() string {
	switch state := s.state(); state {
	case "draining", string(kernel.StateTransientFailure):
		return "warn"
	}
	return ""
}

// figures are what is worth a look from afar.
func (l *overviewLens) figures(v *view, s *sample) {
	put := func(key, name string, value float64, write func(float64) string, note, class string) {
		v.Figures = append(v.Figures, figure{Key: key, Name: name, Value: write(value), Note: note, Class: class, Spark: points(s.past.add(key, value))})
	}
	whole := func(v float64) string { return count(int64(v)) }
	stuck := ""
	if l.stuck > 0 {
		stuck = "warn"
	}
	in, out := l.rates.in, l.rates.out
	goroutines, heap := process()
	put("waiting", "blocked", float64(l.waiting), whole, count(l.stuck)+" for over 1 s", stuck)
	put("streams", "streams", float64(l.streams), whole, count(l.opening)+" opening", "")
	put("conns", "connections", float64(l.conns), whole, count(l.draining)+" draining", "")
	put("in", "in, msg/s", in.messages, rate, size(in.bytes)+"/s", "")
	put("out", "out, msg/s", out.messages, rate, size(out.bytes)+"/s", "")
	put("unread", "unread, msg", float64(l.unread), whole, size(float64(l.unreadBytes)), "")
	put("mailbox", "mailbox p99", float64(l.mailboxP99()), whole, "msg of a stream", "")
	put("queued", "not written", float64(l.queued), size, "bytes of credit", "")
	put("goroutines", "goroutines", goroutines, whole, "", "")
	put("heap", "heap", heap, size, "up for "+duration(l.now.Sub(l.h.began)), "")
}

// mailboxP99 is how many messages wait in 99 of 100 streams at most, as a power of 2 less 1.
func (l *overviewLens) mailboxP99() int {
	rest := l.streams / 100
	for i := len(l.mailboxes) - 1; i > 0; i-- {
		if rest -= l.mailboxes[i]; rest < 0 {
			return 1<<i - 1
		}
	}
	return 0
}

// process returns figures of the process.
func process() (goroutines, heap float64) {
	samples := []metrics.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(samples)
	return float64(samples[0].Value.Uint64()), float64(samples[1].Value.Uint64())
}

type blockedJSON struct {
	On      string    `json:"blocked_on"`
	By      string    `json:"blocked_by"`
	For     float64   `json:"blocked_for_s"`
	Since   time.Time `json:"blocked_since"`
	Streams int       `json:"streams"`
	First   string    `json:"first"`
	Method  string    `json:"method"`
	Conn    uint64    `json:"conn"`
}

type endpointJSON struct {
	Name            string `json:"name"`
	Kind            string `json:"kind"`
	State           string `json:"state"`
	Conns           int    `json:"conns"`
	Streams         int    `json:"streams"`
	Memory          int    `json:"memory_bytes"`
	Accepted        uint64 `json:"accepted"`
	Refused         uint64 `json:"refused"`
	Failed          uint64 `json:"failed"`
	UnknownProtocol uint64 `json:"unknown_protocol"`
	Panics          uint64 `json:"panics"`
	Evicted         uint64 `json:"evicted"`
	ObserverDropped uint64 `json:"observer_dropped"`
}

type overviewJSON struct {
	Blocked       []blockedJSON  `json:"blocked"`
	Endpoints     []endpointJSON `json:"endpoints"`
	Conns         int            `json:"conns"`
	Streams       int            `json:"streams"`
	Waiting       int            `json:"streams_blocked"`
	Stuck         int            `json:"streams_blocked_1s"`
	Opening       int            `json:"streams_opening_1s"`
	MessagesIn    float64        `json:"messages_in_per_s"`
	MessagesOut   float64        `json:"messages_out_per_s"`
	BytesIn       float64        `json:"bytes_in_per_s"`
	BytesOut      float64        `json:"bytes_out_per_s"`
	Unread        int            `json:"mailbox_messages"`
	UnreadBytes   int            `json:"mailbox_bytes"`
	MailboxP99    int            `json:"mailbox_messages_p99"`
	Queued        int            `json:"queued_bytes"`
	Goroutines    int            `json:"goroutines"`
	HeapBytes     int            `json:"heap_bytes"`
	UptimeSeconds float64        `json:"uptime_s"`
}

func (l *overviewLens) data(gs []*waitGroup) overviewJSON {
	goroutines, heap := process()
	d := overviewJSON{
		Blocked: []blockedJSON{}, Endpoints: []endpointJSON{}, Conns: l.conns, Streams: l.streams,
		Waiting: l.waiting, Stuck: l.stuck, Opening: l.opening,
		MessagesIn: l.rates.in.messages, MessagesOut: l.rates.out.messages, BytesIn: l.rates.in.bytes, BytesOut: l.rates.out.bytes,
		Unread: l.unread, UnreadBytes: l.unreadBytes, MailboxP99: l.mailboxP99(), Queued: l.queued,
		Goroutines: int(goroutines), HeapBytes: int(heap), UptimeSeconds: seconds(l.now.Sub(l.h.began)),
	}
	for _, g := range gs[:min(len(gs), mostRows)] {
		d.Blocked = append(d.Blocked, blockedJSON{
			string(g.key.on), g.by, seconds(g.longest), l.now.Add(-g.longest), g.n, g.first, g.method, g.key.conn,
		})
	}
	for _, s := range l.h.all() {
		st, c := s.stats(), l.bySource[s]
		if c == nil {
			c = &sourceCount{}
		}
		d.Endpoints = append(d.Endpoints, endpointJSON{
			s.name, s.kind(), s.state(), c.conns, c.streams, st.Memory, st.Accepted, st.Refused, st.Failed,
			st.UnknownProtocol, st.Panics, st.Evicted, st.ObserverDropped,
		})
	}
	return d
}
