package strm

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

func eos(id uint64) frame.Frame   { return frame.Frame{Kind: frame.EOS, Stream: id} }
func abort(id uint64) frame.Frame { return frame.Frame{Kind: frame.Reset, Stream: id} }

// A handler that fails after it has accepted.
func failed(id uint64) frame.Frame {
	return frame.Frame{Kind: frame.EOS, Stream: id, Code: status.Internal, Reason: "lost on the way"}
}

// The ends of one stream, as a script: c and s say what the client's and the
// server's kernel do, > and < that what was written so far arrives.
func TestEveryWayToEndAStreamLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		name, script   string
		client, server []string // events
		wire           []string // frames in the order in which they were written
	}{
		{
			"the client closes", "cE > sE <",
			[]string{"eos stream=1"}, []string{"eos stream=1", "stop stream=1"},
			[]string{"C STRM 1=1 2=1 3=2", "S STRM 1=1 2=1 3=2", "C STRM 1=1 3=1"},
		},
		{
			"the server closes", "sE < cE >",
			[]string{"eos stream=1", "stop stream=1"}, []string{"eos stream=1"},
			[]string{"S STRM 1=1 2=1 3=2", "C STRM 1=1 2=1 3=2", "S STRM 1=1 3=1"},
		},
		{
			"both close at once", "cE sE > <",
			[]string{"eos stream=1"}, []string{"eos stream=1"},
			[]string{"C STRM 1=1 2=1 3=2", "S STRM 1=1 2=1 3=2", "S STRM 1=1 3=1", "C STRM 1=1 3=1"},
		},
		{
			"the client resets", "cR > <",
			nil, []string{`reset stream=1 code=ABORTED reason="Received RST frame"`},
			[]string{"C STRM 1=1 3=1", "S STRM 1=1 2=1 3=2", "C STRM 1=1 3=1"},
		},
		{
			"the handler fails", "sF < >",
			[]string{`reset stream=1 code=ABORTED reason="Received RST frame"`}, []string{"eos stream=1"},
			[]string{"S STRM 1=1 3=1", "C STRM 1=1 2=1 3=2", "S STRM 1=1 3=1"},
		},
		{
			"both reset at once", "cR sR > <", nil, nil,
			[]string{"C STRM 1=1 3=1", "S STRM 1=1 3=1"},
		},
		{
			"a close meets a reset", "cE sR > <",
			[]string{`reset stream=1 code=ABORTED reason="Received RST frame"`}, nil,
			[]string{"C STRM 1=1 2=1 3=2", "S STRM 1=1 3=1", "S STRM 1=1 3=1"},
		},
		{
			"the answer to a close is a reset", "cE > sR <",
			[]string{"eos stream=1"}, []string{"eos stream=1", "stop stream=1"},
			[]string{"C STRM 1=1 2=1 3=2", "S STRM 1=1 2=1 3=2", "C STRM 1=1 3=1"},
		},
		{
			"a close, and then a reset for want of an answer", "cE cR > sE <",
			nil, []string{"eos stream=1", "stop stream=1"},
			[]string{"C STRM 1=1 2=1 3=2", "S STRM 1=1 2=1 3=2", "C STRM 1=1 3=1"},
		},
		{
			"data behind the close is ignored", "cE > cM sE sM < cM >",
			[]string{"eos stream=1"}, []string{"eos stream=1", "stop stream=1"},
			[]string{"C STRM 1=1 2=1 3=2", "S STRM 1=1 2=1 3=2", "C STRM 1=1 3=1"},
		},
		{
			"data before the close arrives", "sM sE cE < >",
			[]string{`data stream=1 total=7 first=true last=true "message"`, "eos stream=1"}, []string{"eos stream=1"},
			[]string{`S STRM 1=1 2=1 3=3 4=0 "message"`, "S STRM 1=1 2=1 3=2", "C STRM 1=1 2=1 3=2", "C STRM 1=1 3=1", "S STRM 1=1 3=1"},
		},
		{
			"data that crosses a reset is dropped", "sM cR < > <",
			nil, []string{`reset stream=1 code=ABORTED reason="Received RST frame"`},
			[]string{`S STRM 1=1 2=1 3=3 4=0 "message"`, "C STRM 1=1 3=1", "S STRM 1=1 2=1 3=2", "C STRM 1=1 3=1"},
		},
		{
			"data before a failure arrives", "sM sF < >",
			[]string{`data stream=1 total=7 first=true last=true "message"`, `reset stream=1 code=ABORTED reason="Received RST frame"`}, []string{"eos stream=1"},
			[]string{`S STRM 1=1 2=1 3=3 4=0 "message"`, "S STRM 1=1 3=1", "C STRM 1=1 2=1 3=2", "S STRM 1=1 3=1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := wireOf(t)
			for _, op := range strings.Fields(c.script) {
				w.do(op)
			}
			w.settle()
			w.c.expect(t, c.client...)
			w.s.expect(t, c.server...)
			if got, want := strings.Join(w.log, "\n"), strings.Join(c.wire, "\n"); got != want {
				t.Errorf("wire\n%s\nwant\n%s", got, want)
			}
			w.c.empty(t)
			w.s.empty(t)
		})
	}
}

// A wire is a pair with one stream, and what is on its way between them.
type wire struct {
	t        *testing.T
	c, s     *side
	toC, toS []byte
	log      []string
}

func wireOf(t *testing.T) *wire {
	t.Helper()
	w := &wire{t: t}
	w.c, w.s = establishedPair(t, 1, 1)
	return w
}

func (w *wire) do(op string) {
	switch op {
	case ">":
		b := w.toS
		w.toS = nil
		w.s.feed(b)
		w.note("S", &w.s.out, &w.toC)
		return
	case "<":
		b := w.toC
		w.toC = nil
		w.c.feed(b)
		w.note("C", &w.c.out, &w.toS)
		return
	}
	s, to, who := w.c, &w.toS, "C"
	if op[0] == 's' {
		s, to, who = w.s, &w.toC, "S"
	}
	var b []byte
	switch op[1] {
	case 'E':
		b = control(s.Session, eos(1))
	case 'R':
		b = control(s.Session, abort(1))
	case 'F':
		b = control(s.Session, failed(1))
	case 'M':
		b = send(s.Session, 1, "message")
	}
	w.note(who, &b, to)
}

// note puts what was written on its way.
func (w *wire) note(who string, b, to *[]byte) {
	for _, p := range packets(w.t, *b) {
		w.log = append(w.log, who+" "+p.String())
	}
	*to = append(*to, *b...)
	*b = nil
}

// settle delivers everything that was written.
func (w *wire) settle() {
	for len(w.toC) > 0 || len(w.toS) > 0 {
		w.do(">")
		w.do("<")
	}
}

// The table of brpc's answers to frames for an unknown stream.
func TestFramesForUnknownStreamsAreAnsweredAsBrpcDoes(t *testing.T) {
	for _, c := range []struct{ in, answer string }{
		{`STRM 1=999999 2=5 3=3 "x"`, `STRM 1=5 3=1`},
		{`STRM 1=999999 3=3 "x"`, ``},
		{`STRM 1=999999 2=6 3=2`, `STRM 1=6 3=1`},
		{`STRM 1=999999 2=7 3=1`, `STRM 1=7 3=1`},
		{`STRM 1=999999 2=8 3=4 5={ 1=10 }`, ``},
		{`STRM 1=999999 2=9 3=0`, `STRM 1=9 3=1`},
		{`STRM 1=999999 2=10 3=9`, `STRM 1=10 3=1`},
		{`STRM 1=999999 2=11`, `STRM 1=11 3=1`},
		{`STRM 1=-1 2=12 3=3 "negative"`, `STRM 1=12 3=1`},
		{`STRM 1=0 2=13 3=3 "zero"`, `STRM 1=13 3=1`},
		{`STRM 1=2 2=14 3=3 "even"`, `STRM 1=14 3=1`},
		{`STRM 1=999999 2=0 3=3 "from zero"`, `STRM 1=0 3=1`},
		{`STRM 1=999999 2=-1 3=3 "from minus one"`, `STRM 1=-1 3=1`},
	} {
		for _, s := range []*side{{Session: connect(t, false, "")}, {Session: connect(t, true, "")}} {
			s.feed(parseShown(t, c.in))
			s.expect(t)
			if c.answer == "" {
				s.answers(t)
			} else {
				s.answers(t, c.answer)
			}
			s.empty(t)
		}
	}
}

func TestARowOfFramesOfOneUnknownStreamGetsOneAnswer(t *testing.T) {
	_, s := pair(t)
	for range 50 {
		s.feed(parseShown(t, `STRM 1=9 2=5 3=3 "x"`))
	}
	s.feed(parseShown(t, `STRM 1=9 2=6 3=3 "x"`))
	s.answers(t, `STRM 1=5 3=1`, `STRM 1=6 3=1`)
	// Another request may name a stream with the same id.
	s.feed(control(connect(t, true, ""), opening(1, 1)))
	s.feed(parseShown(t, `STRM 1=9 2=6 3=3 "x"`))
	s.answers(t, `STRM 1=6 3=1`)
}

// Answers of one burst go out as one.
func TestABurstOfStrayFramesGetsOneAnswer(t *testing.T) {
	_, s := pair(t)
	var b []byte
	for i := range 1000 {
		b = append(b, parseShown(t, fmt.Sprintf(`STRM 1=9 2=%d 3=3 "x"`, i))...)
	}
	answers := 0
	var f frame.Frame
	for rest := b; ; {
		n, err := s.Next(rest, &f)
		if err != nil {
			t.Fatal(err)
		}
		if rest = rest[n:]; f.Kind == frame.None {
			break
		}
		if f.Kind == frame.Reply {
			answers++
		}
	}
	if out := packets(t, control(s.Session, f)); answers != 1 || len(out) != 0 {
		t.Errorf("%d answers, and %d packets for what is none", answers, len(out))
	}
	if out := packets(t, control(s.Session, frame.Frame{Kind: frame.Reply})); len(out) != 1000 {
		t.Errorf("%d packets", len(out))
	}
}

func TestUnknownFrameTypesHaveNoEffect(t *testing.T) {
	c, s := establishedPair(t, 1, 1)
	for _, l := range []string{`STRM 1=1 2=1 3=0`, `STRM 1=1 2=1 3=9`, `STRM 1=1 2=1 3=77 "with data"`, `STRM 1=1 2=1`, `STRM 1=1 2=1 3=-1`} {
		s.feed(parseShown(t, l))
	}
	s.expect(t)
	s.answers(t)
	s.feed(send(c.Session, 1, "goes on"))
	s.expect(t, `data stream=1 total=7 first=true last=true "goes on"`)
}

// brpc drops the incomplete message without an error.
func TestACloseInsideAMessageIsNoCleanEnd(t *testing.T) {
	part := `STRM 1=1 2=1 3=3 4=1 "half a "`
	_, s := establishedPair(t, 1, 1)
	s.feed(parseShown(t, part))
	s.feed(parseShown(t, `STRM 1=1 2=1 3=2`))
	s.expect(t, `data stream=1 total=-1 first=true last=false "half a "`, `reset stream=1 code=DATA_LOSS reason="closed inside a message"`)
	s.answers(t, `STRM 1=1 2=1 3=2`)
	s.empty(t)

	// After our own close it is no error.
	_, s = establishedPair(t, 1, 1)
	control(s.Session, eos(1))
	s.feed(parseShown(t, part))
	s.feed(parseShown(t, `STRM 1=1 2=1 3=2`))
	s.expect(t, `data stream=1 total=-1 first=true last=false "half a "`, `eos stream=1`)
	s.answers(t, `STRM 1=1 3=1`)
	s.empty(t)
}

// Data that a peer sent before it had our close arrives; after our reset it is dropped.
func TestDataThatCrossesACloseArrives(t *testing.T) {
	_, s := establishedPair(t, 1, 1)
	control(s.Session, eos(1))
	s.feed(parseShown(t, `STRM 1=1 2=1 3=3 4=0 "crossed"`))
	s.expect(t, `data stream=1 total=7 first=true last=true "crossed"`)
	control(s.Session, abort(1))
	s.feed(parseShown(t, `STRM 1=1 2=1 3=3 4=0 "crossed too"`))
	s.expect(t)
	s.answers(t)
}

func TestReportsAreTotalsThatOnlyGrow(t *testing.T) {
	c, s := establishedPair(t, 1, 1)
	s.feed(send(c.Session, 1, "ten bytes!", "ten bytes!"))
	for _, l := range []string{`5={ 1=10 }`, `5={ 1=4 }`, `5={ 1=10 }`, `5={ }`, ``, `5={ 1=20 }`} {
		c.feed(parseShown(t, `STRM 1=1 2=1 3=4 `+l))
	}
	c.expect(t, `credit stream=1 value=10`, `credit stream=1 value=10`, `credit stream=1 value=10`, // none for those of nothing
		`credit stream=1 value=20`)
	for _, bad := range []string{`21`, `-1`, `-9223372036854775808`} {
		c, s := establishedPair(t, 1, 1)
		s.feed(send(c.Session, 1, "ten bytes!", "ten bytes!"))
		c.feed(parseShown(t, `STRM 1=1 2=1 3=4 5={ 1=`+bad+` }`))
		if !errors.Is(c.err, &status.ProtocolError{Code: status.FlowControl}) {
			t.Errorf("%s consumed of 20: %v", bad, c.err)
		}
	}
}

func TestLongMessagesTravelInSegmentsThatOthersMayComeBetween(t *testing.T) {
	c, _ := establishedPair(t, 2, 2)
	long := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	m := pool.Copy(long)
	var b []byte
	for off := 0; off < len(long); off += maxFragment {
		n := min(maxFragment, len(long)-off)
		b = append(b, written(c.Session, func(o *frame.Out) { fragment(c, o, 1, m, off, n) })...)
		b = append(b, send(c.Session, 3, "between")...)
	}
	for _, cut := range []func(int) int{whole, func(int) int { return 1000 }, func(int) int { return 70_000 }} {
		_, s := establishedPair(t, 2, 2)
		s.feedBy(b, cut)
		var got []byte
		between, firsts, lasts := 0, 0, 0
		for _, e := range s.events {
			switch {
			case e.stream == 3:
				between++
			case e.data:
				got = append(got, e.payload...)
			}
			if e.stream == 1 && e.first {
				firsts++
				if e.frame.Total != frame.UnknownTotal {
					t.Errorf("the length is %d before it is known", e.frame.Total)
				}
			}
			if e.stream == 1 && e.last {
				lasts++
			}
		}
		if s.err != nil || !bytes.Equal(got, long) || between != 5 || firsts != 1 || lasts != 1 {
			t.Errorf("%v: %d of %d bytes, %d between, %d first, %d last", s.err, len(got), len(long), between, firsts, lasts)
		}
	}
	if got := c.table.streams[1].sent.Load(); got != uint64(len(long)) {
		t.Errorf("%d bytes are counted as sent", got)
	}
}

// A frame that is longer than a piece is handed on as it comes.
func TestALongFrameIsNotCollected(t *testing.T) {
	_, s := establishedPair(t, 1, 1)
	const n = 1 << 20
	s.feed(appendDataHead(nil, 1, 1, n, false))
	var f frame.Frame
	for got := 0; got < n; {
		p := make([]byte, min(10_000, n-got))
		used, err := s.Next(p, &f)
		if err != nil || used != len(p) || f.Kind != frame.Data || len(f.Payload) != len(p) {
			t.Fatalf("%d of %d used, %v, %d bytes: %v", used, len(p), f.Kind, len(f.Payload), err)
		}
		if f.Total != n || f.First != (got == 0) || f.Last != (got+len(p) == n) {
			t.Fatalf("at %d: total %d, first %t, last %t", got, f.Total, f.First, f.Last)
		}
		got += len(p)
	}
	if s.in.got.Len() != 0 {
		t.Error("some of it was kept")
	}
}

// A peer's frames for a stream after its close, or after our reset, have no effect.
func TestThePeersLastFrameIsItsLast(t *testing.T) {
	for _, end := range []frame.Frame{{Kind: frame.Stop}, abort(1)} {
		c, s := establishedPair(t, 1, 1)
		s.feed(send(c.Session, 1, "four"))
		s.events = nil
		c.feed(control(s.Session, end)) // Stop writes nothing: the stream is open
		c.events, c.out = nil, nil
		if end.Kind == frame.Stop {
			s.feed(parseShown(t, `STRM 1=1 2=1 3=2`))
			s.expect(t, "eos stream=1", "stop stream=1")
		}
		for _, l := range []string{`3=3 4=0 "data"`, `3=3 4=1 "half"`, `3=4 5={ 1=0 }`, `3=9`, `3=3 4=0 "data"`} {
			s.feed(parseShown(t, `STRM 1=1 2=1 `+l))
		}
		s.expect(t)
		s.answers(t)
		control(s.Session, eos(1))
		s.feed(parseShown(t, `STRM 1=1 2=1 3=2`))
		s.expect(t)
		s.answers(t, `STRM 1=1 3=1`)
		s.feed(parseShown(t, `STRM 1=1 2=1 3=2`)) // by now one that never was
		s.expect(t)
		s.empty(t)
	}
}

func TestStreamNumbersRunOut(t *testing.T) {
	c, s := pair(t)
	s.in.next = maxStream - 5
	s.feed(control(c.Session, opening(1, 2)))
	if len(s.events) != 1 || s.events[0].stream != maxStream-5 {
		t.Errorf("%s", s.log())
	}
	s.feed(control(c.Session, opening(5, 1)))
	if !errors.Is(s.err, &status.ProtocolError{Code: status.Protocol}) {
		t.Errorf("%s", s.log())
	}
}

// A long frame that keeps coming is not late, although it is not complete.
func TestALongFrameIsNotLateWhileItComes(t *testing.T) {
	_, s := establishedPair(t, 1, 1)
	s.feed(appendDataHead(nil, 1, 1, 1<<20, false))
	start, _ := s.Begun()
	for _, c := range []struct{ more, at int64 }{{1000, 0}, {60_000, 0}, {10_000, maxFragment}, {100_000, 2 * maxFragment}} {
		s.feed(make([]byte, c.more))
		if at, ok := s.Begun(); !ok || at != start+c.at {
			t.Errorf("after %d more: begun at %d, want %d, %t", c.more, at, start+c.at, ok)
		}
	}
}

// The peer never answers our closes: the oldest streams that wait are evicted.
func TestStreamsThatWaitForThePeerAreBounded(t *testing.T) {
	c, s := establishedPair(t, 1, 1)
	const n = 3 * leastClosing
	next := uint64(3)
	for range n {
		s.feed(control(c.Session, opening(next, 1)))
		control(s.Session, accepting(next, 1))
		if next%4 == 1 {
			control(s.Session, eos(next))
		} else {
			control(s.Session, abort(next))
		}
		next += 2
	}
	if got := s.left(); got != leastClosing+1 {
		t.Errorf("%d entries are left", got)
	}
	s.feed(nil)
	ended := 0
	for _, e := range s.events {
		if e.frame.Kind == frame.EOS {
			ended++
		}
	}
	if want := (n - leastClosing) / 2; ended != want {
		t.Errorf("%d kernels had the event that ends their wait, want %d", ended, want)
	}
	// A frame for an evicted stream is one for an unknown stream.
	s.events = nil
	s.feed(parseShown(t, `STRM 1=3 2=3 3=2`))
	s.expect(t)
	s.answers(t, `STRM 1=3 3=1`)
	// The last are still known.
	s.feed(parseShown(t, fmt.Sprintf(`STRM 1=%d 2=%d 3=3 4=0 "dropped"`, next-4, next-4)))
	if len(s.out) > 0 {
		t.Errorf("%s", show(t, s.out))
	}
}

// As many may wait as were open at once.
func TestAllStreamsThatWereOpenMayWait(t *testing.T) {
	c, s := pair(t)
	const n = 2 * leastClosing
	for i := range uint64(n) {
		s.feed(control(c.Session, opening(1+2*i, 1)))
		control(s.Session, accepting(1+2*i, 1))
	}
	for i := range uint64(n) {
		control(s.Session, abort(1+2*i))
	}
	if got := s.left(); got != n {
		t.Errorf("%d of %d wait", got, n)
	}
}

// Canceled requests wait for their answers, and have the same bound.
func TestCanceledRequestsAreBounded(t *testing.T) {
	c, _ := pair(t)
	for i := range uint64(2 * leastClosing) {
		control(c.Session, opening(1+4*i, 2))
		control(c.Session, abort(1+4*i))
		control(c.Session, abort(3+4*i))
	}
	if got := c.left(); got > leastClosing || got < leastClosing-2 {
		t.Errorf("%d streams are left", got)
	}
}
