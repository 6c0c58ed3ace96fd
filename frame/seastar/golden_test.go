package seastar

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pierrec/lz4/v4"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// The files in testdata are captures: connection, direction, bytes. They are of Seastar's
// own client and server, and from 30 to 54 of a client that breaks rules and Seastar's
// server.

type line struct {
	conn   int
	client bool
	data   []byte
	note   string // of what is no data: open, fin, err
}

func conversation(t testing.TB, name string) (lines []line) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	for s := range strings.Lines(string(text)) {
		w := strings.Fields(s)
		n, err := strconv.Atoi(w[0])
		if err != nil {
			t.Fatal(err)
		}
		l := line{conn: n, client: w[1] == ">"}
		if l.data, err = hex.DecodeString(w[2]); err != nil {
			l.data, l.note = nil, w[2]
		}
		lines = append(lines, l)
	}
	return lines
}

// regular are the conversations of a real client with a real server.
var regular = map[string]*Protocol{
	"01-calls":                      {},
	"02-calls-plain":                {},
	"03-calls-isolation":            {Cookie: []byte("cookie-1")},
	"04-stream-echo":                {},
	"05-stream-doc":                 {},
	"06-stream-handler-throws":      {},
	"07-stream-client-stop":         {},
	"08-stream-server-drops-source": {},
	"09-stream-oneway":              {},
	"10-stream-late-eos":            {},
	"11-stream-lz4":                 {Compress: []string{LZ4}},
	"12-stream-lz4f":                {Compress: []string{LZ4Fragmented}},
	"13-calls-multi":                {Compress: []string{LZ4, LZ4Fragmented}},
	"15-connection-reset":           {},
	"16-calls-memory-limit":         {MaxMemory: 100},
	"17-no-streaming-domain":        {NoStreams: true},
}

// answered are those of a client that breaks rules where we answer as Seastar
// does.
var answered = map[string]*Protocol{
	"31-unknownfeature":  {},
	"36-dupfeature":      {},
	"40-parentonly-half": {},
	"41-eosfin":          {},
	"42-eosfin0":         {},
	"43-eosnofin":        {},
	"44-finnoeos":        {},
	"46-earlydata":       {},
	"47-truncated":       {},
	"48-emptyframe":      {},
	"49-twosources":      {},
	"51-serverstop":      {},
	"53-finnoeos10":      {},
	"54-finloss":         {},
}

// different are those that end otherwise here, or whose client is refused, which has no
// bytes to compare.
var different = map[string]struct {
	conn    int
	p       *Protocol
	refused bool        // in its hello, without a byte, as Seastar does
	code    status.Code // that the connection ends with
	events  []string    // before that
	silent  string      // what we answer to call 1, which Seastar leaves without an answer
}{
	"30-badmagic":       {refused: true, code: status.Protocol},
	"32-unknownparent":  {refused: true, code: status.Protocol},
	"33-invalidparent":  {refused: true, code: status.Protocol},
	"34-shortparent":    {refused: true, code: status.FrameSize},
	"35-badfeaturelen":  {refused: true, code: status.FrameSize},
	"52-parentnostream": {refused: true, code: status.Unimplemented, p: &Protocol{NoStreams: true}},
	"37-unknownstream": {silent: "INVALID_ARGUMENT: no such stream", events: []string{
		`1 open "#2" unary=true value=0x0 left=0s grants=1`, "1 data 0000770000000000", "1 eos OK",
		`3 open "#1" unary=true value=0x0 left=0s grants=1`, "3 data 050000006166746572", "3 eos OK",
	}},
	"38-badargs": {silent: "INVALID_ARGUMENT: two bytes", events: []string{
		`1 open "#4" unary=true value=0x0 left=0s grants=1`, "1 data 0100", "1 eos OK",
		`3 open "#4" unary=true value=0x0 left=0s grants=1`, "3 data 01000000020000000909", "3 eos OK",
	}},
	"39-negid": {code: status.Protocol}, // Seastar answers with the number as it is
	"45-dataaftereos": {conn: 1, code: status.StreamState, events: []string{ // Seastar has stopped reading
		`1 open "" unary=false value=0x20000 left=0s grants=1`, "1 data 0100000061", "1 eos OK",
	}},
}

// TestWhereAServerDiffers replays what their clients said.
func TestWhereAServerDiffers(t *testing.T) {
	for name, c := range different {
		t.Run(name, func(t *testing.T) {
			p := &Protocol{}
			if c.p != nil {
				p = &Protocol{NoStreams: c.p.NoStreams}
			}
			if c.conn == 1 {
				p.parents.add(1 << idShift)
				p.parents.countFrom(1)
			}
			lines := conversation(t, name)
			s, out, g, err := serve(p, said(lines, c.conn, true), 0, 0)
			if c.refused {
				if codeOf(err) != c.code || len(out) > 0 || len(said(lines, c.conn, false)) > 0 {
					t.Errorf("refused with %x, %v, want %v; Seastar said %x", out, err, c.code, said(lines, c.conn, false))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := events(s, g.Early)
			if codeOf(err) != c.code || (err == nil) != (c.code == 0) {
				t.Errorf("it ends with %v, want %v", err, c.code)
			}
			equal(t, "events", got, c.events)
			if code, reason, ok := strings.Cut(c.silent, ": "); ok {
				end := frame.Frame{Kind: frame.EOS, Stream: 1, Code: status.InvalidArgument, Reason: reason}
				equalBytes(t, "the answer to "+code, control(s, &end), user(1, c.silent))
			}
		})
	}
}

// TestEveryConversationIsReplayed: each is in one of the lists.
func TestEveryConversationIsReplayed(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".txt")
		_, other := different[name]
		if regular[name] == nil && answered[name] == nil && !other {
			t.Errorf("%s is in no list", name)
		}
	}
}

// noWaitVerb is the verb in the conversations whose calls have no reply.
const noWaitVerb = 6

// A side is one connection of a conversation, seen from one end.
type side struct {
	t        *testing.T
	s        frame.Session
	l        listener
	a        agreed
	clock    *clock
	in, out  []byte // of what the other end said, and of what this one must
	packed   bool
	requests []request // in the order of their streams
}

// features is what two hellos have settled, read from the answer.
func (x *side) features(t *testing.T, answer []byte) {
	rs, _, err := readHello(answer, &wire{})
	if err != nil {
		t.Fatal(err)
	}
	x.a.timeout, x.a.duration = has(rs, featTimeout), has(rs, featHandlerDuration)
	x.a.compress, _ = find(rs, featCompress)
	x.packed = x.a.compress != ""
}

// plain takes one frame, without its compression, off p; rest is nil if there is
// none.
func (x *side) plain(p []byte, head, at int) (one, rest []byte) {
	if x.packed {
		if len(p) < 4 {
			return nil, nil
		}
		n := int(binary.LittleEndian.Uint32(p))
		return unpacked(x.t, x.a.compress, p[4:4+n]), p[4+n:]
	}
	if len(p) < head {
		return nil, nil
	}
	n := binary.LittleEndian.Uint32(p[at:])
	if head == streamLen && n == endOfStream {
		n = 0
	}
	if len(p) < head+int(n) {
		return nil, nil
	}
	return p[:head+int(n)], p[head+int(n):]
}

// unpacked decompresses the short frames of the conversations.
func unpacked(t testing.TB, algorithm string, p []byte) []byte {
	t.Helper()
	size := binary.LittleEndian.Uint32(p)
	if algorithm == LZ4Fragmented {
		if size&lastChunk == 0 {
			t.Fatal("more than one chunk")
		}
		size &^= lastChunk
	}
	b := make([]byte, size)
	if n, err := lz4.UncompressBlock(p[4:], b); err != nil || n != len(b) {
		t.Fatalf("%d bytes and %v, want %d", n, err, len(b))
	}
	return b
}

// same compares frames byte for byte, compressed ones by what they hold: the same
// text has more than one form.
func (x *side) same(what string, got, want []byte) {
	x.t.Helper()
	if !x.packed {
		equalBytes(x.t, what, got, want)
		return
	}
	for len(got) > 0 && len(want) > 0 {
		n, m := 4+binary.LittleEndian.Uint32(got), 4+binary.LittleEndian.Uint32(want)
		equalBytes(x.t, what, unpacked(x.t, x.a.compress, got[4:n]), unpacked(x.t, x.a.compress, want[4:m]))
		got, want = got[n:], want[m:]
	}
	if len(got) != len(want) {
		x.t.Errorf("%s: %d bytes are left, want %d", what, len(got), len(want))
	}
}

func (x *side) feed(p []byte) {
	x.t.Helper()
	if err := x.l.feed(p); err != nil {
		x.t.Fatal(err)
	}
}

func (x *side) requestHead() int {
	if x.a.timeout {
		return timeoutLen + requestLen
	}
	return requestLen
}

func (x *side) responseHead() int {
	if x.a.duration {
		return responseLen + durationLen
	}
	return responseLen
}

// note remembers a request of the conversation, and returns its payload.
func (x *side) note(one []byte) (r request, payload []byte) {
	if x.a.timeout {
		r.left = time.Duration(binary.LittleEndian.Uint64(one)) * time.Millisecond
		one = one[timeoutLen:]
	}
	r.verb, r.id = binary.LittleEndian.Uint64(one), int64(binary.LittleEndian.Uint64(one[8:]))
	r.noWait = r.verb == noWaitVerb
	r.stream = uint64(2*len(x.requests) + 1)
	x.requests = append(x.requests, r)
	return r, one[requestLen:]
}

func (x *side) find(id int64) request {
	for _, r := range x.requests {
		if r.id == id {
			return r
		}
	}
	x.t.Fatalf("there is no request %d", id)
	return request{}
}

// TestAServerWritesWhatSeastarsWrites replays the conversations as server: what the
// client said goes in, and what the server said must come out.
func TestAServerWritesWhatSeastarsWrites(t *testing.T) {
	for _, set := range []map[string]*Protocol{regular, answered} {
		for name, options := range set {
			t.Run(name, func(t *testing.T) { replayServer(t, name, options) })
		}
	}
}

func replayServer(t *testing.T, name string, options *Protocol) {
	c := newClock()
	p := &Protocol{Compress: options.Compress, NoStreams: options.NoStreams, MaxMemory: options.MaxMemory, Now: c.now}
	p.parents.countFrom(0)
	conns := map[int]*side{}
	for _, l := range conversation(t, name) {
		x := conns[l.conn]
		switch {
		case x == nil:
			conns[l.conn] = &side{t: t, clock: c}
		case l.note != "":
		case x.s == nil && l.client:
			s, out, g, err := serve(p, append(x.in, l.data...), 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			x.s, x.l.s, x.out = s, s, out
			if len(g.Early) > 0 {
				t.Fatalf("%d bytes behind the hello", len(g.Early))
			}
			x.features(t, out)
			x.feed(nil)
		case l.client:
			x.feed(l.data)
			x.readRequests(l.data)
		case x.out != nil:
			equalBytes(t, "hello", x.out, l.data)
			x.out = nil
		default:
			x.serverSays(l.data)
		}
	}
	for n, x := range conns {
		if x.s != nil {
			x.serverHeard(n)
		}
	}
}

// readRequests notes the requests in what a client wrote.
func (x *side) readRequests(p []byte) {
	if _, ok := x.s.(*stream); ok {
		x.in = append(x.in, p...)
		return
	}
	for x.in = append(x.in, p...); ; {
		one, rest := x.plain(x.in, x.requestHead(), x.requestHead()-4)
		if one == nil {
			return
		}
		x.note(one)
		x.in = rest
	}
}

// serverSays has the session say what the server said.
func (x *side) serverSays(want []byte) {
	var got []byte
	for rest := want; len(rest) > 0; {
		var one []byte
		if _, ok := x.s.(*stream); ok {
			one, rest = x.plain(rest, streamLen, 0)
			got = append(got, sayStream(x.s, one)...)
			continue
		}
		one, rest = x.plain(rest, x.responseHead(), 8)
		got = append(got, x.respond(one)...)
	}
	x.same("the server", got, want)
}

// respond drives the session to one response.
func (x *side) respond(one []byte) []byte {
	id := int64(binary.LittleEndian.Uint64(one))
	payload := one[x.responseHead():]
	took := uint32(notMeasured)
	if x.a.duration {
		took = binary.LittleEndian.Uint32(one[responseLen:])
	}
	before := x.clock.t
	defer func() { x.clock.t = before }()
	if took != notMeasured {
		x.clock.advance(time.Duration(took) * time.Microsecond)
	}
	if id > 0 {
		r := x.find(id)
		return bytes.Join([][]byte{
			control(x.s, &frame.Frame{Kind: frame.Accept, Stream: r.stream}),
			send(x.s, r.stream, payload),
			control(x.s, &frame.Frame{Kind: frame.EOS, Stream: r.stream}),
		}, nil)
	}
	f := frame.Frame{Kind: frame.EOS, Stream: x.find(-id).stream, Code: status.Unknown, Reason: string(payload[min(8, len(payload)):])}
	for _, a := range x.l.frames {
		if a.Kind == frame.Reply && int64(a.Value) == -id {
			f = a
		}
	}
	if binary.LittleEndian.Uint32(payload) == exceptionUnknownVerb {
		f = frame.Frame{Kind: frame.Reject, Stream: f.Stream, Code: status.Unimplemented, NotProcessed: true}
	}
	return control(x.s, &f)
}

func sayStream(s frame.Session, one []byte) []byte {
	if bytes.Equal(one, endFrame) {
		return control(s, &frame.Frame{Kind: frame.EOS, Stream: streamNumber})
	}
	return send(s, streamNumber, one[streamLen:])
}

// serverHeard compares what came of the client's bytes with what they hold.
func (x *side) serverHeard(n int) {
	var want []string
	if s, ok := x.s.(*stream); ok {
		want = append(want, fmt.Sprintf("1 open %q unary=false value=%#x left=0s grants=1", "", s.id))
		want = append(want, x.streamLines(x.in)...)
		equal(x.t, fmt.Sprintf("events of connection %d", n), x.l.lines, want)
		return
	}
	opened := 0
	for _, f := range x.l.frames {
		if f.Kind == frame.Open {
			r := x.requests[opened]
			want := fmt.Sprintf("%d open \"#%d\" unary=true value=0x0 left=%v grants=1", r.stream, r.verb, r.left)
			if got := describe(&f); got != want {
				x.t.Errorf("%s, want %s", got, want)
			}
		}
		if f.Kind == frame.Open || f.Kind == frame.Reply {
			opened++
		}
	}
	if opened != len(x.requests) {
		x.t.Errorf("%d calls of %d", opened, len(x.requests))
	}
}

// streamLines are the events that a stream's bytes must cause.
func (x *side) streamLines(p []byte) (want []string) {
	for len(p) > 0 {
		one, rest := x.plain(p, streamLen, 0)
		if one == nil {
			break // a frame that was cut short
		}
		if bytes.Equal(one, endFrame) {
			want = append(want, "1 eos OK")
		} else {
			want = append(want, fmt.Sprintf("1 data %x", one[streamLen:]))
		}
		p = rest
	}
	return want
}

// TestAClientWritesWhatSeastarsWrites replays them as client.
func TestAClientWritesWhatSeastarsWrites(t *testing.T) {
	for name, options := range regular {
		t.Run(name, func(t *testing.T) { replayClient(t, name, options) })
	}
}

func replayClient(t *testing.T, name string, options *Protocol) {
	c := newClock()
	p := &Protocol{Compress: options.Compress, Cookie: options.Cookie, Now: c.now}
	conns := map[int]*side{}
	for _, l := range conversation(t, name) {
		x := conns[l.conn]
		switch {
		case x == nil:
			conns[l.conn] = &side{t: t, clock: c}
		case l.note != "":
		case x.s == nil && l.client:
			x.out = l.data
		case x.s == nil:
			x.clientHello(p, l.data)
		case l.client:
			x.clientSays(l.data)
		default:
			x.feed(l.data)
			x.in = append(x.in, l.data...)
		}
	}
	for n, x := range conns {
		x.clientHeard(n)
	}
}

// clientHello compares hellos. Seastar's client offers the handlers' time on
// streams too, where it means nothing; we don't. One conversation is of a client
// that offers neither it nor the timeout.
func (x *side) clientHello(p *Protocol, answer []byte) {
	golden, _, err := readHello(x.out, &wire{})
	if err != nil {
		x.t.Fatal(err)
	}
	equalBytes(x.t, "hello, encoded again", hello(golden...), x.out)
	var parent uint64
	if data, ok := find(golden, featStreamParent); ok {
		parent, _ = idOf(data)
	}
	p.NoExtensions = true
	s, out, _, err := dial(p, parent, answer)
	if err != nil {
		x.t.Fatal(err)
	}
	ours, _, _ := readHello(out, &wire{})
	differs := parent != 0 || len(golden) == 0
	drop := func(r record) bool {
		return differs && (r.feature == featHandlerDuration || r.feature == featTimeout)
	}
	if got, want := slices.DeleteFunc(ours, drop), slices.DeleteFunc(golden, drop); !slices.Equal(got, want) {
		x.t.Errorf("hello %v, want %v", got, want)
	}
	x.s, x.l.s = s, s
	x.features(x.t, answer)
	if parent != 0 {
		control(s, &frame.Frame{Kind: frame.Open, Stream: streamNumber, Grants: make([]frame.Grant, 1)})
		equal(x.t, "local", locals(s), []string{fmt.Sprintf("1 accept value=%#x grants=1", connID(s))})
	}
}

// clientSays has the session say what the client said.
func (x *side) clientSays(want []byte) {
	var got []byte
	for rest := want; len(rest) > 0; {
		var one []byte
		if _, ok := x.s.(*stream); ok {
			one, rest = x.plain(rest, streamLen, 0)
			got = append(got, sayStream(x.s, one)...)
			continue
		}
		one, rest = x.plain(rest, x.requestHead(), x.requestHead()-4)
		r, payload := x.note(one)
		open := frame.Frame{
			Kind: frame.Open, Stream: r.stream, Unary: true, Method: fmt.Sprintf("#%d", r.verb),
			Deadline: r.left, Grants: make([]frame.Grant, 1),
		}
		var wantLocal []string
		if r.noWait {
			open.Metadata.Add(NoWait, "1")
			wantLocal = []string{fmt.Sprintf("%d accept value=0x0 grants=1", r.stream), fmt.Sprintf("%d eos OK", r.stream)}
		}
		got = append(got, control(x.s, &open)...)
		got = append(got, send(x.s, r.stream, payload)...)
		got = append(got, control(x.s, &frame.Frame{Kind: frame.EOS, Stream: r.stream})...)
		equal(x.t, "local", locals(x.s), wantLocal)
	}
	x.same("the client", got, want)
}

// clientHeard compares what came of the server's bytes with what they hold.
func (x *side) clientHeard(n int) {
	what := fmt.Sprintf("events of connection %d", n)
	if _, ok := x.s.(*stream); ok {
		equal(x.t, what, x.l.lines, x.streamLines(x.in))
		return
	}
	var want []string
	for p := x.in; len(p) > 0; {
		var one []byte
		one, p = x.plain(p, x.responseHead(), 8)
		want = append(want, x.responseLines(one)...)
	}
	equal(x.t, what, x.l.lines, want)
}

func (x *side) responseLines(one []byte) []string {
	id := int64(binary.LittleEndian.Uint64(one))
	payload := one[x.responseHead():]
	took := ""
	if x.a.duration {
		if us := binary.LittleEndian.Uint32(one[responseLen:]); us != notMeasured {
			took = fmt.Sprintf("  %d", us)
		}
	}
	if id > 0 {
		s := x.find(id).stream
		return []string{
			fmt.Sprintf("%d accept value=0x0 grants=1", s), fmt.Sprintf("%d data %x", s, payload), fmt.Sprintf("%d eos OK%s", s, took),
		}
	}
	s := x.find(-id)
	if binary.LittleEndian.Uint32(payload) == exceptionUnknownVerb {
		return []string{fmt.Sprintf("%d reject UNIMPLEMENTED unknown verb %d notprocessed=true", s.stream, s.verb)}
	}
	return []string{
		fmt.Sprintf("%d accept value=0x0 grants=1", s.stream),
		strings.TrimSpace(fmt.Sprintf("%d eos UNKNOWN %s %s", s.stream, payload[8:], strings.TrimSpace(took))),
	}
}

// TestCutsMakeNoDifference feeds what each side of every conversation said in two
// parts, cut at every byte, and byte by byte: the events are the same.
func TestCutsMakeNoDifference(t *testing.T) {
	names := map[string]*Protocol{}
	for name, p := range regular {
		names[name] = p
	}
	for name, p := range answered {
		names[name] = p
	}
	for name, options := range names {
		t.Run(name, func(t *testing.T) {
			lines := conversation(t, name)
			for conn := range 2 {
				cutServer(t, options, said(lines, conn, true))
				cutClient(t, options, said(lines, conn, true), said(lines, conn, false))
			}
		})
	}
}

func said(lines []line, conn int, client bool) (p []byte) {
	for _, l := range lines {
		if l.conn == conn && l.client == client {
			p = append(p, l.data...)
		}
	}
	return p
}

// cutServer makes a server anew for each cut; a hello is cut too.
func cutServer(t *testing.T, options *Protocol, p []byte) {
	if len(p) == 0 {
		return
	}
	run := func(first, each int, cuts ...int) (lines []string, out []byte) {
		o := &Protocol{Compress: options.Compress, NoStreams: options.NoStreams, MaxMemory: options.MaxMemory}
		o.parents.add(1 << idShift)
		o.parents.countFrom(1)
		s, out, g, err := serve(o, p, first, each)
		if err != nil {
			t.Fatal(err)
		}
		rest := g.Early
		for i := range cuts {
			cuts[i] = min(cuts[i], len(rest))
		}
		lines, err = events(s, rest, cuts...)
		if err != nil {
			t.Fatal(err)
		}
		return lines, out
	}
	want, hello := run(0, 0)
	for first := range frame.SniffLen + 1 {
		lines, out := run(first, 1)
		equal(t, fmt.Sprintf("%d bytes read before", first), lines, want)
		equalBytes(t, "hello", out, hello)
	}
	var all []int
	for at := range p {
		lines, _ := run(0, 0, at)
		equal(t, fmt.Sprintf("cut at %d", at), lines, want)
		all = append(all, at)
	}
	lines, _ := run(0, 0, all...)
	equal(t, "byte by byte", lines, want)
}

// cutClient makes a client anew for each cut, which has made every call.
func cutClient(t *testing.T, options *Protocol, asked, p []byte) {
	if len(p) == 0 {
		return
	}
	golden, _, err := readHello(asked, &wire{})
	if err != nil {
		t.Fatal(err)
	}
	var parent uint64
	if data, ok := find(golden, featStreamParent); ok {
		parent, _ = idOf(data)
	}
	run := func(cuts ...int) (lines []string) {
		s, _, g, err := dial(&Protocol{Compress: options.Compress}, parent, p)
		if err != nil {
			t.Fatal(err)
		}
		if parent != 0 {
			control(s, &frame.Frame{Kind: frame.Open, Stream: streamNumber, Grants: make([]frame.Grant, 1)})
			locals(s)
		}
		for id := uint64(1); id < 40 && parent == 0; id += 2 {
			control(s, &frame.Frame{Kind: frame.Open, Stream: id, Unary: true, Method: "#1", Grants: make([]frame.Grant, 1)})
			send(s, id, nil)
		}
		rest := g.Early
		for i := range cuts {
			cuts[i] = min(cuts[i], len(rest))
		}
		lines, err = events(s, rest, cuts...)
		if err != nil {
			t.Fatal(err)
		}
		return lines
	}
	want := run()
	var all []int
	for at := range p {
		equal(t, fmt.Sprintf("cut at %d", at), run(at), want)
		all = append(all, at)
	}
	equal(t, "byte by byte", run(all...), want)
}
