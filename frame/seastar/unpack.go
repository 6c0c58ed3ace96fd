package seastar

import (
	"encoding/binary"

	"github.com/pierrec/lz4/v4"

	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

const (
	chunkLen   = 32 << 10       // plain bytes of a chunk of LZ4_FRAGMENTED
	lastChunk  = 1 << 31        // in a chunk's header
	reach      = 64 << 10       // how far back a chunk may refer
	windowLen  = 2 * reach      // where chunks that refer to each other are put
	expansion  = 255            // plain bytes for a byte of LZ4, at most,
	expansion0 = 64             // and a few more for the first
	keepMost   = windowLen + 64 // memory that is kept between frames
)

// newEnvelope returns a reader of frames compressed by the algorithm, nil for no
// algorithm. most is the longest plain frame, bytes.
func newEnvelope(algorithm string, most int) *envelope {
	bound := lz4.CompressBlockBound(most) + 4
	switch algorithm {
	case LZ4:
		return &envelope{unpacker: &block{most: most}, most: bound}
	case LZ4Fragmented:
		// Chunk by chunk an incompressible message grows a little more.
		return &envelope{unpacker: &chunks{most: most}, most: bound + (most/chunkLen+1)*(4+16)}
	}
	return nil
}

func errCorrupt(what string) error {
	return failf(status.Protocol, "a compressed frame that can't be decompressed: %s", what)
}

// block decompresses LZ4: the plain size, and one block.
type block struct {
	most  int
	size  int // of the compressed frame
	in    []byte
	plain pool.Message
}

func (b *block) reset(n int) {
	b.size = n
	b.in = trim(b.in)
}

// trim empties memory for reuse. It drops the memory if that has grown large.
func trim(p []byte) []byte {
	if cap(p) > keepMost {
		return nil
	}
	return p[:0]
}

func (b *block) feed(p []byte) (int, []byte, error) {
	n := len(p)
	if len(b.in) > 0 || n < b.size { // grows with what has come
		b.in = append(b.in, p...)
		p = b.in
	}
	if len(p) < b.size {
		return n, nil, nil
	}
	if b.size < 4 { // too short for a size: an empty frame
		return n, nil, nil
	}
	plain, err := b.decompress(binary.LittleEndian.Uint32(p), p[4:])
	return n, plain, err
}

// decompress checks the size before it allocates.
func (b *block) decompress(size uint32, src []byte) ([]byte, error) {
	switch {
	case size == 0:
		return nil, errCorrupt("its plain size is 0")
	case int64(size) > int64(b.most):
		return nil, failf(status.TooLarge, "a compressed frame that holds %d bytes, limit %d", size, b.most)
	case int64(size) > int64(len(src))*expansion+expansion0:
		return nil, errCorrupt("its plain size is more than it can hold")
	}
	b.plain = pool.New(int(size))
	n, err := lz4.UncompressBlock(src, b.plain.Bytes())
	if err != nil || n != int(size) {
		return nil, errCorrupt("the block is damaged")
	}
	return b.plain.Bytes(), nil
}

// done implements unpacker: there is one block, and feed has seen its end.
func (b *block) done() error {
	b.drop()
	b.in = trim(b.in)
	return nil
}

// drop implements unpacker.
func (b *block) drop() {
	b.plain.Release()
	b.plain = pool.Message{}
}

// held implements unpacker.
func (b *block) held() int { return len(b.in) + b.plain.Len() }

// chunks decompresses LZ4_FRAGMENTED: blocks of 32 KiB, each of which may refer to
// the 64 KiB before it.
type chunks struct {
	most  int
	left  int // of the compressed frame, from the chunk at hand on
	total int // plain bytes so far

	head  [4]byte
	nhead int
	in    []byte // the chunk, if it comes in parts
	size  int    // of it, compressed
	holds int    // plain
	last  bool
	body  bool // its header is complete
	ended bool

	window pool.Message
	filled int // of the window
}

func (c *chunks) reset(n int) {
	*c = chunks{most: c.most, left: n, in: trim(c.in)}
	if n < 4 { // too short for a header: an empty frame
		c.body, c.last, c.size, c.ended = true, true, n, n == 0
	}
}

func (c *chunks) feed(p []byte) (used int, plain []byte, err error) {
	if !c.body {
		used = copy(c.head[c.nhead:], p)
		if c.nhead += used; c.nhead < len(c.head) {
			return used, nil, nil
		}
		if err := c.start(binary.LittleEndian.Uint32(c.head[:])); err != nil {
			return used, nil, err
		}
	}
	n := min(len(p)-used, c.size-len(c.in))
	src := p[used : used+n]
	used += n
	if len(c.in) > 0 || len(src) < c.size {
		c.in = append(c.in, src...)
		src = c.in
	}
	if len(src) < c.size {
		return used, nil, nil
	}
	c.left -= c.size
	c.body, c.ended = false, c.last
	plain, err = c.decompress(src)
	c.in = c.in[:0]
	return used, plain, err
}

// start reads a chunk's header.
func (c *chunks) start(h uint32) error {
	c.nhead, c.body = 0, true
	c.left -= len(c.head)
	c.last = h&lastChunk != 0
	c.size, c.holds = int(h), chunkLen
	if c.last {
		c.size, c.holds = c.left, int(h&^lastChunk)
	}
	switch {
	case c.holds > chunkLen:
		return errCorrupt("a chunk is too long")
	case c.size > c.left || c.size == 0:
		return errCorrupt("a chunk's length is wrong")
	case c.size > lz4.CompressBlockBound(chunkLen):
		return errCorrupt("a chunk is longer than what it holds")
	}
	if c.total += c.holds; c.total > c.most {
		return failf(status.TooLarge, "a compressed frame that holds more than %d bytes", c.most)
	}
	return nil
}

// decompress appends a chunk to the window.
func (c *chunks) decompress(src []byte) ([]byte, error) {
	if c.holds == 0 {
		return nil, nil
	}
	if c.window.IsZero() {
		n := windowLen
		if c.last { // it is the only one
			n = c.holds
		}
		c.window = pool.New(n)
	}
	w := c.window.Bytes()
	if c.filled+c.holds > len(w) {
		c.filled = copy(w, w[c.filled-reach:c.filled])
	}
	dst := w[c.filled : c.filled+c.holds : c.filled+c.holds]
	n, err := lz4.UncompressBlockWithDict(src, dst, w[max(0, c.filled-reach):c.filled])
	if err != nil || n != c.holds {
		return nil, errCorrupt("the block is damaged")
	}
	c.filled += c.holds
	return dst, nil
}

func (c *chunks) done() error {
	c.drop()
	if !c.ended {
		return errCorrupt("it ends too early")
	}
	return nil
}

// drop implements unpacker.
func (c *chunks) drop() {
	c.window.Release()
	c.window = pool.Message{}
}

// held implements unpacker.
func (c *chunks) held() int { return len(c.in) + c.window.Len() }
