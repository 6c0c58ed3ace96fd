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
	c        chan pool.Message
	sizes    []uint16 // of the last messages sent, as a ring; larger ones count as inBytes
	sent     uint32   // messages, ever
	left     uint32   // messages known to have left the buffer
	bytes    int      // in the buffer, as far as is known
	unmarked int      // bytes sent since the last message that was marked
	touched  pool.Notice
	timer    *time.Timer // for a reader that takes and does not touch
}

func newInBuffer(n int) *inBuffer {
	return &inBuffer{c: make(chan pool.Message, n), sizes: make([]uint16, n)}
}

// room tells whether n more bytes may go in, their message's place apart.
func (b *inBuffer) room(n int) bool {
	if b.bytes == 0 || b.bytes+n <= inBytes {
		return true
	}
	held := uint32(len(b.c))
	for b.sent-b.left > held {
		b.bytes -= int(b.sizes[b.left%uint32(len(b.sizes))])
		b.left++
	}
	return b.bytes == 0 || b.bytes+n <= inBytes
}

// next tells whether n more bytes may go in as soon as one message leaves a full
// buffer.
func (b *inBuffer) next(n int) bool {
	return len(b.c) == cap(b.c) && b.bytes-int(b.sizes[b.left%uint32(len(b.sizes))])+n <= inBytes
}

// mark has one message in each half of the buffer tell when it is touched: by
// then there is room for several, so that they are not handed over one by one.
func (b *inBuffer) mark(m pool.Message) {
	if b.unmarked += m.Len(); b.unmarked < inBytes/2 || len(b.sizes) == 0 {
		return
	}
	b.unmarked = 0
	if b.touched == nil {
		b.touched = make(pool.Notice, 1)
	}
	m.OnTouch(&b.touched)
}

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

// count notes that a message of n bytes was sent.
func (b *inBuffer) count(n int) {
	if len(b.sizes) == 0 {
		return // handed over, not buffered
	}
	if b.sent-b.left == uint32(len(b.sizes)) { // the oldest has left: there was a place
		b.bytes -= int(b.sizes[b.left%uint32(len(b.sizes))])
		b.left++
	}
	n = min(n, inBytes)
	b.sizes[b.sent%uint32(len(b.sizes))] = uint16(n)
	b.sent++
	b.bytes += n
}
