package strm

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

func TestChecksumIsTheOneThatBrpcSends(t *testing.T) {
	lines := conversation(t, "testdata/conversations/01-unary.txt")
	p, _, err := takePacket(lines[2].raw)
	if err != nil {
		t.Fatal(err)
	}
	sum := checksum(p.payload)
	if string(sum[:]) != p.text(fSum) || binary.BigEndian.Uint32(sum[:]) != 0x6f04a808 {
		t.Errorf("checksum %x, brpc says %x", sum, p.text(fSum))
	}
	if c := crc32.Checksum(p.payload, castagnoli); c != 0xde986640 {
		t.Errorf("crc32c %08x", c)
	}
	if checksum(p.payload[:5], nil, p.payload[5:]) != sum {
		t.Error("a checksum depends on how the bytes are cut")
	}
}

// unpackers are other implementations than the one that packs.
var unpackers = map[string]func(p []byte) ([]byte, error){
	"gzip": func(p []byte) ([]byte, error) {
		r, err := gzip.NewReader(bytes.NewReader(p))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	},
	"zlib": func(p []byte) ([]byte, error) {
		r, err := zlib.NewReader(bytes.NewReader(p))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	},
	"snappy": func(p []byte) ([]byte, error) { return snappy.Decode(nil, p) },
	"none":   func(p []byte) ([]byte, error) { return p, nil },
}

// Every way to pack a message, as request and as reply, in calls and in opens.
func TestMessagesArePackedAsTheirMetadataSays(t *testing.T) {
	body := strings.Repeat("a message that can be made shorter ", 50)
	for name, unpack := range unpackers {
		for _, sum := range []string{"none", "crc32c"} {
			for _, attachment := range []string{"", "and what is attached to it"} {
				t.Run(fmt.Sprintf("%s/%s/%d", name, sum, len(attachment)), func(t *testing.T) {
					md := metadata.MD{{Key: "other", Value: "stays"}, {Key: KeyCompress, Value: name}, {Key: KeyChecksum, Value: sum}}
					if attachment != "" {
						md.Add(KeyAttachmentSize, strconv.Itoa(len(attachment)))
					}
					msg := body + attachment
					for _, unary := range []bool{true, false} {
						c, s := pair(t)
						req := requestWith(c.Session, unary, msg, md)
						checkPacked(t, packets(t, req)[0], unpack, body, attachment, sum != "none")
						s.feed(req)
						checkUnpacked(t, s, msg, name, sum, attachment)
						ans := replyWith(s.Session, unary, msg, md)
						p := packets(t, ans)[0]
						if !unary {
							p = p.inner
						}
						checkPacked(t, p, unpack, body, attachment, sum != "none")
						c.feed(ans)
						checkUnpacked(t, c, msg, name, sum, attachment)
					}
				})
			}
		}
	}
}

func requestWith(s *Session, unary bool, msg string, md metadata.MD) []byte {
	if unary {
		return calling(s, 1, msg, md...)
	}
	f := opening(1, 1)
	f.Payload, f.Metadata = []byte(msg), md
	return control(s, f)
}

func replyWith(s *Session, unary bool, msg string, md metadata.MD) []byte {
	if unary {
		return replying(s, 1, msg, md...)
	}
	f := accepting(1, 1)
	f.Payload, f.Metadata = []byte(msg), md
	return control(s, f)
}

func checkPacked(t *testing.T, p *packet, unpack func([]byte) ([]byte, error), body, attachment string, sum bool) {
	t.Helper()
	if n := p.num(fAttachment); n != int64(len(attachment)) {
		t.Fatalf("attachment_size is %d", n)
	}
	packed := p.payload[:len(p.payload)-len(attachment)]
	got, err := unpack(packed)
	if err != nil || string(got) != body || string(p.payload[len(packed):]) != attachment {
		t.Errorf("%v: %.40q and %.40q", err, got, p.payload[len(packed):])
	}
	want := ""
	if sum {
		c := checksum(packed)
		want = string(c[:])
	}
	if p.text(fSum) != want || (p.num(fChecksum) == 1) != sum {
		t.Errorf("checksum_type %d, checksum_value %x, want %x", p.num(fChecksum), p.text(fSum), want)
	}
	for _, f := range p.meta {
		if f.num == fUserFields && string(f.sub[0].b) != "other" {
			t.Errorf("%q is a user field", f.sub[0].b)
		}
	}
}

func checkUnpacked(t *testing.T, s *side, msg, compress, sum, attachment string) {
	t.Helper()
	if s.err != nil || len(s.events) == 0 {
		t.Fatalf("%.300s", s.log())
	}
	first := s.events[0].frame
	got := string(first.Payload)
	for _, e := range s.events {
		if e.data {
			got = string(e.payload)
		}
	}
	if got != msg {
		t.Errorf("%d bytes of %d, %.40q", len(got), len(msg), got)
	}
	want := metadata.MD{{Key: "other", Value: "stays"}}
	if attachment != "" {
		want.Add(KeyAttachmentSize, strconv.Itoa(len(attachment)))
	}
	if compress != "none" {
		want.Add(KeyCompress, compress)
	}
	if sum != "none" {
		want.Add(KeyChecksum, sum)
	}
	if fmt.Sprint(first.Metadata) != fmt.Sprint(want) {
		t.Errorf("metadata %v, want %v", first.Metadata, want)
	}
	s.events = nil
}

// brpc after 1.17.0 can have the attachment in the checksum.
func TestAChecksumMayCoverTheAttachment(t *testing.T) {
	all := checksum([]byte("body"), []byte("attached"))
	body := checksum([]byte("body"))
	for _, c := range []struct {
		sum  [4]byte
		with int
		good bool
	}{{all, 1, true}, {all, 0, false}, {body, 0, true}, {body, 1, false}} {
		_, s := pair(t)
		s.feed(parseShown(t, fmt.Sprintf(`PRPC 1={ 1="a" 2="b" } 4=1 5=8 11=1 12=%q 13=%d "bodyattached"`, c.sum[:], c.with)))
		if good := len(s.events) == 3; good != c.good {
			t.Errorf("%+v: %s%s", c, s.log(), show(t, s.out))
		}
	}
}

// A checksum that is not announced does not count, whatever it is: brpc's servers
// repeat the request's in their answers.
func TestAChecksumValueWithoutTypeIsIgnored(t *testing.T) {
	_, s := pair(t)
	s.feed(parseShown(t, `PRPC 1={ 1="a" 2="b" } 4=1 11=0 12="\x01\x02\x03\x04" "x"`))
	s.expect(t, `open stream=1 method="a/b" unary {limit=0 noReceive=false}`, `data stream=1 total=1 first=true last=true "x"`, "eos stream=1")
}

// bomb is n zeros, packed.
func bomb(t testing.TB, kind int32, n int) []byte {
	t.Helper()
	b, err := compress(nil, kind, make([]byte, n))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// packed is a request whose body is of a kind.
func packedRequest(kind int32, body []byte) []byte {
	p := packet{magic: "PRPC", payload: body, meta: []field{
		{num: fRequest, typ: 2, sub: []field{{num: 1, typ: 2, b: []byte("a")}, {num: 2, typ: 2, b: []byte("b")}}},
		{num: fCompress, v: uint64(kind)}, {num: fCorrelation, v: 1},
	}}
	return p.encode()
}

func TestBadMessagesAreRefusedAndTheConnectionGoesOn(t *testing.T) {
	snappyLie := append(binary.AppendUvarint(nil, 1<<32), 0)
	snappyBomb := append(binary.AppendUvarint(nil, testMaxMessage), make([]byte, 10)...)
	gz := bomb(t, compressGzip, 100)
	for _, c := range []struct {
		name string
		in   []byte
		text string
	}{
		{"attachment", parseShown(t, `PRPC 1={ 1="a" 2="b" } 4=1 5=100 "abc"`), `1=1003 2="[E1003]attachment_size=100 is larger than request_size=3"`},
		{"negative attachment", parseShown(t, `PRPC 1={ 1="a" 2="b" } 4=1 5=-1 "abc"`), `1=1003 2="[E1003]attachment_size=-1 is larger than request_size=3"`},
		{"checksum", parseShown(t, `PRPC 1={ 1="a" 2="b" } 4=1 11=1 12="\x01\x02\x03\x04" "abc"`), `1=1003 2="[E1003]Fail to parse request, ContentType=pb, CompressType=none, ChecksumType=crc32c, request_size=3"`},
		{"short checksum", parseShown(t, `PRPC 1={ 1="a" 2="b" } 4=1 11=1 12="\x01" "abc"`), `1=1003 2="[E1003]Fail to parse request, ContentType=pb, CompressType=none, ChecksumType=crc32c, request_size=3"`},
		{"unknown checksum", parseShown(t, `PRPC 1={ 1="a" 2="b" } 4=1 11=9 "abc"`), `1=1003 2="[E1003]Fail to parse request, ContentType=pb, CompressType=none, ChecksumType=unknown, request_size=3"`},
		{"unknown compression", packedRequest(4, []byte("abc")), `1=1003 2="[E1003]Fail to parse request, ContentType=pb, CompressType=unknown, ChecksumType=none, request_size=3"`},
		{"negative compression", packedRequest(-1, []byte("abc")), `1=1003 2="[E1003]Fail to parse request, ContentType=pb, CompressType=unknown, ChecksumType=none, request_size=3"`},
		{"no gzip", packedRequest(2, []byte("abc")), `1=1003 2="[E1003]Fail to parse request, ContentType=pb, CompressType=gzip, ChecksumType=none, request_size=3"`},
		{"truncated gzip", packedRequest(2, gz[:len(gz)-3]), `CompressType=gzip`},
		{"gzip and more", packedRequest(2, append(gz[:len(gz):len(gz)], "more"...)), `CompressType=gzip`},
		{"zlib and more", packedRequest(3, append(bomb(t, 3, 9), "more"...)), `CompressType=zlib`},
		{"gzip bomb", packedRequest(2, bomb(t, 2, testMaxMessage+1)), `1=90 2="[E90]request of more than 4194304 bytes"`},
		{"zlib bomb", packedRequest(3, bomb(t, 3, testMaxMessage+1)), `1=90 2="[E90]request of more than 4194304 bytes"`},
		{"snappy bomb", packedRequest(1, bomb(t, 1, testMaxMessage+1)), `1=90 2="[E90]request of more than 4194304 bytes"`},
		{"snappy of 4 GiB", packedRequest(1, snappyLie), `2=`},
		{"snappy that lies", packedRequest(1, snappyBomb), `CompressType=snappy`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, s := pair(t)
			before := allocated()
			s.feed(c.in)
			if got := allocated() - before; got > 3*testMaxMessage {
				t.Errorf("%d bytes were allocated", got)
			}
			s.expect(t)
			if got := show(t, s.out); !strings.Contains(got, c.text) || !strings.Contains(got, "4=1") {
				t.Errorf("answered %s want %s", got, c.text)
			}
			s.empty(t)
			s.out = nil
			s.feed(parseShown(t, `PRPC 1={ 1="a" 2="b" } 4=2 "x"`))
			s.expect(t, `open stream=1 method="a/b" unary {limit=0 noReceive=false}`, `data stream=1 total=1 first=true last=true "x"`, "eos stream=1")
		})
	}
}

// The longest message that is taken, packed, is.
func TestTheLongestMessageIsTakenHoweverPacked(t *testing.T) {
	for kind := int32(1); kind <= 3; kind++ {
		_, s := pair(t)
		s.feed(packedRequest(kind, bomb(t, kind, testMaxMessage)))
		if len(s.events) != 3 || len(s.events[1].payload) != testMaxMessage {
			t.Errorf("%s: %.200s%s", compressNames[kind], s.log(), show(t, s.out))
		}
	}
}

func TestAReplyThatCantBeReadFailsTheCall(t *testing.T) {
	for wire, want := range map[string]string{
		`3=2 4=1 "no gzip"`:             `eos stream=1 code=DATA_LOSS reason="Fail to parse response, ContentType=pb, CompressType=gzip, ChecksumType=none, response_size=7"`,
		`4=1 5=9 "short"`:               `eos stream=1 code=DATA_LOSS reason="attachment_size=9 is larger than response_size=5"`,
		`4=1 11=1 12="\x00" "changed"`:  `eos stream=1 code=DATA_LOSS reason="Fail to parse response, ContentType=pb, CompressType=none, ChecksumType=crc32c, response_size=7"`,
		`2={ 1=2001 2="x" } 3=2 4=1 ""`: `eos stream=1 code=INTERNAL reason="x"`, // not looked at
	} {
		c, _ := pair(t)
		calling(c.Session, 1, "request")
		c.feed(parseShown(t, "PRPC "+wire))
		if len(c.events) != 2 || c.events[1].String() != want {
			t.Errorf("%s: %s", wire, c.log())
		}
	}
	c, _ := pair(t)
	calling(c.Session, 1, "request")
	reply := packedRequest(2, bomb(t, 2, testMaxMessage+1))
	p, _, _ := takePacket(reply)
	p.meta = p.meta[1:]
	c.feed(p.encode())
	if len(c.events) != 2 || c.events[1].frame.Code != status.TooLarge {
		t.Errorf("a bomb: %s", c.log())
	}
}

// Metadata that asks for an impossible packing fails the request or the answer, with the
// reason.
func TestInvalidPackOptionsFail(t *testing.T) {
	for _, w := range []struct{ key, value string }{
		{KeyCompress, "lz4"}, {KeyCompress, ""}, {KeyChecksum, "md5"}, {KeyContentType, "xml"},
		{KeyAttachmentSize, "x"}, {KeyAttachmentSize, "-1"}, {KeyAttachmentSize, "1000"}, {KeyLogID, "seven"}, {KeySpanID, "1e3"},
	} {
		md := metadata.Field{Key: w.key, Value: w.value}
		c, _ := pair(t)
		wrote(t, calling(c.Session, 1, "request", md))
		f := opening(3, 2)
		f.Metadata = metadata.MD{md}
		wrote(t, control(c.Session, f))
		c.feed(nil)
		if len(c.events) != 2 || c.events[0].frame.Code != status.InvalidArgument || c.events[1].frame.Kind != frame.Reject ||
			!strings.Contains(c.events[1].frame.Reason, w.key) || c.events[0].stream != 1 || c.events[1].stream != 3 {
			t.Errorf("%v: %s", w, c.log())
		}
		c.empty(t)
	}
	for _, unary := range []bool{true, false} {
		c, s := pair(t)
		s.feed(requestWith(c.Session, unary, "request", nil))
		s.events = nil
		c.feed(replyWith(s.Session, unary, "reply", metadata.MD{{Key: KeyCompress, Value: "lz4"}}))
		if !strings.Contains(c.log(), `code=INVALID_ARGUMENT reason="metadata brpc-compress`) {
			t.Errorf("%s", c.log())
		}
		s.feed(nil)
		if want := !unary; (len(s.events) == 1 && s.events[0].frame.Kind == frame.Reset) != want {
			t.Errorf("unary %t: the kernel gets %s", unary, s.log())
		}
		s.empty(t)
		c.empty(t)
	}
}

func TestFieldsOfARequestTravelAsMetadata(t *testing.T) {
	md := metadata.MD{
		{Key: KeyLogID, Value: "7"}, {Key: KeyTraceID, Value: "-8"}, {Key: KeySpanID, Value: "9223372036854775807"},
		{Key: KeyParentSpanID, Value: "0"}, {Key: KeyRequestID, Value: "request-1"}, {Key: KeyContentType, Value: "json"},
		{Key: "plain", Value: "x"}, {Key: "binary", Value: "\x00\xff"}, {Key: "empty", Value: ""},
	}
	c, s := pair(t)
	req := calling(c.Session, 1, "{}", md...)
	wrote(t, req, `PRPC 1={ 1="lab.StreamLab" 2="Echo" 3=7 4=-8 5=9223372036854775807 6=0 7="request-1" } 3=0 4=1 `+
		`9={ 1="plain" 2="x" } 9={ 1="binary" 2="\x00\xff" } 9={ 1="empty" 2="" } 10=1 11=0 12="" "{}"`)
	s.feed(req)
	got := map[string]string{}
	for _, f := range s.events[0].frame.Metadata {
		got[f.Key] = f.Value
	}
	for _, f := range md {
		if v, ok := got[f.Key]; !ok || v != f.Value {
			t.Errorf("%s: %q, want %q", f.Key, v, f.Value)
		}
	}
	if len(got) != len(md) {
		t.Errorf("%v", got)
	}
}

func TestUserFieldsBecomeKeysOfMetadata(t *testing.T) {
	_, s := pair(t)
	s.feed(parseShown(t, `PRPC 1={ 1="a" 2="b" } 4=1 9={ 1="Trace-Id" 2="A" } 9={ 1="with space\x00" 2="B" } 9={ 1="" 2="C" } 9={ 1="k" } `+
		`9={ 2="no key" } 9={ 1="brpc-compress" 2="gzip" } 9={ 1="BRPC-Attachment-Size" 2="9" } 9={ 1="brpc-other" 2="D" }`))
	want := metadata.MD{
		{Key: "trace-id", Value: "A"}, {Key: "with_space_", Value: "B"}, {Key: "_", Value: "C"}, {Key: "k", Value: ""},
		{Key: "_", Value: "no key"}, {Key: "brpc-other", Value: "D"},
	}
	got := s.events[0].frame.Metadata
	if _, bad := got.BadKey(); bad || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

// User fields that are too many are counted, not kept; nor is the memory of those that
// were not, when their packet has been taken.
func TestUserFieldsBeyondTheLimitAreLeftOut(t *testing.T) {
	request := func(fields int) []byte {
		meta := appendBytes(appendBytes(nil, fService, []byte("a")), fMethod, []byte("b"))
		meta = appendBytes(nil, fRequest, meta)
		for range fields {
			meta = appendBytes(meta, fUserFields, "")
		}
		return append(appendHeader(nil, magicRPC, len(meta), 0), meta...)
	}
	for fields, want := range map[int]int{maxMetadata / 32: 0, maxMetadata/32 + 1: maxMetadata + 32, 30_000: 32 * 30_000} {
		_, s := pair(t)
		s.feed(request(fields))
		f := s.events[0].frame
		if f.Kind != frame.Open || f.Omitted != want || (len(f.Metadata) == 0) != (want > 0) {
			t.Errorf("%d fields: %d are kept, %d bytes are left out, want %d", fields, len(f.Metadata), f.Omitted, want)
		}
		if n := cap(s.in.rpc.fields); n > keptFields {
			t.Errorf("%d fields: room for %d is kept", fields, n)
		}
	}
}

func TestAPacketThatThePeerWouldNotTakeIsNotWritten(t *testing.T) {
	small := func(client bool) *side { return &side{Session: newSession(client, testMaxMessage, 4<<10)} }
	big := strings.Repeat("x", 4<<10)
	c, s := small(true), small(false)
	wrote(t, calling(c.Session, 1, big))
	f := opening(3, 1)
	f.Payload = []byte(big)
	wrote(t, control(c.Session, f))
	c.feed(nil)
	if len(c.events) != 2 || c.events[0].frame.Code != status.TooLarge || c.events[1].frame.Code != status.TooLarge {
		t.Errorf("%s", c.log())
	}
	c.empty(t)
	c.events = nil

	// The body of a packet may be as long as the peer says, to the byte.
	req := calling(c.Session, 5, "")
	body := len(req) - headerLen
	s.feed(calling(c.Session, 7, big[:4<<10-body]))
	if len(s.events) != 3 {
		t.Errorf("%s", s.log())
	}
	wrote(t, calling(c.Session, 9, big[:4<<10-body+1]))

	ans := replying(s.Session, 1, big)
	c.feed(ans)
	if !strings.Contains(show(t, ans), `1=90 2="[E90]packet of `) {
		t.Errorf("%s", show(t, ans))
	}
	// An error is sent even if its metadata would not fit.
	s.feed(parseShown(t, `PRPC 1={ 1="a" 2="b" } 4=2 "x"`))
	control(s.Session, frame.Frame{Kind: frame.Accept, Stream: 3, Metadata: metadata.MD{{Key: "k", Value: big}}})
	wrote(t, control(s.Session, failed(3)), `PRPC 2={ 1=2001 2="[E2001]lost on the way" } 3=0 4=2 10=0 11=0 12=""`)
}

// Whatever is packed comes back.
func TestPackingLosesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		p := make([]byte, r.IntN(1<<r.IntN(18)))
		for i := range p {
			p[i] = byte(r.IntN(1 + r.IntN(256)))
		}
		for kind := int32(1); kind <= 3; kind++ {
			z, err := compress([]byte("before"), kind, p)
			if err != nil || !bytes.HasPrefix(z, []byte("before")) {
				t.Fatal(err)
			}
			got, err := decompress(kind, z[6:], len(p), 7)
			if err != nil || !bytes.Equal(got, p) {
				t.Fatalf("%s of %d bytes: %v, %d came back", compressNames[kind], len(p), err, len(got))
			}
			if len(p) > 0 {
				if _, err := decompress(kind, z[6:], len(p)-1, 0); err != errTooLong { //nolint:errorlint // our own value
					t.Fatalf("%s of %d bytes is within %d: %v", compressNames[kind], len(p), len(p)-1, err)
				}
			}
		}
	}
}
