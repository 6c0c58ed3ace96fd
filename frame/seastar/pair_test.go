package seastar

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A pair is a client's and a server's session, and what is on its way between
// them.
type pair struct {
	t              *rapid.T
	client, server *end
}

// An end is a session and what it has heard.
type end struct {
	listener
	to *bytes.Buffer // what is on its way to it
}

// connected shakes hands.
func connected(t *rapid.T, cp, sp *Protocol, parent uint64) *pair {
	toServer, toClient := &bytes.Buffer{}, &bytes.Buffer{}
	own := frame.Settings{MaxMessage: testLimit, MaxStreams: 100}
	toServer.Write(appendHello(nil, cp.clientHello(parent)))
	ss, err := sp.Handshake(context.Background(), rw{toServer, toClient}, &frame.Greeting{Own: own})
	if err != nil {
		t.Fatal(err)
	}
	cs, err := cp.Handshake(context.Background(), rw{toClient, &bytes.Buffer{}}, &frame.Greeting{Client: true, Parent: parent, Own: own})
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{t, &end{listener{s: cs}, toClient}, &end{listener{s: ss}, toServer}}
	p.deliver(p.client, 0)
	p.deliver(p.server, 0)
	return p
}

// rw is what one side of a handshake reads and writes.
type rw struct{ r, w *bytes.Buffer }

func (x rw) Read(p []byte) (int, error)  { return x.r.Read(p) }
func (x rw) Write(p []byte) (int, error) { return x.w.Write(p) }

// deliver lets up to n bytes arrive, unless the reader waits.
func (p *pair) deliver(e *end, n int) {
	if wait := e.s.Full(); wait != nil {
		if !closed(wait) {
			return
		}
		n = 0
	}
	if err := e.feed(e.to.Next(n)); err != nil {
		p.t.Fatal(err)
	}
}

// say sends a message, whole or in pieces.
func say(t *rapid.T, s frame.Session, id uint64, m []byte) []byte {
	n := rapid.IntRange(1, 70_000).Draw(t, "piece")
	if n >= len(m) {
		return send(s, id, m)
	}
	return pieces(s, id, m, n)
}

// text is a message of some length, long ones now and then.
func text(t *rapid.T) []byte {
	n := rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(0, 5000), rapid.IntRange(0, 200_000)).Draw(t, "length")
	return bytes.Repeat([]byte(rapid.StringN(1, 9, -1).Draw(t, "text")), n)[:n]
}

func compression(t *rapid.T) []string {
	return rapid.SampledFrom([][]string{nil, {LZ4}, {LZ4Fragmented}, {LZ4, LZ4Fragmented}}).Draw(t, "compression")
}

// model is what must come of each call.
type model struct {
	*pair
	n       uint64
	asked   map[uint64][]byte   // by stream, of the server's too: numbers are the same as ids are in order
	outcome map[uint64][]string // at the client
	pending []uint64            // at the server
	seen    int                 // events of the server's that were looked at
}

// TestCallsEndAsTheirHandlersEnd: whatever calls are made, answered and canceled in
// whatever order, and however the bytes are cut, each has the outcome that its
// handler chose.
func TestCallsEndAsTheirHandlersEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := pool.Outstanding()
		names := compression(t)
		sp := &Protocol{Compress: algorithms, MaxMemory: rapid.SampledFrom([]int{0, 200_000, 1 << 20}).Draw(t, "memory")}
		m := &model{
			pair:  connected(t, &Protocol{Compress: names}, sp, 0),
			asked: map[uint64][]byte{}, outcome: map[uint64][]string{},
		}
		t.Repeat(map[string]func(*rapid.T){
			"call":   m.call,
			"answer": m.answer,
			"cancel": func(t *rapid.T) {
				if m.n > 0 {
					id := 2*rapid.Uint64Range(1, m.n).Draw(t, "call") - 1
					control(m.client.s, &frame.Frame{Kind: frame.Reset, Stream: id, Code: status.Cancelled})
					m.outcome[id] = nil
				}
			},
			"to the server": func(t *rapid.T) { m.pair.deliver(m.server, rapid.IntRange(0, 50_000).Draw(t, "bytes")); m.look() },
			"to the client": func(t *rapid.T) { m.pair.deliver(m.client, rapid.IntRange(0, 50_000).Draw(t, "bytes")) },
		})
		m.settle(t)
		m.check(t)
		m.server.s.Closed()
		if sp.budget.used != 0 {
			t.Errorf("%d bytes of memory are in use", sp.budget.used)
		}
		_, _ = events(m.client.s, nil)
		_, _ = events(m.server.s, nil)
		if n := pool.Outstanding() - base; n != 0 {
			t.Errorf("%d messages are still held", n)
		}
	})
}

func (m *model) call(t *rapid.T) {
	m.n++
	id := 2*m.n - 1
	f := &frame.Frame{Kind: frame.Open, Stream: id, Unary: true, Method: fmt.Sprintf("#%d", id), Grants: make([]frame.Grant, 1)}
	noWait := rapid.Bool().Draw(t, "no wait")
	if noWait {
		f.Metadata = metadata.MD{{Key: NoWait}}
	}
	m.asked[id] = text(t)
	m.server.to.Write(control(m.client.s, f))
	m.server.to.Write(say(t, m.client.s, id, m.asked[id]))
	m.server.to.Write(control(m.client.s, &frame.Frame{Kind: frame.EOS, Stream: id}))
	m.outcome[id] = []string{} // not known yet
	if lines := locals(m.client.s); noWait != (len(lines) == 2) {
		t.Fatal(lines)
	}
	if noWait {
		m.outcome[id] = nil
	}
}

// look checks the calls that have arrived.
func (m *model) look() {
	for ; m.seen+3 <= len(m.server.lines); m.seen += 3 {
		f := m.server.frames[m.seen]
		id := f.Stream
		want := []string{
			fmt.Sprintf("%d open \"#%d\" unary=true value=0x0 left=0s grants=1", id, id),
			fmt.Sprintf("%d data %x", id, m.asked[id]), fmt.Sprintf("%d eos OK", id),
		}
		equal(m.t, "a call", m.server.lines[m.seen:m.seen+3], want)
		m.pending = append(m.pending, id)
	}
}

func (m *model) answer(t *rapid.T) {
	if len(m.pending) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.pending)-1).Draw(t, "which")
	id := m.pending[i]
	m.pending = append(m.pending[:i:i], m.pending[i+1:]...)
	s := m.server.s
	b := control(s, &frame.Frame{Kind: frame.Accept, Stream: id})
	accept := fmt.Sprintf("%d accept value=0x0 grants=1", id)
	var want []string
	switch rapid.IntRange(0, 3).Draw(t, "how") {
	case 0:
		reply := text(t)
		b = append(b, say(t, s, id, reply)...)
		b = append(b, control(s, &frame.Frame{Kind: frame.EOS, Stream: id})...)
		want = []string{accept, fmt.Sprintf("%d data %x", id, reply), fmt.Sprintf("%d eos OK", id)}
	case 1:
		b = append(b, say(t, s, id, text(t))...)
		b = append(b, control(s, &frame.Frame{Kind: frame.EOS, Stream: id, Code: status.Unknown, Reason: "boom"})...)
		want = []string{accept, fmt.Sprintf("%d eos UNKNOWN boom", id)}
	case 2:
		b = control(s, &frame.Frame{Kind: frame.Reject, Stream: id, Code: status.Unimplemented, NotProcessed: true})
		want = []string{fmt.Sprintf("%d reject UNIMPLEMENTED unknown verb %d notprocessed=true", id, id)}
	case 3:
		b = append(b, control(s, &frame.Frame{Kind: frame.Reset, Stream: id, Code: status.Internal, Reason: "panic"})...)
		want = []string{accept, fmt.Sprintf("%d eos UNKNOWN INTERNAL: panic", id)}
	}
	m.client.to.Write(b)
	if m.outcome[id] != nil {
		m.outcome[id] = want
	}
}

// settle lets everything arrive and answers every call.
func (m *model) settle(t *rapid.T) {
	for range 100_000 {
		m.deliver(m.server, 1<<20)
		m.look()
		m.deliver(m.client, 1<<20)
		if m.answer(t); len(m.pending)+m.server.to.Len()+m.client.to.Len() == 0 && m.server.s.Full() == nil {
			return
		}
	}
	t.Fatal("some calls are not answered")
}

// check compares what the client has received, call by call. A call that was canceled
// may have had its outcome before.
func (m *model) check(t *rapid.T) {
	got := map[uint64][]string{}
	for i, f := range m.client.frames {
		got[f.Stream] = append(got[f.Stream], m.client.lines[i])
	}
	for id, want := range m.outcome {
		if want == nil {
			continue
		}
		for i := range want { // the handler's time is not always 0
			if i < len(got[id]) && len(got[id][i]) > len(want[i]) && got[id][i][:len(want[i])] == want[i] {
				got[id][i] = want[i]
			}
		}
		equal(t, fmt.Sprintf("call %d", id), got[id], want)
	}
}

// TestStreamsCarryWhatIsSent: both directions, in order, to their ends.
func TestStreamsCarryWhatIsSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sp, cp := &Protocol{Compress: algorithms}, &Protocol{Compress: compression(t)}
		calls := connected(t, cp, sp, 0)
		p := connected(t, cp, sp, connID(calls.server.s))
		child := p.client.s
		if other := p.server.s; connID(child) != connID(other) || parentID(child) != connID(calls.client.s) {
			t.Fatalf("stream %#x of %#x is %#x of %#x", connID(child), parentID(child), connID(other), parentID(other))
		}
		want := map[*end][]string{p.server: {fmt.Sprintf("1 open %q unary=false value=%#x left=0s grants=1", "", connID(child))}}
		control(p.client.s, &frame.Frame{Kind: frame.Open, Stream: 1, Grants: make([]frame.Grant, 1)})
		equal(t, "local", locals(p.client.s), []string{fmt.Sprintf("1 accept value=%#x grants=1", connID(child))})
		over := map[*end]bool{}
		other := map[*end]*end{p.client: p.server, p.server: p.client}
		ends := []*end{p.client, p.server}
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				from := rapid.SampledFrom(ends).Draw(t, "from")
				to, m := other[from], text(t)
				to.to.Write(say(t, from.s, 1, m))
				if !over[from] {
					want[to] = append(want[to], fmt.Sprintf("1 data %x", m))
				}
			},
			"end": func(t *rapid.T) {
				from := rapid.SampledFrom(ends).Draw(t, "from")
				to := other[from]
				to.to.Write(control(from.s, &frame.Frame{Kind: frame.EOS, Stream: 1}))
				if !over[from] {
					want[to] = append(want[to], "1 eos OK")
				}
				over[from] = true
			},
			"arrive": func(t *rapid.T) {
				p.deliver(rapid.SampledFrom(ends).Draw(t, "at"), rapid.IntRange(0, 100_000).Draw(t, "bytes"))
			},
		})
		for _, e := range ends {
			p.deliver(e, e.to.Len())
			equal(t, "events", e.lines, want[e])
		}
	})
}
