package seastar

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/pierrec/lz4/v4"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// A sender writes frames, compressed or not.
type sender struct {
	algorithm string
	scratch   []byte
}

// compressors are large and used briefly, so they are pooled.
var compressors = sync.Pool{New: func() any { return new(lz4.Compressor) }}

// frame appends one frame, a header and m, and takes m over.
func (s *sender) frame(o *frame.Out, head []byte, m pool.Message) {
	switch s.algorithm {
	case LZ4:
		s.block(o, head, m)
		m.Release()
	case LZ4Fragmented:
		s.chunks(o, head, m.Bytes())
		m.Release()
	default:
		o.Buf = append(o.Buf, head...)
		o.Payload(m.Bytes())
		o.Hold(m)
	}
}

// inPlace is the most that is compressed right into the output, where it stays
// until it was written.
const inPlace = 64 << 10

// compressed appends the bytes that put writes, at most n; put returns how many.
func (s *sender) compressed(o *frame.Out, n int, put func(dst []byte) int) {
	if n <= inPlace {
		at := len(o.Buf)
		o.Buf = slices.Grow(o.Buf, n)
		o.Buf = o.Buf[:at+put(o.Buf[at:at+n])]
		return
	}
	if n > pool.MaxLen { // what does not compress can be longer than any message
		b := make([]byte, n)
		o.Payload(b[:put(b)])
		return
	}
	m := pool.New(n)
	m.Truncate(put(m.Bytes()))
	o.Payload(m.Bytes())
	o.Hold(m)
}

// block appends a frame by LZ4, which needs the plain one in one piece.
func (s *sender) block(o *frame.Out, head []byte, m pool.Message) {
	n := len(head) + m.Len()
	src := append(append(s.scratch[:0], head...), m.Bytes()...)
	s.compressed(o, 8+lz4.CompressBlockBound(n), func(dst []byte) int {
		k := 4 + compress(src, dst[8:])
		binary.LittleEndian.PutUint32(dst, uint32(k))
		binary.LittleEndian.PutUint32(dst[4:], uint32(n))
		return 4 + k
	})
	s.scratch = trim(src)
}

// chunks appends a frame by LZ4_FRAGMENTED. No chunk refers to those before it, which the
// format allows.
func (s *sender) chunks(o *frame.Out, head, p []byte) {
	n := len(head) + len(p)
	bound := 4 + (n/chunkLen+1)*(4+lz4.CompressBlockBound(chunkLen))
	if n <= chunkLen {
		bound = 8 + lz4.CompressBlockBound(n)
	}
	s.compressed(o, bound, func(dst []byte) int {
		src := append(append(s.scratch[:0], head...), p[:min(len(p), chunkLen-len(head))]...)
		s.scratch = src
		at := 4
		for rest := p[len(src)-len(head):]; ; {
			k := compress(src, dst[at+4:])
			h := uint32(k)
			if len(rest) == 0 {
				h = lastChunk | uint32(len(src))
			}
			binary.LittleEndian.PutUint32(dst[at:], h)
			at += 4 + k
			if len(rest) == 0 {
				break
			}
			src, rest = rest[:min(len(rest), chunkLen)], rest[min(len(rest), chunkLen):]
		}
		binary.LittleEndian.PutUint32(dst, uint32(at-4))
		return at
	})
}

// compress makes a block of src. dst has room for the worst case, so that it can't fail.
func compress(src, dst []byte) int {
	c := compressors.Get().(*lz4.Compressor)
	n, _ := c.CompressBlock(src, dst[:lz4.CompressBlockBound(len(src))])
	compressors.Put(c)
	return n
}
