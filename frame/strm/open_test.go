package strm

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// expect compares the events from a side's input, and clears them.
func (s *side) expect(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, e := range s.events {
		got = append(got, e.String())
	}
	if s.err != nil {
		got = append(got, "error: "+s.err.Error())
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	s.events = nil
}

// wrote compares bytes with what show shows of them.
func wrote(t *testing.T, b []byte, want ...string) {
	t.Helper()
	if got, want := show(t, b), strings.Join(append(want, ""), "\n"); got != want {
		t.Errorf("wrote\n%swant\n%s", got, want)
	}
}

// answers compares what the session wrote by itself, and clears it.
func (s *side) answers(t *testing.T, want ...string) {
	t.Helper()
	wrote(t, s.out, want...)
	s.out = nil
}

// empty checks that no entry is left.
func (s *side) empty(t *testing.T) {
	t.Helper()
	if n := s.left(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

// unwrap takes the packet out of the frame that it travels in.
func unwrap(t *testing.T, b []byte) []byte {
	t.Helper()
	p := packets(t, b)
	if len(p) != 1 || p[0].inner == nil {
		t.Fatalf("no wrapped packet in %s", show(t, b))
	}
	return p[0].inner.encode()
}

const okReply = `accept stream=1 {limit=0 noReceive=false} payload="ok"`

func TestAPlainAnswerEstablishesStreamsToo(t *testing.T) {
	c, s := pair(t)
	s.feed(control(c.Session, opening(1, 1)))
	c.feed(unwrap(t, control(s.Session, accepting(1, 1))))
	c.expect(t, okReply)
	s.feed(send(c.Session, 1, "hi"))
	s.expect(t, `open stream=1 method="lab.StreamLab/Open" {limit=0 noReceive=false} payload="hi"`, `data stream=1 total=2 first=true last=true "hi"`)
}

// A client of brpc's counts on as many ids as it asked for.
func TestStreamsOfOneRequestAreAcceptedInOrderAndInPart(t *testing.T) {
	c, s := pair(t)
	req := control(c.Session, opening(1, 3))
	wrote(t, req, `PRPC 1={ 1="lab.StreamLab" 2="Open" } 3=0 4=1 8={ 1=1 2=1 3=1 4=3 4=5 } 10=0 11=0 12="" "hi"`)
	s.feed(req)
	s.expect(t, `open stream=1 method="lab.StreamLab/Open" {limit=0 noReceive=false} {limit=0 noReceive=false} {limit=0 noReceive=false} payload="hi"`)
	ans := control(s.Session, accepting(1, 2))
	wrote(t, ans, `STRM 1=1 2=1 3=3 4=0 [PRPC 2={ 1=0 } 3=0 4=1 8={ 1=1 2=1 3=1 4=3 4=5 } 10=0 11=0 12="" "ok"]`, `STRM 1=5 3=1`)
	early := send(c.Session, 5, "on its way")
	c.feed(ans)
	c.expect(t, `accept stream=1 {limit=0 noReceive=false} {limit=0 noReceive=false} {limit=0 noReceive=false} payload="ok"`,
		`reset stream=5 code=ABORTED reason="Received RST frame"`)
	s.feed(send(c.Session, 3, "b"))
	s.feed(early)
	s.feed(c.out) // the CLOSE that answers the RST
	s.expect(t, `data stream=3 total=1 first=true last=true "b"`)
	if s.left() != 2 || c.left() != 2 {
		t.Errorf("%d and %d streams are left of those accepted", c.left(), s.left())
	}
}

func TestPackedAndUnpackedExtraStreamsAreTheSame(t *testing.T) {
	unpacked := control(connect(t, true, ""), opening(1, 3))
	p, _, err := takePacket(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	st := p.get(fSettings)
	st.sub = append(st.sub[:3:3], field{num: fExtra, typ: 2, b: []byte{3, 5}})
	for _, b := range [][]byte{unpacked, p.encode()} {
		_, s := pair(t)
		s.feed(b)
		if len(s.events) != 1 || len(s.events[0].frame.Grants) != 3 {
			t.Fatalf("%s", s.log())
		}
		wrote(t, control(s.Session, accepting(1, 3)),
			`STRM 1=1 2=1 3=3 4=0 [PRPC 2={ 1=0 } 3=0 4=1 8={ 1=1 2=1 3=1 4=3 4=5 } 10=0 11=0 12="" "ok"]`)
		wrote(t, send(s.Session, 5, "x"), `STRM 1=5 2=5 3=3 4=0 "x"`)
	}
}

func TestStreamsBeyondThoseAskedForAreReset(t *testing.T) {
	c, _ := pair(t)
	control(c.Session, opening(1, 2))
	c.feed(parseShown(t, `STRM 1=1 2=70 3=3 4=0 [PRPC 2={ 1=0 } 4=1 8={ 1=70 2=1 3=1 4=71 4=72 4=73 } "ok"]`))
	c.expect(t, `accept stream=1 {limit=0 noReceive=false} {limit=0 noReceive=false} payload="ok"`)
	c.answers(t, `STRM 1=72 3=1`, `STRM 1=73 3=1`)
}

func TestOneRequestOpensSoManyStreamsAndNoMore(t *testing.T) {
	c, s := pair(t)
	s.feed(control(c.Session, opening(1, maxGroup+1)))
	s.expect(t)
	s.answers(t, `STRM 1=1 2=-1 3=3 4=0 [PRPC 2={ 1=1003 2="[E1003]257 streams in one request, at most 256" } 4=1]`)
	c.feed(parseShown(t, `STRM 1=1 2=-1 3=3 4=0 [PRPC 2={ 1=1003 2="[E1003]257 streams in one request, at most 256" } 4=1]`))
	c.expect(t, `reject stream=1 code=INVALID_ARGUMENT reason="257 streams in one request, at most 256" notProcessed=false`)
	c.empty(t)
	s.empty(t)
	s.feed(control(connect(t, true, ""), opening(1, maxGroup)))
	if len(s.events) != 1 || len(s.events[0].frame.Grants) != maxGroup {
		t.Errorf("%s", s.log())
	}
}

// What the wire says of a stream's reader and window is for all of a request.
func TestSettingsSayWhoReadsAndWhoReports(t *testing.T) {
	const none = 1<<63 - 1
	for _, c := range []struct {
		grants []frame.Grant
		want   string
	}{
		{[]frame.Grant{{}}, "2=1 3=1"},
		{[]frame.Grant{{Limit: 100}}, "2=1 3=1"},
		{[]frame.Grant{{Limit: none}}, "2=0 3=1"},
		{[]frame.Grant{{NoReceive: true}}, "2=1 3=0"},
		{[]frame.Grant{{Limit: none, NoReceive: true}, {}}, "2=1 3=1"},
		{[]frame.Grant{{Limit: none, NoReceive: true}, {Limit: none, NoReceive: true}}, "2=0 3=0"},
	} {
		f := opening(1, 1)
		f.Grants = c.grants
		if got := show(t, control(connect(t, true, ""), f)); !strings.Contains(got, " 8={ 1=1 "+c.want) {
			t.Errorf("%+v became %s, want %s", c.grants, got, c.want)
		}
	}
}

func TestAPeerThatDoesNotReadIsNotWrittenTo(t *testing.T) {
	c, s := pair(t)
	f := opening(1, 1)
	f.Grants = []frame.Grant{{NoReceive: true}}
	s.feed(control(c.Session, f))
	s.expect(t, `open stream=1 method="lab.StreamLab/Open" {limit=0 noReceive=true} payload="hi"`)
	c.feed(control(s.Session, accepting(1, 1)))
	wrote(t, send(s.Session, 1, "nobody reads this"))
	wrote(t, sendPieces(s.Session, 1, pool.New(100), 64))
	s.feed(send(c.Session, 1, "this is read"))
	s.expect(t, `data stream=1 total=12 first=true last=true "this is read"`)
}

func TestReportsAreSentOnRequestOnly(t *testing.T) {
	for _, asks := range []bool{true, false} {
		c, s := pair(t)
		f := opening(1, 1)
		if !asks {
			f.Grants = []frame.Grant{{Limit: 1 << 62}}
		}
		s.feed(control(c.Session, f))
		c.feed(control(s.Session, accepting(1, 1)))
		s.feed(send(c.Session, 1, "four"))
		report := control(s.Session, frame.Frame{Kind: frame.Credit, Stream: 1, Value: 4})
		if asks {
			wrote(t, report, `STRM 1=1 2=1 3=4 5={ 1=4 }`)
		} else {
			wrote(t, report)
		}
		wrote(t, control(s.Session, frame.Frame{Kind: frame.Credit, Stream: 1}))
		// The answer's settings are the server's own: it asks.
		c.feed(send(s.Session, 1, "four"))
		wrote(t, control(c.Session, frame.Frame{Kind: frame.Credit, Stream: 1, Value: 4}), `STRM 1=1 2=1 3=4 5={ 1=4 }`)
	}
}

func TestAStreamIsUnknownBeforeItsAnswer(t *testing.T) {
	c, s := pair(t)
	s.feed(control(c.Session, opening(1, 2)))
	s.events = nil
	for _, typ := range []string{"3=3 4=0", "3=2", "3=1"} {
		s.feed(parseShown(t, "STRM 1=1 2=77 "+typ))
		s.feed(parseShown(t, "STRM 1=3 2=78 "+typ))
	}
	s.expect(t)
	s.answers(t, `STRM 1=77 3=1`, `STRM 1=78 3=1`, `STRM 1=77 3=1`, `STRM 1=78 3=1`, `STRM 1=77 3=1`, `STRM 1=78 3=1`)
	c.feed(control(s.Session, accepting(1, 2)))
	s.feed(send(c.Session, 1, "now"))
	s.expect(t, `data stream=1 total=3 first=true last=true "now"`)
}

func TestFramesThatPrecedeTheAnswerWaitForIt(t *testing.T) {
	c, _ := pair(t)
	control(c.Session, opening(1, 3))
	for _, l := range []string{
		`STRM 1=3 2=71 3=3 4=0 "one"`,
		`STRM 1=5 2=72 3=3 4=1 "ha"`,
		`STRM 1=3 2=71 3=4 5={ 1=0 }`,
		`STRM 1=5 2=72 3=3 4=0 "lf"`,
		`STRM 1=3 2=71 3=3 4=0`,
		`STRM 1=3 2=71 3=2`,
		`STRM 1=5 2=72 3=9`,
		`STRM 1=1 2=70 3=4 5={ 1=0 }`,
	} {
		c.feed(parseShown(t, l))
	}
	c.expect(t)
	c.feed(parseShown(t, `STRM 1=1 2=70 3=3 4=0 [PRPC 2={ 1=0 } 4=1 8={ 1=70 2=1 3=1 4=71 4=72 } "ok"]`))
	c.expect(t,
		`accept stream=1 {limit=0 noReceive=false} {limit=0 noReceive=false} {limit=0 noReceive=false} payload="ok"`,
		`data stream=3 total=3 first=true last=true "one"`,
		`data stream=5 total=-1 first=true last=true "half"`, // a report of nothing is no event
		`data stream=3 total=0 first=true last=true ""`,
		`eos stream=3`, `stop stream=3`)
	wrote(t, control(c.Session, frame.Frame{Kind: frame.EOS, Stream: 3}), `STRM 1=71 2=3 3=2`)
	if c.left() != 2 {
		t.Errorf("%d streams are left", c.left())
	}
}

func TestFramesThatPrecedeTheAnswerAreBounded(t *testing.T) {
	wait := func() *side {
		c, _ := pair(t)
		control(c.Session, opening(1, 2))
		return c
	}
	data := func(n int) []byte { return append(appendDataHead(nil, 3, 71, n, false), make([]byte, n)...) }
	flow := &status.ProtocolError{Code: status.FlowControl}

	c := wait()
	c.feed(data(maxEarly))
	if c.err != nil {
		t.Error(c.err)
	}
	c.feed(data(1))
	if !errors.Is(c.err, flow) {
		t.Errorf("a byte too many: %v", c.err)
	}
	c = wait()
	c.feed(data(maxEarly + 1)[:40])
	if !errors.Is(c.err, flow) {
		t.Errorf("a frame that is too long: %v", c.err)
	}
	c = wait()
	for range maxEarlyCount {
		c.feed(data(0))
	}
	if c.err != nil {
		t.Error(c.err)
	}
	c.feed(data(0))
	if !errors.Is(c.err, flow) {
		t.Errorf("a frame too many: %v", c.err)
	}
}

func TestOnlyTheAnswerMayComeFirst(t *testing.T) {
	for _, l := range []string{
		`STRM 1=1 2=70 3=3 4=0 "no answer"`,
		`STRM 1=1 2=70 3=3 4=0`,
		`STRM 1=1 2=70 3=3 4=1 "segment"`,
		`STRM 1=1 2=70 3=2`,
		`STRM 1=1 3=1`,
		`STRM 1=1 2=70 3=3 4=0 [PRPC 2={ 1=0 } 4=2 8={ 1=70 } "of another request"]`,
		`STRM 1=1 2=70 3=3 4=0 [PRPC 1={ 1="a" 2="b" } 4=1 "a request"]`,
		`STRM 1=1 2=70 3=3 4=0 [PRPC 2={ 1=0 } 4=1 8={ 2=1 3=1 } "no id"]`,
	} {
		c, _ := pair(t)
		control(c.Session, opening(1, 1))
		c.feed(parseShown(t, l))
		if !errors.Is(c.err, &status.ProtocolError{Code: status.Protocol}) {
			t.Errorf("%s: %v, %s", l, c.err, c.log())
		}
	}
}

// An answer that is wrapped must fill its frame exactly.
func TestAWrappedAnswerFillsItsFrame(t *testing.T) {
	_, s := pair(t)
	s.feed(control(connect(t, true, ""), opening(1, 1)))
	ans := control(s.Session, accepting(1, 1))
	for _, change := range []func(b []byte) []byte{
		func(b []byte) []byte { b[20+7]++; return b },
		func(b []byte) []byte { b[20+7]--; return b },
		func(b []byte) []byte { b[20+11] = 200; return b },
		func(b []byte) []byte { b[20+11] = 0; return b },
	} {
		c, _ := pair(t)
		control(c.Session, opening(1, 1))
		c.feed(change(append([]byte(nil), ans...)))
		if !errors.Is(c.err, &status.ProtocolError{Code: status.FrameSize}) {
			t.Errorf("%v", c.err)
		}
	}
}

func TestARefusalSaysWhy(t *testing.T) {
	for _, c := range []struct {
		code         status.Code
		notProcessed bool
		wire         string
	}{
		{status.Unimplemented, true, `1=1002 2="[E1002]why"`},
		{status.GoingAway, true, `1=2003 2="[E2003]why"`},
		{status.Refused, true, `1=2004 2="[E2004]why"`},
		{status.ResourceExhausted, true, `1=1011 2="[E1011]why"`},
		{status.PermissionDenied, false, `1=13 2="[E13]why"`},
		{status.FailedPrecondition, false, `1=9 2="[E9]why"`},
		{4242, false, `1=4242 2="[E4242]why"`},
	} {
		cl, s := pair(t)
		s.feed(control(cl.Session, opening(1, 2)))
		no := control(s.Session, frame.Frame{Kind: frame.Reject, Stream: 1, Code: c.code, Reason: "why", NotProcessed: c.notProcessed})
		wrote(t, no, fmt.Sprintf(`STRM 1=1 2=-1 3=3 4=0 [PRPC 2={ %s } 3=0 4=1 10=0 11=0 12=""]`, c.wire))
		for _, b := range [][]byte{no, unwrap(t, no)} {
			k := &side{Session: connect(t, true, "")}
			control(k.Session, opening(1, 2))
			k.feed(b)
			if c.code == status.GoingAway {
				k.events = k.events[1:] // another test is about that
			}
			k.expect(t, fmt.Sprintf("reject stream=1 code=%v reason=%q notProcessed=%t", c.code, "why", c.notProcessed))
			k.empty(t)
		}
		s.empty(t)
	}
}

// A server that stops says so in its answers. The client reports it once, and before the
// refused request, which may then be retried elsewhere.
func TestAServerThatStopsIsGoingAway(t *testing.T) {
	c, _ := pair(t)
	for i := range uint64(3) {
		control(c.Session, opening(1+4*i, 1))
		calling(c.Session, 3+4*i, "call")
	}
	c.feed(parseShown(t, `PRPC 2={ 1=2003 2="Server is stopping" } 4=3`))
	c.feed(parseShown(t, `STRM 1=1 2=-1 3=3 4=0 [PRPC 2={ 1=2003 2="Server is stopping" } 4=1]`))
	c.expect(t, fmt.Sprintf("goaway stream=0 value=%d", uint64(maxStream)),
		`reject stream=3 code=GOING_AWAY reason="Server is stopping" notProcessed=true`,
		`reject stream=1 code=GOING_AWAY reason="Server is stopping" notProcessed=true`)
	// Requests that were made before go on.
	c.feed(parseShown(t, `PRPC 2={ 1=0 } 4=7 "ok"`))
	c.expect(t, "accept stream=7 {limit=0 noReceive=false}", `data stream=7 total=2 first=true last=true "ok"`, "eos stream=7")
}

// A missing method of a service whose name has no dot is answered as a missing service.
func TestAMissingServiceDiffersFromAMissingMethod(t *testing.T) {
	for method, want := range map[string]string{"lab.Nope/Open": "1=1002", "Nope/Open": "1=1001", "/Open": "1=1001"} {
		c, s := pair(t)
		f := opening(1, 1)
		f.Method = method
		s.feed(control(c.Session, f))
		no := control(s.Session, frame.Frame{Kind: frame.Reject, Stream: 1, Code: status.Unimplemented, Reason: "x", NotProcessed: true})
		if got := show(t, no); !strings.Contains(got, want) {
			t.Errorf("%s: %s", method, got)
		}
	}
}

func TestAnOpenThatFailsThoughItWasAcceptedIsReset(t *testing.T) {
	c, _ := pair(t)
	control(c.Session, opening(1, 2))
	c.feed(parseShown(t, `STRM 1=1 2=70 3=3 4=0 [PRPC 2={ 1=4243 2="late" } 4=1 8={ 1=70 2=1 3=1 4=71 }]`))
	c.expect(t, `reject stream=1 code=CODE_4243 reason="late" notProcessed=false`)
	c.answers(t, `STRM 1=70 3=1`, `STRM 1=71 3=1`)
	c.empty(t)
}

func TestAReplyThatCantBeReadFailsTheOpen(t *testing.T) {
	c, _ := pair(t)
	control(c.Session, opening(1, 1))
	c.feed(parseShown(t, `STRM 1=1 2=70 3=3 4=0 [PRPC 2={ 1=0 } 3=2 4=1 8={ 1=70 2=1 3=1 } "no gzip"]`))
	c.expect(t, `reject stream=1 code=DATA_LOSS reason="Fail to parse response, ContentType=pb, CompressType=gzip, ChecksumType=none, response_size=7" notProcessed=false`)
	c.answers(t, `STRM 1=70 3=1`)
	c.empty(t)
}

// canceledRequest is a client whose request for n streams has no answer, and that has
// reset all of them.
func canceledRequest(t *testing.T, n int) *side {
	t.Helper()
	c, _ := pair(t)
	control(c.Session, opening(1, n))
	for i := range n {
		wrote(t, control(c.Session, frame.Frame{Kind: frame.Reset, Stream: 1 + 2*uint64(i)}))
	}
	return c
}

func TestAnAnswerThatComesTooLateResetsEveryStream(t *testing.T) {
	late := `PRPC 2={ 1=0 } 4=1 8={ 1=70 2=1 3=1 4=71 4=72 } "ok"`
	for _, l := range []string{late, `STRM 1=1 2=70 3=3 4=0 [` + late + `]`} {
		c := canceledRequest(t, 3)
		c.feed(parseShown(t, `STRM 1=3 2=71 3=3 4=0 "early"`))
		c.feed(parseShown(t, l))
		c.expect(t)
		c.answers(t, `STRM 1=70 3=1`, `STRM 1=71 3=1`, `STRM 1=72 3=1`)
		c.feed(parseShown(t, `STRM 1=3 2=71 3=3 4=0 "on its way"`))
		for i := range 3 { // a server of brpc's answers an RST with a CLOSE
			c.feed(parseShown(t, fmt.Sprintf(`STRM 1=%d 2=%d 3=2`, 1+2*i, 70+i)))
		}
		c.expect(t)
		c.answers(t, `STRM 1=70 3=1`, `STRM 1=71 3=1`, `STRM 1=72 3=1`)
		c.empty(t)
	}
	c := canceledRequest(t, 3)
	c.feed(parseShown(t, `STRM 1=1 2=-1 3=3 4=0 [PRPC 2={ 1=2001 } 4=1]`))
	c.expect(t)
	c.answers(t)
	c.empty(t)
}

// Also when the request is unknown.
func TestAnAnswerToNoRequestResetsItsStreams(t *testing.T) {
	c, _ := pair(t)
	c.feed(parseShown(t, `PRPC 2={ 1=0 } 4=99 8={ 1=70 2=1 3=1 4=71 } "ok"`))
	c.feed(parseShown(t, `PRPC 2={ 1=0 } 4=-1 "ok"`))
	c.expect(t)
	c.answers(t, `STRM 1=70 3=1`, `STRM 1=71 3=1`)
}

func TestOneOfSeveralStreamsMayBeCanceledBeforeTheAnswer(t *testing.T) {
	c, _ := pair(t)
	control(c.Session, opening(1, 3))
	control(c.Session, frame.Frame{Kind: frame.Reset, Stream: 1})
	c.feed(parseShown(t, `STRM 1=1 2=70 3=3 4=0 [PRPC 2={ 1=0 } 4=1 8={ 1=70 2=1 3=1 4=71 } "ok"]`))
	// On a stream that was not canceled, or the kernel would not find the others.
	c.expect(t, `accept stream=3 {limit=0 noReceive=false} {limit=0 noReceive=false} payload="ok"`)
	c.answers(t, `STRM 1=70 3=1`)
	c.feed(parseShown(t, `STRM 1=3 2=71 3=3 4=0 "to the second"`))
	c.expect(t, `data stream=3 total=13 first=true last=true "to the second"`)

	// Also if it was the only one that the server accepted.
	c, _ = pair(t)
	control(c.Session, opening(1, 2))
	control(c.Session, frame.Frame{Kind: frame.Reset, Stream: 1})
	c.feed(parseShown(t, `STRM 1=1 2=70 3=3 4=0 [PRPC 2={ 1=0 } 4=1 8={ 1=70 2=1 3=1 } "ok"]`))
	c.expect(t, `accept stream=3 {limit=0 noReceive=false} payload="ok"`)
	c.answers(t, `STRM 1=70 3=1`)

	c, _ = pair(t)
	control(c.Session, opening(1, 2))
	control(c.Session, frame.Frame{Kind: frame.Reset, Stream: 1})
	c.feed(parseShown(t, `STRM 1=1 2=-1 3=3 4=0 [PRPC 2={ 1=2001 2="no" } 4=1]`))
	c.expect(t, `reject stream=3 code=INTERNAL reason="no" notProcessed=false`)
	c.empty(t)
}

// A server's handler may reset one of its streams before it answers.
func TestAnOfferedStreamThatIsAbortedIsResetBehindTheAnswer(t *testing.T) {
	c, s := pair(t)
	s.feed(control(c.Session, opening(1, 2)))
	wrote(t, control(s.Session, frame.Frame{Kind: frame.Reset, Stream: 3, Code: status.Cancelled}))
	ans := control(s.Session, accepting(1, 2))
	wrote(t, ans, `STRM 1=1 2=1 3=3 4=0 [PRPC 2={ 1=0 } 3=0 4=1 8={ 1=1 2=1 3=1 4=3 } 10=0 11=0 12="" "ok"]`, `STRM 1=3 3=1`)
	c.feed(ans)
	c.expect(t, `accept stream=1 {limit=0 noReceive=false} {limit=0 noReceive=false} payload="ok"`, `reset stream=3 code=ABORTED reason="Received RST frame"`)
	s.feed(c.out)
	if c.left() != 1 || s.left() != 1 {
		t.Errorf("%d and %d streams are left", c.left(), s.left())
	}
}

func TestAHandlerThatFailsBeforeItAcceptsFailsTheRequest(t *testing.T) {
	for _, k := range []frame.Kind{frame.Reset, frame.EOS} {
		c, s := pair(t)
		s.feed(control(c.Session, opening(1, 2)))
		no := control(s.Session, frame.Frame{Kind: k, Stream: 1, Code: status.Internal, Reason: "panic"})
		c.feed(no)
		c.expect(t, `reject stream=1 code=INTERNAL reason="panic" notProcessed=false`)
		control(s.Session, frame.Frame{Kind: frame.Reset, Stream: 3, Code: status.Internal})
		s.empty(t)
		c.empty(t)
	}
}

// A request that is too long for the frame that opens follows as the stream's first
// message, whole or in pieces; the wire needs them together.
func TestALongRequestAndReplyTravelWithTheirFrames(t *testing.T) {
	long := strings.Repeat("long", 40_000)
	for _, pieces := range []bool{false, true} {
		put := func(s *Session) []byte {
			if pieces {
				return sendPieces(s, 1, pool.Copy([]byte(long)), maxFragment)
			}
			return send(s, 1, long[:50_000])
		}
		c, s := pair(t)
		f := opening(1, 2)
		f.FollowsData, f.Payload = true, nil
		wrote(t, control(c.Session, f))
		s.feed(put(c.Session))
		if len(s.events) != 1 || !strings.HasPrefix(long, string(s.events[0].frame.Payload)) || len(s.events[0].frame.Payload) < 50_000 {
			t.Fatalf("%.200s", s.log())
		}
		f = accepting(1, 2)
		f.FollowsData, f.Payload = true, nil
		wrote(t, control(s.Session, f))
		// What is sent on the other stream meanwhile waits for the answer.
		wrote(t, send(s.Session, 3, "behind"))
		wrote(t, sendPieces(s.Session, 3, pool.Copy([]byte("in pieces")), 5))
		c.feed(put(s.Session))
		if len(c.events) != 3 || len(c.events[0].frame.Payload) < 50_000 || c.events[0].frame.Kind != frame.Accept {
			t.Fatalf("%.200s", c.log())
		}
		c.events = c.events[1:]
		c.expect(t, `data stream=3 total=6 first=true last=true "behind"`, `data stream=3 total=-1 first=true last=true "in pieces"`)
	}
}

// The reply was announced and does not come: all streams of the answer end, also those
// that the handler uses already.
func TestAReplyThatNeverComesEndsAllStreams(t *testing.T) {
	c, s := pair(t)
	s.feed(control(c.Session, opening(1, 3)))
	s.events = nil
	f := accepting(1, 2)
	f.FollowsData, f.Payload = true, nil
	control(s.Session, f)
	send(s.Session, 3, "never sent")
	c.feed(control(s.Session, frame.Frame{Kind: frame.Reset, Stream: 1, Code: status.Cancelled, Reason: "gone"}))
	c.expect(t, `reject stream=1 code=CANCELLED reason="gone" notProcessed=false`)
	s.feed(nil)
	s.expect(t, `reset stream=3 code=CANCELLED reason="gone"`)
	s.empty(t)
	c.empty(t)
}

func TestARequestCanceledBeforeItIsWrittenIsNotWritten(t *testing.T) {
	c, _ := pair(t)
	f := opening(1, 2)
	f.FollowsData, f.Payload = true, nil
	control(c.Session, f)
	// A frame with its number does not find it.
	c.feed(parseShown(t, `PRPC 2={ 1=0 } 4=1 8={ 1=70 2=1 3=1 } "guessed"`))
	c.feed(parseShown(t, `STRM 1=3 2=71 3=3 4=0 "guessed"`))
	c.expect(t)
	c.answers(t, `STRM 1=70 3=1`, `STRM 1=71 3=1`)
	control(c.Session, frame.Frame{Kind: frame.Reset, Stream: 1})
	wrote(t, send(c.Session, 1, "the request"))
	c.empty(t)
}

func TestDeadlinesTravelInMilliseconds(t *testing.T) {
	for _, c := range []struct {
		ms   int64
		wire string
	}{{0, `}`}, {1, `8=1 }`}, {1500, `8=1500 }`}, {1 << 40, `8=2147483647 }`}} {
		cl, s := pair(t)
		f := opening(1, 1)
		f.Deadline = msDuration(c.ms)
		b := control(cl.Session, f)
		if got := show(t, b); !strings.Contains(got, `2="Open" `+c.wire) {
			t.Errorf("%d ms: %s", c.ms, got)
		}
		s.feed(b)
		if got := s.events[0].frame.Deadline; got != msDuration(min(c.ms, 1<<31-1)) {
			t.Errorf("%d ms came as %v", c.ms, got)
		}
	}
	// Less than a millisecond is left: not none. And more than can be rounded up.
	cl, s := pair(t)
	for i, c := range []struct{ left, want time.Duration }{{1, msDuration(1)}, {math.MaxInt64, msDuration(1<<31 - 1)}} {
		f := opening(uint64(1+2*i), 1)
		f.Deadline = c.left
		s.feed(control(cl.Session, f))
		if got := s.events[i].frame.Deadline; got != c.want {
			t.Errorf("%d ns came as %v", c.left, got)
		}
	}
	s.feed(parseShown(t, `PRPC 1={ 1="a" 2="b" 8=-5 } 4=1`))
	if got := s.events[2].frame.Deadline; got != 0 {
		t.Errorf("a negative timeout is a deadline of %v", got)
	}
}
