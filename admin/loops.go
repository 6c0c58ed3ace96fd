package admin

import (
	"net/http"
	"strconv"
	"time"

	"github.com/sluicerpc/sluice/conn"
)

// A loopsLens is the event loops.
type loopsLens struct {
	blind
	now   time.Time
	loops []conn.LoopInfo
	last  []uint64 // wakeups
	at    time.Time
	rates []float64
}

func (h *Handler) loops(*http.Request) (lens, error) { return &loopsLens{}, nil }

func (l *loopsLens) begin(now time.Time) {
	l.now, l.loops = now, conn.LoopInfos()
	gap := now.Sub(l.at)
	if gap < leastGap {
		return
	}
	l.rates = l.rates[:0]
	for i, p := range l.loops {
		if r := -1.0; i >= len(l.last) || l.at.IsZero() {
			l.rates = append(l.rates, r)
		} else {
			l.rates = append(l.rates, per(p.Wakeups, l.last[i], gap))
		}
	}
	l.last, l.at = l.last[:0], now
	for _, p := range l.loops {
		l.last = append(l.last, p.Wakeups)
	}
}

// lateLoop is from when on a loop's lag is worth a colour.
const lateLoop = 5 * time.Millisecond

type loopJSON struct {
	Loop        int     `json:"loop"`
	Conns       int     `json:"conns"`
	Wakeups     uint64  `json:"wakeups"`
	WakeupsRate float64 `json:"wakeups_per_s"`
	Lag         float64 `json:"lag_s"`
}

func (l *loopsLens) view(s *sample) *view {
	v := &view{Title: "Event loops"}
	t := table{Key: "loops", Title: "Event loops of this process", Empty: "None runs: no connection needs one.", Columns: []column{
		{Name: "loop", Class: "n", Width: 6}, {Name: "connections", Class: "n", Width: 12},
		{Name: "wakeups/s", Class: "n", Width: 10, Help: "how often it had something to do for one of them"},
		{Name: "wakeups", Class: "n", Width: 16}, {Name: "lag", Class: "n", Width: 10, Help: "how long a task waited for the loop just now"},
	}}
	rows := []loopJSON{}
	for i, p := range l.loops {
		n, r := strconv.Itoa(i), -1.0
		if i < len(l.rates) {
			r = l.rates[i]
		}
		class := ""
		if p.Lag >= lateLoop {
			class = "warn"
			v.Lead = []line{{Text: "A loop is late by " + duration(p.Lag) + ": one connection keeps it busy, or the machine has no CPU left.", Class: "warn"}}
		}
		t.Rows = append(t.Rows, row{n, []cell{text(n), number(p.Conns), perSecond(r), number(p.Wakeups), {Text: duration(p.Lag), Class: class}}})
		v.Figures = append(v.Figures, figure{
			Key: "loop" + n, Name: "lag of loop " + n, Value: duration(p.Lag), Note: rate(r) + " wakeups/s", Class: class,
			Spark: points(s.past.add("loop"+n, p.Lag.Seconds())),
		})
		rows = append(rows, loopJSON{i, p.Conns, p.Wakeups, r, seconds(p.Lag)})
	}
	v.Tables = []table{t}
	v.data = func() any {
		return struct {
			Rows []loopJSON `json:"rows"`
		}{rows}
	}
	return v
}
