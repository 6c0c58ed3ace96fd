package pool

import "fmt"

// A Compression says how messages are compressed on their way: those of a stream by
// kernel.StreamOptions.Compression, a call's request by kernel.CallOptions.Compression, and
// one message by its SetCompression, which comes before its stream's. Each side chooses for
// what it sends, among what its peer has said in the handshake that it unpacks.
//
// Messages of less than 128 bytes, and those that would not get shorter, are sent as they
// are, and so are requests and replies that fit into an open and its acceptance
// (frame.Caps.MaxInline). The reader gets what was sent, at most Limits.MaxMessage bytes. A
// compressed message takes credit for its compressed bytes.
type Compression uint8

// The compressions. The zero value leaves the choice to what is more general: of a message,
// to its stream; of a stream, to its client or server, where it is none.
const (
	NoCompression Compression = iota + 1
	Gzip
	Zstd // takes less time than gzip
)

// String returns "none", "gzip" or "zstd".
func (c Compression) String() string {
	switch c {
	case NoCompression:
		return "none"
	case Gzip:
		return "gzip"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("Compression(%d)", uint8(c))
}

// Compressions is a set of them.
type Compressions uint8

// CompressionsOf returns the set of cs.
func CompressionsOf(cs ...Compression) (set Compressions) {
	for _, c := range cs {
		set |= 1 << c
	}
	return set
}

// Has reports whether c is in the set.
func (set Compressions) Has(c Compression) bool { return set>>c&1 != 0 }

// SetCompression chooses how m is compressed when it is sent, in place of what its stream
// has. Its bytes stay as they are, for its owner to use. Clone and Share keep the choice.
func (m Message) SetCompression(c Compression) {
	if m.s != nil {
		MustLive(m)
		m.s.place = m.s.place&^(0x7f<<compressionShift) | uint32(c&0x7f)<<compressionShift
	}
}

// CompressionOf is what SetCompression chose, 0 if nothing.
func CompressionOf(m Message) Compression {
	if m.s == nil {
		return 0
	}
	return Compression(m.s.place >> compressionShift & 0x7f)
}

// MarkPacked notes that m's bytes are compressed, as its wire says. It keeps them so until
// the message is taken: what waits should take no more memory than the wire.
func MarkPacked(m Message) {
	if m.s != nil {
		m.s.place |= packedBit
	}
}

// IsPacked tells whether MarkPacked was called.
func IsPacked(m Message) bool { return m.s != nil && m.s.place&packedBit != 0 }
