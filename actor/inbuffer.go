package actor

import (
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/pool"
)

// inBytes is the most bytes in In's buffer, besides the limit of messages. One larger
// message may be in it alone.
const inBytes = 16 << 10

// An inBuffer is In and what its sender knows of its contents. The party that may send on
// In owns it: the goroutine that feeds In while it runs, otherwise the holder of the
// stream's lock.
type inBuffer struct {
	c     chan pool.Message
	known *inSizes     // nil while the number of messages limits their bytes
	large atomic.Int32 // length of the last message that was longer than inBytes
	most  atomic.Int32 // length of the longest other one since the buffer was empty
}

// held is how many bytes of memory the messages in the buffer take, at most: it does not know how
// long each of them is.
func (b *inBuffer) held() int {
	n := len(b.c)
	if n == 0 {
		return 0
	}
	small := min(n*pool.Footprint(int(b.most.Load())), 2*inBytes)
	return small + pool.Footprint(int(b.large.Load())) + n*messageSize
}

// inSizes are the lengths of the messages in the buffer.
type inSizes struct {
	ring     []uint16 // of the last messages sent; larger ones count as inBytes
	sent     uint32   // number of messages sent
	left     uint32   // number of those that have left the buffer, as far as is known
	bytes    int      // in the buffer, as far as is known
	unmarked int      // bytes sent since the last message that was marked
	touched  pool.Notice
	timer    *time.Timer // for a reader that takes messages without touching them
}

// sizes returns the known sizes. They are kept from the first message of n bytes on of
// which the bytes could reach their limit before the number does. What is in the buffer
// by then counts as large as it can be.
func (b *inBuffer) sizes(n int) *inSizes {
	if b.known != nil || cap(b.c) == 0 || n <= inBytes/cap(b.c) {
		return b.known
	}
	k := &inSizes{ring: make([]uint16, cap(b.c)), touched: make(pool.Notice, 1)}
	for range len(b.c) {
		k.count(inBytes / cap(b.c))
	}
	b.known = k
	return k
}

// room reports whether n more bytes may go in. It does not look at the number of messages.
func (b *inBuffer) room(n int) bool {
	k := b.sizes(n)
	if k == nil || k.bytes == 0 || k.bytes+n <= inBytes {
		return true
	}
	for held := uint32(len(b.c)); k.sent-k.left > held; {
		k.leave()
	}
	return k.bytes == 0 || k.bytes+n <= inBytes
}

// next reports whether n more bytes may go in as soon as one message leaves a full buffer.
func (b *inBuffer) next(n int) bool {
	k := b.known
	return len(b.c) == cap(b.c) && k.bytes-k.oldest()+n <= inBytes
}

// mark makes one message in each half of the buffer give notice when it is touched. By
// then there is room for several, so that the sender does not wake for each.
func (b *inBuffer) mark(m pool.Message) {
	k := b.known
	if k == nil {
		return
	}
	if k.unmarked += m.Len(); k.unmarked >= inBytes/2 {
		k.unmarked = 0
		pool.OnTouch(m, &k.touched)
	}
}

// count counts a message of n bytes that was sent.
func (b *inBuffer) count(n int) {
	if int32(n) != b.most.Load() || b.large.Load() != 0 { // most messages are as long as the one before
		b.measure(n)
	}
	if b.known != nil {
		b.known.count(n)
	}
}

// measure notes how long a message is that was sent.
func (b *inBuffer) measure(n int) {
	alone := len(b.c) <= 1
	switch {
	case n > inBytes:
		b.large.Store(int32(n))
		return
	case alone, b.most.Load() < int32(n):
		b.most.Store(int32(n))
	}
	if alone {
		b.large.Store(0)
	}
}

func (k *inSizes) count(n int) {
	if k.sent-k.left == uint32(len(k.ring)) { // the oldest has left: there was room
		k.leave()
	}
	n = min(n, inBytes)
	k.ring[k.sent%uint32(len(k.ring))] = uint16(n)
	k.sent++
	k.bytes += n
}

func (k *inSizes) leave() {
	k.bytes -= k.oldest()
	k.left++
}

func (k *inSizes) oldest() int { return int(k.ring[k.left%uint32(len(k.ring))]) }

// try sends m if that need not wait. It does not look at the bytes.
func (b *inBuffer) try(m pool.Message) bool {
	n := m.Len()
	if len(b.c) == cap(b.c) && cap(b.c) > 0 {
		return false
	}
	b.mark(m)
	select {
	case b.c <- m:
		b.count(n)
		return true
	default:
		return false
	}
}

// touchGap is how often the goroutine that feeds In looks for room without a notice: a
// reader may take a message and never touch it.
const touchGap = 5 * time.Millisecond

// await waits until there may be room. It reports false if stop was closed.
func (k *inSizes) await(stop <-chan struct{}) bool {
	if k.timer == nil {
		k.timer = time.NewTimer(touchGap)
	} else {
		k.timer.Reset(touchGap)
	}
	defer k.timer.Stop()
	select {
	case <-k.touched:
	case <-k.timer.C:
	case <-stop:
		return false
	}
	return true
}
