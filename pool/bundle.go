package pool

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"github.com/valyala/bytebufferpool"
)

// A bundle is small messages of one stream in one block, each behind a word of 8 bytes whose
// lower 24 bits are its length: frames as the native protocol has them, so that many are
// written, and read, with one copy. In a Queue it is one element that counts as its messages.
// Pop takes single messages out of it; only PopBundle and Each hand it on as it is.
const (
	wordSize   = 8
	lengthMask = 1<<24 - 1

	// BundleRoom is how many bytes in front of a bundle's frames its owner may write to, for a
	// header.
	BundleRoom = 8
	// BundleLeast is how many bytes of frames are worth a bundle, and the smallest block of one.
	BundleLeast = 512
	// BundleMost is the longest message in a bundle, bytes: it fits into the smallest block.
	BundleMost = BundleLeast - BundleRoom - wordSize

	minBundleBits = 9  // 512 B
	maxBundleBits = 14 // 16 KiB
)

// bundled is the class of a block with a bundle, less one for each size.
const bundled = -3

var (
	bundleBuffers [maxBundleBits - minBundleBits + 1]bytebufferpool.Pool
	bundlePool    = sync.Pool{New: func() any { return &block{spans: make([]span, 1)} }}
)

// newBundle returns an empty bundle with a block of 1<<bits bytes. In its block used is where
// the frames end, and n how many messages there are.
func newBundle(bits int) *span {
	b := bundlePool.Get().(*block)
	b.class = int8(bundled - (bits - minBundleBits))
	b.take(&bundleBuffers[bits-minBundleBits], 1<<bits)
	b.used, b.n = BundleRoom, 0
	b.aliased.Store(false)
	b.refs.Store(1)
	s := b.adopt(&b.spans[0], BundleRoom, 0).s
	s.place |= bundleBit
	return s
}

// freeBundle returns the block of a bundle.
func (b *block) freeBundle() {
	bundleBuffers[bundled-b.class].Put(b.buf)
	b.buf, b.data = nil, nil
	bundlePool.Put(b)
}

func (s *span) isBundle() bool { return s.place&bundleBit != 0 }

// messages is how many messages s is.
func (s *span) messages() int {
	if s.isBundle() {
		return s.block.n
	}
	return 1
}

// IsBundle reports whether m is a bundle.
func IsBundle(m Message) bool { return m.s != nil && m.s.isBundle() }

// Messages is how many messages m is, one unless it is a bundle.
func Messages(m Message) int {
	if m.s == nil {
		return 1
	}
	return m.s.messages()
}

// Frames returns a bundle's frames, behind BundleRoom bytes that the bundle's owner may write
// to. They are valid until the bundle is released.
func Frames(m Message) []byte {
	MustLive(m)
	b := m.s.block
	return b.data[m.s.off()-BundleRoom : b.used : b.used]
}

// AppendBundle appends to v each message of a bundle, in place: they are valid until the bundle
// is released.
func AppendBundle(v [][]byte, m Message) [][]byte {
	for p := Frames(m)[BundleRoom:]; len(p) >= wordSize; {
		end := wordSize + int(binary.LittleEndian.Uint64(p)&lengthMask)
		v = append(v, p[wordSize:end:end])
		p = p[end:]
	}
	return v
}

// PushFrame appends a copy of p, at most BundleMost bytes, to the bundle at the end of q, or to
// a new one. word goes before it; its lower 24 bits are p's length. The first bundle in a
// queue is small: most queues have a message or two.
func (q *Queue) PushFrame(word uint64, p []byte, cost int) {
	s, n := q.tail, wordSize+len(p)
	if s == nil || !s.isBundle() || len(s.block.data)-s.block.used < n {
		size := BundleLeast
		if s != nil && s.isBundle() {
			size = 2 * len(s.block.data)
		}
		s = q.pushBundle(min(bits.Len(uint(size-1)), maxBundleBits))
	}
	b := s.block
	at := b.used
	b.used += n
	binary.LittleEndian.PutUint64(b.data[at:], word)
	copy(b.data[at+wordSize:], p)
	q.grow(s, 1, len(p), cost)
}

// PushFrames appends a bundle of the first frames in p, at least BundleLeast bytes of frames of
// at most BundleMost. It takes as many as fill a block whose size is a power of two, so that
// none is half empty, and returns how many bytes of p it took.
func (q *Queue) PushFrames(p []byte, overhead int) int {
	size := min(bits.Len(uint(len(p)+BundleRoom))-1, maxBundleBits)
	most := min(1<<size-BundleRoom, len(p))
	used, n := 0, 0
	for len(p)-used >= wordSize {
		end := used + wordSize + int(binary.LittleEndian.Uint64(p[used:])&lengthMask)
		if end > most {
			break
		}
		used = end
		n++
	}
	s := q.pushBundle(size)
	s.block.used += copy(s.block.data[BundleRoom:], p[:used])
	q.grow(s, n, used-n*wordSize, used+n*(overhead-wordSize))
	return used
}

// pushBundle appends an empty bundle.
func (q *Queue) pushBundle(bits int) *span {
	s := newBundle(bits)
	if q.tail == nil {
		q.head = s
	} else {
		q.tail.next = s
	}
	q.tail = s
	return s
}

// grow counts n messages of so many bytes and that cost more in s, the last of q.
func (q *Queue) grow(s *span, n, bytes, cost int) {
	s.block.n += n
	s.n += uint32(bytes)
	s.price += uint32(cost)
	q.n += n
	q.bytes += bytes
	q.cost += cost
}

// popFrame takes the first message out of the bundle at the front of q, as a message of its
// own.
func (q *Queue) popFrame() Message {
	s := q.head
	cost := int(s.price)
	m := Copy(s.first())
	if s.block.n > 1 {
		cost = m.Len() + s.overhead()
	}
	SetCost(m, cost)
	q.cut(s, 1, m.Len(), wordSize+m.Len(), cost)
	if s.block.n == 0 {
		q.head = s.next
		if q.head == nil {
			q.tail = nil
		}
		s.next = nil
		s.handle().Release()
	}
	return m
}

// first is the first message of a bundle.
func (s *span) first() []byte {
	p := s.block.data[s.off():s.block.used]
	return p[wordSize : wordSize+binary.LittleEndian.Uint64(p)&lengthMask]
}

// overhead is what each message of a bundle costs beside its length.
func (s *span) overhead() int { return (int(s.price) - int(s.n)) / s.block.n }

// splitFirst moves the messages of the bundle at the front of q that cost at most room together
// to a bundle of their own before it. It reports false if there are none.
func (q *Queue) splitFirst(room int) bool {
	s := q.head
	b, each := s.block, s.overhead()
	p := b.data[s.off():b.used]
	used, n, bytes, cost := 0, 0, 0, 0
	for n < b.n-1 {
		k := int(binary.LittleEndian.Uint64(p[used:]) & lengthMask)
		if cost+k+each > room {
			break
		}
		cost += k + each
		bytes += k
		used += wordSize + k
		n++
	}
	if n == 0 {
		return false
	}
	var one Queue
	t := one.pushBundle(max(bits.Len(uint(used+BundleRoom-1)), minBundleBits))
	t.block.used += copy(t.block.data[BundleRoom:], p[:used])
	one.grow(t, n, bytes, cost)
	q.cut(s, n, bytes, used, cost)
	one.Append(q)
	*q = one
	return true
}

// cut takes n messages off the front of s, the first of q: bytes of them, size with their words.
func (q *Queue) cut(s *span, n, bytes, size, cost int) {
	s.block.n -= n
	s.n -= uint32(bytes)
	s.price -= uint32(cost)
	s.place += uint32(size)
	q.n -= n
	q.bytes -= bytes
	q.cost -= cost
}

// Spare is how many bytes of memory are kept for messages that are encoded next, at the end of
// q.
func (q *Queue) Spare() int {
	if q.tail == nil || !q.tail.isBundle() {
		return 0
	}
	return len(q.tail.block.data) - q.tail.block.used
}

// PopBundle is Pop that returns a bundle as it is.
func (q *Queue) PopBundle() (m Message, ok bool) {
	s := q.head
	if s == nil {
		return Message{}, false
	}
	q.head = s.next
	if q.head == nil {
		q.tail = nil
	}
	s.next = nil
	q.n -= s.messages()
	q.bytes -= int(s.n)
	q.cost -= s.cost()
	return s.handle(), true
}
