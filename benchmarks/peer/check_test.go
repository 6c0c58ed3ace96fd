package peer

import (
	"bytes"
	"testing"
)

var sizes = []int{24, 25, 31, 32, 63, 64, 65, 71, 72, 100, 1024, 4096, 4104, 65536, 65537, 1 << 20}

func stamped(n int, stream uint32, seq uint64) []byte {
	p := make([]byte, n)
	Stamp(p, stream, seq)
	return p
}

func TestCheckAcceptsWhatStampWrote(t *testing.T) {
	for _, n := range sizes {
		var c Checker
		for seq := range uint64(3) {
			if !c.Check(stamped(n, 7, seq)) {
				t.Fatalf("size %d, message %d: refused: %v", n, seq, c.Summary().Err())
			}
		}
		if got := c.Summary(); got.Messages != 3 || got.Bytes != uint64(3*n) || got.Err() != nil {
			t.Errorf("size %d: %+v", n, got)
		}
	}
}

func TestCheckFindsDamage(t *testing.T) {
	for _, n := range sizes {
		for _, at := range []int{0, 4, 8, 16, n&^7 - 1, n - 1} {
			p := stamped(n, 1, 0)
			p[at] ^= 0x40
			var c Checker
			if c.Check(p) {
				t.Errorf("size %d: damage at %d not seen", n, at)
			}
		}
		var c Checker
		if c.Check(stamped(n, 1, 0)[:n-1]) || c.Summary().Corrupt != 1 {
			t.Errorf("size %d: missing last byte not seen", n)
		}
	}
}

func TestEveryByteOfASmallMessageCounts(t *testing.T) {
	for _, n := range []int{24, 31, 64, 71, 1024, 4095, 4096} {
		p := stamped(n, 1, 0)
		for at := range p {
			p[at] ^= 0x10
			if new(Checker).Check(p) {
				t.Errorf("size %d: damage at %d not seen", n, at)
			}
			p[at] ^= 0x10
		}
	}
}

func TestCheckFindsMovedPieces(t *testing.T) {
	p := stamped(1<<20, 1, 0)
	const piece = 64 << 10
	first := bytes.Clone(p[piece : 2*piece])
	copy(p[piece:], p[2*piece:3*piece])
	copy(p[2*piece:], first)
	var c Checker
	if c.Check(p) {
		t.Error("two fragments out of order not seen")
	}
}

func TestCheckCounts(t *testing.T) {
	for _, tc := range []struct {
		name string
		seqs []uint64
		want Summary
	}{
		{"in order", []uint64{0, 1, 2}, Summary{}},
		{"lost", []uint64{0, 3, 4}, Summary{Lost: 2}},
		{"lost first", []uint64{1}, Summary{Lost: 1}},
		{"duplicated", []uint64{0, 1, 1, 0}, Summary{Duplicated: 2}},
		{"reordered", []uint64{0, 2, 1, 3}, Summary{Reordered: 1}},
		{"reordered, then doubled", []uint64{0, 2, 1, 1}, Summary{Reordered: 1, Duplicated: 1}},
	} {
		c := NewChecker(5)
		for _, q := range tc.seqs {
			c.Check(stamped(64, 5, q))
		}
		got := c.Summary()
		got.Messages, got.Bytes = 0, 0
		if got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
	c := NewChecker(5)
	if c.Check(stamped(64, 6, 0)) || c.Summary().Misrouted != 1 {
		t.Error("message of another stream not seen")
	}
}

func TestSummaryRoundTrip(t *testing.T) {
	in := Summary{1, 2, 3, 4, 5, 6, 7}
	p := make([]byte, SummarySize)
	in.Put(p)
	out, err := ParseSummary(p)
	if err != nil || out != in {
		t.Fatalf("got %+v, %v", out, err)
	}
	if _, err := ParseSummary(p[1:]); err == nil {
		t.Error("short summary accepted")
	}
	out.Add(in)
	if out.Misrouted != 14 || out.Messages != 2 {
		t.Errorf("sum %+v", out)
	}
}

func BenchmarkStampAndCheck(b *testing.B) {
	for _, n := range []int{64, 1024, 64 << 10, 1 << 20} {
		p := make([]byte, n)
		b.Run(byteSize(n)+"/stamp", func(b *testing.B) {
			for i := range b.N {
				Stamp(p, 1, uint64(i))
			}
		})
		b.Run(byteSize(n)+"/check", func(b *testing.B) {
			Stamp(p, 1, 0)
			var c Checker
			for range b.N {
				c.next = 0
				c.Check(p)
			}
		})
	}
}

func byteSize(n int) string {
	if n >= 1<<20 {
		return "1M"
	}
	if n >= 1<<10 {
		return map[int]string{1024: "1K", 64 << 10: "64K"}[n]
	}
	return "64"
}
