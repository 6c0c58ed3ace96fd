package seastar

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// serverStream and clientStream are the two ends of a stream's connection, as
// their connections have begun.
func serverStream(t testing.TB, p *Protocol, rs ...record) frame.Session {
	t.Helper()
	id := p.parents.nextID()
	p.parents.add(id)
	s := mustServe(t, p, append(rs, record{featStreamParent, idData(id)})...)
	lines, err := events(s, nil)
	if err != nil || len(lines) != 1 {
		t.Fatal(lines, err)
	}
	return s
}

func clientStream(t testing.TB, p *Protocol, rs ...record) frame.Session {
	t.Helper()
	s := mustDial(t, p, 1<<idShift, append(rs, record{featConnectionID, idData(2 << idShift)})...)
	control(s, &frame.Frame{Kind: frame.Open, Stream: 1, Grants: make([]frame.Grant, 1)})
	if lines := locals(s); len(lines) != 1 {
		t.Fatal(lines)
	}
	return s
}

// both runs f for either end.
func both(t *testing.T, f func(t *testing.T, s frame.Session)) {
	t.Run("server", func(t *testing.T) { f(t, serverStream(t, &Protocol{})) })
	t.Run("client", func(t *testing.T) { f(t, clientStream(t, &Protocol{})) })
}

func TestAServersOpenComesBeforeItsData(t *testing.T) {
	p := &Protocol{}
	p.parents.add(7 << idShift)
	p.parents.countFrom(0)
	s := mustServe(t, p, record{featStreamParent, idData(7 << idShift)})
	lines, err := events(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "at the start", lines, []string{`1 open "" unary=false value=0x10000 left=0s grants=1`})
	if c := s; parentID(c) != 7<<idShift || connID(c) != 1<<idShift {
		t.Errorf("stream %#x of %#x", connID(c), parentID(c))
	}
	for _, k := range []frame.Kind{frame.Accept, frame.Credit, frame.Stop, frame.Read, frame.GoAway, frame.Ended} {
		if got := control(s, &frame.Frame{Kind: k, Stream: 1}); len(got) > 0 {
			t.Errorf("kind %d has written %x", k, got)
		}
	}
}

// What comes before a client's stream is known above waits until it is.
func TestAClientsDataWaitsForTheAccept(t *testing.T) {
	s := mustDial(t, &Protocol{}, 1<<idShift, record{featConnectionID, idData(2 << idShift)})
	l := listener{s: s}
	if err := l.feed(append(streamFrame([]byte("early")), 3, 0)); err != nil || l.lines != nil {
		t.Fatal(l.lines, err)
	}
	wait := s.Full()
	if wait == nil || closed(wait) {
		t.Fatal("reading goes on")
	}
	control(s, &frame.Frame{Kind: frame.Open, Stream: 1, Grants: make([]frame.Grant, 1)})
	if closed(wait) {
		t.Fatal("reading goes on before the stream has heard that it is accepted")
	}
	equal(t, "local", locals(s), []string{"1 accept value=0x20000 grants=1"})
	if !closed(wait) {
		t.Fatal("reading waits")
	}
	if err := l.feed(nil); err != nil {
		t.Fatal(err)
	}
	if s.Full() != nil {
		t.Fatal("reading waits again")
	}
	if err := l.feed(append([]byte{0, 0}, "abc"...)); err != nil {
		t.Fatal(err)
	}
	equal(t, "events", l.lines, []string{"1 data 6561726c79", "1 data 616263"})
	equal(t, "local", locals(s), nil)
}

func TestAStreamsConnectionHasOneStream(t *testing.T) {
	s := clientStream(t, &Protocol{})
	for _, f := range []frame.Frame{{Stream: 3}, {Stream: 5, Unary: true, Method: "#1"}, {Stream: 1}} {
		f.Kind, f.Grants = frame.Open, make([]frame.Grant, 1)
		equalBytes(t, "written", control(s, &f), nil)
		lines := locals(s)
		if len(lines) != 1 || lines[0] != describe(&frame.Frame{Kind: frame.Reject, Stream: f.Stream, Code: status.Unimplemented, Reason: "the connection carries one stream only", NotProcessed: true}) {
			t.Errorf("stream %d is answered with %q", f.Stream, lines)
		}
	}
}

func TestMessagesAndTheEnd(t *testing.T) {
	both(t, func(t *testing.T, s frame.Session) {
		base := pool.Outstanding()
		long := bytes.Repeat([]byte("0123456789"), 20_000)
		want := bytes.Join([][]byte{streamFrame([]byte("a")), streamFrame(nil), streamFrame(long), streamFrame(long), endFrame}, nil)
		got := written(func(o *frame.Out) { s.Messages(o, 1, runOf([]byte("a"), nil, long)) })
		got = append(got, pieces(s, 1, long, 64<<10)...)
		got = append(got, control(s, &frame.Frame{Kind: frame.EOS, Stream: 1})...)
		equalBytes(t, "written", got, want)
		for what, more := range map[string][]byte{
			"a message":   send(s, 1, []byte("late")),
			"pieces":      pieces(s, 1, long, 64<<10),
			"another end": control(s, &frame.Frame{Kind: frame.EOS, Stream: 1}),
		} {
			if len(more) > 0 {
				t.Errorf("%s after the end: %d bytes", what, len(more))
			}
		}
		if n := pool.Outstanding() - base; n != 0 {
			t.Errorf("%d messages are still held", n)
		}
	})
}

// A frame after the end breaks the rules; so does one longer than we take, before
// its bytes have come.
func TestWhatAStreamMayNotSend(t *testing.T) {
	for name, c := range map[string]struct {
		in   []byte
		want []string
		code status.Code
	}{
		"a message after the end": {append(bytes.Clone(endFrame), streamFrame([]byte("x"))...), []string{"1 eos OK"}, status.StreamState},
		"a second end":            {append(bytes.Clone(endFrame), endFrame...), []string{"1 eos OK"}, status.StreamState},
		"too long":                {append(streamFrame([]byte("x")), 1, 0, 0x10, 0), []string{"1 data 78"}, status.TooLarge},
		"nearly the end":          {[]byte{0xfe, 0xff, 0xff, 0xff}, nil, status.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, s frame.Session) {
				lines, err := events(s, c.in)
				equal(t, "events", lines, c.want)
				if codeOf(err) != c.code {
					t.Errorf("it ends with %v, want %v", err, c.code)
				}
			})
		})
	}
}

// The end of a half that nobody reads waits until the application has the peer's, towards
// peers that lose what they have sent when they close over it.
func TestTheEndOfAHalfThatNobodyReads(t *testing.T) {
	eos := func(c status.Code) *frame.Frame {
		return &frame.Frame{Kind: frame.EOS, Stream: 1, Code: c, Metadata: metadata.MD{{Key: Unread}}}
	}
	ended := &frame.Frame{Kind: frame.Ended, Stream: 1}
	reset := &frame.Frame{Kind: frame.Reset, Stream: 1, Code: status.Cancelled}
	ours := []record{{featNoLinger, ""}}
	for name, c := range map[string]struct {
		hello   []record
		steps   []*frame.Frame
		written []int // the step that has written the end
		over    bool
	}{
		"alone":                       {steps: []*frame.Frame{eos(0)}},
		"then the peer's":             {steps: []*frame.Frame{eos(0), ended}, written: []int{1}, over: true},
		"after the peer's":            {steps: []*frame.Frame{ended, eos(0)}, written: []int{1}, over: true},
		"twice":                       {steps: []*frame.Frame{eos(0), eos(0), ended, ended}, written: []int{2}, over: true},
		"with an error":               {steps: []*frame.Frame{eos(status.Internal), ended}, over: true},
		"reset before the peer's":     {steps: []*frame.Frame{eos(0), reset, ended}, over: true},
		"the peer is one of sluice's": {hello: ours, steps: []*frame.Frame{eos(0)}, written: []int{0}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serverStream(t, &Protocol{}, c.hello...)
			for i, f := range c.steps {
				want := []byte(nil)
				if slices.Contains(c.written, i) {
					want = endFrame
				}
				equalBytes(t, fmt.Sprint("step ", i), control(s, f), want)
			}
			if _, over := over(s); over != c.over {
				t.Errorf("over is %v", over)
			}
		})
	}
}

// The connection ends when our end was written and the application has the
// peer's: not at once, for the peer may be slow to read. Anything else that ends a
// stream ends it now, and never as if it were in order.
func TestWhenAStreamsConnectionIsOver(t *testing.T) {
	eos := func(c status.Code) *frame.Frame {
		return &frame.Frame{Kind: frame.EOS, Stream: 1, Code: c, Reason: "why"}
	}
	k := func(k frame.Kind) *frame.Frame { return &frame.Frame{Kind: k, Stream: 1, Code: status.Cancelled} }
	const no = -1
	for name, c := range map[string]struct {
		steps []*frame.Frame
		over  time.Duration
		end   bool // it was written
	}{
		"nothing yet":                      {nil, no, false},
		"our end":                          {[]*frame.Frame{eos(0)}, no, true},
		"the peer's end":                   {[]*frame.Frame{k(frame.Ended)}, no, false},
		"ours, then the peer's":            {[]*frame.Frame{eos(0), k(frame.Ended)}, DefaultLinger, true},
		"the peer's, then ours":            {[]*frame.Frame{k(frame.Ended), eos(0)}, DefaultLinger, true},
		"we read no more":                  {[]*frame.Frame{eos(0), k(frame.Stop)}, no, true},
		"reset":                            {[]*frame.Frame{k(frame.Reset)}, 0, false},
		"reset after our end":              {[]*frame.Frame{eos(0), k(frame.Reset)}, 0, true},
		"rejected":                         {[]*frame.Frame{k(frame.Reject)}, 0, false},
		"an end with an error":             {[]*frame.Frame{eos(status.Internal)}, 0, false},
		"that, when the peer's is handed":  {[]*frame.Frame{k(frame.Ended), eos(status.Internal)}, 0, false},
		"an end with an error after ours":  {[]*frame.Frame{eos(0), eos(status.Internal)}, no, true},
		"an end in order, after the reset": {[]*frame.Frame{k(frame.Reset), eos(0)}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, s frame.Session) {
				var got []byte
				for _, f := range c.steps {
					got = append(got, control(s, f)...)
				}
				want := []byte(nil)
				if c.end {
					want = endFrame
				}
				equalBytes(t, "written", got, want)
				linger, over := over(s)
				if over != (c.over != no) || over && linger != c.over {
					t.Errorf("over %v after %v, want after %v", over, linger, c.over)
				}
				if over && linger == 0 {
					equalBytes(t, "written when all is over", send(s, 1, []byte("x")), nil)
				}
			})
		})
	}
}

func TestBegunTellsWhereAFrameIsIncomplete(t *testing.T) {
	s := serverStream(t, &Protocol{})
	begun := s.Begun
	for _, c := range []struct {
		in string
		at int64
		ok bool
	}{
		{"", 0, false}, {"\x03", 0, true}, {"\x00\x00\x00ab", 0, true}, {"c", 7, false},
		{"\x00\x00\x00\x00\x00", 11, true}, {"\x00\x00\x00", 15, false}, {"\xff\xff\xff", 15, true}, {"\xff", 19, false},
	} {
		if _, err := events(s, []byte(c.in)); err != nil {
			t.Fatal(err)
		}
		if at, ok := begun(); ok != c.ok || ok && at != c.at {
			t.Errorf("after %q: %d, %v, want %d, %v", c.in, at, ok, c.at, c.ok)
		}
	}
}

func TestErrorsNameTheFrame(t *testing.T) {
	s := serverStream(t, &Protocol{})
	_, err := events(s, append(streamFrame([]byte("abc")), 0xfe, 0xff, 0xff, 0xff))
	if err == nil || err.Error() != "seastar protocol error at byte 7: TOO_LARGE: a message of 4294967294 bytes, limit 1048576" {
		t.Error(err)
	}
}
