package strm

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

// seeds adds the captures of brpc's programs, the hand-made frames, and all input that
// must be refused.
func seeds(f *testing.F) {
	paths, err := filepath.Glob("testdata/conversations/*.txt")
	if err != nil || len(paths) == 0 {
		f.Fatal(err)
	}
	for i, path := range paths {
		var c, s []byte
		for _, l := range conversation(f, path) {
			if l.server {
				s = append(s, l.raw...)
			} else {
				c = append(c, l.raw...)
			}
		}
		f.Add(false, uint64(i), c)
		f.Add(true, uint64(i), s)
	}
	for _, b := range bad {
		f.Add(false, uint64(1), unhex(f, b.in))
		f.Add(true, uint64(1), unhex(f, b.in))
	}
	// Of streams that the session under test has.
	f.Add(false, uint64(2), append(appendDataHead(nil, 1, 1, 3, true), "abc"...))
	f.Add(true, uint64(2), appendClose(appendDataHead(nil, 3, 1, 0, false), 1, 1))
	f.Add(false, uint64(3), appendRST(appendFeedback(nil, 1, 1, 4), 3))
	f.Add(true, uint64(3), unwrapped())
}

// unwrapped is the plain answer to the open that a client under test waits for.
func unwrapped() []byte {
	return append(appendHeader(nil, magicRPC, 12, 2), "\x12\x02\x08\x00\x20\x05\x42\x04\x08\x07\x20\x09ok"...)
}

// cutter sizes pieces at random, mostly small ones.
func cutter(seed uint64) func(int) int {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(int) int { return 1 + r.IntN(1<<r.IntN(15)) }
}

// tested is a session with two streams, one of them with something sent, a third
// that is closed by us, and, on a client, a request and a call without answers.
func tested(t testing.TB, client bool) *side {
	c, s := establishedPair(t, 3, 3)
	side := s
	if client {
		side = c
	}
	send(side.Session, 1, "sent")
	control(side.Session, eos(5))
	if client {
		control(c.Session, opening(7, 2))
		calling(c.Session, 11, "call")
	}
	return side
}

// FuzzNext: any bytes, cut in any way, give the same events, the same answers and
// the same error; nothing panics, memory is bounded by what came, and events keep to
// the rules of frame.Session.
func FuzzNext(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, client bool, seed uint64, b []byte) {
		one, got := fed(t, client, b)
		// An event keeps a copy of its payload, and a field of metadata takes six
		// bytes on the wire and 32 here.
		most := uint64(2<<20 + 60*len(b))
		for tries := 0; tries < 5 && got > most; tries++ { // the count is the process's, and the fuzzer allocates too
			_, n := fed(t, client, b)
			got = min(got, n)
		}
		if got > most && !packedInput(b) {
			t.Errorf("%d bytes were allocated for %d, at most %d are allowed", got, len(b), most)
		}
		for name, cut := range map[string]func(int) int{"at random": cutter(seed), "byte by byte": bytewise} {
			two := tested(t, client)
			two.feedBy(b, cut)
			if one.log() != two.log() || !bytes.Equal(one.out, two.out) {
				t.Fatalf("at once:\n%s%x\n%s:\n%s%x", one.log(), one.out, name, two.log(), two.out)
			}
			for i := range one.events {
				if !bytes.Equal(one.events[i].payload, two.events[i].payload) {
					t.Fatalf("event %d has another payload %s", i, name)
				}
			}
		}
		checkEvents(t, client, one.events)
	})
}

// fed is a session that was given b, and how many bytes the process has allocated meanwhile.
func fed(t *testing.T, client bool, b []byte) (*side, uint64) {
	s := tested(t, client)
	before := allocated()
	s.feed(b)
	return s, allocated() - before
}

// packedInput tells whether b may hold a compressed message, which may be far
// longer than b; what that takes is tested apart.
func packedInput(b []byte) bool { return bytes.Contains(b, []byte("PRPC")) }

// checkEvents checks what a connection relies on.
func checkEvents(t *testing.T, client bool, events []event) {
	t.Helper()
	next := uint64(7)
	over := map[uint64]bool{}
	within := map[uint64]bool{}
	for _, e := range events {
		f := e.frame
		switch {
		case f.Kind == frame.Open:
			if client || f.Stream != next || len(f.Grants) == 0 {
				t.Fatalf("%s, next is %d", e, next)
			}
			next += 2 * uint64(len(f.Grants))
			continue
		case f.Kind == frame.GoAway && client && f.Stream == 0 && f.Code == status.OK:
			continue
		case f.Stream == 0 || f.Stream >= next && !client:
			t.Fatalf("%s", e)
		case over[f.Stream] && f.Kind != frame.Stop:
			t.Fatalf("%s after the end", e)
		}
		switch f.Kind {
		case frame.Data:
			if e.first == within[f.Stream] {
				t.Fatalf("%s inside a message: %t", e, within[f.Stream])
			}
			within[f.Stream] = !e.last
			if e.first && e.last && f.Total != frame.UnknownTotal && f.Total != len(e.payload) {
				t.Fatalf("%s is %d long", e, len(e.payload))
			}
		case frame.EOS:
			if within[f.Stream] {
				t.Fatalf("%s inside a message", e)
			}
			over[f.Stream] = true
		case frame.Reset, frame.Reject:
			over[f.Stream] = true
		}
	}
}

// FuzzMeta: the two metas, read from any bytes, agree with a reader that knows
// nothing but protobuf's rules, and nothing panics.
func FuzzMeta(f *testing.F) {
	paths, _ := filepath.Glob("testdata/conversations/*.txt")
	for _, path := range paths {
		for _, l := range conversation(f, path) {
			f.Add(l.raw[headerLen : headerLen+int(l.raw[11])])
		}
	}
	f.Add(unhex(f, "0a060a016112016242080801220301ac0220074a060a016b120176"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var fm frameMeta
		ferr := fm.parse(b)
		if id, typ, rest, ok := metaHead(b); ok && ferr == nil && (wholeTail(rest) || isReport(typ, rest)) {
			consumed, _ := reportTail(rest)
			if id != fm.stream || int32(typ) != fm.typ || fm.more || isReport(typ, rest) && consumed != fm.consumed {
				t.Fatalf("in short: %d, type %d; at length: %+v", id, typ, fm)
			}
		} else if ok && ferr != nil && wholeTail(rest) {
			t.Fatalf("in short there is no error, at length %v", ferr)
		}
		m := rpcMeta{most: maxMetadata}
		if err := m.parse(b); err != nil {
			return
		}
		fields, err := takeFields(b, func(n protowire.Number) bool { return messages[n] })
		if err != nil {
			return // of a kind that the tests' reader does not take
		}
		p := &packet{meta: fields}
		if got, want := m.correlation, p.lastNum(fCorrelation); got != want {
			t.Errorf("correlation_id %d, want %d", got, want)
		}
		if got, want := int64(m.attachment), int64(int32(p.lastNum(fAttachment))); got != want {
			t.Errorf("attachment_size %d, want %d", got, want)
		}
		md := m.metadata()
		if _, bad := md.BadKey(); bad && !strings.Contains(fmt.Sprint(md), strings.Repeat("_", 256)) {
			for _, f := range md {
				if len(f.Key) < 256 {
					t.Errorf("key %q", f.Key)
				}
			}
		}
	})
}

func isReport(typ byte, rest []byte) bool {
	_, ok := reportTail(rest)
	return typ == typeFeedback && ok
}

// lastNum is the number of the last field that has one.
func (p *packet) lastNum(num protowire.Number) int64 {
	var v int64
	for _, f := range p.meta {
		if f.num == num && f.typ == protowire.VarintType {
			v = int64(f.v)
		}
	}
	return v
}

// FuzzIdentity: whatever a client writes, a server reads back, and the other way round.
func FuzzIdentity(f *testing.F) {
	f.Add("a.B/C", "key", "value", []byte("message"), uint8(0), uint16(3), true)
	f.Add("", "k", "", []byte{}, uint8(7), uint16(0), false)
	f.Add("#7", "brpc-log-id", "12", bytes.Repeat([]byte("x"), 3000), uint8(13), uint16(300), true)
	f.Fuzz(func(t *testing.T, method, key, value string, msg []byte, how uint8, attached uint16, unary bool) {
		md := metadata.MD{{Key: key, Value: value}}
		if _, bad := md.BadKey(); bad || strings.HasPrefix(key, "brpc-") {
			md = nil
		}
		md.Add(KeyCompress, compressNames[how%4])
		md.Add(KeyChecksum, checksumNames[how/4%2])
		if n := min(int(attached), len(msg)); n > 0 {
			md.Add(KeyAttachmentSize, fmt.Sprint(n))
		}
		c, s := pair(t)
		o := frame.Frame{Kind: frame.Open, Stream: 1, Unary: unary, Method: method, Metadata: md, Grants: grants(1)}
		if !unary {
			o.Payload = msg
		}
		s.feed(control(c.Session, o))
		if unary {
			s.feed(send(c.Session, 1, string(msg)))
			s.feed(control(c.Session, eos(1)))
		}
		heard(t, s, msg, md)
		want := method
		if strings.LastIndexByte(method, '/') == 0 { // no service is no name
			want = method[1:]
		}
		if got := s.events[0].frame.Method; got != want {
			t.Errorf("method %q, want %q", got, want)
		}
		c.feed(replyWith(s.Session, unary, string(msg), md))
		heard(t, c, msg, md)
	})
}

func heard(t *testing.T, s *side, msg []byte, md metadata.MD) {
	t.Helper()
	if s.err != nil || len(s.events) == 0 {
		t.Fatalf("%v: %s%s", s.err, s.log(), show(t, s.out))
	}
	first := s.events[0].frame
	got := first.Payload
	if len(s.events) == 3 {
		got = s.events[1].payload
	}
	if !bytes.Equal(got, msg) {
		t.Errorf("%.60q, want %.60q", got, msg)
	}
	for _, f := range md {
		if got := first.Metadata.Get(f.Key); got != f.Value && f.Value != "none" {
			t.Errorf("%s: %q, want %q", f.Key, got, f.Value)
		}
	}
}
