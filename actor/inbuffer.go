package actor

import (
	"time"

	"github.com/sluicerpc/sluice/pool"
)

// inBytes is what In's buffer holds beside its bound on messages; or one larger
// message, alone.
const inBytes = 16 << 10

// inBuffer is In and what its sender knows of what is in it. It belongs to
// whoever may send on In: the actor's goroutine while it runs, else the holder
// of the stream's lock.
type inBuffer struct {
	c     chan pool.Message
	known *inSizes // nil as long as the number of messages bounds their bytes
}

// inSizes is how long the messages are that are in the buffer.
type inSizes struct {
	ring     []uint16 // of the last messages sent; larger ones count as inBytes
	sent     uint32   // messages
	left     uint32   // of them, known to have left the buffer
	bytes    int      // in the buffer, as far as is known
	unmarked int      // bytes sent since the last message that was marked
	touched  pool.Notice
	timer    *time.Timer // for a reader that takes and does not touch
}

// sizes returns what is known of the sizes. It begins to know when a message of
// n bytes comes of which the bytes could fill the buffer before the number does;
// what is in it by then is taken for as large as it can be.
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

// room tells whether n more bytes may go in, their message's place apart.
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

// next tells whether n more bytes may go in as soon as one message leaves a full
// buffer.
func (b *inBuffer) next(n int) bool {
	k := b.known
	return len(b.c) == cap(b.c) && k.bytes-k.oldest()+n <= inBytes
}

// mark has one message in each half of the buffer tell when it is touched: by
// then there is room for several, so that they are not handed over one by one.
func (b *inBuffer) mark(m pool.Message) {
	k := b.known
	if k == nil {
		return
	}
	if k.unmarked += m.Len(); k.unmarked >= inBytes/2 {
		k.unmarked = 0
		m.OnTouch(&k.touched)
	}
}

// count notes that a message of n bytes was sent.
func (b *inBuffer) count(n int) {
	if b.known != nil {
		b.known.count(n)
	}
}

func (k *inSizes) count(n int) {
	if k.sent-k.left == uint32(len(k.ring)) { // the oldest has left: there was a place
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

// try sends m if there is a place for it now.
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

// touchGap is how often the goroutine that feeds In looks for room by itself:
// who takes a message and never looks at it does not touch it.
const touchGap = 5 * time.Millisecond

// await waits until there may be room; false if stop was closed.
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
