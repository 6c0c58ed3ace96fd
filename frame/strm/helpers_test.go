package strm

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run the test with -rewrite and look at the change\ngot:\n%s", path, got)
	}
}

const testMaxMessage = 4 << 20

// connect makes a session as a handshake does.
func connect(t testing.TB, client bool, token string) *Session {
	t.Helper()
	g := &frame.Greeting{Client: client, Own: frame.Settings{MaxMessage: testMaxMessage, MaxMetadata: maxMetadata, Token: []byte(token)}}
	s, err := Protocol{Settle: -1}.Handshake(context.Background(), nil, g) // see young_test.go
	if err != nil {
		t.Fatal(err)
	}
	return s.(*Session)
}

// flatten returns the bytes in o, and empties it.
func flatten(s *Session, o *frame.Out) []byte {
	s.Flush(o)
	var b []byte
	for _, p := range o.Vec(nil) {
		b = append(b, p...)
	}
	o.Reset()
	return b
}

// written is what a session makes of what f appends.
func written(s *Session, f func(o *frame.Out)) []byte {
	var o frame.Out
	f(&o)
	return flatten(s, &o)
}

func control(s *Session, f frame.Frame) []byte {
	return written(s, func(o *frame.Out) { s.Control(o, &f) })
}

func send(s *Session, id uint64, msgs ...string) []byte {
	var run pool.Queue
	for _, m := range msgs {
		run.Push(pool.Copy([]byte(m)))
	}
	return written(s, func(o *frame.Out) { s.Messages(o, id, run) })
}

// sendPieces sends m in pieces of n bytes.
func sendPieces(s *Session, id uint64, m pool.Message, n int) []byte {
	return written(s, func(o *frame.Out) {
		for off, total := 0, m.Len(); off < total; off += n {
			fragment(s, o, id, m, off, min(n, total-off))
		}
	})
}

// An event is a frame as the tests compare it: pieces of one message that came
// in a row are one event, since where a payload is cut depends on how it came.
type event struct {
	head        string
	data        bool
	stream      uint64
	first, last bool
	payload     []byte
	frame       frame.Frame
}

func (e event) String() string {
	if !e.data {
		return e.head
	}
	s := fmt.Sprintf("%s first=%t last=%t %q", e.head, e.first, e.last, e.payload[:min(len(e.payload), 24)])
	if n := len(e.payload); n > 24 {
		s += fmt.Sprintf(" of %d", n)
	}
	return s
}

func eventOf(f *frame.Frame) event {
	e := event{head: describe(f), stream: f.Stream, frame: *f}
	e.frame.Payload = append([]byte(nil), f.Payload...)
	e.frame.Grants = append([]frame.Grant(nil), f.Grants...)
	if f.Kind == frame.Data {
		e.data, e.first, e.last = true, f.First, f.Last
		e.payload = e.frame.Payload
	}
	return e
}

var kindNames = map[frame.Kind]string{
	frame.Open: "open", frame.Accept: "accept", frame.Reject: "reject", frame.Data: "data", frame.EOS: "eos",
	frame.Reset: "reset", frame.Stop: "stop", frame.Credit: "credit", frame.Reply: "answer", frame.Skip: "skip", frame.GoAway: "goaway",
}

// describe tells what a frame says.
func describe(f *frame.Frame) string {
	var b strings.Builder
	name, ok := kindNames[f.Kind]
	if !ok {
		name = fmt.Sprintf("kind %d", f.Kind)
	}
	fmt.Fprintf(&b, "%s stream=%d", name, f.Stream)
	switch f.Kind {
	case frame.Open:
		fmt.Fprintf(&b, " method=%q", f.Method)
		if f.Unary {
			b.WriteString(" unary")
		}
		if f.Deadline != 0 {
			fmt.Fprintf(&b, " deadline=%v", f.Deadline)
		}
		rest(&b, f)
	case frame.Accept:
		rest(&b, f)
	case frame.Data:
		if f.First {
			fmt.Fprintf(&b, " total=%d", f.Total)
		}
	case frame.Reject:
		fmt.Fprintf(&b, " code=%v reason=%q notProcessed=%t", f.Code, f.Reason, f.NotProcessed)
	case frame.EOS, frame.Reset:
		if f.Code != status.OK {
			fmt.Fprintf(&b, " code=%v reason=%q", f.Code, f.Reason)
		}
	case frame.Credit, frame.GoAway:
		fmt.Fprintf(&b, " value=%d", f.Value)
	}
	return b.String()
}

func rest(b *strings.Builder, f *frame.Frame) {
	if len(f.Metadata) > 0 {
		fmt.Fprintf(b, " md=%q", f.Metadata)
	}
	for _, g := range f.Grants {
		fmt.Fprintf(b, " {limit=%d noReceive=%t}", g.Limit, g.NoReceive)
	}
	if len(f.Payload) > 0 {
		fmt.Fprintf(b, " payload=%q", f.Payload)
	}
}

// add appends e to events, to the last one if it continues that.
func add(events []event, e event) []event {
	if n := len(events); n > 0 && e.data && !e.first && events[n-1].data && !events[n-1].last && events[n-1].stream == e.stream {
		l := &events[n-1]
		l.payload = append(l.payload, e.payload...)
		l.last = e.last
		return events
	}
	return append(events, e)
}

// A side is a session with what has come of its input so far. Answers of its own
// go to out, as a connection passes them on.
type side struct {
	*Session
	events []event
	out    []byte
	err    error
	runs   bool // it asks for more of the same stream after each whole message
}

// feed gives the session p as a connection does: again and again, until it asks
// for more.
func (s *side) feed(p []byte) {
	s.local()
	defer s.local()
	// A copy that is overwritten: nothing may be kept of it.
	in := append([]byte(nil), p...)
	var f frame.Frame
	for rest := in; s.err == nil; {
		n, err := s.Next(rest, &f)
		if err != nil {
			s.err = err
			return
		}
		rest = rest[n:]
		switch f.Kind {
		case frame.None:
			if len(rest) > 0 {
				s.err = fmt.Errorf("%d bytes were left", len(rest))
			}
			clear(in)
			return
		case frame.Reply:
			s.out = append(s.out, control(s.Session, f)...)
		default:
			s.events = add(s.events, eventOf(&f))
		}
		if s.runs && f.Kind == frame.Data && f.First && f.Last {
			rest = rest[s.run(rest, f.Stream):]
		}
	}
}

// run takes what comes next of a stream's messages, as the connection's reader does.
func (s *side) run(p []byte, id uint64) int {
	a := pool.GetArena()
	defer pool.PutArena(a)
	var q pool.Queue
	n := s.Run(p, id, a, &q)
	q.Each(func(m pool.Message) {
		f := frame.Frame{Kind: frame.Data, Stream: id, Payload: m.Bytes(), First: true, Last: true, Total: m.Len()}
		s.events = add(s.events, eventOf(&f))
	})
	q.Release()
	return n
}

// local takes the events that writing has caused, as a connection does.
func (s *side) local() {
	for f := (frame.Frame{}); s.Event(&f); {
		s.events = add(s.events, eventOf(&f))
	}
}

// feedBy gives p in pieces whose sizes cut chooses.
func (s *side) feedBy(p []byte, cut func(left int) int) {
	for len(p) > 0 {
		n := min(max(cut(len(p)), 1), len(p))
		s.feed(p[:n])
		p = p[n:]
	}
}

func whole(left int) int { return left }

func bytewise(int) int { return 1 }

// log is the events as text.
func (s *side) log() string {
	var b strings.Builder
	for _, e := range s.events {
		fmt.Fprintln(&b, e)
	}
	if s.err != nil {
		fmt.Fprintln(&b, "error:", s.err)
	}
	return b.String()
}

// left is how many entries the session's table has.
func (s *Session) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.table.streams)
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A field is one field of a message, decoded without knowledge of ours.
type field struct {
	num protowire.Number
	typ protowire.Type
	v   uint64
	b   []byte
	sub []field // of a message whose fields the tests look into
}

// A packet is a packet or frame, taken apart.
type packet struct {
	magic   string
	meta    []field
	payload []byte
	inner   *packet // that the payload is
}

// messages are the fields of RpcMeta that are messages.
var messages = map[protowire.Number]bool{fRequest: true, fResponse: true, fSettings: true, fUserFields: true}

var errPacket = errors.New("no packet")

// takePacket takes the first packet off b.
func takePacket(b []byte) (*packet, []byte, error) {
	if len(b) < headerLen {
		return nil, nil, errPacket
	}
	body, meta := int(binary.BigEndian.Uint32(b[4:])), int(binary.BigEndian.Uint32(b[8:]))
	if meta > body || len(b) < headerLen+body {
		return nil, nil, errPacket
	}
	p := &packet{magic: string(b[:4]), payload: b[headerLen+meta : headerLen+body]}
	var err error
	p.meta, err = takeFields(b[headerLen:headerLen+meta], func(n protowire.Number) bool {
		return p.magic == "PRPC" && messages[n] || p.magic == "STRM" && n == fFeedback
	})
	if p.magic == "STRM" && strings.HasPrefix(string(p.payload), "PRPC") {
		p.inner, _, err = takePacket(p.payload)
	}
	return p, b[headerLen+body:], err
}

func takeFields(b []byte, nested func(protowire.Number) bool) ([]field, error) {
	var fs []field
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		f := field{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			f.v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.b, n = protowire.ConsumeBytes(b)
		default:
			return nil, errPacket
		}
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		if nested(num) {
			sub, err := takeFields(f.b, func(protowire.Number) bool { return false })
			if err != nil {
				return nil, err
			}
			f.sub = sub
		}
		fs = append(fs, f)
	}
	return fs, nil
}

func (p *packet) encode() []byte {
	payload := p.payload
	if p.inner != nil {
		payload = p.inner.encode()
	}
	meta := encodeFields(p.meta)
	b := append([]byte(p.magic), 0, 0, 0, 0, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(b[4:], uint32(len(meta)+len(payload)))
	binary.BigEndian.PutUint32(b[8:], uint32(len(meta)))
	return append(append(b, meta...), payload...)
}

func encodeFields(fs []field) []byte {
	var b []byte
	for _, f := range fs {
		b = protowire.AppendTag(b, f.num, f.typ)
		switch {
		case f.typ == protowire.VarintType:
			b = protowire.AppendVarint(b, f.v)
		case f.sub != nil:
			b = protowire.AppendBytes(b, encodeFields(f.sub))
		default:
			b = protowire.AppendBytes(b, f.b)
		}
	}
	return b
}

// get returns the field at a path of numbers, or nil.
func (p *packet) get(path ...protowire.Number) *field {
	fs := p.meta
	for i, num := range path {
		var found *field
		for j := range fs {
			if fs[j].num == num {
				found = &fs[j]
			}
		}
		if found == nil || i == len(path)-1 {
			return found
		}
		fs = found.sub
	}
	return nil
}

// num is the number at a path, 0 if there is none.
func (p *packet) num(path ...protowire.Number) int64 {
	if f := p.get(path...); f != nil {
		return int64(f.v)
	}
	return 0
}

// text is the string at a path.
func (p *packet) text(path ...protowire.Number) string {
	if f := p.get(path...); f != nil {
		return string(f.b)
	}
	return ""
}

// String shows a packet in one line, for messages of tests.
func (p *packet) String() string {
	s := p.magic + showFields(p.meta)
	switch {
	case p.inner != nil:
		s += " [" + p.inner.String() + "]"
	case len(p.payload) > 0:
		s += fmt.Sprintf(" %q", p.payload[:min(len(p.payload), 32)])
	}
	return s
}

func showFields(fs []field) string {
	var b strings.Builder
	for _, f := range fs {
		switch {
		case f.typ == protowire.VarintType:
			fmt.Fprintf(&b, " %d=%d", f.num, int64(f.v))
		case f.sub != nil:
			fmt.Fprintf(&b, " %d={%s }", f.num, showFields(f.sub))
		default:
			fmt.Fprintf(&b, " %d=%q", f.num, f.b)
		}
	}
	return b.String()
}

// packets takes b apart.
func packets(t testing.TB, b []byte) []*packet {
	t.Helper()
	var ps []*packet
	for len(b) > 0 {
		p, rest, err := takePacket(b)
		if err != nil {
			t.Fatalf("%v in %x", err, b)
		}
		ps, b = append(ps, p), rest
	}
	return ps
}

// show takes b apart and shows it, a line a packet.
func show(t testing.TB, b []byte) string {
	t.Helper()
	var s strings.Builder
	for _, p := range packets(t, b) {
		fmt.Fprintln(&s, p)
	}
	return s.String()
}

// noConn is a connection on which nothing comes.
type noConn struct {
	in  io.Reader
	out strings.Builder
}

func (c *noConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *noConn) Write(p []byte) (int, error) { return c.out.Write(p) }

func msDuration(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// fragment has s append n of m's bytes from off: the first piece comes with the
// message's overhead.
func fragment(s frame.Session, o *frame.Out, id uint64, m pool.Message, off, n int) {
	if off == 0 {
		s.Fragment(o, id, m, 0, overhead+n)
		return
	}
	s.Fragment(o, id, m, overhead+off, n)
}
