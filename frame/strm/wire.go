package strm

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Name is the protocol's name, the scheme of its targets.
const Name = "brpc"

// Sizes, in bytes. They are ours unless a comment says that they are brpc's.
const (
	headerLen = 12 // brpc's: magic, size of the body, size of the meta in it

	maxRPCMeta   = 64 << 10 // of a packet; brpc's own are some tens of bytes and what the user adds
	maxFrameMeta = 1 << 10  // of a frame; brpc's own are 38 at most
	maxBody      = 64 << 20 // brpc's default of max_body_size, the meta included
	leastBody    = 4 << 10  // that a peer must take
	bodySpare    = 64       // of it, what a message leaves for the rest of its frame

	maxFragment   = 64 << 10 // of a message that we send
	overhead      = 32       // what a message costs of a window, beside its length
	sendWindow    = 2 << 20  // brpc's default of max_buf_size: what a stream may have unread at the peer
	maxUnconsumed = 32 << 20 // what the streams of a connection may have unread at the peer before
	minBuf        = 16 << 10 // each may have no more than this
	maxInline     = 16 << 10 // of a request or reply that is copied into its packet
	wholeMax      = 4 << 10  // data up to here is handed on in one piece
	maxReason     = 1 << 10  // of an error's text; a longer one is cut
	maxMetadata   = 48 << 10 // that the other side takes with a request or reply
)

// Limits on what only a hostile peer sends.
const (
	maxGroup      = 256       // streams that one request opens
	maxEarly      = 1 << 20   // bytes for streams whose request is not answered yet
	maxEarlyCount = 1024      // and frames
	maxUseless    = 1000      // frames in a row without effect
	maxTiny       = 1000      // segments of less than tinySegment bytes in a row
	tinySegment   = 32        // bytes
	maxEmpty      = 10        // segments without a byte in a row
	maxPending    = 256 << 10 // bytes of answers that the peer does not read
	leastClosing  = 1024      // streams that wait for the peer's last frame, as many as were open if that is more
)

// Magic numbers of the two kinds of packets, big endian.
const (
	magicRPC    = 'P'<<24 | 'R'<<16 | 'P'<<8 | 'C'
	magicStream = 'S'<<24 | 'T'<<16 | 'R'<<8 | 'M'
)

// Types of stream frames.
const (
	typeUnknown  = 0 // brpc takes no notice of it on a stream that it knows
	typeRST      = 1
	typeClose    = 2
	typeData     = 3
	typeFeedback = 4
)

// noStream is the source of an answer that comes from no stream.
const noStream = -1

// appendHeader appends the header of a packet or frame.
func appendHeader(b []byte, magic uint32, meta, payload int) []byte {
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint32(b, uint32(meta+payload))
	return binary.BigEndian.AppendUint32(b, uint32(meta))
}

// frameMeta is StreamFrameMeta.
type frameMeta struct {
	stream    int64 // the receiver's
	source    int64 // the sender's
	hasSource bool
	more      bool // a further segment of this message follows
	typ       int32
	consumed  int64
}

// Field numbers of StreamFrameMeta.
const (
	fStream       = 1
	fSource       = 2
	fType         = 3
	fContinuation = 4
	fFeedback     = 5
	fConsumed     = 1 // in Feedback
)

// metaHead reads the fields that a meta begins with, in the order and encoding that
// nearly every frame has. What follows them is left in rest.
func metaHead(p []byte) (stream int64, typ byte, rest []byte, ok bool) {
	v, n := tagged(p, fStream)
	if n == 0 {
		return 0, 0, nil, false
	}
	p = p[n:]
	if _, n = tagged(p, fSource); n > 0 {
		p = p[n:]
	}
	if len(p) < 2 || p[0] != fType<<3 || p[1] >= 0x80 {
		return 0, 0, nil, false
	}
	return int64(v), p[1], p[2:], true
}

// wholeTail tells whether rest says that a message ends with its frame.
func wholeTail(rest []byte) bool {
	return len(rest) == 0 || len(rest) == 2 && rest[0] == fContinuation<<3 && rest[1] == 0
}

// reportTail reads the rest of a report.
func reportTail(rest []byte) (consumed int64, ok bool) {
	const tag = fFeedback<<3 | byte(protowire.BytesType)
	if len(rest) < 4 || rest[0] != tag || int(rest[1]) != len(rest)-2 {
		return 0, false
	}
	v, n := tagged(rest[2:], fConsumed)
	return int64(v), n == len(rest)-2
}

// tagged reads a field that is a number, if it has the number num; n is 0 if not.
func tagged(p []byte, num byte) (v uint64, n int) {
	if len(p) < 2 || p[0] != num<<3 {
		return 0, 0
	}
	if p[1] < 0x80 {
		return uint64(p[1]), 2
	}
	if v, n = protowire.ConsumeVarint(p[1:]); n < 0 {
		return 0, 0
	}
	return v, n + 1
}

func (m *frameMeta) parse(p []byte) error {
	*m = frameMeta{}
	found := false
	err := eachField(p, func(num protowire.Number, v uint64, b []byte) error {
		switch {
		case b != nil && num == fFeedback:
			return m.parseFeedback(b)
		case b != nil:
		case num == fStream:
			m.stream, found = int64(v), true
		case num == fSource:
			m.source, m.hasSource = int64(v), true
		case num == fType:
			m.typ = int32(v)
		case num == fContinuation:
			m.more = v != 0
		}
		return nil
	})
	if err == nil && !found {
		err = failf("a stream frame without stream_id")
	}
	return err
}

func (m *frameMeta) parseFeedback(p []byte) error {
	return eachField(p, func(num protowire.Number, v uint64, b []byte) error {
		if b == nil && num == fConsumed {
			m.consumed = int64(v)
		}
		return nil
	})
}

// eachField calls f with every field of a message: b is nil for a number. It skips
// fields of other kinds, as a protobuf parser skips those that it does not know.
func eachField(p []byte, f func(num protowire.Number, v uint64, b []byte) error) error {
	for len(p) > 0 {
		num, typ, n := protowire.ConsumeTag(p)
		if n < 0 {
			return fmt.Errorf("meta: %w", protowire.ParseError(n))
		}
		p = p[n:]
		var v uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(p)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(p)
		default:
			if n = protowire.ConsumeFieldValue(num, typ, p); n >= 0 {
				p = p[n:]
				continue
			}
		}
		if n < 0 {
			return fmt.Errorf("meta: %w", protowire.ParseError(n))
		}
		p = p[n:]
		if err := f(num, v, b); err != nil {
			return err
		}
	}
	return nil
}

// appendVarint appends a field that is a number.
func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	b = protowire.AppendTag(b, num, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

// appendBytes appends a field that is a string or a message.
func appendBytes[T string | []byte](b []byte, num protowire.Number, v T) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(v)))
	return append(b, v...)
}

// appendIDs appends the numbers that every stream frame but RST begins with. RST has no
// source, or two sides that don't know a stream would reset it for ever.
func appendIDs(b []byte, to, from int64) []byte {
	b = appendVarint(b, fStream, uint64(to))
	return appendVarint(b, fSource, uint64(from))
}

// maxDataHead is the longest head of a data frame: its numbers take ten bytes each.
const maxDataHead = headerLen + 2*11 + 4

// appendDataHead appends all of a data frame but its payload. It encodes by hand,
// because it runs for every message.
func appendDataHead(b []byte, to, from int64, payload int, more bool) []byte {
	at := len(b)
	b = append(b, 'S', 'T', 'R', 'M', 0, 0, 0, 0, 0, 0, 0, 0)
	b = appendID(b, fStream<<3, uint64(to))
	b = appendID(b, fSource<<3, uint64(from))
	b = append(b, fType<<3, typeData, fContinuation<<3, 0)
	if more {
		b[len(b)-1] = 1
	}
	return patchSizes(b, at, payload)
}

func appendID(b []byte, tag byte, id uint64) []byte {
	if id < 0x80 {
		return append(b, tag, byte(id))
	}
	return protowire.AppendVarint(append(b, tag), id)
}

// patchSizes completes the header at at; only the meta follows it.
func patchSizes(b []byte, at, payload int) []byte {
	meta := len(b) - at - headerLen
	binary.BigEndian.PutUint32(b[at+4:], uint32(meta+payload))
	binary.BigEndian.PutUint32(b[at+8:], uint32(meta))
	return b
}

func appendClose(b []byte, to, from int64) []byte {
	at := len(b)
	b = appendIDs(appendHeader(b, magicStream, 0, 0), to, from)
	return patchSizes(appendVarint(b, fType, typeClose), at, 0)
}

// appendAsk appends a frame without effect on a stream that the peer knows. If it does not
// it answers with an RST.
func appendAsk(b []byte, to, from int64) []byte {
	at := len(b)
	b = appendIDs(appendHeader(b, magicStream, 0, 0), to, from)
	return patchSizes(appendVarint(b, fType, typeUnknown), at, 0)
}

func appendRST(b []byte, to int64) []byte {
	at := len(b)
	b = appendVarint(appendHeader(b, magicStream, 0, 0), fStream, uint64(to))
	return patchSizes(appendVarint(b, fType, typeRST), at, 0)
}

func appendFeedback(b []byte, to, from int64, consumed uint64) []byte {
	at := len(b)
	b = appendIDs(appendHeader(b, magicStream, 0, 0), to, from)
	b = appendVarint(b, fType, typeFeedback)
	b = protowire.AppendTag(b, fFeedback, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(1+protowire.SizeVarint(consumed)))
	return patchSizes(appendVarint(b, fConsumed, consumed), at, 0)
}
