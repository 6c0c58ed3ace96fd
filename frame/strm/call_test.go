package strm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// calling is what a client's kernel does for a call.
func calling(s *Session, id uint64, req string, md ...metadata.Field) []byte {
	b := control(s, frame.Frame{Kind: frame.Open, Stream: id, Unary: true, Method: "lab.StreamLab/Echo", Grants: grants(1), Metadata: md})
	b = append(b, send(s, id, req)...)
	return append(b, control(s, eos(id))...)
}

// replying is what a server's kernel does.
func replying(s *Session, id uint64, reply string, md ...metadata.Field) []byte {
	b := control(s, frame.Frame{Kind: frame.Accept, Stream: id, Metadata: md, Grants: grants(1)})
	b = append(b, send(s, id, reply)...)
	return append(b, control(s, eos(id))...)
}

func TestCallsMayBeAnsweredInAnyOrder(t *testing.T) {
	c, s := pair(t)
	for i := range uint64(5) {
		s.feed(calling(c.Session, 1+2*i, fmt.Sprint("request ", i)))
	}
	if n := len(s.events); n != 15 {
		t.Fatalf("%s", s.log())
	}
	for _, i := range []uint64{3, 0, 4, 1, 2} {
		c.feed(replying(s.Session, 1+2*i, fmt.Sprint("reply ", i)))
		c.expect(t, fmt.Sprintf("accept stream=%d {limit=0 noReceive=false}", 1+2*i),
			fmt.Sprintf(`data stream=%d total=7 first=true last=true "reply %d"`, 1+2*i, i),
			fmt.Sprintf("eos stream=%d", 1+2*i))
	}
	c.empty(t)
	s.empty(t)
}

// The ids of calls are the peer's to choose.
func TestCorrelationIdsComeBackAsTheyAre(t *testing.T) {
	_, s := pair(t)
	for i, id := range []string{"0", "-1", "9223372036854775807", "-9223372036854775808", "0"} {
		s.feed(parseShown(t, `PRPC 1={ 1="a.B" 2="C" } 4=`+id+` "x"`))
		wrote(t, replying(s.Session, 1+2*uint64(i), "y"), `PRPC 2={ 1=0 } 3=0 4=`+id+` 10=0 11=0 12="" "y"`)
	}
	s.empty(t)
}

func TestOnePacketIsWrittenWhenTheCallIsComplete(t *testing.T) {
	c, s := pair(t)
	wrote(t, control(c.Session, frame.Frame{Kind: frame.Open, Stream: 1, Unary: true, Method: "a.B/C"}))
	wrote(t, send(c.Session, 1, "request"))
	req := control(c.Session, eos(1))
	wrote(t, req, `PRPC 1={ 1="a.B" 2="C" } 3=0 4=1 10=0 11=0 12="" "request"`)
	s.feed(req)
	s.expect(t, `open stream=1 method="a.B/C" unary {limit=0 noReceive=false}`, `data stream=1 total=7 first=true last=true "request"`, "eos stream=1")
	wrote(t, control(s.Session, frame.Frame{Kind: frame.Accept, Stream: 1, Metadata: metadata.MD{{Key: "header", Value: "h"}}}))
	wrote(t, send(s.Session, 1, "reply"))
	end := eos(1)
	end.Metadata = metadata.MD{{Key: "trailer", Value: "t"}}
	ans := control(s.Session, end)
	wrote(t, ans, `PRPC 2={ 1=0 } 3=0 4=1 9={ 1="header" 2="h" } 9={ 1="trailer" 2="t" } 10=0 11=0 12="" "reply"`)
	c.feed(ans)
	c.expect(t, `accept stream=1 md=[{"header" "h"} {"trailer" "t"}] {limit=0 noReceive=false}`,
		`data stream=1 total=5 first=true last=true "reply"`, "eos stream=1")
}

func TestAReplyMayComeWithTheAcceptance(t *testing.T) {
	c, s := pair(t)
	s.feed(calling(c.Session, 1, "request"))
	wrote(t, control(s.Session, frame.Frame{Kind: frame.Accept, Stream: 1, Payload: []byte("reply")}))
	c.feed(control(s.Session, eos(1)))
	c.expect(t, "accept stream=1 {limit=0 noReceive=false}", `data stream=1 total=5 first=true last=true "reply"`, "eos stream=1")
}

func TestEmptyRequestsAndRepliesAreMessages(t *testing.T) {
	for _, nothing := range []bool{false, true} {
		c, s := pair(t)
		var b []byte
		if nothing {
			b = control(c.Session, frame.Frame{Kind: frame.Open, Stream: 1, Unary: true, Method: "a.B/C"})
			b = append(b, control(c.Session, eos(1))...)
		} else {
			b = calling(c.Session, 1, "")
		}
		s.feed(b)
		if len(s.events) != 3 || !s.events[1].last || len(s.events[1].payload) != 0 {
			t.Errorf("%s", s.log())
		}
		if nothing {
			b = control(s.Session, eos(1))
		} else {
			b = replying(s.Session, 1, "")
		}
		c.feed(b)
		c.expect(t, "accept stream=1 {limit=0 noReceive=false}", `data stream=1 total=0 first=true last=true ""`, "eos stream=1")
	}
}

func TestLongRequestsAndRepliesAreOnePacket(t *testing.T) {
	c, s := pair(t)
	long := strings.Repeat("0123456789", 100_000)
	control(c.Session, frame.Frame{Kind: frame.Open, Stream: 1, Unary: true, Method: "a.B/C"})
	wrote(t, sendPieces(c.Session, 1, pool.Copy([]byte(long)), maxFragment))
	s.feedBy(control(c.Session, eos(1)), func(int) int { return 50_000 })
	if len(s.events) != 3 || string(s.events[1].payload) != long {
		t.Fatalf("%.300s", s.log())
	}
	control(s.Session, frame.Frame{Kind: frame.Accept, Stream: 1})
	wrote(t, sendPieces(s.Session, 1, pool.Copy([]byte(long)), maxFragment))
	c.feedBy(control(s.Session, eos(1)), func(int) int { return 50_000 })
	if len(c.events) != 3 || string(c.events[1].payload) != long {
		t.Fatalf("%.300s", c.log())
	}
}

// A long message of a call is handed on as it comes, and no more of it is kept than
// came at once.
func TestLongMessagesOfCallsAreNotCollected(t *testing.T) {
	c, s := pair(t)
	long := strings.Repeat("0123456789", 100_000)
	for _, k := range []struct {
		to *side
		b  []byte
	}{
		{s, calling(c.Session, 1, long)}, {c, nil},
	} {
		if k.b == nil {
			k.b = replying(s.Session, 1, long)
		}
		most := 0
		k.to.feedBy(k.b, func(int) int {
			most = max(most, k.to.in.got.Len())
			return 10_000
		})
		if most > 0 {
			t.Errorf("%d bytes were kept", most)
		}
		if e := k.to.events; len(e) != 3 || string(e[1].payload) != long || !e[1].first || !e[1].last || e[1].frame.Total != len(long) {
			t.Fatalf("%.300s", k.to.log())
		}
	}
	c.empty(t)
	s.empty(t)
}

// Its meta may come in pieces too, and a compressed message is collected.
func TestLongMessagesComeHoweverTheyAreCut(t *testing.T) {
	for _, md := range [][]metadata.Field{nil, {{Key: KeyChecksum, Value: "crc32c"}}, {{Key: KeyAttachmentSize, Value: "5000"}}} {
		c, _ := pair(t)
		msg := strings.Repeat("0123456789", 700)
		req := calling(c.Session, 1, msg, md...)
		ans := []byte(nil)
		for at := 1; at < 120; at++ {
			_, s := pair(t)
			s.feedBy(req, func(left int) int {
				if left == len(req) {
					return at
				}
				return left
			})
			if len(s.events) != 3 || string(s.events[1].payload) != msg {
				t.Fatalf("cut at %d: %.300s", at, s.log())
			}
			ans = replying(s.Session, 1, msg, md...)
		}
		c.feedBy(ans, bytewise)
		if len(c.events) != 3 || string(c.events[1].payload) != msg {
			t.Fatalf("%.300s", c.log())
		}
	}
}

func TestACallMayBeAnsweredBeforeItsRequestIsThere(t *testing.T) {
	c, s := pair(t)
	req := calling(c.Session, 1, strings.Repeat("x", 100_000))
	s.feed(req[:50_000])
	c.feed(replying(s.Session, 1, "enough"))
	c.expect(t, "accept stream=1 {limit=0 noReceive=false}", `data stream=1 total=6 first=true last=true "enough"`, "eos stream=1")
	s.empty(t)
	s.feed(req[50_000:])
	if e := s.events; len(e) != 3 || !e[1].last || len(e[1].payload) != 100_000 || e[2].frame.Kind != frame.EOS {
		t.Errorf("%.300s", s.log())
	}
}

func TestACallMayBeCanceledWhileItsReplyComes(t *testing.T) {
	c, s := pair(t)
	s.feed(calling(c.Session, 1, "request"))
	ans := replying(s.Session, 1, strings.Repeat("x", 100_000))
	c.feed(ans[:50_000])
	// A second answer is ignored, though the first is not complete.
	other := calling(c.Session, 3, "x")
	control(c.Session, abort(1))
	c.events = nil
	c.feed(ans[50_000:])
	c.expect(t)
	s.feed(other)
	c.feed(replying(s.Session, 3, "goes on"))
	c.expect(t, "accept stream=3 {limit=0 noReceive=false}", `data stream=3 total=7 first=true last=true "goes on"`, "eos stream=3")
	c.empty(t)
}

func TestACallTakesOneRequestAndOneReply(t *testing.T) {
	c, s := pair(t)
	s.feed(calling(c.Session, 1, "request"))
	control(s.Session, frame.Frame{Kind: frame.Accept, Stream: 1})
	send(s.Session, 1, "one", "two")
	send(s.Session, 1, "three")
	ans := control(s.Session, eos(1))
	wrote(t, ans, `PRPC 2={ 1=2001 2="[E2001]3 replies to a call, which takes one" } 3=0 4=1 10=0 11=0 12=""`)
	c.feed(ans)
	c.expect(t, "accept stream=1 {limit=0 noReceive=false}", `eos stream=1 code=INTERNAL reason="3 replies to a call, which takes one"`)
	s.empty(t)

	control(c.Session, frame.Frame{Kind: frame.Open, Stream: 3, Unary: true, Method: "a.B/C"})
	send(c.Session, 3, "one", "two")
	wrote(t, control(c.Session, eos(3)))
	c.feed(nil)
	c.expect(t, `reject stream=3 code=INVALID_ARGUMENT reason="2 requests in a call, which takes one" notProcessed=false`)
	c.empty(t)
}

func TestACallThatFailsEndsWithItsStatus(t *testing.T) {
	for _, k := range []struct {
		f    frame.Frame
		wire string
		want []string
	}{
		{
			frame.Frame{Kind: frame.EOS, Code: status.NotFound, Reason: "no such song"},
			`2={ 1=6 2="[E6]no such song" }`,
			[]string{"accept stream=1 {limit=0 noReceive=false}", `eos stream=1 code=NOT_FOUND reason="no such song"`},
		},
		{
			frame.Frame{Kind: frame.Reset, Code: status.Internal, Reason: "the handler panicked"},
			`2={ 1=2001 2="[E2001]the handler panicked" }`,
			[]string{"accept stream=1 {limit=0 noReceive=false}", `eos stream=1 code=INTERNAL reason="the handler panicked"`},
		},
		{
			frame.Frame{Kind: frame.Reject, Code: status.GoingAway, Reason: "stopping", NotProcessed: true},
			`2={ 1=2003 2="[E2003]stopping" }`,
			[]string{"goaway stream=0 value=4611686018427387904", `reject stream=1 code=GOING_AWAY reason="stopping" notProcessed=true`},
		},
		{
			frame.Frame{Kind: frame.Reject, Code: status.PermissionDenied, Reason: "not you"},
			`2={ 1=13 2="[E13]not you" }`,
			[]string{"accept stream=1 {limit=0 noReceive=false}", `eos stream=1 code=PERMISSION_DENIED reason="not you"`},
		},
		{ // a reset without a code is no success
			frame.Frame{Kind: frame.Reset},
			`2={ 1=2001 2="[E2001]" }`,
			[]string{"accept stream=1 {limit=0 noReceive=false}", `eos stream=1 code=INTERNAL reason=""`},
		},
	} {
		c, s := pair(t)
		s.feed(calling(c.Session, 1, "request"))
		if k.f.Kind == frame.EOS {
			control(s.Session, frame.Frame{Kind: frame.Accept, Stream: 1})
			send(s.Session, 1, "a reply that does not count")
		}
		k.f.Stream = 1
		ans := control(s.Session, k.f)
		wrote(t, ans, `PRPC `+k.wire+` 3=0 4=1 10=0 11=0 12=""`)
		c.feed(ans)
		c.expect(t, k.want...)
		c.empty(t)
		s.empty(t)
		// Nothing of it is written later.
		wrote(t, control(s.Session, eos(1)))
		wrote(t, send(s.Session, 1, "late"))
		wrote(t, control(s.Session, abort(1)))
	}
}

// A failure has metadata too, as brpc's servers send it.
func TestAFailedCallHasMetadata(t *testing.T) {
	c, s := pair(t)
	s.feed(calling(c.Session, 1, "request"))
	control(s.Session, frame.Frame{Kind: frame.Accept, Stream: 1, Metadata: metadata.MD{{Key: "k", Value: "v"}}})
	c.feed(control(s.Session, failed(1)))
	c.expect(t, `accept stream=1 md=[{"k" "v"}] {limit=0 noReceive=false}`, `eos stream=1 code=INTERNAL reason="lost on the way"`)
}

func TestACanceledCallIsForgotten(t *testing.T) {
	c, s := pair(t)
	s.feed(calling(c.Session, 1, "request"))
	wrote(t, control(c.Session, abort(1)))
	c.empty(t)
	c.feed(replying(s.Session, 1, "nobody waits"))
	c.expect(t)
	c.answers(t)

	control(c.Session, frame.Frame{Kind: frame.Open, Stream: 3, Unary: true, Method: "a.B/C"})
	send(c.Session, 3, "never sent")
	wrote(t, control(c.Session, abort(3)))
	wrote(t, control(c.Session, eos(3)))
	c.empty(t)
}

func TestAnUnrequestedAnswerIsIgnored(t *testing.T) {
	c, s := pair(t)
	ans := func(id int) []byte { return parseShown(t, fmt.Sprintf(`PRPC 2={ 1=0 } 4=%d "x"`, id)) }
	c.feed(ans(1))
	s.feed(calling(c.Session, 1, "request"))
	c.feed(ans(3))
	c.feed(ans(1))
	c.feed(ans(1))
	c.expect(t, "accept stream=1 {limit=0 noReceive=false}", `data stream=1 total=1 first=true last=true "x"`, "eos stream=1")
}

// brpc takes a meta without a response for success.
func TestAnAnswerWithoutResponseIsSuccess(t *testing.T) {
	c, _ := pair(t)
	calling(c.Session, 1, "request")
	c.feed(parseShown(t, `PRPC 4=1 "x"`))
	c.expect(t, "accept stream=1 {limit=0 noReceive=false}", `data stream=1 total=1 first=true last=true "x"`, "eos stream=1")
}

// A stream frame for a call is ignored, and streams that its answer names are reset.
func TestACallIsNoStream(t *testing.T) {
	c, s := pair(t)
	s.feed(calling(c.Session, 1, "request"))
	s.events = nil
	for _, k := range []*side{c, s} {
		k.feed(parseShown(t, `STRM 1=1 2=7 3=3 4=0 "x"`))
		k.expect(t)
		k.answers(t, `STRM 1=7 3=1`)
	}
	c.feed(parseShown(t, `PRPC 2={ 1=0 } 4=1 8={ 1=70 4=71 } "x"`))
	c.answers(t, `STRM 1=70 3=1`, `STRM 1=71 3=1`)
	c.expect(t, "accept stream=1 {limit=0 noReceive=false}", `data stream=1 total=1 first=true last=true "x"`, "eos stream=1")
}

func TestTheTokenGoesWithTheFirstRequestOnly(t *testing.T) {
	c := connect(t, true, "secret")
	// A request that can't be written does not use the token up.
	calling(c, 1, "x", metadata.Field{Key: KeyCompress, Value: "none at all"})
	wrote(t, calling(c, 3, "x"), `PRPC 1={ 1="lab.StreamLab" 2="Echo" } 3=0 4=3 7="secret" 10=0 11=0 12="" "x"`)
	wrote(t, calling(c, 5, "x"), `PRPC 1={ 1="lab.StreamLab" 2="Echo" } 3=0 4=5 10=0 11=0 12="" "x"`)
	c = connect(t, true, "secret")
	wrote(t, control(c, opening(1, 1)), `PRPC 1={ 1="lab.StreamLab" 2="Open" } 3=0 4=1 7="secret" 8={ 1=1 2=1 3=1 } 10=0 11=0 12="" "hi"`)
	// The kernel has no event.
	_, s := pair(t)
	s.feed(control(connect(t, true, "secret"), opening(1, 1)))
	if strings.Contains(s.log(), "secret") {
		t.Error(s.log())
	}
}

// What brpc can't carry writes nothing.
func TestFramesThatBrpcLacksWriteNothing(t *testing.T) {
	c, _ := establishedPair(t, 1, 1)
	for _, k := range []frame.Kind{frame.None, frame.Hello, frame.Stop, frame.Ended, frame.Read, frame.Ping, frame.Pong, frame.GoAway, frame.Skip} {
		wrote(t, control(c.Session, frame.Frame{Kind: k, Stream: 1, Value: 7}))
	}
	wrote(t, control(c.Session, frame.Frame{Kind: frame.Credit, Value: 7}))
	for _, k := range []frame.Kind{frame.Accept, frame.Reject, frame.EOS, frame.Reset, frame.Credit} {
		wrote(t, control(c.Session, frame.Frame{Kind: k, Stream: 99, Value: 7}))
	}
	for _, k := range []frame.Kind{frame.Accept, frame.Reject} {
		wrote(t, control(c.Session, frame.Frame{Kind: k, Stream: 1}))
	}
	wrote(t, send(c.Session, 99, "nobody"))
	wrote(t, sendPieces(c.Session, 99, pool.New(100), 50))
	if caps := c.Caps(); caps.Name != "brpc" || caps.Pacing != frame.Reported || caps.MaxFragment != 64<<10 || caps.MaxStream != 1<<62 ||
		caps.HalfClose || caps.Ended || caps.Status || caps.Stop || caps.ServerOpens || caps.Early || caps.Ping {
		t.Errorf("%+v", caps)
	}
}
