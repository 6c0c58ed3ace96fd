package admin

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// A closedLens is the last streams and connections that have ended, and why.
type closedLens struct {
	blind
	h      *Handler
	now    time.Time
	search string
}

func (h *Handler) closed(r *http.Request) (lens, error) {
	return &closedLens{h: h, search: strings.ToLower(r.URL.Query().Get("q"))}, nil
}

func (l *closedLens) begin(now time.Time) { l.now = now }

type closedStreamJSON struct {
	At               time.Time `json:"at"`
	ID               string    `json:"id"`
	Peer             string    `json:"peer"`
	Method           string    `json:"method"`
	Opener           bool      `json:"opener"`
	Code             string    `json:"code"`
	Reason           string    `json:"reason"`
	Age              float64   `json:"age_s"`
	Latency          float64   `json:"latency_s"`
	MessagesSent     uint64    `json:"messages_sent"`
	BytesSent        uint64    `json:"bytes_sent"`
	MessagesReceived uint64    `json:"messages_received"`
	BytesReceived    uint64    `json:"bytes_received"`
}

type closedConnJSON struct {
	At            time.Time `json:"at"`
	ID            uint64    `json:"id"`
	Peer          string    `json:"peer"`
	Protocol      string    `json:"protocol"`
	Client        bool      `json:"client"`
	Code          string    `json:"code"`
	Reason        string    `json:"reason"`
	Age           float64   `json:"age_s"`
	BytesSent     uint64    `json:"bytes_sent"`
	BytesReceived uint64    `json:"bytes_received"`
}

func (l *closedLens) view(*sample) *view {
	failed, ended, conns := l.h.recorder.closed()
	failed, ended = l.matching(failed), l.matching(ended)
	v := &view{Title: "Closed", Lead: l.h.unobserved()}
	v.Filter = &filter{Search: field{"q", l.search, "method, peer, code or reason"}}
	if l.search != "" {
		v.Filter.Clear = "closed"
	}
	v.Tables = []table{
		l.streams("failed", "Streams that failed", failed), l.conns(conns), l.streams("ended", "Streams that ended in order", ended),
	}
	v.data = func() any {
		d := struct {
			Failed []closedStreamJSON `json:"failed"`
			Ended  []closedStreamJSON `json:"ended"`
			Conns  []closedConnJSON   `json:"conns"`
		}{[]closedStreamJSON{}, []closedStreamJSON{}, []closedConnJSON{}}
		for _, c := range failed {
			d.Failed = append(d.Failed, c.json())
		}
		for _, c := range ended {
			d.Ended = append(d.Ended, c.json())
		}
		for _, c := range conns {
			d.Conns = append(d.Conns, closedConnJSON{
				c.at, c.info.ID, c.info.Peer, c.info.Protocol, c.info.Client, codeName(c.info.Code), c.reason, seconds(c.info.Age), c.info.BytesSent, c.info.BytesReceived,
			})
		}
		return d
	}
	return v
}

// closed returns copies of the rings, the last first.
func (r *recorder) closed() (failed, ended []closedStream, conns []closedConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed.latest(), r.ended.latest(), r.conns.latest()
}

// unobserved says which servers and clients the Handler is told nothing of.
func (h *Handler) unobserved() (lines []line) {
	for _, s := range h.all() {
		if !h.observes(s.observer()) {
			lines = append(lines, line{Text: "Nothing is known here of " + s.name + ": make the Handler the Observer of its options, or one of kernel.Observers.", Class: "warn"})
		}
	}
	return lines
}

// observes reports whether an Observer is the Handler, or one that tells it, as kernel.Observers makes
// them.
func (h *Handler) observes(o kernel.Observer) bool {
	if several, ok := o.(interface{ Unwrap() []kernel.Observer }); ok {
		return slices.ContainsFunc(several.Unwrap(), h.observes)
	}
	return o == kernel.Observer(h)
}

func (s *source) observer() kernel.Observer {
	switch {
	case s.srv != nil:
		return s.srv.Options().Observer
	case s.fleet != nil:
		return s.fleet.Options().Client.Observer
	}
	return s.client.Options().Observer
}

func (l *closedLens) matching(cs []closedStream) []closedStream {
	if l.search == "" {
		return cs
	}
	return slices.DeleteFunc(cs, func(c closedStream) bool {
		return !strings.Contains(strings.ToLower(c.info.Method+"\n"+c.address()+"\n"+codeName(c.info.Code)+"\n"+c.reason), l.search)
	})
}

func (c *closedStream) address() string {
	if c.peer == nil {
		return ""
	}
	return c.peer.String()
}

func (c *closedStream) json() closedStreamJSON {
	i := &c.info
	return closedStreamJSON{
		c.at, streamID(c.conn, i.ID), c.address(), i.Method, i.Opener, codeName(i.Code), c.reason, seconds(i.Age), seconds(i.Latency),
		i.MessagesSent, i.BytesSent, i.MessagesReceived, i.BytesReceived,
	}
}

func (l *closedLens) streams(key, title string, cs []closedStream) table {
	t := table{Key: key, Title: title, Empty: "None.", Note: "the last " + count(mostClosed), Columns: []column{
		{Name: "ended", Class: "t", Width: 12}, {Name: "stream", Class: "t", Width: 12}, {Name: "method", Class: "w", Width: 24}, {Name: "peer", Class: "t", Width: 20},
		{Name: "code", Class: "t", Width: 20}, {Name: "lived", Class: "n", Width: 10}, {Name: "accepted", Class: "n", Width: 10, Help: "how long after the open"},
		{Name: "sent", Class: "n", Width: 10, Help: "messages"}, {Name: "received", Class: "n", Width: 10, Help: "messages"}, {Name: "reason", Class: "w", Width: 58},
	}}
	for i := range cs {
		c := &cs[i]
		latency, class := dim(unknown, true), ""
		if c.info.Latency > 0 {
			latency = text(duration(c.info.Latency))
		}
		if c.info.Code != status.OK {
			class = "warn"
		}
		t.Rows = append(t.Rows, row{strconv.FormatUint(c.n, 10), []cell{
			text(clock(c.at, l.now)), text(streamID(c.conn, c.info.ID)), text(clean(c.info.Method)), text(clean(c.address())),
			{Text: codeName(c.info.Code), Class: class}, text(duration(c.info.Age)), latency,
			number(c.info.MessagesSent), number(c.info.MessagesReceived), text(cleanTo(c.reason, mostReason)),
		}})
	}
	return t
}

func (l *closedLens) conns(cs []closedConn) table {
	t := table{Key: "conns", Title: "Connections that ended", Empty: "None.", Note: "the last " + count(mostClosed), Columns: []column{
		{Name: "ended", Class: "t", Width: 12}, {Name: "connection", Class: "n", Width: 10}, {Name: "peer", Class: "t", Width: 20}, {Name: "protocol", Class: "t", Width: 10},
		{Name: "code", Class: "t", Width: 20}, {Name: "lived", Class: "n", Width: 10}, {Name: "sent", Class: "n", Width: 10}, {Name: "received", Class: "n", Width: 10},
		{Name: "reason", Class: "w", Width: 58},
	}}
	for i := range cs {
		c := &cs[i]
		class := ""
		if c.info.Code != status.OK {
			class = "warn"
		}
		t.Rows = append(t.Rows, row{strconv.FormatUint(c.n, 10), []cell{
			text(clock(c.at, l.now)), text(strconv.FormatUint(c.info.ID, 10)), text(clean(c.info.Peer)), text(c.info.Protocol),
			{Text: codeName(c.info.Code), Class: class}, text(duration(c.info.Age)), bytes(c.info.BytesSent), bytes(c.info.BytesReceived), text(cleanTo(c.reason, mostReason)),
		}})
	}
	return t
}
