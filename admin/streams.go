package admin

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// A streamsLens is the list of streams: those that match, the first of them in an order.
type streamsLens struct {
	list
	now  time.Time
	want streamFilter
	key  func(*streamRow) float64
	top  top[streamRow]
	all  int // streams that were looked at
}

// A streamFilter says which streams match. What is empty matches all.
type streamFilter struct {
	conn     uint64
	endpoint string
	method   string // the whole name
	search   string // a part of the method's name, of the peer or of the id
	state    string
	on       kernel.BlockedOn
}

// anyBlock matches every stream that is blocked.
const anyBlock kernel.BlockedOn = "any"

var streamKeys = map[string]func(*streamRow) float64{
	"blocked":  waitKeyOf,
	"id":       func(*streamRow) float64 { return 0 },
	"mailbox":  func(r *streamRow) float64 { return float64(r.info.MailboxMessages) },
	"unread":   func(r *streamRow) float64 { return float64(r.info.MailboxBytes) },
	"queued":   func(r *streamRow) float64 { return float64(r.info.QueuedBytes) },
	"rate":     func(r *streamRow) float64 { return r.rates.messages },
	"bytes":    func(r *streamRow) float64 { return r.rates.bytes },
	"messages": func(r *streamRow) float64 { return float64(r.info.MessagesSent + r.info.MessagesReceived) },
	"idle":     func(r *streamRow) float64 { return float64(r.info.Idle / time.Millisecond) },
	"age":      func(r *streamRow) float64 { return float64(r.info.Age / time.Millisecond) },
	"deadline": func(r *streamRow) float64 {
		if r.info.DeadlineLeft == 0 {
			return -1e18
		}
		return -float64(r.info.DeadlineLeft / time.Millisecond)
	},
}

// waitKeyOf puts who has waited the longest first, and behind those all that are only not
// accepted yet.
func waitKeyOf(r *streamRow) float64 {
	switch on, d := r.blockedOn(); on {
	case kernel.BlockedOnNothing:
		return 0
	case acceptance:
		return 0.5
	default:
		return float64(1 + d/time.Millisecond)
	}
}

func (h *Handler) streams(r *http.Request) (lens, error) {
	l, err := listOf(r, "blocked", streamKeys)
	if err != nil {
		return nil, err
	}
	want, err := streamFilterOf(l.query)
	return &streamsLens{list: l, want: want, key: streamKeys[l.sort], top: top[streamRow]{most: l.most()}}, err
}

func streamFilterOf(q url.Values) (f streamFilter, err error) {
	f = streamFilter{
		endpoint: q.Get("endpoint"), method: q.Get("method"), search: strings.ToLower(q.Get("q")),
		state: q.Get("state"), on: kernel.BlockedOn(q.Get("on")),
	}
	if c := q.Get("conn"); c != "" {
		if f.conn, err = strconv.ParseUint(c, 10, 64); err != nil {
			return f, badRequest("conn is a connection's number")
		}
	}
	return f, nil
}

// matchesConn reports whether streams of a connection can match.
func (f *streamFilter) matchesConn(r *connRow) bool {
	return (f.conn == 0 || f.conn == r.info.ID) && (f.endpoint == "" || f.endpoint == r.from.name)
}

func (f *streamFilter) matches(r *streamRow) bool {
	i := &r.info
	if !f.matchesConn(r.conn) || f.method != "" && f.method != i.Method || f.state != "" && f.state != i.State {
		return false
	}
	if f.on != "" {
		if on, _ := r.blockedOn(); on != f.on && (f.on != anyBlock || on == kernel.BlockedOnNothing) {
			return false
		}
	}
	return f.search == "" || strings.Contains(strings.ToLower(i.Method), f.search) || strings.Contains(r.conn.info.Peer, f.search) ||
		strings.Contains(streamID(r.conn.info.ID, i.ID), f.search)
}

func (l *streamsLens) looks() bool { return true }

func (l *streamsLens) begin(now time.Time) {
	l.now, l.all = now, 0
	l.top.reset()
}

func (l *streamsLens) conn(r *connRow) bool { return r.info.Streams > 0 && l.want.matchesConn(r) }

func (l *streamsLens) stream(r *streamRow) {
	l.all++
	if !l.want.matches(r) {
		return
	}
	at := order{l.list.key(l.key(r)), r.conn.info.ID, r.info.ID}
	if l.top.takes(at) {
		row := *r
		row.conn = r.conn.keep()
		l.top.add(at, row)
	}
}

type listJSON[T any] struct {
	Matching int `json:"matching"`
	Offset   int `json:"offset"`
	Rows     []T `json:"rows"`
}

func (l *streamsLens) view(*sample) *view {
	rows := l.top.rows(l.offset)
	v := &view{Title: "Streams", Filter: l.filter()}
	v.Lead = l.lead(rows)
	t := table{Key: "streams", Title: "Open streams", Columns: l.sorted(streamColumns()), Empty: "No open stream matches."}
	t.Note, t.More = l.pages(len(rows), l.top.seen)
	for i := range rows {
		t.Rows = append(t.Rows, streamCells(&rows[i].row, l.now))
	}
	v.Tables = []table{t}
	v.data = func() any {
		d := listJSON[streamJSON]{l.top.seen, l.offset, []streamJSON{}}
		for i := range rows {
			d.Rows = append(d.Rows, rows[i].row.json(l.now))
		}
		return d
	}
	return v
}

// lead says what the first row waits for, where that is what is asked for.
func (l *streamsLens) lead(rows []ranked[streamRow]) []line {
	if l.list.sort != "blocked" || l.up || l.offset > 0 {
		return nil
	}
	if len(rows) == 0 {
		return []line{nothing}
	}
	r := &rows[0].row
	on, d := r.blockedOn()
	if on == kernel.BlockedOnNothing || on == acceptance || d < stuckTime {
		return []line{nothing}
	}
	id := streamID(r.conn.info.ID, r.info.ID)
	return []line{{
		Text:  "Stream " + id + " has waited the longest, for " + duration(d) + ", since " + clock(l.now.Add(-d), l.now) + ": for " + r.by() + ".",
		Class: waitClass(on, d),
	}}
}

func (l *streamsLens) filter() *filter {
	f := &filter{Search: field{"q", l.query.Get("q"), "method, peer or id"}}
	for _, name := range []string{"sort", "up", "conn", "method", "endpoint"} {
		if v := l.query.Get(name); v != "" {
			f.Hidden = append(f.Hidden, field{Name: name, Value: v})
		}
	}
	f.Choices = []choice{
		choices("on", "blocked on", l.query.Get("on"), "anything or nothing", string(anyBlock), string(kernel.BlockedOnReader), string(kernel.BlockedOnStreamCredit),
			string(kernel.BlockedOnConnCredit), string(kernel.BlockedOnQueue), string(kernel.BlockedOnSocket), string(acceptance)),
		choices("state", "state", l.query.Get("state"), "any", "opening", "open", "half-closed (local)", "half-closed (remote)", "closing"),
	}
	if l.want != (streamFilter{}) {
		f.Clear = "streams"
	}
	return f
}

// choices is a choice with the option that is selected; the empty value has a name of its own.
func choices(name, label, selected, none string, values ...string) choice {
	c := choice{Name: name, Label: label, Options: []option{{"", none, selected == ""}}}
	for _, v := range values {
		c.Options = append(c.Options, option{v, v, v == selected})
	}
	return c
}

func streamColumns() []column {
	return []column{
		{Name: "stream", Class: "t", Width: 9, Sort: "id", Help: "number of the connection, and the stream's on the wire: the peer's is the same"},
		{Name: "method", Class: "w", Width: 20},
		{Name: "blocked on", Class: "t", Width: 15, Help: "what it waits for"},
		{Name: "for", Class: "n", Width: 9, Sort: "blocked", Help: "for how long"},
		{Name: "peer", Class: "t", Width: 18},
		{Name: "state", Class: "t", Width: 13},
		{Name: "mailbox", Class: "n", Width: 8, Sort: "mailbox", Help: "messages that have arrived and were not taken"},
		{Name: "unread", Class: "n", Width: 9, Sort: "unread", Help: "bytes of those"},
		{Name: "queued", Class: "n", Width: 9, Sort: "queued", Help: "bytes accepted from this program and not written"},
		{Name: "credit", Class: "n", Width: 9, Help: "bytes that this side may still send"},
		{Name: "msg/s", Class: "n", Width: 7, Sort: "rate", Help: "messages a second, both ways"},
		{Name: "bytes/s", Class: "n", Width: 10, Sort: "bytes", Help: "bytes a second, both ways"},
		{Name: "messages", Class: "n", Width: 11, Sort: "messages", Help: "both ways, from its start"},
		{Name: "idle", Class: "n", Width: 9, Sort: "idle", Help: "since something has arrived"},
		{Name: "age", Class: "n", Width: 9, Sort: "age"},
		{Name: "deadline", Class: "n", Width: 8, Sort: "deadline", Help: "time that is left"},
	}
}

func streamCells(r *streamRow, now time.Time) row {
	i := &r.info
	id := streamID(r.conn.info.ID, i.ID)
	on, d := r.blockedOn()
	wait := waitCells(on, d)
	name := text(id)
	if i.ID != 0 {
		name = linked(id, "streams/"+id)
	}
	deadline := dim(unknown, true)
	if i.DeadlineLeft != 0 {
		deadline = text(duration(i.DeadlineLeft))
	}
	return row{id, []cell{
		name, text(clean(i.Method)), wait[0], wait[1],
		linked(r.conn.peer(), "conns/"+strconv.FormatUint(r.conn.info.ID, 10)), dim(i.State, i.State == "open"), number(i.MailboxMessages), bytes(i.MailboxBytes), bytes(i.QueuedBytes),
		bytes(max(i.SendGranted-i.SendUsed, 0)), perSecond(r.rates.messages), byteRate(r.rates.bytes),
		number(i.MessagesSent + i.MessagesReceived), dim(duration(i.Idle), i.Idle < time.Second), text(duration(i.Age)), deadline,
	}}
}

// byteRate is bytes a second.
func byteRate(v float64) cell { return dim(size(v), v <= 0) }
