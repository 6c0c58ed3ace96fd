package pool

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/valyala/bytebufferpool"
)

const (
	blockSize  = 16 << 10 // bytes of a block that small messages share
	blockSpans = 224      // messages in such a block, at most
	smallMax   = 4 << 10  // longest message that shares a block

	minClassBits = 13 // 8 KiB
	maxClassBits = 24 // 16 MiB
	unpooled     = -1
	shared       = -2

	carving = 1 << 30 // held by the arena while it carves
)

// A block is memory and a count of the messages in it that are still held.
type block struct {
	refs    atomic.Int32
	aliased atomic.Bool // some bytes have two handles
	class   int8
	data    []byte
	buf     *bytebufferpool.ByteBuffer
	spans   []span
	used    int // bytes carved; owned by the arena, of a bundle by who owns that
	n       int // spans carved, or messages in a bundle; owned likewise
}

// One bytebufferpool a size class: the library calibrates itself by the sizes
// that it sees, and throws large buffers away once small ones are the rule. A
// pool that sees one size only is calibrated for it.
var (
	classes    [maxClassBits - minClassBits + 1]bytebufferpool.Pool
	blocks     bytebufferpool.Pool
	sharedPool = sync.Pool{New: func() any { return &block{class: shared, spans: make([]span, blockSpans)} }}
	largePool  = sync.Pool{New: func() any { return &block{spans: make([]span, 1)} }}
	arenaPool  = sync.Pool{New: func() any { return new(Arena) }}
)

// adopt makes s the handle of n bytes of b at off. The caller has counted it.
func (b *block) adopt(s *span, off, n int) Message {
	s.block, s.place, s.n, s.next = b, uint32(off), uint32(n), nil
	s.life, s.price = (s.life+1)|1, 0
	acquired()
	return Message{s, s.life}
}

// drop gives n references up; the last one returns the block.
func (b *block) drop(n int32) {
	if b.refs.Add(-n) == 0 && b.class != unpooled {
		b.free()
	}
}

func (b *block) free() {
	if !recycle {
		return
	}
	b.buf.B = b.data
	if b.class <= bundled {
		b.freeBundle()
		return
	}
	if b.class == shared {
		blocks.Put(b.buf)
		b.buf, b.data = nil, nil
		sharedPool.Put(b)
		return
	}
	classes[b.class].Put(b.buf)
	b.buf, b.data = nil, nil
	largePool.Put(b)
}

func newShared() *block {
	b := sharedPool.Get().(*block)
	b.take(&blocks, blockSize)
	b.used, b.n = 0, 0
	b.aliased.Store(false)
	b.refs.Store(carving)
	return b
}

// Footprint is what the memory of a message of n bytes takes, its handle aside, where it has
// a block of its own. It is n where it shares one.
func Footprint(n int) int {
	if n <= smallMax || n > 1<<maxClassBits {
		return n
	}
	return 1 << max(bits.Len(uint(n-1)), minClassBits)
}

func newLarge(n int) Message {
	c := max(bits.Len(uint(n-1)), minClassBits)
	if c > maxClassBits {
		return MessageOf(make([]byte, n))
	}
	b := largePool.Get().(*block)
	b.class = int8(c - minClassBits)
	b.take(&classes[b.class], 1<<c)
	b.refs.Store(1)
	return b.adopt(&b.spans[0], 0, n)
}

// take fetches memory of exactly size bytes.
func (b *block) take(p *bytebufferpool.Pool, size int) {
	b.buf = p.Get()
	if cap(b.buf.B) < size {
		b.buf.B = make([]byte, size)
	}
	b.data = b.buf.B[:size]
}

// An Arena carves messages out of shared blocks. It is owned by one goroutine
// at a time.
type Arena struct{ cur *block }

// GetArena returns an arena, often one with a block in hand. PutArena hands it
// on; an arena that is not put back is garbage.
func GetArena() *Arena { return arenaPool.Get().(*Arena) }

// PutArena hands the arena on to whoever needs one next.
func PutArena(a *Arena) { arenaPool.Put(a) }

// New returns a message of n bytes; what they hold at first is undefined.
func (a *Arena) New(n int) Message {
	checkLen(n)
	if n > smallMax {
		return newLarge(n)
	}
	b := a.cur
	if b == nil || b.used+n > blockSize || b.n == blockSpans {
		a.retire()
		b = newShared()
		a.cur = b
	}
	m := b.adopt(&b.spans[b.n], b.used, n)
	b.used += n
	b.n++
	return m
}

// Copy returns a message that holds a copy of p.
func (a *Arena) Copy(p []byte) Message {
	m := a.New(len(p))
	copy(m.s.block.data[m.s.off():], p)
	return m
}

// retire gives the block in hand up: from now on only its messages hold it.
func (a *Arena) retire() {
	if b := a.cur; b != nil {
		a.cur = nil
		b.drop(int32(carving - b.n))
	}
}

// scratches are for output under construction: they hold what one write takes. They
// are not a bytebufferpool.Pool: that throws away what is larger than most writes of
// late, and where most are small nearly each one would allocate.
var scratches = sync.Pool{New: func() any { return new(Scratch) }}

// scratchMost is the largest buffer that is kept, bytes. A write gathers up to 320 KiB of
// a stream that alone sends, and a buffer that grows to that has room for half as much
// again.
const scratchMost = 1 << 20

// A Scratch is a buffer that is lent out for a while.
type Scratch = bytebufferpool.ByteBuffer

// GetScratch returns an empty buffer; PutScratch takes it back.
func GetScratch() *Scratch { return scratches.Get().(*Scratch) }

// PutScratch takes a buffer back.
func PutScratch(s *Scratch) {
	if cap(s.B) > scratchMost {
		return
	}
	s.B = s.B[:0]
	scratches.Put(s)
}
