package strm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// What ends a connection, with the code of its end. Where brpc logs and goes on,
// the sides may be out of step, so we don't.
var bad = []struct {
	name string
	in   string // hex; ~ is the connection's end
	code status.Code
}{
	{"rubbish", "58585858", status.Protocol},
	{"rubbish after half a magic", "505243", status.Protocol},
	{"HTTP/1 on the way", hex.EncodeToString([]byte("GET / HTTP/1.1\r\n")), status.Protocol},
	{"HTTP/2 on the way", hex.EncodeToString([]byte("PRI * HTTP/2.0\r\n")), status.Protocol},
	{"sluice on the way", hex.EncodeToString([]byte("SLUICE\r\n")), status.Protocol},
	{"body of 4 GiB", "5354524d ffffffff 00000006", status.FrameSize},
	{"packet of 4 GiB", "50525043 ffffffff 00000006", status.FrameSize},
	{"body over the limit by one", "5354524d 0041040d 00000006", status.FrameSize},
	{"packet over the limit by one", "50525043 0041040d 00000006", status.FrameSize},
	{"meta longer than the body", "5354524d 00000002 00000032 0801", status.FrameSize},
	{"meta of a packet longer than its body", "50525043 00000002 00000032 0801", status.FrameSize},
	{"meta of a frame too long", "5354524d 00000800 00000401", status.FrameSize},
	{"meta of a packet too long", "50525043 00020000 00010001", status.FrameSize},
	{"frame without a meta", "5354524d 00000005 00000000 0102030405", status.Protocol},
	{"packet without a meta", "50525043 00000005 00000000 0102030405", status.Protocol},
	{"packet of nothing", "50525043 00000000 00000000", status.Protocol},
	{"frame without stream_id", "5354524d 00000004 00000002 1803 7a7a", status.Protocol},
	{"meta that is no message", "5354524d 00000003 00000003 ffffff", status.Protocol},
	{"meta of a packet that is no message", "50525043 00000003 00000003 ffffff", status.Protocol},
	{"varint of eleven bytes", "5354524d 0000000e 0000000e 08 80808080808080808080 01 1802", status.Protocol},
	{"field zero", "5354524d 00000004 00000004 0801 0001", status.Protocol},
	{"group that does not end", "5354524d 00000003 00000003 0801 33", status.Protocol},
	{"length beyond the meta", "5354524d 00000004 00000004 0801 2a05", status.Protocol},
	{"report that is no message", "5354524d 00000006 00000006 0801 1804 2a01", status.Protocol},
	{"report with data", "5354524d 00000009 00000008 0801 1804 2a020801 78", status.FrameSize},
	{"close with data", "5354524d 00000005 00000004 0801 1802 78", status.FrameSize},
	{"reset with data", "5354524d 00000005 00000004 0801 1801 78", status.FrameSize},
	{"settings without stream_id", "50525043 0000000e 0000000e 0a06 0a0161 120162 4202 1001 2001", status.Protocol},
	{"extra streams that are cut off", "50525043 0000000f 0000000f 0a06 0a0161 120162 4205 0801 2201 80", status.Protocol},
	{"user field that is no message", "50525043 0000000b 0000000b 0a06 0a0161 120162 4a01ff", status.Protocol},
}

// Of these, a server.
var badForServer = []struct{ name, in string }{
	{"answer to no request of ours", "50525043 00000006 00000006 1202 0800 2001"},
	{"neither request nor response", "50525043 00000002 00000002 2001"},
	{"request without service", "50525043 00000007 00000007 0a03 120162 2001"},
	{"request without method", "50525043 00000007 00000007 0a03 0a0161 2001"},
	{"empty request", "50525043 00000004 00000004 0a00 2001"},
}

func TestWhatBreaksTheWireEndsTheConnection(t *testing.T) {
	for _, c := range bad {
		for _, client := range []bool{false, true} {
			checkBad(t, c.name, c.in, c.code, client)
		}
	}
	for _, c := range badForServer {
		checkBad(t, c.name, c.in, status.Protocol, false)
	}
	checkBad(t, "request of a server", "50525043 00000008 00000008 0a06 0a0161 120162", status.Protocol, true)
}

// noMemory is far less than what the lengths of these tests announce; the runtime
// counts by whole spans, and what else runs.
const noMemory = 512 << 10

func checkBad(t *testing.T, name, in string, code status.Code, client bool) {
	t.Helper()
	b := unhex(t, in)
	// It begins behind frames that are good: an error says where.
	before := append(appendRST(nil, 1), appendFeedback(nil, 1, 1, 1)...)
	for _, cut := range []func(int) int{whole, bytewise} {
		s := &side{Session: connect(t, client, "")}
		s.feed(before)
		alloc := allocated()
		s.feedBy(b, cut)
		if got := allocated() - alloc; got > noMemory {
			t.Errorf("%s: %d bytes were allocated", name, got)
		}
		var pe *status.ProtocolError
		if !errors.As(s.err, &pe) || pe.Code != code || pe.Proto != "brpc" || pe.Offset != int64(len(before)) {
			t.Errorf("%s: %v", name, s.err)
		}
		s.expect(t, "error: "+fmt.Sprint(s.err))
	}
}

// A length that is announced takes no memory before there are bytes for it.
func TestALengthAloneTakesNoMemory(t *testing.T) {
	for _, h := range []string{"50525043 00400000 00000010 0a", "5354524d 00400000 00000010 08", "5354524d 00400000 00000006 080110011803 78"} {
		_, s := establishedPair(t, 1, 1)
		before := allocated()
		s.feed(unhex(t, h))
		if got := allocated() - before; got > noMemory || s.err != nil {
			t.Errorf("%s: %d bytes, %v", h, got, s.err)
		}
	}
}

// A packet that has to be collected can be longer than the longest message there can
// be, by its meta: it is refused before there is memory for it.
func TestAPacketThatMemoryCantHoldIsRefused(t *testing.T) {
	tooLong := func(b []byte) []byte {
		meta := len(b) - headerLen - 1 // the test's packets have a message of a byte
		binary.BigEndian.PutUint32(b[4:], uint32(meta+pool.MaxLen+1))
		return b[:headerLen+meta]
	}
	asker := newSession(true, pool.MaxLen, maxBody)
	control(asker, opening(1, 1))
	for name, k := range map[string]struct {
		s *Session
		b []byte
	}{
		"a request to unpack": {newSession(false, pool.MaxLen, maxBody), tooLong(parseShown(t, `PRPC 1={ 1="a" 2="b" } 3=2 4=1 "x"`))},
		"an open":             {newSession(false, pool.MaxLen, maxBody), tooLong(parseShown(t, `PRPC 1={ 1="a" 2="b" } 4=1 8={ 1=1 2=1 3=1 } "x"`))},
		"a late answer":       {newSession(true, pool.MaxLen, maxBody), tooLong(parseShown(t, `PRPC 2={ 1=0 } 4=1 "x"`))},
		"a wrapped answer":    {asker, tooLong(parseShown(t, `STRM 1=1 2=70 3=3 "x"`))},
	} {
		s := &side{Session: k.s}
		s.feed(k.b)
		if !errors.Is(s.err, &status.ProtocolError{Code: status.FrameSize}) {
			t.Errorf("%s: %v", name, s.err)
		}
	}
	// One that is handed on as it comes may be that long.
	s := &side{Session: newSession(false, pool.MaxLen, maxBody)}
	s.feed(tooLong(parseShown(t, `PRPC 1={ 1="a" 2="b" } 4=1 "x"`)))
	s.expect(t, `open stream=1 method="a/b" unary {limit=0 noReceive=false}`)
}

func TestAMetaOfUnknownFieldsIsRead(t *testing.T) {
	// Of each wire type, one that no version has.
	unknown := unhex(t, "f80601 f10601020304050607 08 fa0603616263 fb06 0801 fc06 fd0601020304")
	_, s := establishedPair(t, 1, 1)
	for _, p := range []string{`STRM 1=1 2=1 3=3 4=0 "x"`, `PRPC 1={ 1="a" 2="b" } 4=1 "y"`} {
		b := parseShown(t, p)
		for _, front := range []bool{true, false} {
			meta := int(b[11])
			m := append(append([]byte(nil), b[headerLen:headerLen+meta]...), unknown...)
			if front {
				m = append(append([]byte(nil), unknown...), b[headerLen:headerLen+meta]...)
			}
			out := append(append(append([]byte(nil), b[:headerLen]...), m...), b[headerLen+meta:]...)
			out[7], out[11] = byte(len(out)-headerLen), byte(len(m))
			s.feed(out)
		}
	}
	s.expect(t, `data stream=1 total=1 first=true last=true "x"`, `data stream=1 total=1 first=true last=true "x"`,
		`open stream=3 method="a/b" unary {limit=0 noReceive=false}`, `data stream=3 total=1 first=true last=true "y"`, "eos stream=3",
		`open stream=5 method="a/b" unary {limit=0 noReceive=false}`, `data stream=5 total=1 first=true last=true "y"`, "eos stream=5")
}

// A field of a kind that it can't have is one that is not known.
func TestFieldsOfTheWrongKindAreIgnored(t *testing.T) {
	_, s := establishedPair(t, 1, 1)
	s.feed(parseShown(t, `STRM 1=1 2="source" 3=3 4="more" 5=7 "x"`))
	s.feed(parseShown(t, `PRPC 1={ 1="a" 1=7 2="b" 3="log" 7=9 8="x" } 2=1 3="zip" 4=1 5="att" 7=5 8=1 9=3 10="c" 11="d" 12=6 13="e" "y"`))
	s.expect(t, `data stream=1 total=1 first=true last=true "x"`,
		`open stream=3 method="a/b" unary {limit=0 noReceive=false}`, `data stream=3 total=1 first=true last=true "y"`, "eos stream=3")
}

// The meta of a frame in every order of its fields, and with fields twice: the
// last counts.
func TestFieldsComeInAnyOrder(t *testing.T) {
	_, s := establishedPair(t, 1, 1)
	for _, p := range []string{
		`STRM 4=0 3=3 2=1 1=1 "a"`, `STRM 3=3 1=1 "b"`, `STRM 1=7 2=9 3=2 4=1 1=1 3=3 4=0 "c"`, `STRM 1=1 3=3 4=0 "d"`, `STRM 1=1 2=1 3=3 "e"`,
	} {
		s.feed(parseShown(t, p))
	}
	var got string
	for _, e := range s.events {
		got += string(e.payload)
	}
	if got != "abcde" || s.err != nil {
		t.Errorf("%s", s.log())
	}
}

func TestFloodsEndTheConnection(t *testing.T) {
	data := func(n int) []byte { return append(appendDataHead(nil, 1, 1, n, true), make([]byte, n)...) }
	for _, c := range []struct {
		name  string
		frame []byte
		most  int
	}{
		{"frames of unknown kinds", parseShown(t, `STRM 1=1 2=1 3=9`), maxUseless},
		{"reports of unknown streams", parseShown(t, `STRM 1=99 2=1 3=4 5={ 1=1 }`), maxUseless},
		{"reports of nothing", parseShown(t, `STRM 1=1 2=1 3=4 5={ 1=0 }`), maxUseless},
		{"data that says not where it is from", parseShown(t, `STRM 1=99 3=3 "x"`), maxUseless},
		{"data of one unknown stream", parseShown(t, `STRM 1=99 2=7 3=3 "x"`), maxUseless},
		{"empty segments", data(0), maxEmpty},
		{"segments of a byte", data(1), maxTiny},
		{"segments that are a little small", data(tinySegment - 1), maxTiny},
	} {
		_, s := establishedPair(t, 1, 1)
		for range c.most {
			s.feed(c.frame)
			if s.err != nil {
				break
			}
		}
		if s.err != nil {
			t.Errorf("%s: %v before the limit", c.name, s.err)
		}
		for range 3 {
			s.feed(c.frame)
		}
		if !errors.Is(s.err, &status.ProtocolError{Code: status.EnhanceYourCalm}) {
			t.Errorf("%s: %v", c.name, s.err)
		}
	}
	// Also on streams that have ended.
	for _, f := range []string{`STRM 1=1 2=1 3=4 5={ 1=0 }`, `STRM 1=1 3=1`} {
		_, s := establishedPair(t, 1, 1)
		s.feed(parseShown(t, `STRM 1=1 2=1 3=2`))
		for range maxUseless + 2 { // the first report of nothing is none too many
			s.feed(parseShown(t, f))
		}
		if !errors.Is(s.err, &status.ProtocolError{Code: status.EnhanceYourCalm}) {
			t.Errorf("%s: %v", f, s.err)
		}
	}
	_, s := establishedPair(t, 1, 1)
	s.feed(parseShown(t, `STRM 1=1 2=1 3=2`))
	s.feed(parseShown(t, `STRM 1=1 2=1 3=4 5={ 1=4 }`))
	if !errors.Is(s.err, &status.ProtocolError{Code: status.FlowControl}) {
		t.Errorf("a report of more than was sent: %v", s.err)
	}
	// In a row: a frame with an effect resets the count.
	_, s = establishedPair(t, 1, 1)
	for range 3 {
		for range maxUseless {
			s.feed(parseShown(t, `STRM 1=1 2=1 3=9`))
		}
		s.feed(parseShown(t, `STRM 1=1 2=1 3=3 4=0 "x"`))
	}
	if s.err != nil {
		t.Error(s.err)
	}
	for range 2 * maxTiny {
		s.feed(data(tinySegment))
	}
	if s.err != nil {
		t.Error(s.err)
	}
}

func TestUnreadAnswersEndTheConnection(t *testing.T) {
	for _, client := range []bool{false, true} {
		s := connect(t, client, "")
		var f frame.Frame
		var err error
		n := 0
		for ; err == nil && n < 1<<20; n++ {
			b := parseShown(t, fmt.Sprintf(`STRM 1=99 2=%d 3=3 "x"`, n))
			for err == nil {
				var used int
				if used, err = s.Next(b, &f); f.Kind == frame.None {
					break
				}
				b = b[used:]
			}
		}
		if !errors.Is(err, &status.ProtocolError{Code: status.EnhanceYourCalm}) || len(s.pending) > maxPending+100 {
			t.Errorf("%v after %d frames, %d bytes wait", err, n, len(s.pending))
		}
	}
}

// Requests that are refused here are counted too.
func TestBadRequestsInARowEndTheConnection(t *testing.T) {
	_, s := pair(t)
	no := parseShown(t, `PRPC 1={ 1="a" 2="b" } 4=1 5=100 "abc"`)
	for range 2 * maxUseless {
		var f frame.Frame
		for b := no; ; {
			n, err := s.Next(b, &f)
			if err != nil {
				if !errors.Is(err, &status.ProtocolError{Code: status.EnhanceYourCalm}) {
					t.Error(err)
				}
				return
			}
			if b = b[n:]; f.Kind == frame.None {
				break
			}
		}
	}
	t.Error("no end of it")
}

// A connection that ends anywhere inside a conversation has handed on nothing that
// is not complete.
func TestATruncatedMessageIsNotHandedOn(t *testing.T) {
	c, s := establishedPair(t, 1, 1)
	_ = s
	b := send(c.Session, 1, "a message")
	for n := range len(b) {
		_, s := establishedPair(t, 1, 1)
		s.feed(b[:n])
		s.expect(t)
		if at, ok := s.Begun(); (n > 0) != ok || ok && at != s.in.offset-int64(n) {
			t.Errorf("after %d bytes: begun at %d of %d, %t", n, at, s.in.offset, ok)
		}
	}
}

// brpc's own probes and what we answer to them: as brpc, but for what is listed.
func TestHandMadeFramesAreAnsweredAsBrpcDoes(t *testing.T) {
	text, err := os.ReadFile("testdata/probes.txt")
	if err != nil {
		t.Fatal(err)
	}
	var s *side
	answer := map[string]string{}
	for _, l := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		who, what, _ := strings.Cut(l, " ")
		switch who {
		case "#":
			s = &side{Session: connect(t, false, "")}
			clear(answer)
		case "C":
			s.out = nil
			s.feed(unhex(t, what))
			serveProbe(s)
		case "S":
			if got := strings.TrimSuffix(show(t, s.out), "\n"); got != what {
				t.Errorf("wrote %s want %s", got, what)
			}
		case "E":
			if s.err == nil {
				t.Errorf("the connection goes on after %s", what)
			}
		}
	}
}

// serveProbe is the handler of the probes' service.
func serveProbe(s *side) {
	for _, e := range s.events {
		f := e.frame
		if f.Kind != frame.Open {
			continue
		}
		id := f.Stream
		ok := frame.Frame{Kind: frame.Accept, Stream: id, Grants: grants(1), Payload: append([]byte("\n\aok:"), bytes.TrimPrefix(f.Payload, []byte("\n\x04"))...)}
		no := frame.Frame{Kind: frame.Reject, Stream: id, Code: status.Unimplemented, Reason: "Fail to find method=" + f.Method, NotProcessed: true}
		switch {
		case !strings.HasPrefix(f.Method, "lab.StreamLab/") || strings.HasSuffix(f.Method, "/Nope"):
			s.out = append(s.out, control(s.Session, no)...)
		case f.Unary:
			s.out = append(s.out, replying(s.Session, id, payloadOf(s, id))...)
		default:
			s.out = append(s.out, control(s.Session, ok)...)
		}
	}
	s.events = nil
}

func payloadOf(s *side, id uint64) string {
	for _, e := range s.events {
		if e.data && e.stream == id {
			return string(e.payload)
		}
	}
	return ""
}

// The test's own decoder and ours agree on what a varint is.
func TestVarintsOfTenBytesAreNumbers(t *testing.T) {
	for _, id := range []int64{-1, 1 << 62, -1 << 63, 1<<63 - 255} {
		var m frameMeta
		b := protowire.AppendVarint([]byte{8}, uint64(id))
		b = protowire.AppendVarint(append(b, 16), uint64(id))
		if err := m.parse(append(b, 24, 3)); err != nil || m.stream != id || m.source != id || m.typ != typeData {
			t.Errorf("%d: %+v, %v", id, m, err)
		}
		got, typ, rest, ok := metaHead(append(b, 24, 3))
		if got != id || typ != typeData || len(rest) != 0 || !ok {
			t.Errorf("%d: %d, %d, %x, %t", id, got, typ, rest, ok)
		}
	}
}
