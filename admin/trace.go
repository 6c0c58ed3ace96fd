package admin

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/status"
)

const (
	mostTrace  = 30 // seconds
	mostFrames = 2000
)

type frameJSON struct {
	At      time.Time `json:"at"`
	Sent    bool      `json:"sent"`
	Kind    string    `json:"kind"`
	Stream  uint64    `json:"stream"`
	Method  string    `json:"method,omitempty"`
	Streams int       `json:"streams,omitempty"`
	Length  int       `json:"length"`
	First   bool      `json:"first"`
	Last    bool      `json:"last"`
	Value   uint64    `json:"value"`
	Code    string    `json:"code"`
	Lost    uint64    `json:"lost"`
}

// trace shows the headers of a connection's frames for some seconds, or until there are
// mostFrames.
func (h *Handler) trace(r *http.Request) (*view, error) {
	_, c, err := h.connOf(r)
	if err != nil {
		return nil, err
	}
	seconds, err := strconv.ParseFloat(r.Form.Get("seconds"), 64)
	if err != nil || !(seconds > 0 && seconds <= mostTrace) {
		return nil, badRequest("seconds is a number up to " + strconv.Itoa(mostTrace))
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(seconds*float64(time.Second)))
	defer cancel()
	var frames []conn.FrameInfo
	c.Trace(ctx, func(f conn.FrameInfo) {
		if frames = append(frames, f); len(frames) == mostFrames {
			cancel()
		}
	})
	return traced(c.ID(), frames), nil
}

func traced(id uint64, frames []conn.FrameInfo) *view {
	t := table{Key: "frames", Title: "Frames", Empty: "None came or went.", Note: plural(len(frames), "frame") + "; at most " + count(mostFrames), Columns: []column{
		{Name: "at", Class: "n", Width: 12, Help: "milliseconds since the first"}, {Name: "", Class: "t", Width: 6}, {Name: "kind", Class: "t", Width: 10}, {Name: "stream", Class: "n", Width: 8},
		{Name: "length", Class: "n", Width: 12, Help: "bytes of payload"}, {Name: "piece", Class: "t", Width: 8}, {Name: "value", Class: "n", Width: 16},
		{Name: "code", Class: "t", Width: 20}, {Name: "lost before", Class: "n", Width: 10}, {Name: "method", Class: "w", Width: 30},
	}}
	rows := []frameJSON{}
	for i, f := range frames {
		way := "in"
		if f.Sent {
			way = "out"
		}
		code := ""
		if f.Code != status.OK {
			code = codeName(f.Code)
		}
		at := strconv.FormatFloat(float64(f.Time.Sub(frames[0].Time).Microseconds())/1000, 'f', 3, 64)
		t.Rows = append(t.Rows, row{strconv.Itoa(i), []cell{
			text(at), text(way), text(f.Kind), number(f.Stream), number(f.Length), text(piece(&f)), number(f.Value), text(code), loud(f.Lost), text(clean(f.Method)),
		}})
		rows = append(rows, frameJSON{f.Time, f.Sent, f.Kind, f.Stream, f.Method, f.Streams, f.Length, f.First, f.Last, f.Value, codeName(f.Code), f.Lost})
	}
	n := strconv.FormatUint(id, 10)
	return &view{Title: "Trace of connection " + n, Tables: []table{t}, Lead: []line{{Text: "Back to the connection", Href: "../conns/" + n}}, data: func() any {
		return struct {
			Rows []frameJSON `json:"rows"`
		}{rows}
	}}
}

// piece says which part of its message a DATA frame has.
func piece(f *conn.FrameInfo) string {
	switch {
	case f.Kind != "DATA" || f.First && f.Last:
		return ""
	case f.First:
		return "first"
	case f.Last:
		return "last"
	}
	return "middle"
}
