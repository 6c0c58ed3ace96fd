package admin

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// A streamLens is one stream. It keeps it, and so shows its end.
type streamLens struct {
	blind
	row  streamRow
	now  time.Time
	was  was
	last streamWas
	at   time.Time // of last
}

func (h *Handler) oneStream(r *http.Request) (lens, error) {
	from, c, s, err := h.findStream(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return &streamLens{row: streamRow{conn: &connRow{from: from, conn: c}, stream: s, rates: rates{-1, -1}}}, nil
}

// findStream finds an open stream by its id.
func (h *Handler) findStream(id string) (*source, *kernel.Conn, *kernel.Stream, error) {
	first, second, ok := strings.Cut(id, "-")
	conn, err := strconv.ParseUint(first, 10, 64)
	stream, err2 := strconv.ParseUint(second, 10, 64)
	if !ok || err != nil || err2 != nil {
		return nil, nil, nil, badRequest("a stream's id is its connection's number, a dash, and its own number")
	}
	from, c := h.findConn(conn)
	if c != nil {
		if s := c.Stream(stream); s != nil {
			return from, c, s, nil
		}
	}
	return nil, nil, nil, notFound("stream " + id + " is not open; /closed has the last that have ended")
}

func (l *streamLens) begin(now time.Time) {
	r := &l.row
	l.now = now
	r.conn.info, r.info = r.conn.conn.Snapshot(), r.stream.Snapshot()
	r.conn.rates = l.was.connRates(&r.conn.info, now)
	if gap := now.Sub(l.at); gap >= leastGap {
		messages, bytes := r.info.MessagesSent+r.info.MessagesReceived, r.info.BytesSent+r.info.BytesReceived
		if !l.at.IsZero() {
			r.rates = rates{per(messages, l.last.messages, gap), per(bytes, l.last.bytes, gap)}
		}
		l.last, l.at = streamWas{messages: messages, bytes: bytes}, now
	}
}

func (l *streamLens) view(s *sample) *view {
	r, i := &l.row, &l.row.info
	id := streamID(r.conn.info.ID, i.ID)
	v := &view{Title: "Stream " + id + ": " + clean(i.Method), Lead: l.lead()}
	put := func(name string, value float64, write func(float64) string, note string) {
		v.Figures = append(v.Figures, figure{Key: fileName(name), Name: name, Value: write(value), Note: note, Spark: points(s.past.add("stream"+id+name, value))})
	}
	whole := func(v float64) string { return count(int64(v)) }
	put("mailbox", float64(i.MailboxMessages), whole, size(float64(i.MailboxBytes)))
	put("queued", float64(i.QueuedMessages), whole, size(float64(i.QueuedBytes)))
	put("msg/s", r.rates.messages, rate, "both ways")
	put("bytes/s", r.rates.bytes, size, "both ways")
	put("credit to send", float64(max(i.SendGranted-i.SendUsed, 0)), size, size(float64(i.SendUsed))+" used")
	put("credit given", float64(max(i.RecvGranted-i.RecvUsed, 0)), size, size(float64(i.RecvUsed))+" used")
	v.Tables = []table{l.facts()}
	v.Actions = []action{{
		Name: "reset", Label: "Reset", Fields: []field{{Name: "stream", Value: id}},
		Note: "It fails with CANCELLED on both sides. What was not read is lost.",
	}}
	v.data = func() any { return r.json(l.now) }
	return v
}

func (l *streamLens) lead() []line {
	r, i := &l.row, &l.row.info
	if i.State == "closed" {
		reason := "in order"
		if err := r.stream.Err(); err != nil {
			reason = cleanTo(err.Error(), mostReason)
		}
		return []line{{Text: "It is over: " + reason, Class: "warn"}}
	}
	on, d := r.blockedOn()
	lines := waiting(on, d, r.by(), l.now)
	if d >= stuckTime {
		lines = append(lines, line{Text: looksAt[on]})
	}
	return lines
}

func (l *streamLens) facts() table {
	r, i := &l.row, &l.row.info
	conn := strconv.FormatUint(r.conn.info.ID, 10)
	deadline := dim(unknown, true)
	if i.DeadlineLeft != 0 {
		deadline = text(duration(i.DeadlineLeft))
	}
	opener := "the peer"
	if i.Opener {
		opener = "this side"
	}
	latency := dim(unknown, true)
	if i.Latency > 0 {
		latency = text(duration(i.Latency))
	}
	on, d := r.blockedOn()
	wait := waitCells(on, d)
	return facts("facts", "All figures",
		fact("connection", linked(conn+", "+r.conn.peer(), "../conns/"+conn), "of "+r.conn.from.name+", "+r.conn.protocol()),
		fact("method", text(clean(i.Method)), ""), fact("state", text(i.State), ""), fact("code", text(codeName(i.Code)), "that it has failed with, or was ended with by this side"),
		fact("opened by", text(opener), ""), fact("blocked on", wait[0], ""), fact("blocked for", wait[1], ""), fact("by", text(r.by()), "who must do something"),
		fact("age", text(duration(i.Age)), ""), fact("accepted after", latency, "from the open to the acceptance"),
		fact("idle", text(duration(i.Idle)), "since a message, or a piece of one, has arrived"), fact("deadline", deadline, "time that is left"),
		fact("sent", text(count(i.MessagesSent)+" messages, "+size(float64(i.BytesSent))), "written"),
		fact("received", text(count(i.MessagesReceived)+" messages, "+size(float64(i.BytesReceived))), "arrived"),
		fact("mailbox", text(count(i.MailboxMessages)+" messages, "+size(float64(i.MailboxBytes))), "arrived and not taken by this program"),
		fact("queued", text(count(i.QueuedMessages)+" messages, "+size(float64(i.QueuedBytes))), "accepted from this program and not written"),
		fact("credit to send", text(credit(i.SendGranted, i.SendUsed, 0)), "what the peer has granted and is not used"),
		fact("credit given", text(credit(i.RecvGranted, i.RecvUsed, 0)), "what this side has granted and is not used"),
	)
}
