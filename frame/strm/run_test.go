package strm

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// A run is what Next would give one by one: of whole messages and of pieces, on
// several streams, with reports and ends between them, however they are cut.
func TestARunIsWhatNextWouldGive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c, one := establishedPair(t, 3, 3)
		_, two := establishedPair(t, 3, 3)
		two.runs = true
		for _, s := range []*side{one, two} {
			for _, st := range s.table.streams {
				st.sent.Store(1 << 20) // so that reports are valid
			}
		}
		input := drawInput(rt, c.Session)
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(input)), 0, 6).Draw(rt, "cuts")
		slices.Sort(cuts)
		from := 0
		for _, to := range append(cuts, len(input)) {
			one.feed(input[from:to])
			two.feed(input[from:to])
			if one.log() != two.log() {
				rt.Fatalf("one by one:\n%s\nwith runs:\n%s", one.log(), two.log())
			}
			at, in := one.Begun()
			if at2, in2 := two.Begun(); at2 != at || in2 != in {
				rt.Fatalf("with runs a frame has begun at %d (%v), one by one at %d (%v)", at2, in2, at, in)
			}
			from = to
		}
	})
}

// drawInput is what a client may write on its three streams.
func drawInput(t *rapid.T, s *Session) (input []byte) {
	sizes := rapid.SampledFrom([]int{0, 1, 64, 1000, wholeMax, wholeMax + 1, 20_000})
	text := func() string { return strings.Repeat("m", sizes.Draw(t, "size")) }
	for range rapid.IntRange(1, 40).Draw(t, "frames") {
		id := rapid.SampledFrom([]uint64{1, 1, 1, 1, 3, 5}).Draw(t, "stream")
		switch rapid.IntRange(0, 19).Draw(t, "kind") {
		case 0:
			input = append(input, control(s, frame.Frame{Kind: frame.Credit, Stream: id, Value: 1})...)
		case 1:
			input = append(input, sendPieces(s, id, pool.Copy([]byte("m"+text())), 1+sizes.Draw(t, "piece"))...)
		case 2:
			input = append(input, control(s, eos(id))...)
		default:
			for range rapid.IntRange(1, 5).Draw(t, "messages") {
				input = append(input, send(s, id, text())...)
			}
		}
	}
	return input
}

// A run ends where something else begins, and only that.
func TestARunTakesWhatIsTheSame(t *testing.T) {
	c, s := establishedPair(t, 2, 2)
	msgs := send(c.Session, 1, "a", "b", "c", "", "d")
	s.feed(send(c.Session, 1, "first"))
	tests := []struct {
		name string
		tail []byte
	}{
		{"nothing", nil},
		{"another stream", send(c.Session, 3, "x")},
		{"a piece", appendDataHead(nil, 1, 1, 0, true)},
		{"a long message", send(c.Session, 1, strings.Repeat("x", wholeMax+1))},
		{"half a header", msgs[:5]},
		{"half a message", send(c.Session, 1, "half")[:20]},
		{"a message from elsewhere", appendDataHead(nil, 1, 77, 0, false)},
		{"a packet", []byte("PRPC\x00\x00\x00\x0a\x00\x00\x00\x08xxxxxxxx")},
		{"a meta longer than the body", []byte("STRM\x00\x00\x00\x01\x00\x00\x00\x08\x08\x01\x10\x01\x18\x03\x20\x00")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.events = nil
			if n := s.run(append(msgs[:len(msgs):len(msgs)], tt.tail...), 1); n != len(msgs) {
				t.Errorf("%d bytes were taken of %d", n, len(msgs))
			}
			if len(s.events) != 5 {
				t.Errorf("events:\n%s", s.log())
			}
		})
	}
	if n := s.run(msgs, 3); n != 0 {
		t.Errorf("%d bytes were taken for another stream", n)
	}
}
