package native

import (
	"slices"
	"sync"
)

// A buffer is what a reader collects in. It is no message of package pool, which counts those that
// nobody releases: where a connection ends in the middle of a record, the garbage collector takes
// the reader's buffer.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// getBuffer returns a buffer of n bytes. What they hold is undefined.
func getBuffer(n int) *buffer {
	b := buffers.Get().(*buffer)
	b.b = slices.Grow(b.b[:0], n)[:n]
	return b
}

// len is 0 for no buffer.
func (b *buffer) len() int {
	if b == nil {
		return 0
	}
	return len(b.b)
}
