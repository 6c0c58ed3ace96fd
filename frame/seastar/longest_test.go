//go:build !race

package seastar

import (
	"strconv"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// What does not compress grows, the longest message beyond what a message can hold. The
// race detector would touch all of that memory.
func TestTheLongestMessageMayGrow(t *testing.T) {
	if strconv.IntSize == 32 {
		t.Skip("takes a GiB")
	}
	var s sender
	var o frame.Out
	s.compressed(&o, pool.MaxLen+1, func(dst []byte) int {
		if len(dst) <= pool.MaxLen {
			t.Errorf("room for %d bytes", len(dst))
		}
		return copy(dst, "packed")
	})
	if o.Len() != len("packed") {
		t.Errorf("%d bytes are written", o.Len())
	}
}
