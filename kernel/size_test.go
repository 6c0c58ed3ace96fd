package kernel

import (
	"testing"
	"unsafe"
)

// maxStreamSize is a size class of Go's allocator. One byte more, and each open stream
// takes 64 bytes more.
const maxStreamSize = 512

// What an open stream takes is what a server with many idle streams pays for.
func TestStreamSize(t *testing.T) {
	if n := unsafe.Sizeof(Stream{}); n > maxStreamSize {
		t.Errorf("a Stream has %d bytes, at most %d", n, maxStreamSize)
	}
}

// core.stream depends on it.
func TestACoreIsAWholeStream(t *testing.T) {
	var s Stream
	if unsafe.Offsetof(s.c) != 0 || unsafe.Sizeof(s.c) != unsafe.Sizeof(s) {
		t.Errorf("the core has %d bytes of a Stream's %d, and is at %d", unsafe.Sizeof(s.c), unsafe.Sizeof(s), unsafe.Offsetof(s.c))
	}
}
