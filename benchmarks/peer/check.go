package peer

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// HeaderSize is how many bytes Stamp needs at least.
const HeaderSize = 24

// The checked part of a message, in little-endian 64-bit words:
//
//	word 0    stream, and length in the upper half
//	word 1    sequence number
//	word 2    sum of the two
//	others    marks: sum + offset, cut off where the message ends
//
// Every byte of the first 4 KiB has its mark. Of the rest only each 4,096th
// byte's word, the last word and what follows it have, because reading all of 1 MiB costs a
// tenth of what sending it does; a piece that is missing, doubled or out of
// place shifts at least one of those words, but damage between them is not seen.
const (
	denseUntil = 4096
	stride     = 4096
	mixer      = 0x9E3779B97F4A7C15
)

func sum(head, seq uint64) uint64 {
	return (head ^ bits.RotateLeft64(seq, 29) ^ mixer) * mixer
}

// Stamp writes stream and seq into p, and marks from which Check can tell
// that the rest of p has arrived too. It panics if p is shorter than
// HeaderSize. Bytes that carry no mark are left as they are.
func Stamp(p []byte, stream uint32, seq uint64) {
	head := uint64(stream) | uint64(len(p))<<32
	s := sum(head, seq)
	binary.LittleEndian.PutUint64(p[16:], s)
	binary.LittleEndian.PutUint64(p, head)
	binary.LittleEndian.PutUint64(p[8:], seq)
	mark(p[HeaderSize:min(len(p), denseUntil)], s+HeaderSize)
	if len(p) <= denseUntil {
		return
	}
	end := len(p) &^ 7
	for o := stride; o < end; o += stride {
		binary.LittleEndian.PutUint64(p[o:], s+uint64(o))
	}
	mark(p[end-8:], s+uint64(end-8))
}

// mark fills p with marks from next on, four words at a time where it can: one
// by one takes up to three times as long.
func mark(p []byte, next uint64) {
	for ; len(p) >= 32; p = p[32:] {
		binary.LittleEndian.PutUint64(p, next)
		binary.LittleEndian.PutUint64(p[8:], next+8)
		binary.LittleEndian.PutUint64(p[16:], next+16)
		binary.LittleEndian.PutUint64(p[24:], next+24)
		next += 32
	}
	for ; len(p) >= 8; p = p[8:] {
		binary.LittleEndian.PutUint64(p, next)
		next += 8
	}
	for i := range p {
		p[i] = byte(next >> (8 * i))
	}
}

// filled reports whether p is as mark left it.
func filled(p []byte, next uint64) bool {
	for ; len(p) >= 32; p = p[32:] {
		differ := (binary.LittleEndian.Uint64(p) ^ next) |
			(binary.LittleEndian.Uint64(p[8:]) ^ (next + 8)) |
			(binary.LittleEndian.Uint64(p[16:]) ^ (next + 16)) |
			(binary.LittleEndian.Uint64(p[24:]) ^ (next + 24))
		if differ != 0 {
			return false
		}
		next += 32
	}
	for ; len(p) >= 8; p = p[8:] {
		if binary.LittleEndian.Uint64(p) != next {
			return false
		}
		next += 8
	}
	for i := range p {
		if p[i] != byte(next>>(8*i)) {
			return false
		}
	}
	return true
}

// intact reports whether p is as Stamp left it, and for which sequence number.
func intact(p []byte) (seq uint64, ok bool) {
	if len(p) < HeaderSize {
		return 0, false
	}
	head := binary.LittleEndian.Uint64(p)
	seq = binary.LittleEndian.Uint64(p[8:])
	s := binary.LittleEndian.Uint64(p[16:])
	if head>>32 != uint64(uint32(len(p))) || s != sum(head, seq) {
		return seq, false
	}
	return seq, marked(p, s)
}

func marked(p []byte, s uint64) bool {
	if !filled(p[HeaderSize:min(len(p), denseUntil)], s+HeaderSize) {
		return false
	}
	if len(p) <= denseUntil {
		return true
	}
	end := len(p) &^ 7
	for o := stride; o < end; o += stride {
		if binary.LittleEndian.Uint64(p[o:]) != s+uint64(o) {
			return false
		}
	}
	return filled(p[end-8:], s+uint64(end-8))
}

// trackLimit bounds how many missing messages a Checker remembers.
const trackLimit = 1 << 16

// A Checker checks the messages of one stream in the order of their arrival.
// The zero value takes the stream's number from the first message. It is for
// one goroutine.
type Checker struct {
	sum     Summary
	next    uint64
	stream  uint32
	known   bool
	missing map[uint64]struct{} // passed over and not yet seen
}

// NewChecker returns a Checker for the messages stamped with stream.
func NewChecker(stream uint32) *Checker { return &Checker{stream: stream, known: true} }

// Check takes the next message and reports whether it is intact, of its own stream and in
// order. If not, Summary says what is wrong.
func (c *Checker) Check(p []byte) bool {
	c.sum.Messages++
	c.sum.Bytes += uint64(len(p))
	seq, ok := intact(p)
	if !ok {
		c.sum.Corrupt++
		return false
	}
	stream := binary.LittleEndian.Uint32(p)
	if !c.known {
		c.stream, c.known = stream, true
	}
	if stream != c.stream {
		c.sum.Misrouted++
		return false
	}
	if seq == c.next {
		c.next++
		return true
	}
	c.outOfOrder(seq)
	return false
}

func (c *Checker) outOfOrder(seq uint64) {
	if seq > c.next {
		c.sum.Lost += seq - c.next
		c.remember(c.next, seq)
		c.next = seq + 1
		return
	}
	if _, late := c.missing[seq]; !late {
		c.sum.Duplicated++
		return
	}
	delete(c.missing, seq)
	c.sum.Lost--
	c.sum.Reordered++
}

func (c *Checker) remember(from, to uint64) {
	if c.missing == nil {
		c.missing = make(map[uint64]struct{})
	}
	for ; from < to && len(c.missing) < trackLimit; from++ {
		c.missing[from] = struct{}{}
	}
}

// Summary returns what has been found so far.
func (c *Checker) Summary() Summary { return c.sum }

// A Summary counts what a receiver got and what was wrong with it. A message
// lost at the very end shows only in Messages.
type Summary struct {
	Messages   uint64 `json:"messages"`
	Bytes      uint64 `json:"bytes"`
	Lost       uint64 `json:"lost"`
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"`
	Corrupt    uint64 `json:"corrupt"`
	Misrouted  uint64 `json:"misrouted"` // belongs to another stream
}

// SummarySize is the length of an encoded Summary.
const SummarySize = 7 * 8

func (s *Summary) fields() [7]*uint64 {
	return [7]*uint64{&s.Messages, &s.Bytes, &s.Lost, &s.Duplicated, &s.Reordered, &s.Corrupt, &s.Misrouted}
}

// Add adds the counts of o to s.
func (s *Summary) Add(o Summary) {
	from := o.fields()
	for i, f := range s.fields() {
		*f += *from[i]
	}
}

// Put encodes s into p, which is at least SummarySize long.
func (s *Summary) Put(p []byte) {
	for i, f := range s.fields() {
		binary.LittleEndian.PutUint64(p[8*i:], *f)
	}
}

// ParseSummary decodes what Put encoded.
func ParseSummary(p []byte) (Summary, error) {
	var s Summary
	if len(p) != SummarySize {
		return s, fmt.Errorf("peer: summary of %d bytes, want %d", len(p), SummarySize)
	}
	for i, f := range s.fields() {
		*f = binary.LittleEndian.Uint64(p[8*i:])
	}
	return s, nil
}

// Err returns nil if every message arrived once, intact and in order.
func (s Summary) Err() error {
	if s.Lost+s.Duplicated+s.Reordered+s.Corrupt+s.Misrouted == 0 {
		return nil
	}
	return fmt.Errorf("delivery: %d lost, %d duplicated, %d reordered, %d corrupt, %d misrouted of %d messages",
		s.Lost, s.Duplicated, s.Reordered, s.Corrupt, s.Misrouted, s.Messages)
}
