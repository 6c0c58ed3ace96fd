package seastar

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

var algorithms = []string{LZ4, LZ4Fragmented}

func packedStream(t testing.TB, algorithm string) frame.Session {
	t.Helper()
	return serverStream(t, &Protocol{Compress: algorithms}, record{featCompress, algorithm})
}

// Texts that compress well, a little and not at all, of lengths around those of a
// chunk and of the window.
func samples() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	m := map[string][]byte{}
	for _, n := range []int{0, 1, 3, 4, 5, 300, chunkLen - streamLen - 1, chunkLen - streamLen, chunkLen - streamLen + 1,
		2*chunkLen - streamLen, reach, reach + 1, windowLen, windowLen + 5, 5 * reach, testLimit} {
		random := make([]byte, n)
		for i := range random {
			random[i] = byte(r.Uint32())
		}
		words := make([]byte, 0, n+10)
		for len(words) < n {
			words = fmt.Appendf(words, "word %d ", r.IntN(1000))
		}
		m[fmt.Sprintf("%d zeros", n)] = make([]byte, n)
		m[fmt.Sprintf("%d random bytes", n)] = random
		m[fmt.Sprintf("%d bytes of text", n)] = words[:n]
	}
	return m
}

func TestWhatIsCompressedComesOutAgain(t *testing.T) {
	for _, algorithm := range algorithms {
		from, to := packedStream(t, algorithm), packedStream(t, algorithm)
		l := listener{s: to}
		base := pool.Outstanding()
		for name, p := range samples() {
			for how, b := range map[string][]byte{"whole": send(from, 1, p), "in pieces": pieces(from, 1, p, 10_000)} {
				if len(p) == 0 && how == "in pieces" {
					continue
				}
				l.lines = nil
				for len(b) > 0 { // as it comes from a socket
					n := min(len(b), 30_000)
					if err := l.feed(b[:n]); err != nil {
						t.Fatalf("%s, %s, %s: %v", algorithm, name, how, err)
					}
					b = b[n:]
				}
				if len(l.lines) != 1 || l.lines[0] != fmt.Sprintf("1 data %x", p) {
					t.Errorf("%s, %s, %s: %d events", algorithm, name, how, len(l.lines))
				}
			}
		}
		if _, err := events(to, nil); err != nil {
			t.Fatal(err)
		}
		if n := pool.Outstanding() - base; n != 0 {
			t.Errorf("%s: %d messages are still held", algorithm, n)
		}
	}
}

// Frames of Seastar's own client and server, whose chunks refer to those before
// them: a call with 200,000 bytes, which are echoed.
func TestChunksMayReferToThoseBeforeThem(t *testing.T) {
	rs := []record{{featCompress, LZ4Fragmented}, {featTimeout, ""}, {featHandlerDuration, ""}}
	p := &Protocol{Compress: algorithms}
	data := fmt.Sprintf("data %x", append(u32(200_000), referring(200_000)...))
	for file, c := range map[string]struct {
		session func() frame.Session
		want    []string
	}{
		"request": {
			func() frame.Session { return mustServe(t, p, rs...) },
			[]string{`1 open "#1" unary=true value=0x0 left=0s grants=1`, "1 " + data, "1 eos OK"},
		},
		"response": {
			func() frame.Session {
				s := mustDial(t, p, 0, rs...)
				for id := uint64(1); id <= 13; id += 2 {
					control(s, &frame.Frame{Kind: frame.Open, Stream: id, Unary: true, Method: "#1", Grants: make([]frame.Grant, 1)})
					send(s, id, nil)
				}
				return s
			},
			[]string{"13 accept value=0x0 grants=1", "13 " + data, "13 eos OK  0"},
		},
	} {
		in := captured(t, "fragmented-"+file)
		first := int(binary.LittleEndian.Uint32(in[4:]))
		second := in[4+4+first:]
		alone := make([]byte, chunkLen)
		n, err := lz4.UncompressBlock(second[4:4+binary.LittleEndian.Uint32(second)], alone)
		if err == nil && n == chunkLen {
			t.Fatalf("%s: the second chunk stands for itself", file)
		}
		for _, n := range []int{len(in), 3000, 1} {
			var cuts []int
			for at := n; at < len(in); at += n {
				cuts = append(cuts, at)
			}
			lines, err := events(c.session(), in, cuts...)
			if err != nil {
				t.Fatal(file, err)
			}
			equal(t, fmt.Sprintf("%s in parts of %d", file, n), lines, c.want)
		}
	}
}

func captured(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// referring is the text in those frames: zeros and a few random bytes that come
// again after 40,000.
func referring(n int) []byte {
	p := make([]byte, 0, n)
	for x := uint32(n); len(p) < 40_000; {
		x = x*1664525 + 1013904223
		b := byte(0)
		if len(p)/250%16 == 0 {
			b = byte(x >> 24)
		}
		p = append(p, b)
	}
	for len(p) < n {
		p = append(p, p[len(p)-40_000])
	}
	return p
}

// outer is a compressed frame of the given content.
func outer(p []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(p))), p...)
}

func u32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

func lz4Block(p []byte) []byte {
	b := make([]byte, lz4.CompressBlockBound(len(p)))
	n, _ := lz4.CompressBlock(p, b, nil)
	return b[:n]
}

// What a compressed frame may not be. Nothing that it announces takes memory
// before there are bytes for it.
func TestCompressedFramesThatAreWrong(t *testing.T) {
	one := streamFrame([]byte("hello"))
	block := lz4Block(one)
	last := func(n int) []byte { return u32(lastChunk | uint32(n)) }
	join := func(ps ...[]byte) []byte { return outer(bytes.Join(ps, nil)) }
	full := lz4Block(make([]byte, chunkLen))
	long := lz4Block(append(u32(40_000), make([]byte, chunkLen-4)...))
	exact := lz4Block(streamFrame(make([]byte, chunkLen-4)))
	bomb := lz4Block(make([]byte, testLimit+100))
	many := func(n int) []byte {
		b := lz4Block(append(u32(uint32(n*chunkLen)), make([]byte, chunkLen-4)...))
		p := append(u32(uint32(len(b))), b...)
		for range n - 1 {
			p = append(append(p, u32(uint32(len(full)))...), full...)
		}
		return outer(append(append(p, last(4)...), lz4Block(make([]byte, 4))...))
	}
	for name, c := range map[string]struct {
		algorithm string
		in        []byte
		code      status.Code
	}{
		"too long":                    {LZ4, u32(testLimit * 2), status.FrameSize},
		"4 GiB":                       {LZ4, u32(1<<32 - 1), status.FrameSize},
		"its plain size is 0":         {LZ4, join(u32(0), block), status.Protocol},
		"its plain size is too much":  {LZ4, join(u32(testLimit+5), block), status.TooLarge},
		"and 4 GiB":                   {LZ4, join(u32(1<<32-1), block), status.TooLarge},
		"more than it can":            {LZ4, join(u32(testLimit), block), status.Protocol},
		"more than it does":           {LZ4, join(u32(uint32(len(one)+1)), block), status.Protocol},
		"less than it does":           {LZ4, join(u32(uint32(len(one)-1)), block), status.Protocol},
		"a size alone":                {LZ4, join(u32(9)), status.Protocol},
		"a damaged block":             {LZ4, join(u32(9), []byte("\xffgarbage")), status.Protocol},
		"a bomb":                      {LZ4, join(u32(testLimit+100), bomb), status.TooLarge},
		"two frames in one":           {LZ4, join(u32(uint32(2*len(one))), lz4Block(append(bytes.Clone(one), one...))), status.Protocol},
		"half a frame":                {LZ4, join(u32(6), lz4Block(one[:6])), status.Protocol},
		"half a header":               {LZ4, join(u32(3), lz4Block(one[:3])), status.Protocol},
		"a message over the limit":    {LZ4, join(u32(8), lz4Block(append(u32(testLimit+1), 0, 0, 0, 0))), status.TooLarge},
		"chunks, too long":            {LZ4Fragmented, u32(testLimit * 2), status.FrameSize},
		"a chunk without bytes":       {LZ4Fragmented, join(u32(0)), status.Protocol},
		"a last one without bytes":    {LZ4Fragmented, join(last(9)), status.Protocol},
		"a last one that is too long": {LZ4Fragmented, join(last(chunkLen+1), full), status.Protocol},
		"a last one of 2 GiB":         {LZ4Fragmented, join(u32(1<<32-1), full), status.Protocol},
		"a chunk beyond the frame":    {LZ4Fragmented, join(u32(100), full[:50]), status.Protocol},
		"a chunk of 2 GiB":            {LZ4Fragmented, join(u32(1<<31-1), full), status.Protocol},
		"a chunk longer than any":     {LZ4Fragmented, join(u32(chunkLen*2), make([]byte, chunkLen*2), last(4), lz4Block(one)), status.Protocol},
		"a short chunk":               {LZ4Fragmented, join(u32(uint32(len(block))), block, last(4), lz4Block(one)), status.Protocol},
		"no last one":                 {LZ4Fragmented, join(u32(uint32(len(long))), long), status.Protocol},
		"half a chunk's header":       {LZ4Fragmented, join(u32(uint32(len(long))), long, []byte{1, 2}), status.Protocol},
		"a frame a chunk":             {LZ4Fragmented, join(u32(uint32(len(exact))), exact, last(len(one)), block), status.Protocol},
		"a damaged chunk":             {LZ4Fragmented, join(last(9), []byte("\xffgarbage")), status.Protocol},
		"a chunk referring to none":   {LZ4Fragmented, join(last(16), []byte("\x0f\x10\x00\x00")), status.Protocol},
		"a bomb of chunks":            {LZ4Fragmented, many(testLimit/chunkLen + 1), status.TooLarge},
		"frames in chunks":            {LZ4Fragmented, join(last(2*len(one)), lz4Block(append(bytes.Clone(one), one...))), status.Protocol},
		"half a frame in a chunk":     {LZ4Fragmented, join(last(6), lz4Block(one[:6])), status.Protocol},
	} {
		t.Run(name, func(t *testing.T) {
			for _, cut := range []int{0, 5, len(c.in) / 2, len(c.in) - 1} {
				lines, err := events(packedStream(t, c.algorithm), c.in, min(cut, len(c.in)))
				if codeOf(err) != c.code {
					t.Errorf("cut at %d: it ends with %v, want %v", cut, err, c.code)
				}
				for _, l := range lines {
					if !strings.HasPrefix(l, "1 data") {
						t.Errorf("cut at %d: %s", cut, l)
					}
				}
			}
		})
	}
}

// Frames that hold nothing are for the compressors: they are skipped, until there
// are too many of them.
func TestEmptyCompressedFramesAreSkipped(t *testing.T) {
	for name, c := range map[string]struct {
		algorithm string
		in        []byte
	}{
		"LZ4, no bytes":         {LZ4, outer(nil)},
		"LZ4, three bytes":      {LZ4, outer([]byte("abc"))},
		"chunks, no bytes":      {LZ4Fragmented, outer(nil)},
		"chunks, three bytes":   {LZ4Fragmented, outer([]byte("abc"))},
		"a chunk of none":       {LZ4Fragmented, outer(append(u32(lastChunk), 0))},
		"a chunk of none, long": {LZ4Fragmented, outer(append(u32(lastChunk), "abc"...))},
	} {
		t.Run(name, func(t *testing.T) {
			s := packedStream(t, c.algorithm)
			hello := send(packedStream(t, c.algorithm), 1, []byte("hello"))
			for range 3 {
				for i := range maxEmptyFrames {
					if lines, err := events(s, c.in, min(i%6, len(c.in))); err != nil || lines != nil {
						t.Fatal(lines, err)
					}
				}
				if lines, err := events(s, hello); err != nil || len(lines) != 1 {
					t.Fatal(lines, err)
				}
			}
			_, err := events(s, bytes.Repeat(c.in, maxEmptyFrames+1))
			if codeOf(err) != status.EnhanceYourCalm {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}

// However little of a frame has come, it takes memory for what has come.
func TestACompressedFrameTakesTheMemoryThatItHasFilled(t *testing.T) {
	for _, algorithm := range algorithms {
		e := newEnvelope(algorithm, 4<<20)
		allocated := testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e.inside, e.nhead = false, 0
				n, err := e.take(u32(4 << 20))
				if n != 4 || err != nil {
					b.Fatal(n, err)
				}
				if n, err := e.take([]byte{0, 0, 0x10, 0, 1, 2, 3, 4}); err != nil && algorithm == LZ4 {
					b.Fatal(n, err)
				}
			}
		}).AllocedBytesPerOp()
		if allocated > 4<<10 {
			t.Errorf("%s: %d bytes for a frame of which 8 have come", algorithm, allocated)
		}
	}
}

// What a compressed call asks for is known only when it was decompressed: one over
// the limit ends the connection, whatever it would hold.
func TestACompressedCallOverTheLimitEndsTheConnection(t *testing.T) {
	for _, algorithm := range algorithms {
		rs := record{featCompress, algorithm}
		p := &Protocol{Compress: algorithms}
		client := mustDial(t, p, 0, rs)
		control(client, &frame.Frame{Kind: frame.Open, Stream: 1, Unary: true, Method: "#1", Grants: make([]frame.Grant, 1)})
		lines, err := events(mustServe(t, p, rs), send(client, 1, make([]byte, 2*testLimit)))
		if codeOf(err) != status.TooLarge || lines != nil {
			t.Errorf("%s: %q, %v", algorithm, lines, err)
		}
	}
}

func TestCaps(t *testing.T) {
	p := &Protocol{}
	for _, s := range []frame.Session{mustServe(t, p), mustDial(t, p, 0), serverStream(t, p), clientStream(t, p)} {
		c := s.Caps()
		if c.Name != p.Name() || c.Pacing != frame.Unpaced || !c.HalfClose || !c.Early || c.Status || c.Stop || c.Ended || c.Ping || c.ServerOpens {
			t.Errorf("%+v", c)
		}
	}
	if _, yes := over(mustServe(t, p)); yes {
		t.Error("a connection for calls is over at once")
	}
}

// Of a frame that has not come completely what came of it counts, and of one that has
// nothing is left.
func TestWhatIsKeptOfCompressedFramesCounts(t *testing.T) {
	const n = 100_000
	p := make([]byte, n)
	for i, r := 0, rand.New(rand.NewPCG(1, 2)); i < n; i++ {
		p[i] = byte(r.Uint32())
	}
	for algorithm, least := range map[string]int{LZ4: n / 2, LZ4Fragmented: windowLen} {
		from, to := packedStream(t, algorithm), packedStream(t, algorithm)
		l := listener{s: to}
		holder := to
		b := send(from, 1, p)
		for _, part := range [][]byte{b[:n/2+100], b[n/2+100 : n/2+200], b[n/2+200:]} {
			before := holder.Buffered()
			if len(part) < n/4 && before < least {
				t.Errorf("%s: %d bytes are held of half of it, want %d", algorithm, before, least)
			}
			if err := l.feed(part); err != nil {
				t.Fatal(err)
			}
			if algorithm == LZ4 && len(part) == 100 && holder.Buffered() != before+100 {
				t.Errorf("%s: %d bytes are held, and %d with 100 more", algorithm, before, holder.Buffered())
			}
		}
		if h := holder.Buffered(); h != 0 {
			t.Errorf("%s: %d bytes are held of what is complete", algorithm, h)
		}
	}
}

// A connection may end inside a compressed frame. What that holds goes back with it.
func TestWhatIsUnpackedGoesBackWithTheConnection(t *testing.T) {
	base := pool.Outstanding()
	if m := pool.New(1); pool.Outstanding() == base {
		t.Skip("this build does not count messages: use -race or -tags invariants")
	} else {
		m.Release()
	}
	p := bytes.Repeat([]byte("0123456789"), 20_000)
	for _, algorithm := range []string{LZ4, LZ4Fragmented} {
		said := send(packedStream(t, algorithm), 1, p)
		held := false
		for name, to := range map[string]func() frame.Session{
			"a stream": func() frame.Session { return packedStream(t, algorithm) },
			"a server": func() frame.Session {
				return mustServe(t, &Protocol{Compress: algorithms}, record{featCompress, algorithm})
			},
			"a client": func() frame.Session {
				return mustDial(t, &Protocol{Compress: algorithms}, 0, record{featCompress, algorithm})
			},
		} {
			for at := len(said); at > 0; at -= 1 + len(said)/100 {
				s := to()
				var f frame.Frame
				for rest := said[:at]; ; { // until it wants more, or has something, which it holds then
					n, err := s.Next(rest, &f)
					if rest = rest[n:]; err != nil || f.Kind == frame.None || f.Kind == frame.Data {
						break
					}
				}
				held = held || pool.Outstanding() > base
				s.Closed()
				if n := pool.Outstanding() - base; n != 0 {
					t.Fatalf("%s, %s, cut after %d bytes: %d messages are still held", algorithm, name, at, n)
				}
			}
		}
		if !held {
			t.Errorf("%s: no cut had anything to give back", algorithm)
		}
	}
}

// What waits is what has come: of a small message that is cut, and of input that may
// not be looked at yet.
func TestWhatWaitsCounts(t *testing.T) {
	from, to := serverStream(t, &Protocol{}), serverStream(t, &Protocol{})
	l := listener{s: to}
	b := send(from, 1, make([]byte, 1000))
	if err := l.feed(b[:504]); err != nil {
		t.Fatal(err)
	}
	holder := to
	if h := holder.Buffered(); h != 500 {
		t.Errorf("%d bytes are held of 500", h)
	}
	if err := l.feed(b[504:]); err != nil {
		t.Fatal(err)
	}
	if h := holder.Buffered(); h != 0 {
		t.Errorf("%d bytes are held of what is complete", h)
	}
}
