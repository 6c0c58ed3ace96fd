package triple

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// answerHeaders is how a server's answer begins.
const answerHeaders = ":status=200 content-type=application/grpc grpc-accept-encoding=gzip,zstd"

// A call of a stock client: headers, one message, the end; headers, the reply, trailers.
func TestServerServesACall(t *testing.T) {
	k := start(t, false)
	k.wants(`OPEN 1 p.S/M credit 65535 within 1.5s k="v" b-bin="\x00\xff"
DATA 1 "hello" of 5 cost 10
EOS 1`,
		k.request(1, 0, "grpc-timeout", "1500m", "k", "v", "b-bin", "AP8="), data(1, fEndStream, msg("hello")))
	k.do(&frame.Frame{Kind: frame.Accept, Stream: 1, Grants: []frame.Grant{{Credit: 1000}}, Metadata: metadata.MD{{Key: "h", Value: "1"}, {Key: "h-bin", Value: "\x00\xff"}}})
	k.send(1, "reply")
	k.do(&frame.Frame{Kind: frame.EOS, Stream: 1, Metadata: metadata.MD{{Key: "t", Value: "2"}}})
	k.writes(`HEADERS 1 ` + answerHeaders + ` h=1 h-bin=AP8
DATA 1 "\x00\x00\x00\x00\x05reply"
HEADERS 1 grpc-status=0 t=2 end`)
	if k.s.streams.n.Load() != 0 {
		t.Error("the stream is still there")
	}
}

// The end of a client's half is a flag of its last data.
func TestClientMakesACall(t *testing.T) {
	k := start(t, true)
	k.do(&frame.Frame{
		Kind: frame.Open, Stream: 1, Method: "p.S/M", Deadline: 1500 * time.Millisecond, Grants: []frame.Grant{{Credit: 1500}},
		Metadata: metadata.MD{{Key: "k", Value: "v"}}, Compression: pool.Gzip,
	})
	k.send(1, "hello")
	k.do(&frame.Frame{Kind: frame.EOS, Stream: 1})
	k.writes(`HEADERS 1 :method=POST :scheme=http :path=/p.S/M :authority=host:1 content-type=application/grpc te=trailers user-agent=` + agent +
		` grpc-accept-encoding=gzip,zstd grpc-encoding=gzip grpc-timeout=1500000u k=v
WINDOW 1 +500
DATA 1 "\x00\x00\x00\x00\x05hello" end`)
	k.wants(`ACCEPT 1 credit 65535 h="1"
DATA 1 "reply" of 5 cost 10
EOS 1 t="2"
STOP 1`,
		k.headers(1, 0, ":status", "200", "content-type", "application/grpc+proto", "h", "1"), data(1, 0, msg("reply")),
		k.headers(1, fEndStream, "grpc-status", "0", "grpc-message", "", "t", "2"))
}

// What is behind the plus of the content-type is metadata of the request, both ways; the authority
// is a client's.
func TestKeysOfRequests(t *testing.T) {
	k := start(t, true)
	k.do(&frame.Frame{
		Kind: frame.Open, Stream: 1, Method: "p.S/M", Grants: []frame.Grant{{Credit: 1000}},
		Metadata: metadata.MD{{Key: KeyContentSubtype, Value: "json"}, {Key: "k", Value: "v"}, {Key: KeyAuthority, Value: "other"}},
	})
	k.writes(`HEADERS 1 :method=POST :scheme=http :path=/p.S/M :authority=other content-type=application/grpc+json te=trailers user-agent=` + agent +
		` grpc-accept-encoding=gzip,zstd k=v`)
	for given, want := range map[string]string{
		"application/grpc":                                      ``,
		"application/grpc+":                                     ``,
		"application/grpc+JSON; charset=utf-8":                  ` grpc-content-subtype="json"`,
		"application/grpc;charset=utf-8":                        ``,
		"application/grpc+" + strings.Repeat("x", maxSubtype+1): ``,
		"application/grpc+a\x00b":                               ``,
	} {
		k := start(t, false)
		k.wants("OPEN 1 p.S/M credit 65535"+want, k.headers(1, 0, ":method", "POST", ":scheme", "http", ":path", "/p.S/M",
			"content-type", given, "te", "trailers", KeyContentSubtype, "another", KeyAuthority, "another"))
	}
}

// What ends a stream, as a client sees it.
func TestAnswersOfServers(t *testing.T) {
	grpc := []string{":status", "200", "content-type", "application/grpc"}
	for _, c := range []struct {
		name   string
		fields []string
		want   string
	}{
		{"a status alone", append(grpc[:4:4], "grpc-status", "5", "grpc-message", "100%25 %C3%A9", "x", "y"), "REJECT 1 NOT_FOUND \"100% é\" x=\"y\"\nREPLY 1 4"},
		{"an unknown status", append(grpc[:4:4], "grpc-status", "17"), "REJECT 1 CODE_17\nREPLY 1 4"},
		{"success without a message", append(grpc[:4:4], "grpc-status", "0"), "ACCEPT 1 credit 65535\nEOS 1\nSTOP 1"},
		{"no status", grpc, "REJECT 1 UNKNOWN \"the answer has no grpc-status\"\nREPLY 1 4"},
		{"a status that is none", append(grpc[:4:4], "grpc-status", "x"), "REJECT 1 UNKNOWN \"the answer's grpc-status is \\\"x\\\"\"\nREPLY 1 4"},
		{"HTTP 503", []string{":status", "503"}, "REJECT 1 UNAVAILABLE \"HTTP status 503\"\nREPLY 1 2"},
		{"HTTP 404", []string{":status", "404"}, "REJECT 1 UNIMPLEMENTED \"HTTP status 404\"\nREPLY 1 2"},
		{"HTML", []string{":status", "200", "content-type", "text/html"}, "REJECT 1 UNKNOWN \"the answer's content-type is \\\"text/html\\\"\"\nREPLY 1 2"},
		{"details", append(grpc[:4:4], "grpc-status", "5", detailsKey, "AQI"), "REJECT 1 NOT_FOUND " + detailsKey + "=\"\\x01\\x02\"\nREPLY 1 4"},
		{"no pseudo-header", []string{"content-type", "application/grpc"}, "RESET 1 PROTOCOL \"the answer's :status is \\\"\\\"\"\nREPLY 1 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := start(t, true)
			k.do(&frame.Frame{Kind: frame.Open, Stream: 1, Method: "m"})
			k.wants(c.want, k.headers(1, fEndStream, c.fields...))
		})
	}
}

// What a server answers that no handler can. Requests that are no calls of gRPC's are in
// TestPlainAnswer.
func TestRequestsThatAreRefused(t *testing.T) {
	grpc := []string{":method", "POST", ":scheme", "http", ":path", "/m", "content-type", "application/grpc"}
	with := func(name, value string) []string {
		fields := append([]string(nil), grpc...)
		for i := 0; i < len(fields); i += 2 {
			if fields[i] == name {
				fields[i+1] = value
				return fields
			}
		}
		return append(fields, name, value)
	}
	trailers := func(code int, message string) string {
		return fmt.Sprintf("HEADERS 1 :status=200 content-type=application/grpc grpc-status=%d grpc-message=%s end\nRST 1 NO_ERROR", code, message)
	}
	for _, c := range []struct {
		name   string
		fields []string
		want   string
	}{
		{"timeout", with("grpc-timeout", "1x"), trailers(13, "malformed grpc-timeout")},
		{"path", with(":path", "m"), "HEADERS 1 :status=200 content-type=application/grpc grpc-accept-encoding=gzip,zstd grpc-status=12 grpc-message=malformed method name end\nRST 1 NO_ERROR"},
		{"encoding", with("grpc-encoding", "br"), "HEADERS 1 :status=200 content-type=application/grpc grpc-accept-encoding=gzip,zstd grpc-status=12 grpc-message=grpc-encoding \"br\" is not known: accepted are gzip,zstd end\nRST 1 NO_ERROR"},
		{"te", with("te", "gzip"), "RST 1 PROTOCOL_ERROR"},
		{"connection", with("connection", "close"), "RST 1 PROTOCOL_ERROR"},
		{"upper case", with("X", "y"), "RST 1 PROTOCOL_ERROR"},
		{"pseudo-header", with(":status", "200"), "RST 1 PROTOCOL_ERROR"},
		{"no path", grpc[:4:4], "RST 1 PROTOCOL_ERROR"},
		{"pseudo-header behind", append([]string{"a", "b"}, grpc...), "RST 1 PROTOCOL_ERROR"},
		{"two paths", append([]string{":path", "/m"}, grpc...), "RST 1 PROTOCOL_ERROR"},
		{"base64", with("x-bin", "!"), "RST 1 PROTOCOL_ERROR"},
		{"content-length", with("content-length", "x"), "RST 1 PROTOCOL_ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := start(t, false)
			for _, line := range strings.Split(k.in(k.headers(1, 0, c.fields...)), "\n") {
				if !strings.HasPrefix(line, "REPLY") {
					t.Error(line)
				}
			}
			k.writes(c.want)
			if n := k.s.streams.n.Load(); n != 0 {
				t.Errorf("%d streams are left", n)
			}
		})
	}
}

// However the input is cut, the same messages come of it, at the same cost.
func TestInputIsCutAnywhere(t *testing.T) {
	conversation := func(k *talk) []byte {
		big := strings.Repeat("x", 3000)
		var b []byte
		b = append(b, k.request(1, 0)...)
		b = append(b, data(1, 0, msg("a")+msg("")+msg("bb"))...)                      // many in one frame
		b = append(b, data(1, 0, msg(big)[:3])...)                                    // a prefix in two
		b = append(b, data(1, 0, msg(big)[3:2000])...)                                //
		b = append(b, data(1, fPadded, "\x04"+msg(big)[2000:]+"\x00\x00\x00\x00")...) // padded
		b = append(b, data(1, 0, msg("c"))...)                                        //
		b = append(b, data(1, fPadded|fEndStream, "\x02\x00\x00")...)                 // nothing but padding
		return b
	}
	joined := func(cut int) (messages []string, cost int) {
		k := start(t, false)
		k.cut = cut
		whole := ""
		for _, line := range strings.Split(k.in(conversation(k)), "\n") {
			var id, total, c int
			var p string
			if n, _ := fmt.Sscanf(line, "DATA %d %q of %d cost %d", &id, &p, &total, &c); n != 4 {
				messages = append(messages, line)
				continue
			}
			cost += c
			if whole += p; !strings.HasSuffix(line, "more") {
				messages = append(messages, fmt.Sprintf("%d bytes", len(whole)))
				whole = ""
			}
		}
		return messages, cost + int(k.s.refund.Load())
	}
	want, _ := joined(0)
	for cut := 1; cut < 40; cut++ {
		got, cost := joined(cut)
		if strings.Join(got, ",") != strings.Join(want, ",") {
			t.Fatalf("cut at %d: %v, want %v", cut, got, want)
		}
		if most := 1 + 5 + 5 + 2 + 5 + 3000 + 5 + 1 + 5 + 5 + 3; cost != most {
			t.Fatalf("cut at %d: cost %d, want %d", cut, cost, most)
		}
	}
}

// Messages share frames, and long ones are cut at what the peer takes.
func TestFramesOfData(t *testing.T) {
	k := start(t, true)
	k.do(&frame.Frame{Kind: frame.Open, Stream: 1, Method: "m"})
	k.out()
	k.send(1, "a", "", "bb")
	k.writes(`DATA 1 "\x00\x00\x00\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02bb"`)
	long := strings.Repeat("y", 40_000)
	k.send(1, "a", long)
	k.s.Flush(&k.o)
	var got []byte
	for _, line := range k.frames(bytes.Join(k.o.Vec(nil), nil)) {
		var p string
		if _, err := fmt.Sscanf(line, "DATA 1 %q", &p); err != nil {
			t.Fatal(line)
		}
		if len(p) > defaultMaxFrame {
			t.Errorf("a frame of %d bytes", len(p))
		}
		got = append(got, p...)
	}
	k.o.Reset()
	if string(got) != msg("a")+msg(long) {
		t.Error("what was written is not what was sent")
	}
	m := pool.Copy([]byte("0123456789"))
	k.s.Fragment(&k.o, 1, m, 0, 3)
	k.s.Fragment(&k.o, 1, m, 3, 6)
	k.s.Fragment(&k.o, 1, m, 9, 6)
	k.writes(`DATA 1 "\x00\x00\x00"
DATA 1 "\x00\n0123"
DATA 1 "456789"`)
}

// Credit is absolute above, and increments on the wire.
func TestCredit(t *testing.T) {
	k := start(t, false)
	k.in(k.request(1, 0))
	k.do(&frame.Frame{Kind: frame.Credit, Stream: 1, Value: 1500})
	k.do(&frame.Frame{Kind: frame.Credit, Stream: 1, Value: 1500})
	k.do(&frame.Frame{Kind: frame.Credit, Value: 150_000})
	k.writes("WINDOW 1 +500\nWINDOW 0 +50000")
	k.wants("CREDIT 1 value 65635\nCREDIT 0 value 64521", appendWindowUpdate(nil, 1, 100), appendWindowUpdate(nil, 0, 10))
	k.wants("SETTINGS 0 streams 4294967295 credit 100\nREPLY 0 1", settingsFrame(setInitialWindow, 100))
	k.wants("CREDIT 1 value 201", appendWindowUpdate(nil, 1, 1))
	k.writes("SETTINGS ack true")
	k.wants("RESET 1 FLOW_CONTROL \"a window beyond 2^31-1\"\nREPLY 1 2", appendWindowUpdate(nil, 1, maxWindow))
	k.writes("RST 1 FLOW_CONTROL_ERROR")
	k.in(k.request(3, 0))
	k.wants("RESET 3 PROTOCOL \"WINDOW_UPDATE of 0\"\nREPLY 3 2", appendWindowUpdate(nil, 3, 0))
}

// A server's end comes before the RST_STREAM that stops a client.
func TestServerStopsAClient(t *testing.T) {
	k := start(t, false)
	k.in(k.request(1, 0))
	k.do(&frame.Frame{Kind: frame.Accept, Stream: 1})
	k.do(&frame.Frame{Kind: frame.Stop, Stream: 1})
	k.do(&frame.Frame{Kind: frame.EOS, Stream: 1, Code: status.NotFound, Reason: "nö"})
	k.writes("HEADERS 1 " + answerHeaders + "\nHEADERS 1 grpc-status=5 grpc-message=n%C3%B6 end\nRST 1 NO_ERROR")
	var f frame.Frame
	if !k.s.Event(&f) || describe(&f) != "EOS 1" || k.s.Event(&f) {
		t.Errorf("event %s", describe(&f))
	}
	k.wants("REPLY 0 3", data(1, 0, msg("late"))) // on its way when the stream was reset
	k.in(k.request(3, 0))
	k.do(&frame.Frame{Kind: frame.Reset, Stream: 3, Code: status.TooLarge, Reason: "big"})
	k.writes("WINDOW 0 +9\nHEADERS 3 :status=200 content-type=application/grpc grpc-status=8 grpc-message=big end\nRST 3 NO_ERROR")
	k.in(k.request(5, 0))
	k.do(&frame.Frame{Kind: frame.Reject, Stream: 5, Code: status.Refused, NotProcessed: true})
	k.writes("RST 5 REFUSED_STREAM")
}

// A client that reads no more lets a server of others serve what was sent, and cancels it
// when it goes on sending.
func TestClientThatReadsNoMore(t *testing.T) {
	k := start(t, true)
	k.do(&frame.Frame{Kind: frame.Open, Stream: 1, Method: "m"})
	k.do(&frame.Frame{Kind: frame.EOS, Stream: 1})
	k.do(&frame.Frame{Kind: frame.Stop, Stream: 1})
	k.out()
	k.do(&frame.Frame{Kind: frame.Credit, Stream: 1, Value: 2000})
	k.writes("RST 1 CANCEL")

	peer := start(t, true, setMaxMessage, 1000)
	peer.do(&frame.Frame{Kind: frame.Open, Stream: 1, Method: "m"})
	peer.do(&frame.Frame{Kind: frame.EOS, Stream: 1})
	peer.out()
	peer.do(&frame.Frame{Kind: frame.Stop, Stream: 1})
	peer.writes("RST 1 NO_ERROR")
}

func TestGoAway(t *testing.T) {
	k := start(t, true)
	k.do(&frame.Frame{Kind: frame.Open, Stream: 1, Method: "m"})
	k.do(&frame.Frame{Kind: frame.GoAway, Value: 0, Code: status.EnhanceYourCalm, Reason: "why"})
	k.out()
	k.wants("GOAWAY 0 value 2147483647", appendGoAway(nil, maxStream, eNo, ""))
	k.wants("GOAWAY 0 value 1", appendGoAway(nil, 1, eNo, "bye"))
	k.wants("GOAWAY 0 value 1 ENHANCE_YOUR_CALM \"ENHANCE_YOUR_CALM: too_many_pings\"", appendGoAway(nil, 7, eEnhanceYourCalm, "too_many_pings"))
}

// What ends a connection, by its error.
func TestFaults(t *testing.T) {
	rst := func(id uint32) []byte { return appendRST(nil, id, eCancel) }
	for _, c := range []struct {
		name  string
		input func(k *talk) []byte
		code  status.Code
	}{
		{"a long frame", func(*talk) []byte { return appendHeader(nil, ownMaxFrame+1, tData, 0, 1) }, status.FrameSize},
		{"DATA on stream 0", func(*talk) []byte { return data(0, 0, "x") }, status.Protocol},
		{"DATA on an idle stream", func(*talk) []byte { return data(1, 0, "x") }, status.Protocol},
		{"DATA after the end", func(k *talk) []byte { return append(k.request(1, fEndStream), data(1, 0, "x")...) }, status.StreamState},
		{"HEADERS after the end", func(k *talk) []byte { return append(k.request(1, fEndStream), k.request(1, 0)...) }, status.StreamState},
		{"HEADERS after RST_STREAM", func(k *talk) []byte {
			return append(append(k.request(1, 0), rst(1)...), k.request(1, 0)...)
		}, status.StreamState},
		{"HEADERS of a server's stream", func(k *talk) []byte { return k.request(2, 0) }, status.Protocol},
		{"RST_STREAM of an idle stream", func(*talk) []byte { return rst(1) }, status.Protocol},
		{"RST_STREAM of 5 bytes", func(k *talk) []byte {
			return append(k.request(1, 0), append(appendHeader(nil, 5, tRST, 0, 1), 0, 0, 0, 0, 0)...)
		}, status.FrameSize},
		{"SETTINGS of 5 bytes", func(*talk) []byte { return append(appendHeader(nil, 5, tSettings, 0, 0), 0, 0, 0, 0, 0) }, status.FrameSize},
		{"SETTINGS on a stream", func(*talk) []byte { return appendHeader(nil, 0, tSettings, 0, 1) }, status.Protocol},
		{"an acknowledgement with a payload", func(*talk) []byte { return append(appendHeader(nil, 6, tSettings, fAck, 0), 0, 0, 0, 0, 0, 0) }, status.FrameSize},
		{"a window beyond the largest", func(*talk) []byte { return settingsFrame(setInitialWindow, 1<<31) }, status.FlowControl},
		{"a frame size below the least", func(*talk) []byte { return settingsFrame(setMaxFrame, 100) }, status.Protocol},
		{"ENABLE_PUSH of 2", func(*talk) []byte { return settingsFrame(setPush, 2) }, status.Protocol},
		{"PING of 4 bytes", func(*talk) []byte { return append(appendHeader(nil, 4, tPing, 0, 0), 0, 0, 0, 0) }, status.FrameSize},
		{"PING on a stream", func(*talk) []byte { return appendHeader(nil, 8, tPing, 0, 1) }, status.Protocol},
		{"WINDOW_UPDATE of 0", func(*talk) []byte { return appendWindowUpdate(nil, 0, 0) }, status.Protocol},
		{"WINDOW_UPDATE of an idle stream", func(*talk) []byte { return appendWindowUpdate(nil, 1, 1) }, status.Protocol},
		{"PUSH_PROMISE", func(*talk) []byte { return append(appendHeader(nil, 4, tPushPromise, 0, 1), 0, 0, 0, 2) }, status.Protocol},
		{"PRIORITY of 4 bytes", func(*talk) []byte { return append(appendHeader(nil, 4, tPriority, 0, 1), 0, 0, 0, 0) }, status.FrameSize},
		{"padding beyond the frame", func(k *talk) []byte { return append(k.request(1, 0), data(1, fPadded, "\x05abc")...) }, status.Protocol},
		{"CONTINUATION alone", func(*talk) []byte { return appendHeader(nil, 0, tContinuation, 0, 1) }, status.Protocol},
		{"a frame inside a header block", func(*talk) []byte {
			return append(appendHeader(nil, 0, tHeaders, 0, 1), data(1, 0, "x")...)
		}, status.Protocol},
		{"a header block that is none", func(*talk) []byte { return append(appendHeader(nil, 1, tHeaders, fEndHeaders, 1), 0xff) }, status.Protocol},
		{"CONTINUATION without an end", func(*talk) []byte {
			b := appendHeader(nil, 0, tHeaders, 0, 1)
			for range maxParts + 1 {
				b = appendHeader(b, 0, tContinuation, 0, 1)
			}
			return b
		}, status.EnhanceYourCalm},
		{"a header block that is too long", func(k *talk) []byte {
			b := appendHeader(nil, 0, tHeaders, 0, 1)
			for range maxBlock/defaultMaxFrame + 1 {
				b = append(appendHeader(b, defaultMaxFrame, tContinuation, 0, 1), bytes.Repeat([]byte{0x82}, defaultMaxFrame)...)
			}
			return b
		}, status.EnhanceYourCalm},
		{"DATA without data", func(k *talk) []byte {
			return append(k.request(1, 0), bytes.Repeat(data(1, 0, ""), maxEmpty+1)...)
		}, status.EnhanceYourCalm},
	} {
		for _, cut := range []int{0, 1, 7} {
			k := start(t, false)
			k.cut = cut
			k.in(c.input(k))
			if want := (&status.ProtocolError{Code: c.code}); k.err == nil || !want.Is(k.err) && k.err.(*status.ProtocolError).Code != c.code {
				t.Errorf("%s, cut at %d: %v, want %v", c.name, cut, k.err, c.code)
			}
		}
	}
	k := start(t, false)
	k.in(append(appendHeader(nil, 1, tHeaders, fEndHeaders, 1), 0xff))
	k.do(&frame.Frame{Kind: frame.GoAway, Code: status.Protocol})
	if out := k.out(); !strings.Contains(out, "COMPRESSION_ERROR") {
		t.Error(out)
	}
}

// What ends one stream, and nothing else.
func TestFaultsOfAStream(t *testing.T) {
	for _, c := range []struct {
		name  string
		input func(k *talk) []byte
		want  string
	}{
		{"an end inside a message", func(*talk) []byte { return data(1, fEndStream, msg("hello")[:7]) }, "grpc-status=13"},
		{"flags", func(*talk) []byte { return data(1, 0, "\x02\x00\x00\x00\x01x") }, "grpc-status=13"},
		{"a compressed message of no encoding", func(*talk) []byte { return data(1, 0, "\x01\x00\x00\x00\x01x") }, "grpc-status=13"},
		{"headers amid", func(k *talk) []byte { return k.headers(1, 0, "a", "b") }, "PROTOCOL_ERROR"},
	} {
		k := start(t, false)
		k.in(k.request(1, 0), c.input(k))
		if k.err != nil {
			t.Errorf("%s: %v", c.name, k.err)
		}
		if out := k.out(); !strings.Contains(out, c.want) {
			t.Errorf("%s: %s", c.name, out)
		}
		if c.name != "an end inside a message" {
			k.wants("REPLY 0 3", data(1, 0, "more"))
		}
		k.wants("OPEN 3 p.S/M credit 65535", k.request(3, 0))
	}
	k := start(t, false)
	k.in(k.request(1, 0, "content-length", "7"), data(1, fEndStream, msg("x")))
	k.writes("RST 1 PROTOCOL_ERROR")
}

// Metadata beyond the limit is left out, and the block's other fields are not.
func TestMetadataIsBounded(t *testing.T) {
	k := start(t, false)
	k.wants("OPEN 1 p.S/M credit 65535 omitted 2033", k.request(1, 0, "a", strings.Repeat("x", 2000), "grpc-timeout", ""))
}

func TestHandshakes(t *testing.T) {
	for _, c := range []struct {
		name, in string
		out      string
	}{
		{"HTTP/1", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 505 "},
		{"no SETTINGS", preface + string(data(0, 0, "")), "first frame is not SETTINGS"},
		{"bad SETTINGS", preface + string(settingsFrame(setMaxFrame, 1)), "SETTINGS_MAX_FRAME_SIZE"},
		{"half of SETTINGS", preface + "\x00\x00", "unexpected EOF"},
	} {
		w := &wire{in: bytes.NewReader([]byte(c.in)[4:])}
		_, err := (Protocol{}).Handshake(context.Background(), w, &frame.Greeting{First: []byte(c.in)[:4], Own: own})
		if err == nil || !strings.Contains(w.out.String(), c.out) {
			t.Errorf("%s: %v, wrote %q", c.name, err, w.out.String())
		}
	}
	for in, want := range map[string]frame.Verdict{"P": frame.More, preface: frame.Yes, "PRPC": frame.No, "POST /": frame.Yes, "GET": frame.More, "\x00": frame.No} {
		if got := (Protocol{}).Detect([]byte(in)); got != want {
			t.Errorf("%q: %v", in, got)
		}
	}
	g := &frame.Greeting{Client: true, Own: frame.Settings{Token: []byte("t")}}
	if _, err := (Protocol{}).Handshake(context.Background(), &wire{}, g); err == nil {
		t.Error("a token went in plain text")
	}
}

// A token is every request's authorization, unless that has one.
func TestToken(t *testing.T) {
	w := &wire{in: bytes.NewReader(settingsFrame())}
	g := &frame.Greeting{Client: true, Secure: true, Own: own}
	g.Own.Token = []byte("t0k")
	s, err := (Protocol{UserAgent: "app/1", Authority: "other"}).Handshake(context.Background(), w, g)
	if err != nil {
		t.Fatal(err)
	}
	k := start(t, true)
	k.s = s.(*Session)
	k.do(&frame.Frame{Kind: frame.Open, Stream: 1, Method: "a b/ü"})
	k.do(&frame.Frame{Kind: frame.Open, Stream: 3, Method: "m", Metadata: metadata.MD{{Key: "authorization", Value: "mine"}}})
	out := k.out()
	for _, want := range []string{"authorization=Bearer t0k", "authorization=mine", ":scheme=https", ":authority=other", "user-agent=app/1 " + agent, ":path=/a%20b/%C3%BC"} {
		if strings.Count(out, want) < 1 {
			t.Errorf("no %s in %s", want, out)
		}
	}
}
