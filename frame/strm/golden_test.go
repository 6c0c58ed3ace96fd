package strm

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// testdata/conversations holds captured connections between brpc's programs
// (apache/brpc master 71871ee9): a line is one packet or frame, C from the client,
// S from the server. Each is replayed with a session in place of one of the programs.
// The session's streams have numbers of their own; apart from those, it writes what the
// program wrote, byte for byte, but for the deviations below. That a server closes the
// connection instead of answering, and that a message is too long for brpc, is tested in
// internal/interop, with connections.

// A deviation is where we write something else than brpc's program did.
type deviation struct {
	role string // "server" or "client"
	line int    // of the conversation, from 1
	ours string // what we write instead, as show shows it; "" is nothing
	why  string
}

const noReport = "a report after either side's CLOSE finds no stream"

var deviations = map[string][]deviation{
	"01-unary": {
		{"server", 4, `PRPC 2={ 1=0 } 3=0 4=8589934598 10=0 11=0 12="" "\n\x05hello"`, "checksum_value of the request is not repeated"},
	},
	"03-serverclose": {
		{"server", 10, "", noReport},
		{"client", 12, "", noReport},
	},
	"04-source": {
		{"client", 7, "", noReport},
		{"client", 8, "", noReport},
	},
	"16-noaccept": {
		{"server", 2, `STRM 1=0 2=-1 3=3 4=0 [PRPC 2={ 1=9 2="[E9]not accepted" } 3=0 4=4294967298 10=0 11=0 12=""]`, "an open that is not accepted is refused with an error"},
	},
}

type line struct {
	server bool // the server wrote it
	raw    []byte
}

func conversation(t testing.TB, path string) []line {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var ls []line
	for _, l := range strings.Split(string(text), "\n") {
		if who, data, ok := strings.Cut(l, " "); ok && who != "#" {
			ls = append(ls, line{who == "S", unhex(t, data)})
		}
	}
	return ls
}

func TestCapturesOfBrpcsPrograms(t *testing.T) {
	paths, err := filepath.Glob("testdata/conversations/*.txt")
	if err != nil || len(paths) != 18 {
		t.Fatalf("%d conversations, %v", len(paths), err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		lines := conversation(t, path)
		for _, role := range []string{"server", "client"} {
			if role == "server" && name == "17-failaccept" {
				continue // we can't accept and then fail
			}
			t.Run(name+"/"+role, func(t *testing.T) {
				r := replayed(t, name, role, lines, whole)
				golden(t, filepath.Join("events", name+"."+role+".txt"), r.log())
				if n := r.left(); n != 0 {
					t.Errorf("%d streams are left", n)
				}
				splits(t, name, role, lines, r.log())
			})
		}
	}
}

// splits replays a conversation cut at each of its bytes, and into single ones.
func splits(t *testing.T, name, role string, lines []line, want string) {
	t.Helper()
	if got := replayed(t, name, role, lines, bytewise).log(); got != want {
		t.Errorf("byte by byte:\n%s", got)
	}
	most := 0
	for _, l := range lines {
		most = max(most, len(l.raw))
	}
	for at := 1; at < most; at++ {
		first := true
		cut := func(left int) int {
			if first = !first; first {
				return left
			}
			return at
		}
		if got := replayed(t, name, role, lines, cut).log(); got != want {
			t.Fatalf("cut after %d bytes:\n%s", at, got)
		}
	}
}

// A replay is a session in the place of one program.
type replay struct {
	t       *testing.T
	side    *side
	server  bool // we are the server
	lines   []line
	numbers map[int64]uint64 // our stream numbers by the program's ids
	calls   map[int64]uint64 // by its correlation ids
	opened  uint64           // last number
	partial map[int64][]byte // segments of a message
	got     []byte
}

func replayed(t *testing.T, name, role string, lines []line, cut func(int) int) *side {
	t.Helper()
	r := &replay{
		t: t, server: role == "server", lines: lines, numbers: map[int64]uint64{}, calls: map[int64]uint64{},
		partial: map[int64][]byte{}, opened: ^uint64(0),
	}
	r.side = &side{Session: connect(t, !r.server, "")}
	var want []byte
	for i, l := range lines {
		p, _, err := takePacket(l.raw)
		if err != nil {
			t.Fatal(err)
		}
		if !r.server && !l.server || r.server && !l.server {
			r.learn(p)
		}
		r.renumber(p, l.server)
		if l.server != r.server {
			r.side.feedBy(p.encode(), cut)
			r.got = append(r.got, r.side.out...)
			r.side.out = nil
			continue
		}
		r.act(l, i)
		want = append(want, expected(t, name, role, i, p)...)
		if r.side.err != nil {
			break
		}
	}
	if !bytes.Equal(r.got, want) {
		t.Fatalf("wrote\n%swant\n%s", show(t, r.got), show(t, want))
	}
	return r.side
}

// expected is what we should write instead of line i.
func expected(t *testing.T, name, role string, i int, p *packet) []byte {
	t.Helper()
	for _, d := range deviations[name] {
		if d.role != role || d.line != i+1 {
			continue
		}
		if d.ours == "" {
			return nil
		}
		return parseShown(t, d.ours)
	}
	if p.magic == "PRPC" && p.num(fCompress) != compressNone {
		pack(t, p)
	}
	return p.encode()
}

// pack compresses what p holds as we do: another gzip makes other bytes. Other
// tests are about what they unpack to, and about checksums.
func pack(t *testing.T, p *packet) {
	t.Helper()
	kind := int32(p.num(fCompress))
	body, err := decompress(kind, p.payload, testMaxMessage, 0)
	if err != nil {
		t.Fatal(err)
	}
	if p.payload, err = compress(nil, kind, body); err != nil {
		t.Fatal(err)
	}
	sum := checksum(p.payload)
	p.get(fSum).b = sum[:]
}

// learn gives the streams and calls of a request their numbers.
func (r *replay) learn(p *packet) {
	if p.magic != "PRPC" {
		return
	}
	ids := []int64{-1}
	if p.get(fSettings) != nil {
		ids = idsOf(p)
	}
	r.calls[p.num(fCorrelation)] = r.opened + 2
	for i, id := range ids {
		r.opened += 2
		if r.server {
			id = int64(i) // brpc's servers number from 0 in these conversations
		}
		if p.get(fSettings) != nil {
			r.numbers[id] = r.opened
		}
	}
}

// idsOf are the streams that settings name.
func idsOf(p *packet) []int64 {
	ids := []int64{p.num(fSettings, fID)}
	for _, f := range p.get(fSettings).sub {
		if f.num == fExtra {
			ids = append(ids, int64(f.v))
		}
	}
	return ids
}

// renumber puts our numbers where the program in whose place we are had its ids.
func (r *replay) renumber(p *packet, fromServer bool) {
	ours := fromServer == r.server // the frame is one of ours
	if p.magic == "STRM" {
		num := protowire.Number(fStream)
		if ours {
			num = fSource
		}
		if f := p.get(num); f != nil && int64(f.v) != noStream {
			f.v = r.numbers[int64(f.v)]
		}
		if p.inner != nil {
			r.renumber(p.inner, fromServer)
		}
		return
	}
	if f := p.get(fCorrelation); f != nil && !r.server {
		f.v = r.calls[int64(f.v)]
	}
	if st := p.get(fSettings); st != nil && ours {
		for i := range st.sub {
			if f := &st.sub[i]; f.num == fID || f.num == fExtra {
				f.v = r.numbers[int64(f.v)]
			}
		}
	}
	if f := p.get(fResponse, fErrorText); f != nil && ours { // the address that brpc puts in front
		f.b = f.b[bytes.IndexByte(f.b, ']')+1:]
	}
}

// act does what the program did when it wrote l.
func (r *replay) act(l line, i int) {
	p, _, err := takePacket(l.raw)
	if err != nil {
		r.t.Fatal(err)
	}
	s := r.side.Session
	if p.magic == "PRPC" && !r.server {
		r.ask(p)
		return
	}
	if p.magic == "PRPC" {
		r.answer(p)
		return
	}
	id := r.numbers[p.num(fSource)]
	switch p.num(fType) {
	case typeData:
		if p.inner != nil {
			r.accept(p.inner)
			return
		}
		r.data(id, p)
	case typeFeedback:
		r.got = append(r.got, control(s, frame.Frame{Kind: frame.Credit, Stream: id, Value: uint64(p.num(fFeedback, fConsumed))})...)
	case typeClose:
		r.got = append(r.got, control(s, frame.Frame{Kind: frame.EOS, Stream: id})...)
	case typeRST: // the session's own
	}
}

// data sends a message, or keeps a segment until the message is complete.
func (r *replay) data(id uint64, p *packet) {
	src := p.num(fSource)
	r.partial[src] = append(r.partial[src], p.payload...)
	switch {
	case p.num(fContinuation) != 0:
		return
	case len(r.partial[src]) == len(p.payload):
		r.got = append(r.got, send(r.side.Session, id, string(p.payload))...)
	default:
		r.got = append(r.got, sendPieces(r.side.Session, id, pool.Copy(r.partial[src]), 64)...)
	}
	r.partial[src] = nil
}

func optionsOf(p *packet) metadata.MD {
	var md metadata.MD
	if n := p.num(fAttachment); n > 0 {
		md.Add(KeyAttachmentSize, strconv.FormatInt(n, 10))
	}
	if n := p.num(fCompress); n > 0 {
		md.Add(KeyCompress, compressNames[n])
	}
	if n := p.num(fChecksum); n > 0 {
		md.Add(KeyChecksum, checksumNames[n])
	}
	return md
}

func grantsOf(p *packet) []frame.Grant {
	g := frame.Grant{NoReceive: p.num(fSettings, fWritable) == 0}
	if p.num(fSettings, fNeedFeedback) == 0 {
		g.Limit = 1<<63 - 1
	}
	var gs []frame.Grant
	for range idsOf(p) {
		gs = append(gs, g)
	}
	return gs
}

// ask makes a request.
func (r *replay) ask(p *packet) {
	s := r.side.Session
	id := r.calls[p.num(fCorrelation)]
	f := frame.Frame{
		Kind: frame.Open, Stream: id, Metadata: optionsOf(p),
		Method: p.text(fRequest, fService) + "/" + p.text(fRequest, fMethod),
	}
	if p.get(fSettings) != nil {
		f.Grants, f.Payload = grantsOf(p), p.payload
		r.got = append(r.got, control(s, f)...)
		return
	}
	body := p.payload
	if k := p.num(fCompress); k != 0 {
		var err error
		if body, err = decompress(int32(k), body, testMaxMessage, 0); err != nil {
			r.t.Fatal(err)
		}
	}
	f.Unary, f.Grants = true, []frame.Grant{{}}
	r.got = append(r.got, control(s, f)...)
	r.got = append(r.got, send(s, id, string(body))...)
	r.got = append(r.got, control(s, frame.Frame{Kind: frame.EOS, Stream: id})...)
}

// answer replies to a call.
func (r *replay) answer(p *packet) {
	s := r.side.Session
	id := r.calls[p.num(fCorrelation)]
	r.got = append(r.got, control(s, frame.Frame{Kind: frame.Accept, Stream: id, Metadata: optionsOf(p)})...)
	r.got = append(r.got, send(s, id, string(p.payload))...)
	r.got = append(r.got, control(s, frame.Frame{Kind: frame.EOS, Stream: id})...)
}

// accept answers a request that opens streams.
func (r *replay) accept(p *packet) {
	s := r.side.Session
	f := frame.Frame{Stream: r.calls[p.num(fCorrelation)]}
	switch e := int(p.num(fResponse, fErrorCode)); {
	case e != 0:
		text := p.text(fResponse, fErrorText)
		f.Kind, f.Code, f.Reason = frame.Reject, CodeOf(e), text[strings.LastIndexByte(text, ']')+1:]
	case p.get(fSettings) == nil:
		f.Kind, f.Code, f.Reason = frame.Reject, status.FailedPrecondition, "not accepted"
	default:
		f.Kind, f.Grants, f.Payload = frame.Accept, grantsOf(p), p.payload
	}
	r.got = append(r.got, control(s, f)...)
}

// parseShown is the inverse of show.
func parseShown(t *testing.T, s string) []byte {
	t.Helper()
	p, rest := parsePacket(t, s)
	if strings.TrimSpace(rest) != "" {
		t.Fatalf("%q is left", rest)
	}
	return p.encode()
}

func parsePacket(t *testing.T, s string) (*packet, string) {
	t.Helper()
	p := &packet{magic: s[:4]}
	p.meta, s = parseFields(t, s[4:])
	s = strings.TrimSpace(s)
	switch {
	case strings.HasPrefix(s, "["):
		p.inner, s = parsePacket(t, s[1:])
		s = strings.TrimPrefix(strings.TrimSpace(s), "]")
	case strings.HasPrefix(s, `"`):
		q, err := strconv.QuotedPrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := strconv.Unquote(q)
		p.payload, s = []byte(text), s[len(q):]
	}
	return p, s
}

func parseFields(t *testing.T, s string) ([]field, string) {
	t.Helper()
	var fs []field
	for {
		s = strings.TrimLeft(s, " ")
		name, value, ok := strings.Cut(s, "=")
		num, err := strconv.Atoi(name)
		if !ok || err != nil {
			return fs, s
		}
		f := field{num: protowire.Number(num)}
		switch {
		case value[0] == '{':
			f.typ = protowire.BytesType
			f.sub, s = parseFields(t, value[1:])
			s = strings.TrimPrefix(s, "}")
		case value[0] == '"':
			q, err := strconv.QuotedPrefix(value)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := strconv.Unquote(q)
			f.typ, f.b, s = protowire.BytesType, []byte(text), value[len(q):]
		default:
			end := strings.IndexAny(value+" ", " ]}")
			v, err := strconv.ParseInt(value[:end], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			f.v, s = uint64(v), value[end:]
		}
		fs = append(fs, f)
	}
}

func TestShownPacketsCanBeRead(t *testing.T) {
	for _, c := range conversation(t, "testdata/conversations/07-batch.txt") {
		p, _, err := takePacket(c.raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := parseShown(t, p.String()); !bytes.Equal(got, c.raw) {
			t.Errorf("%v became %x, was %x", p, got, c.raw)
		}
	}
}
