package strm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A model is one side's kernel, as far as the session sees it: it opens, accepts,
// sends and ends streams, and takes what comes. It keeps to the rules of frame.Session:
// nothing is sent before the answer, the peer's close is answered by ours, and a stream
// that was reset has no further events.
type model struct {
	t       *rapid.T
	name    string
	s       *Session
	out     []byte // on its way to the other side
	streams map[uint64]*modelStream
	offers  []frame.Frame
	calls   map[uint64]string // requests that were not answered
	heard   map[uint64]string // what calls say
	asked   map[uint64]bool   // a server's calls
	ended   map[uint64]bool   // those that are all there
	first   map[uint64]uint64 // the first stream that a stream was asked for with
	next    uint64
	f       frame.Frame
}

type modelStream struct {
	state    modelState
	sent     []string // while the peer had not ended
	got      []string
	partial  strings.Builder
	within   bool
	inOrder  bool // we ended by a close
	taken    uint64
	reported uint64 // by the peer
}

type modelState uint8

const (
	waits  modelState = iota // for the answer
	open                     // both ways
	weEnd                    // closed by us
	isOver                   // nothing more may come
)

func (m *model) control(f frame.Frame) {
	m.out = append(m.out, written(m.s, func(o *frame.Out) { m.s.Control(o, &f) })...)
	for f := (frame.Frame{}); m.s.Event(&f); {
		m.event(&f)
	}
}

func (m *model) drawOpen() {
	n := rapid.IntRange(1, 3).Draw(m.t, "streams")
	f := opening(m.next, n)
	f.Payload = []byte(fmt.Sprint("request ", m.next))
	if rapid.Bool().Draw(m.t, "the request follows") {
		f.FollowsData = true
		m.control(f)
		m.out = append(m.out, send(m.s, f.Stream, string(f.Payload))...)
	} else {
		m.control(f)
	}
	for first := m.next; m.next < first+2*uint64(n); m.next += 2 {
		m.streams[m.next], m.first[m.next] = &modelStream{}, first
	}
}

func (m *model) drawCall() {
	req := fmt.Sprint("call ", m.next, strings.Repeat("y", rapid.SampledFrom([]int{0, 10, 9000}).Draw(m.t, "request")))
	m.out = append(m.out, calling(m.s, m.next, req)...)
	m.calls[m.next] = req
	m.next += 2
}

// drawAnswer answers one of the offers, in any order.
func (m *model) drawAnswer() {
	if len(m.offers) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.offers)-1).Draw(m.t, "offer")
	f := m.offers[i]
	if _, all := m.ended[f.Stream]; f.Unary && !all {
		return // its request is still coming
	}
	m.offers = slices.Delete(m.offers, i, i+1)
	n := len(f.Grants)
	switch k := rapid.IntRange(0, n).Draw(m.t, "accepted"); {
	case f.Unary:
		if k == 0 {
			m.control(frame.Frame{Kind: frame.Reject, Stream: f.Stream, Code: status.Aborted, Reason: "no call"})
			return
		}
		m.out = append(m.out, replying(m.s, f.Stream, "reply to "+m.heard[f.Stream])...)
	case k == 0:
		m.control(frame.Frame{Kind: frame.Reject, Stream: f.Stream, Code: status.Aborted, Reason: "no"})
	default:
		m.accept(&f, k)
	}
}

func (m *model) accept(f *frame.Frame, k int) {
	for i := range k {
		m.streams[f.Stream+2*uint64(i)] = &modelStream{state: open}
	}
	g := accepting(f.Stream, k)
	if rapid.Bool().Draw(m.t, "the reply follows") {
		g.FollowsData, g.Payload = true, nil
		m.control(g)
		if k > 1 && rapid.Bool().Draw(m.t, "data before it") {
			m.send(f.Stream+2, "before the reply")
		}
		if k > 1 {
			switch rapid.IntRange(0, 3).Draw(m.t, "its end before it") {
			case 0:
				m.close(f.Stream + 2)
			case 1:
				m.fail(f.Stream + 2)
			case 2:
				m.reset(f.Stream + 2)
			}
		}
		m.out = append(m.out, sendPieces(m.s, f.Stream, pool.Copy([]byte("ok")), 1)...)
		return
	}
	m.control(g)
}

// pick draws a stream in one of some states, or 0.
func (m *model) pick(label string, states ...modelState) uint64 {
	var ids []uint64
	for id, st := range m.streams {
		if slices.Contains(states, st.state) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return 0
	}
	slices.Sort(ids)
	return rapid.SampledFrom(ids).Draw(m.t, label)
}

func (m *model) drawSend() {
	id := m.pick("sender", open)
	if id == 0 {
		return
	}
	m.send(id, strings.Repeat("x", rapid.SampledFrom([]int{0, 1, 40, 5000, 70_000}).Draw(m.t, "length")))
}

func (m *model) send(id uint64, body string) {
	st := m.streams[id]
	msg := fmt.Sprintf("%s %d/%d %s", m.name, id, len(st.sent), body)
	st.sent = append(st.sent, msg)
	if len(msg) > maxFragment || len(msg) > 1000 && rapid.Bool().Draw(m.t, "in pieces") {
		m.out = append(m.out, sendPieces(m.s, id, pool.Copy([]byte(msg)), max(len(msg)/3, 1))...)
		return
	}
	m.out = append(m.out, send(m.s, id, msg)...)
}

func (m *model) drawReport() {
	id := m.pick("reader", open, weEnd)
	if id != 0 && m.streams[id].taken > 0 {
		m.control(frame.Frame{Kind: frame.Credit, Stream: id, Value: m.streams[id].taken})
	}
}

func (m *model) drawClose() {
	if id := m.pick("closes", open); id != 0 {
		m.close(id)
	}
}

func (m *model) close(id uint64) {
	st := m.streams[id]
	st.state, st.inOrder = weEnd, true
	m.control(eos(id))
}

// drawFail ends a stream as a handler that failed: after what was sent.
func (m *model) drawFail() {
	if id := m.pick("fails", open); id != 0 {
		m.fail(id)
	}
}

func (m *model) fail(id uint64) {
	m.streams[id].state = weEnd
	m.control(failed(id))
}

func (m *model) drawReset() {
	if id := m.pick("resets", waits, open, weEnd); id != 0 {
		m.reset(id)
	}
}

func (m *model) reset(id uint64) {
	m.streams[id].state, m.streams[id].inOrder = isOver, false
	m.control(abort(id))
}

func (m *model) drawForget() {
	var ids []uint64
	for id := range m.calls {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return
	}
	slices.Sort(ids)
	id := rapid.SampledFrom(ids).Draw(m.t, "call")
	delete(m.calls, id)
	m.control(abort(id))
}

// take gives the session what the other side has written.
func (m *model) take(p []byte) {
	in := append([]byte(nil), p...)
	for rest := in; ; {
		n, err := m.s.Next(rest, &m.f)
		if err != nil {
			m.t.Fatalf("%s: %v", m.name, err)
		}
		rest = rest[n:]
		if m.f.Kind == frame.None {
			break
		}
		m.event(&m.f)
	}
	clear(in)
}

func (m *model) event(f *frame.Frame) {
	switch f.Kind {
	case frame.Reply:
		m.control(*f)
		return
	case frame.Open:
		o := *f
		o.Grants = append([]frame.Grant(nil), f.Grants...)
		if f.Unary {
			m.asked[f.Stream] = true
		}
		m.offers = append(m.offers, o)
		return
	case frame.Accept, frame.Reject:
		m.answered(f)
		return
	}
	if _, call := m.calls[f.Stream]; call || m.asked[f.Stream] {
		m.callEvent(f)
		return
	}
	st := m.streams[f.Stream]
	if st == nil || st.state == waits || st.state == isOver {
		m.t.Fatalf("%s: %s for a stream that is %v", m.name, describe(f), st)
	}
	switch f.Kind {
	case frame.Data:
		m.data(st, f)
	case frame.Credit:
		if f.Value < st.reported {
			m.t.Fatalf("%s: %s after %d", m.name, describe(f), st.reported)
		}
		st.reported = f.Value
	case frame.EOS:
		m.streamEnded(st, f)
	case frame.Stop:
		m.close(f.Stream)
		st.state = isOver
	case frame.Reset:
		st.state, st.inOrder = isOver, false
	}
}

func (m *model) callEvent(f *frame.Frame) {
	switch {
	case f.Kind == frame.Data && f.First:
		m.heard[f.Stream] = string(f.Payload)
	case f.Kind == frame.Data:
		m.heard[f.Stream] += string(f.Payload)
	case f.Kind == frame.EOS && m.name == "server":
		m.ended[f.Stream] = true
	case f.Kind == frame.EOS:
		if want := "reply to " + m.calls[f.Stream]; f.Code == status.OK && m.heard[f.Stream] != want {
			m.t.Fatalf("%q came for %q", m.heard[f.Stream], want)
		}
		delete(m.calls, f.Stream)
	}
}

// answered takes the answer for the streams of a request.
func (m *model) answered(f *frame.Frame) {
	if _, ok := m.calls[f.Stream]; ok {
		if f.Kind == frame.Reject {
			delete(m.calls, f.Stream)
		}
		return
	}
	if m.streams[f.Stream] == nil || m.streams[f.Stream].state != waits {
		m.t.Fatalf("%s for a stream that does not wait", describe(f))
	}
	first := m.first[f.Stream] // the answer comes by one that still waits
	for i, id := 0, first; m.first[id] == first; i, id = i+1, id+2 {
		switch st := m.streams[id]; {
		case st.state == isOver:
		case f.Kind == frame.Accept && i < len(f.Grants):
			st.state = open
		default:
			st.state = isOver
		}
	}
}

func (m *model) data(st *modelStream, f *frame.Frame) {
	if f.First == st.within {
		m.t.Fatalf("%s: first is %t inside a message: %t", m.name, f.First, st.within)
	}
	st.partial.Write(f.Payload)
	st.taken += uint64(len(f.Payload))
	if st.within = !f.Last; f.Last {
		st.got = append(st.got, st.partial.String())
		st.partial.Reset()
	}
}

func (m *model) streamEnded(st *modelStream, f *frame.Frame) {
	if f.Code != status.OK || st.within {
		m.t.Fatalf("%s: %s, inside a message: %t", m.name, describe(f), st.within)
	}
	st.inOrder = true
	if st.state == weEnd {
		st.state = isOver
	}
}

// A client and a server act at random, and the bytes between them arrive in pieces of
// any size: nothing is lost, changed or out of order, and no entry is left when all has
// ended.
func TestRandomClientAndServerAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, s := newModel(t, "client"), newModel(t, "server")
		steps := map[string]func(){
			"open": c.drawOpen, "call": c.drawCall, "forget": c.drawForget, "answer": s.drawAnswer,
			"send": c.drawSend, "reply": s.drawSend, "close": c.drawClose, "end": s.drawClose,
			"reset": c.drawReset, "abort": s.drawReset, "fail": s.drawFail, "report": c.drawReport, "tell": s.drawReport,
			"up": func() { pass(c, s) }, "down": func() { pass(s, c) },
		}
		names := []string{"open", "call", "answer", "answer", "send", "send", "send", "reply", "reply", "close", "end", "reset", "abort", "fail",
			"forget", "report", "tell", "up", "up", "up", "down", "down", "down"}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			steps[rapid.SampledFrom(names).Draw(t, "step")]()
		}
		finish(c, s)
		compare(t, c, s)
	})
}

func newModel(t *rapid.T, name string) *model {
	return &model{
		t: t, name: name, s: newSession(name == "client", testMaxMessage, maxBody), next: 1,
		streams: map[uint64]*modelStream{}, calls: map[uint64]string{}, first: map[uint64]uint64{},
		heard: map[uint64]string{}, asked: map[uint64]bool{}, ended: map[uint64]bool{},
	}
}

// pass has some of what a wrote arrive at b.
func pass(a, b *model) {
	n := len(a.out)
	if n > 0 && rapid.Bool().Draw(a.t, "in part") {
		n = rapid.IntRange(1, n).Draw(a.t, "bytes")
	}
	p := a.out[:n:n]
	a.out = a.out[n:]
	b.take(p)
}

// finish answers and closes all that is open, and has everything arrive.
func finish(c, s *model) {
	for len(s.offers) > 0 || len(c.out) > 0 || len(s.out) > 0 {
		c.pump(s)
		s.pump(c)
		for len(s.offers) > 0 {
			s.drawAnswer()
		}
	}
	for _, m := range []*model{c, s} {
		for id, st := range m.streams {
			if st.state == open {
				m.close(id)
			}
		}
	}
	for len(c.out) > 0 || len(s.out) > 0 {
		c.pump(s)
		s.pump(c)
	}
}

func (m *model) pump(to *model) {
	p := m.out
	m.out = nil
	to.take(p)
}

func compare(t *rapid.T, c, s *model) {
	for _, m := range []*model{c, s} {
		other := s
		if m == s {
			other = c
		}
		if n := m.s.left(); n != 0 || len(m.calls) > 0 && m == c || len(m.offers) > 0 {
			t.Fatalf("%s: %d streams are left, calls %v, offers %v", m.name, n, m.calls, m.offers)
		}
		for id, st := range m.streams {
			if st.state != isOver {
				t.Fatalf("%s: stream %d is in state %d", m.name, id, st.state)
			}
			o := other.streams[id]
			if o == nil {
				continue
			}
			if n := len(st.got); n > len(o.sent) || !slices.Equal(st.got, o.sent[:n]) {
				t.Fatalf("%s: stream %d: got %d messages of %d: %.200q", m.name, id, n, len(o.sent), st.got)
			}
			if st.inOrder && o.inOrder && len(st.got) != len(o.sent) {
				t.Fatalf("%s: stream %d ended in order: got %d messages of %d", m.name, id, len(st.got), len(o.sent))
			}
		}
	}
}
