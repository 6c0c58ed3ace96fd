package admin

import (
	"sync"
	"time"

	"github.com/sluicerpc/sluice/fleet"
	"github.com/sluicerpc/sluice/kernel"
)

// A source is a server or a client, with the name that the pages give it.
type source struct {
	name   string
	srv    *kernel.Server // nil: it is a client
	client *kernel.Client // nil: it is a fleet's
	fleet  *fleet.Client
}

func (s *source) conns() []*kernel.Conn {
	switch {
	case s.srv != nil:
		return s.srv.Conns()
	case s.fleet != nil:
		return s.fleet.Conns()
	}
	return s.client.Conns()
}

// A rates is what happens in a second; below 0 it is not known yet.
type rates struct{ messages, bytes float64 }

// both are the rates of a connection.
type both struct{ in, out rates }

func (b both) total() rates {
	if b.in.messages < 0 {
		return b.in
	}
	return rates{b.in.messages + b.out.messages, b.in.bytes + b.out.bytes}
}

// A connRow is a connection at one moment.
type connRow struct {
	from  *source
	conn  *kernel.Conn
	info  kernel.ConnInfo
	rates both
	kept  *connRow // see keep; nil: nobody has
}

// keep returns a copy that stays as it is when the next connection is looked at.
func (r *connRow) keep() *connRow {
	if r.kept == nil {
		c := *r
		r.kept = &c
	}
	return r.kept
}

// A streamRow is a stream at one moment.
type streamRow struct {
	conn   *connRow
	stream *kernel.Stream
	info   kernel.StreamInfo
	rates  rates
}

// A sample is one look at everything.
type sample struct {
	n     uint64 // counts the looks
	at    time.Time
	took  time.Duration
	conns int
	past  *pasts
}

// A lens is what a page makes of samples. Its methods are called in the order in which they
// stand here, by one goroutine at a time.
type lens interface {
	// looks reports whether the page needs a look at the connections.
	looks() bool
	// begin forgets the last look.
	begin(now time.Time)
	// conn is given a connection, and says whether the lens wants its streams. The next one has
	// the same row.
	conn(r *connRow) bool
	// stream is given a stream of a connection that any lens has asked for, in the same way.
	stream(r *streamRow)
	// view makes the page.
	view(s *sample) *view
}

// blind is what a lens that looks at no connections needs of one.
type blind struct{}

func (blind) looks() bool        { return false }
func (blind) begin(time.Time)    {}
func (blind) conn(*connRow) bool { return false }
func (blind) stream(*streamRow)  {}

// leastGap is between two looks that a rate is made of, and mostGap is how old the last look
// may be.
const (
	leastGap = 500 * time.Millisecond
	mostGap  = 15 * time.Second
)

// A sampler looks at the connections of the sources, for any number of lenses at once.
type sampler struct {
	mu    sync.Mutex // held during a look
	n     uint64
	was   map[uint64]*was // what the last look has seen, by the number of the connection
	pasts pasts
}

// was is a connection as the last look saw it, and its streams.
type was struct {
	n              uint64 // the look that saw it
	at, streamsAt  time.Time
	sent, received counts
	rates          both
	streams, next  []streamWas
	cursor         int
	index          map[uint64]int // of streams; nil: not needed so far
	renewing       bool           // the last look is long enough ago
}

type counts struct{ messages, bytes uint64 }

// streamWas is a stream as it was. There can be 100,000.
type streamWas struct {
	id, messages, bytes uint64
	rates               [2]float32
}

// look has the lenses look at all connections of the sources, and returns what they see.
func (m *sampler) look(sources []*source, lenses []lens, now time.Time) []*view {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	s := &sample{n: m.n, at: now, past: &m.pasts}
	m.pasts.begin(m.n, now)
	looks := false
	for _, l := range lenses {
		l.begin(now)
		looks = looks || l.looks()
	}
	if looks {
		r, w := &connRow{}, newWalk(func(sr *streamRow) {
			for _, l := range lenses {
				l.stream(sr)
			}
		})
		for _, from := range sources {
			for _, c := range from.conns() {
				*r = connRow{from: from, conn: c}
				m.lookAt(r, lenses, w, now)
				s.conns++
			}
		}
		m.forget()
	}
	s.took = time.Since(now)
	views := make([]*view, len(lenses))
	for i, l := range lenses {
		views[i] = l.view(s).finish()
		views[i].footer = s.footer(looks)
	}
	return views
}

// footer says what the look has cost.
func (s *sample) footer(looked bool) string {
	at := s.at.Format("2006-01-02 15:04:05 MST")
	if !looked {
		return at
	}
	return at + "; " + plural(s.conns, "connection") + " looked at in " + duration(s.took)
}

// forget forgets the connections that are gone.
func (m *sampler) forget() {
	for id, w := range m.was {
		if w.n != m.n {
			delete(m.was, id)
		}
	}
}

func (m *sampler) lookAt(r *connRow, lenses []lens, k *walk, now time.Time) {
	r.info = r.conn.Snapshot()
	if m.was == nil {
		m.was = map[uint64]*was{}
	}
	w := m.was[r.info.ID]
	if w == nil {
		w = &was{}
		m.was[r.info.ID] = w
	}
	w.n = m.n
	r.rates = w.connRates(&r.info, now)
	streams := false
	for _, l := range lenses {
		if l.looks() && l.conn(r) {
			streams = true
		}
	}
	if streams {
		k.streams(w, r, now)
	}
}

// A walk goes through the streams of connections, one after the other. It is made once for all of
// them: so a look makes next to no garbage.
type walk struct {
	row   streamRow
	was   *was
	gap   time.Duration
	f     func(*streamRow)
	visit func(*kernel.Stream) bool
}

func newWalk(f func(*streamRow)) *walk {
	k := &walk{f: f}
	k.visit = k.stream
	return k
}

// streams calls f with every stream of a connection.
func (k *walk) streams(w *was, r *connRow, now time.Time) {
	k.was, k.row.conn, k.gap = w, r, now.Sub(w.streamsAt)
	w.renewing = k.gap >= leastGap
	w.cursor, w.index, w.next = 0, nil, w.next[:0]
	r.conn.EachStream(k.visit)
	if w.renewing {
		w.streams, w.next, w.streamsAt = w.next, w.streams, now
	}
}

func (k *walk) stream(s *kernel.Stream) bool {
	k.row.stream, k.row.info = s, s.Snapshot()
	k.row.rates = k.was.streamRates(&k.row.info, k.gap)
	k.f(&k.row)
	return true
}

func per(now, before uint64, gap time.Duration) float64 {
	return float64(now-min(before, now)) / gap.Seconds()
}

// connRates returns what the connection did since the last look, or what it did before that
// if that was a moment ago.
func (w *was) connRates(i *kernel.ConnInfo, now time.Time) both {
	gap := now.Sub(w.at)
	if gap < leastGap {
		return w.rates
	}
	sent, received := counts{i.MessagesSent, i.BytesSent}, counts{i.MessagesReceived, i.BytesReceived}
	switch {
	case i.Age <= min(gap, mostGap): // all that it has done
		w.rates = rateOf(received, counts{}, sent, counts{}, max(i.Age, leastGap))
	case gap > mostGap:
		w.rates = both{rates{-1, -1}, rates{-1, -1}}
	default:
		w.rates = rateOf(received, w.received, sent, w.sent, gap)
	}
	w.at, w.sent, w.received = now, sent, received
	return w.rates
}

func rateOf(in, inWas, out, outWas counts, gap time.Duration) both {
	return both{
		rates{per(in.messages, inWas.messages, gap), per(in.bytes, inWas.bytes, gap)},
		rates{per(out.messages, outWas.messages, gap), per(out.bytes, outWas.bytes, gap)},
	}
}

// streamRates is the same for a stream, and both ways together.
func (w *was) streamRates(i *kernel.StreamInfo, gap time.Duration) rates {
	old := w.stream(i.ID)
	if !w.renewing {
		if old == nil {
			return rates{-1, -1}
		}
		return rates{float64(old.rates[0]), float64(old.rates[1])}
	}
	now := streamWas{id: i.ID, messages: i.MessagesSent + i.MessagesReceived, bytes: i.BytesSent + i.BytesReceived}
	var r rates
	switch {
	case old != nil && gap <= mostGap:
		r = rates{per(now.messages, old.messages, gap), per(now.bytes, old.bytes, gap)}
	case i.Age <= min(gap, mostGap):
		age := max(i.Age, leastGap)
		r = rates{per(now.messages, 0, age), per(now.bytes, 0, age)}
	default:
		r = rates{-1, -1}
	}
	now.rates = [2]float32{float32(r.messages), float32(r.bytes)}
	w.next = append(w.next, now)
	return r
}

// stream finds a stream in the last look, which hardly ever had them in another order: so a
// cursor does what a map would need most of a look's time for.
func (w *was) stream(id uint64) *streamWas {
	if w.cursor < len(w.streams) && w.streams[w.cursor].id == id {
		w.cursor++
		return &w.streams[w.cursor-1]
	}
	if w.index == nil {
		w.index = make(map[uint64]int, len(w.streams))
		for i := range w.streams {
			w.index[w.streams[i].id] = i
		}
	}
	if i, ok := w.index[id]; ok {
		w.cursor = i + 1
		return &w.streams[i]
	}
	return nil
}

// pastLength is how many values of a figure are kept, one a look.
const pastLength = 60

// pasts are the last values of figures, by a key. They are forgotten when nobody has looked
// for a while.
type pasts struct {
	n      uint64
	at     time.Time // of the last value that was kept
	keep   bool      // this look's values are kept
	values map[string][]float64
	seen   map[string]uint64
}

func (p *pasts) begin(n uint64, now time.Time) {
	if now.Sub(p.at) > mostGap {
		p.values, p.seen = map[string][]float64{}, map[string]uint64{}
	}
	if p.keep = now.Sub(p.at) >= leastGap; p.keep {
		p.n, p.at = n, now
	}
}

// add notes a figure's value, below 0 if it is not known, and returns its past. However many
// pages have the figure, a look adds one value.
func (p *pasts) add(key string, v float64) []float64 {
	if p.keep && v >= 0 && p.seen[key] != p.n {
		old := p.values[key]
		if len(old) >= pastLength {
			copy(old, old[1:])
			old = old[:len(old)-1]
		}
		p.values[key], p.seen[key] = append(old, v), p.n
	}
	return p.values[key]
}
