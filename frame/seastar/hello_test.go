package seastar

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

func TestDetect(t *testing.T) {
	p := &Protocol{}
	for first, want := range map[string]frame.Verdict{
		"": frame.More, "S": frame.More, "SSTARRP": frame.More, "SSTARRPC": frame.Yes,
		"SSTARRPC\x00\x00\x00\x00": frame.Yes, "X": frame.No, "SLUICE\r\n": frame.No, "SSTARRPX": frame.No,
	} {
		if got := p.Detect([]byte(first)); got != want {
			t.Errorf("%q: %v, want %v", first, got, want)
		}
	}
}

// What a server says to a hello, feature by feature, and what it refuses: always
// by closing, without a byte.
func TestAServersAnswerToAHello(t *testing.T) {
	child := record{featStreamParent, idData(1 << idShift)}
	many := func(n int) (rs []record) {
		for i := range n {
			rs = append(rs, record{feature: uint32(1000 + i)})
		}
		return rs
	}
	full := func(rs ...record) []byte { return hello(rs...) }
	raw := func(length string, rest string) []byte { return []byte(magic + length + rest) }
	id2 := record{featConnectionID, idData(2 << idShift)}
	for name, c := range map[string]struct {
		in     []byte
		p      *Protocol
		answer []record
		code   status.Code // 0 with no answer: the end of the input
	}{
		"no records":              {in: full(), answer: []record{id2}},
		"timeout and duration":    {in: full(record{featTimeout, ""}, record{featHandlerDuration, ""}), answer: []record{{featTimeout, ""}, id2, {featHandlerDuration, ""}}},
		"in another order":        {in: full(record{featHandlerDuration, ""}, record{featTimeout, ""}), answer: []record{{featTimeout, ""}, id2, {featHandlerDuration, ""}}},
		"unknown":                 {in: full(record{77, "abc"}, record{featTimeout, ""}), answer: []record{{featTimeout, ""}, id2}},
		"twice":                   {in: full(record{featIsolation, "a"}, record{featIsolation, "b"}), answer: []record{id2, {featIsolation, "a"}}},
		"no streams":              {in: full(), p: &Protocol{NoStreams: true}, answer: nil},
		"compression not spoken":  {in: full(record{featCompress, LZ4}), answer: []record{id2}},
		"compression":             {in: full(record{featCompress, "ZSTD,LZ4,LZ4_FRAGMENTED"}), p: &Protocol{Compress: []string{LZ4Fragmented, LZ4}}, answer: []record{{featCompress, LZ4}, id2}},
		"compression, none known": {in: full(record{featCompress, ",ZSTD,"}), p: &Protocol{Compress: []string{LZ4}}, answer: []record{id2}},
		"a stream":                {in: full(child, record{featHandlerDuration, ""}), answer: []record{id2, {featHandlerDuration, ""}}},
		"the most records":        {in: full(many(maxRecords)...), answer: []record{id2}},

		"another magic":            {in: []byte("SSTARRPX\x00\x00\x00\x00"), code: status.Protocol},
		"magic and nothing":        {in: []byte(magic)},
		"part of the records":      {in: raw("\x09\x00\x00\x00", "\x01\x00\x00\x00\x00\x00\x00\x00")},
		"a hello without end":      {in: raw("\xff\xff\xff\xff", ""), code: status.FrameSize},
		"a hello over the limit":   {in: raw("\x01\x00\x01\x00", ""), code: status.FrameSize},
		"half a record":            {in: raw("\x04\x00\x00\x00", "\x01\x00\x00\x00"), code: status.FrameSize},
		"a record beyond the end":  {in: raw("\x08\x00\x00\x00", "\x01\x00\x00\x00\x05\x00\x00\x00"), code: status.FrameSize},
		"a record of 4 GiB":        {in: raw("\x08\x00\x00\x00", "\x01\x00\x00\x00\xff\xff\xff\xff"), code: status.FrameSize},
		"too many records":         {in: full(many(maxRecords + 1)...), code: status.EnhanceYourCalm},
		"an unknown parent":        {in: full(record{featStreamParent, idData(7 << idShift)}), code: status.Protocol},
		"a parent on another core": {in: full(record{featStreamParent, idData(1<<idShift | 9)}), code: status.Protocol},
		"no parent":                {in: full(record{featStreamParent, idData(0)}), code: status.Protocol},
		"a short parent":           {in: full(record{featStreamParent, "\x00\x00\x01"}), code: status.FrameSize},
		"a long parent":            {in: full(record{featStreamParent, idData(1<<idShift) + "\x00"}), code: status.FrameSize},
		"a stream where none are":  {in: full(child), p: &Protocol{NoStreams: true}, code: status.Unimplemented},
		"a stream of the stream":   {in: full(record{featStreamParent, idData(2 << idShift)}), code: status.Protocol},
	} {
		t.Run(name, func(t *testing.T) {
			for each := range 2 {
				p := &Protocol{}
				if c.p != nil {
					p.Compress, p.NoStreams = c.p.Compress, c.p.NoStreams
				}
				p.parents.add(1 << idShift)
				p.parents.countFrom(1)
				s, out, _, err := serve(p, c.in, each*5, each)
				switch {
				case err != nil && len(out) > 0:
					t.Errorf("refused with %x", out)
				case c.code != 0 && codeOf(err) != c.code:
					t.Errorf("it ends with %v, want %v", err, c.code)
				case c.code == 0 && c.answer == nil && !p.NoStreams && !errors.Is(err, io.ErrUnexpectedEOF):
					t.Errorf("it ends with %v", err)
				case c.answer != nil || c.code == 0 && p.NoStreams:
					if err != nil || s == nil {
						t.Fatal(err)
					}
					equalBytes(t, "the answer", out, hello(c.answer...))
				}
			}
		})
	}
}

// A length in a hello takes no memory before the bytes are there.
func TestAHelloTakesTheMemoryThatItHasFilled(t *testing.T) {
	in := append([]byte(magic), 0, 0, 1, 0)
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := readHello(nil, &wire{in: in}); err == nil {
				b.Fatal("a hello without its records")
			}
		}
	}).AllocedBytesPerOp()
	if allocated > 2*readStep {
		t.Errorf("%d bytes for a hello that announces 64 KiB and holds none", allocated)
	}
}

func TestWhatAClientTakesOfAnAnswer(t *testing.T) {
	id := record{featConnectionID, idData(5 << idShift)}
	for name, c := range map[string]struct {
		p      *Protocol
		parent uint64
		answer []byte
		code   status.Code
		eof    bool
	}{
		"nothing agreed":            {answer: hello()},
		"everything":                {p: &Protocol{Compress: []string{LZ4}}, answer: hello(record{featCompress, LZ4}, record{featTimeout, ""}, id, record{featHandlerDuration, ""})},
		"a stream":                  {parent: 1 << idShift, answer: hello(id)},
		"a compression not offered": {p: &Protocol{Compress: []string{LZ4}}, answer: hello(record{featCompress, LZ4Fragmented}), code: status.Protocol},
		"an id too short":           {answer: hello(record{featConnectionID, "\x01"}), code: status.FrameSize},
		"a stream without an id":    {parent: 1 << idShift, answer: hello(), code: status.Unimplemented},
		"closed":                    {answer: nil, eof: true},
		"a stream, closed":          {parent: 1 << idShift, answer: nil, eof: true},
		"not Seastar":               {answer: []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), code: status.Protocol},
	} {
		t.Run(name, func(t *testing.T) {
			p := c.p
			if p == nil {
				p = &Protocol{}
			}
			s, _, _, err := dial(p, c.parent, c.answer)
			switch {
			case c.eof:
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("it ends with %v", err)
				}
			case codeOf(err) != c.code || (err == nil) != (c.code == 0):
				t.Errorf("it ends with %v, want %v", err, c.code)
			case err == nil && c.parent != 0:
				if child := s; parentID(child) != c.parent || connID(child) != 5<<idShift {
					t.Errorf("stream %#x of %#x", connID(child), parentID(child))
				}
			}
		})
	}
}

// Bytes behind a hello are handed on, whichever way they came.
func TestWhatFollowsAHelloIsNotLost(t *testing.T) {
	in := append(hello(), "rest"...)
	for first := range len(in) + 1 {
		_, _, g, err := serve(&Protocol{}, in, first, 0)
		if err != nil || string(g.Early) != "rest" {
			t.Errorf("%d bytes read before: %q, %v", first, g.Early, err)
		}
	}
	_, _, g, err := dial(&Protocol{}, 0, in)
	if err != nil || string(g.Early) != "rest" {
		t.Errorf("a client has %q, %v", g.Early, err)
	}
}

// A cookie is passed to Authenticate, as the client's token, and to
// Isolate; either can refuse.
func TestACookieIsLookedAtBeforeTheAnswer(t *testing.T) {
	no := errors.New("no")
	for name, c := range map[string]struct {
		rs            []record
		auth, isolate error
		asked         string // what Isolate saw
		code          status.Code
	}{
		"let in":               {rs: []record{{featIsolation, "gold"}}, asked: "gold"},
		"no cookie":            {isolate: no},
		"not isolated":         {rs: []record{{featIsolation, "gold"}}, isolate: no, asked: "gold", code: status.PermissionDenied},
		"not authenticated":    {rs: []record{{featIsolation, "gold"}}, auth: no, code: status.Unauthenticated},
		"an empty cookie":      {rs: []record{{featIsolation, ""}}},
		"refused, as a stream": {rs: []record{{featStreamParent, idData(1 << idShift)}}, auth: no, code: status.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			var asked, token string
			p := &Protocol{Isolate: func(_ context.Context, cookie []byte) error {
				asked = string(cookie)
				return c.isolate
			}}
			g := &frame.Greeting{Authenticate: func(_ context.Context, peer *frame.Settings) error {
				token = string(peer.Token)
				return c.auth
			}}
			p.parents.add(1 << idShift)
			w := &wire{in: hello(c.rs...)}
			_, err := p.Handshake(context.Background(), w, g)
			if codeOf(err) != c.code || (err == nil) != (w.out.Len() > 0) {
				t.Errorf("it ends with %v after %d bytes, want %v", err, w.out.Len(), c.code)
			}
			want, _ := find(c.rs, featIsolation)
			if asked != c.asked || token != want {
				t.Errorf("isolation saw %q, authentication %q", asked, token)
			}
		})
	}
}

// A stream needs a parent that is open. It can be one from before the parent's client has
// its ID until the parent's end.
func TestAStreamNeedsAnOpenParent(t *testing.T) {
	p := &Protocol{}
	p.parents.countFrom(0)
	of := func(id uint64) (frame.Session, error) {
		in := hello(record{featStreamParent, idData(id)})
		g := &frame.Greeting{Own: frame.Settings{MaxStreams: 2}}
		return p.Handshake(context.Background(), &wire{in: in}, g)
	}
	parent := mustServe(t, p)
	id := connID(parent)
	if id != 1<<idShift {
		t.Fatalf("the first connection is %#x", id)
	}
	one, err := of(id)
	if err != nil {
		t.Fatal(err)
	}
	if c := one; parentID(c) != id || connID(c) != 2<<idShift {
		t.Fatalf("stream %#x of %#x", connID(c), parentID(c))
	}
	parent.Closed()
	if _, err := of(id); codeOf(err) != status.Protocol {
		t.Fatalf("a stream of a connection that is gone: %v", err)
	}
	one.Closed()
}

// A connection that breaks before the answer to its hello leaves nothing behind.
func TestAConnectionThatBreaksInTheHelloIsForgotten(t *testing.T) {
	p := &Protocol{}
	p.parents.countFrom(0)
	gone := errors.New("gone")
	g := func() *frame.Greeting { return &frame.Greeting{Own: frame.Settings{MaxStreams: 1}} }
	if _, err := p.Handshake(context.Background(), &wire{in: hello(), fail: gone}, g()); !errors.Is(err, gone) {
		t.Fatal(err)
	}
	if len(p.parents.ids) != 0 {
		t.Error("its connection is still there")
	}
	mustServe(t, p)
	child := hello(record{featStreamParent, idData(2 << idShift)})
	if _, err := p.Handshake(context.Background(), &wire{in: child, fail: gone}, g()); !errors.Is(err, gone) {
		t.Fatal(err)
	}
	if _, err := p.Handshake(context.Background(), &wire{in: child}, g()); err != nil {
		t.Errorf("its stream is still there: %v", err)
	}
}

// The kernel learns of a stream before the server answers its client, and can refuse it.
// A refused stream leaves nothing behind.
func TestTheKernelLearnsOfAStreamBeforeItsClient(t *testing.T) {
	p := &Protocol{}
	p.parents.add(1 << idShift)
	p.parents.countFrom(1)
	no := errors.New("no")
	for i, refusal := range []error{no, nil, no} {
		w := &wire{in: hello(record{featStreamParent, idData(1 << idShift)})}
		asked := 0
		g := &frame.Greeting{Own: frame.Settings{MaxStreams: 100}, AddChild: func(_ context.Context, parent, id uint64) error {
			asked++
			if want := uint64(2+i) << idShift; parent != 1<<idShift || id != want || w.out.Len() > 0 {
				t.Errorf("stream %#x of %#x is to be added after %d bytes, want %#x", id, parent, w.out.Len(), want)
			}
			return refusal
		}}
		_, err := p.Handshake(context.Background(), w, g)
		if !errors.Is(err, refusal) || asked != 1 || (w.out.Len() == 0) != (refusal != nil) {
			t.Errorf("it ends with %v after %d bytes and %d questions", err, w.out.Len(), asked)
		}
	}
	w := &wire{in: hello()}
	g := &frame.Greeting{AddChild: func(context.Context, uint64, uint64) error { return no }}
	if _, err := p.Handshake(context.Background(), w, g); err != nil {
		t.Errorf("a connection for calls: %v", err)
	}
}

func TestUnknownCompressionIsAnError(t *testing.T) {
	if _, _, _, err := serve(&Protocol{Compress: []string{"ZSTD"}}, hello(), 0, 0); err == nil {
		t.Error("a server that speaks ZSTD")
	}
}

func TestLingerHasADefault(t *testing.T) {
	if d := (&Protocol{}).linger(); d != DefaultLinger || d < 30*time.Second { // a peer may read slowly
		t.Errorf("it is %v", d)
	}
	if d := (&Protocol{Linger: time.Hour}).linger(); d != time.Hour {
		t.Errorf("it is %v", d)
	}
}

// Nobody can tell the ID of one connection from that of another: they counted from 1<<16,
// so that 1,100 hellos of 28 bytes took all the streams of a client that was not theirs.
func TestIDsCannotBeGuessed(t *testing.T) {
	p := &Protocol{}
	seen, bits := map[uint64]bool{}, uint64(0)
	for range 1000 {
		id := connID(mustServe(t, p))
		if id == 0 || id&(1<<idShift-1) != 0 || id>>idShift < 1<<20 || seen[id] {
			t.Fatalf("a connection is %#x", id)
		}
		seen[id] = true
		bits |= id
	}
	if bits != 1<<64-1<<idShift {
		t.Errorf("of 1,000 IDs no one has the bits %#x", ^bits)
	}
}
