//go:build race || invariants

package pool

import "sync/atomic"

const (
	recycle = false
	poison  = 0xDB
)

var outstanding atomic.Int64

func acquired() { outstanding.Add(1) }

func forgotten() { outstanding.Add(-1) }

// released makes a use of stale bytes visible, where nobody shares them.
func released(s *span) {
	outstanding.Add(-1)
	if s.block.class == unpooled || s.block.aliased.Load() {
		return // the caller may know the memory, or another handle does
	}
	end := s.off() + s.n
	if s.isBundle() {
		end = uint32(s.block.used)
	}
	for i := s.off(); i < end; i++ {
		s.block.data[i] = poison
	}
}

func doubleRelease() { panic("pool: message released twice") }

// Outstanding is the number of messages that are not released yet. Only builds
// with -race or -tags invariants count; others return 0.
func Outstanding() int64 { return outstanding.Load() }
