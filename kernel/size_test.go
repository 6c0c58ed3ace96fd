package kernel

import (
	"testing"
	"unsafe"
)

// maxStreamSize is a size class of Go's allocator. One byte more, and each open stream
// takes 32 bytes more.
const maxStreamSize = 576

// What an open stream takes is what a server with many idle streams pays for.
func TestStreamSize(t *testing.T) {
	if n := unsafe.Sizeof(Stream{}); n > maxStreamSize {
		t.Errorf("a Stream has %d bytes, at most %d", n, maxStreamSize)
	}
}
