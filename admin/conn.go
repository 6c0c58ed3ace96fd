package admin

import (
	"crypto/tls"
	"net/http"
	"strconv"
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// A connLens is one connection and its streams. It looks at them itself, so that nobody looks
// at all the others.
type connLens struct {
	blind
	row connRow
	now time.Time
	was was
	top top[streamRow]
	by  map[kernel.BlockedOn]int
}

func (h *Handler) oneConn(r *http.Request) (lens, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, badRequest("a connection's number is a number")
	}
	from, c := h.findConn(id)
	if c == nil {
		return nil, notFound("connection " + strconv.FormatUint(id, 10) + " is not open; /closed has the last that have ended")
	}
	return &connLens{row: connRow{from: from, conn: c}, top: top[streamRow]{most: mostRows}, by: map[kernel.BlockedOn]int{}}, nil
}

// findConn finds an open connection by its number.
func (h *Handler) findConn(id uint64) (*source, *kernel.Conn) {
	for _, s := range h.all() {
		for _, c := range s.conns() {
			if c.ID() == id {
				return s, c
			}
		}
	}
	return nil, nil
}

func (l *connLens) begin(now time.Time) {
	l.now = now
	l.top.reset()
	clear(l.by)
	l.row.info = l.row.conn.Snapshot()
	l.row.rates = l.was.connRates(&l.row.info, now)
	newWalk(func(r *streamRow) {
		on, _ := r.blockedOn()
		l.by[on]++
		at := order{waitKeyOf(r), r.info.ID, 0}
		if l.top.takes(at) {
			l.top.add(at, *r)
		}
	}).streams(&l.was, &l.row, now)
}

func (l *connLens) view(s *sample) *view {
	i := &l.row.info
	id := strconv.FormatUint(i.ID, 10)
	v := &view{Title: "Connection " + id + ": " + l.row.peer(), Lead: l.lead()}
	l.figures(v, s)
	rows := l.top.rows(0)
	t := table{Key: "streams", Title: "Its streams", Columns: unsorted(streamColumns()), Empty: "None is open.", Note: plural(l.top.seen, "stream")}
	for n := range rows {
		t.Rows = append(t.Rows, up(streamCells(&rows[n].row, l.now)))
	}
	if l.top.seen > mostRows {
		t.More = []link{{"all of them", "../streams?conn=" + id}}
	}
	v.Tables = []table{t, l.facts()}
	fields := []field{{Name: "conn", Value: id}}
	v.Actions = []action{
		{Name: "trace", Label: "Trace", Note: "The headers of its frames for some seconds: no payload, no metadata.", Fields: fields, Inputs: []field{{"seconds", "3", "seconds"}}},
		{Name: "drain-conn", Label: "Drain", Note: "The peer is told to open no more streams here. Open ones go on, and the connection ends with the last.", Fields: fields},
		{Name: "close-conn", Label: "Close", Note: "All its streams fail with CONNECTION_LOST, on both sides.", Fields: fields},
	}
	v.data = func() any {
		streams := []streamJSON{}
		for n := range rows {
			streams = append(streams, rows[n].row.json(l.now))
		}
		return struct {
			connJSON
			Rows []streamJSON `json:"rows"`
		}{l.row.json(l.now), streams}
	}
	return v
}

// unsorted are columns without links.
func unsorted(columns []column) []column {
	for i := range columns {
		columns[i].Sort = ""
	}
	return columns
}

// up has the links of a row lead from one directory further down.
func up(r row) row {
	for i := range r.Cells {
		if c := &r.Cells[i]; c.Href != "" {
			c.Href = "../" + c.Href
		}
	}
	return r
}

func (l *connLens) lead() []line {
	i := &l.row.info
	switch {
	case i.State == "closed":
		reason := "in order"
		if err := l.row.conn.Err(); err != nil {
			reason = cleanTo(err.Error(), mostReason)
		}
		return []line{{Text: "It has ended: " + reason, Class: "warn"}}
	case i.State == "draining" && i.BlockedFor < stuckTime:
		return []line{{Text: "It is draining, and ends with its last stream.", Class: "warn"}}
	}
	return waiting(i.BlockedOn, i.BlockedFor, l.row.by(), l.now)
}

func (l *connLens) figures(v *view, s *sample) {
	i := &l.row.info
	key := "conn" + strconv.FormatUint(i.ID, 10)
	put := func(name string, value float64, write func(float64) string, note string) {
		v.Figures = append(v.Figures, figure{Key: fileName(name), Name: name, Value: write(value), Note: note, Spark: points(s.past.add(key+name, value))})
	}
	in, out := l.row.rates.in, l.row.rates.out
	blocked := 0
	for on, n := range l.by {
		if on != kernel.BlockedOnNothing && on != acceptance {
			blocked += n
		}
	}
	whole := func(v float64) string { return count(int64(v)) }
	put("streams", float64(i.Streams), whole, count(i.Handlers)+" handlers")
	put("blocked", float64(blocked), whole, "streams")
	put("in, msg/s", in.messages, rate, size(in.bytes)+"/s")
	put("out, msg/s", out.messages, rate, size(out.bytes)+"/s")
	put("in flight", float64(i.InFlight), size, "unread by peer")
	put("queued", float64(i.Queued), size, "not written")
	put("unread", float64(i.Unread), size, "not taken")
	put("memory", float64(i.Memory), size, size(float64(i.Own))+" its own")
}

// fileName makes a key of a figure's name.
func fileName(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c < 'a' || c > 'z' {
			b[i] = '-'
		}
	}
	return string(b)
}

func (l *connLens) facts() table {
	i := &l.row.info
	side := "the peer"
	if i.Client {
		side = "this side"
	}
	return facts("facts", "All figures",
		fact("state", text(i.State), ""), fact("code", text(codeName(i.Code)), "why it has ended"),
		fact("endpoint", text(l.row.from.name), "the server or client that it belongs to"), fact("protocol", text(i.Protocol), ""),
		fact("dialled by", text(side), ""), fact("TLS", text(l.row.tls()), ""), fact("loop", loopOf(i), "the event loop that reads it; –: a goroutine of its own"),
		fact("age", text(duration(i.Age)), ""), fact("idle", text(duration(i.Idle)), "since bytes arrived"), fact("round trip", roundTrip(i), "the shortest of a ping or handshake"),
		fact("sent", text(count(i.MessagesSent)+" messages, "+size(float64(i.BytesSent))), "framing included"),
		fact("received", text(count(i.MessagesReceived)+" messages, "+size(float64(i.BytesReceived))), ""),
		fact("credit to send", text(credit(i.SendGranted, i.SendUsed, i.SendWindow)), "what is granted and not used, and the window"),
		fact("credit to receive", text(credit(i.RecvGranted, i.RecvUsed, i.RecvWindow)), "the same, of what the peer may send"),
		fact("assembled", bytes(i.Assembled), "reserved for messages in fragments"), fact("extra windows", bytes(i.ExtraWindows), "windows beyond the initial ones"),
		fact("opens", bytes(i.OpenBytes), "opens, answers and ends that streams keep"), fact("traces", number(i.Traces), "that are under way"),
	)
}

// credit writes what is left of what was granted.
func credit(granted, used, window int64) string {
	if granted == 0 && window == 0 {
		return unknown
	}
	s := size(float64(max(granted-used, 0)))
	if window > 0 {
		s += " of " + size(float64(window))
	}
	return s
}

func (r *connRow) tls() string {
	state := r.conn.Peer().TLS
	if state == nil {
		return "no"
	}
	s := tls.VersionName(state.Version) + ", " + tls.CipherSuiteName(state.CipherSuite)
	if len(state.PeerCertificates) > 0 {
		s += ", peer: " + clean(state.PeerCertificates[0].Subject.String())
	}
	return s
}
