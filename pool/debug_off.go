//go:build !race && !invariants

package pool

// recycle tells whether released memory is used again. Checked builds leave it
// to the garbage collector, so that a use after release is always found.
const recycle = true

func acquired()      {}
func released(*span) {}
func forgotten()     {}
func doubleRelease() {}

// Outstanding is the number of messages that are not released yet. Only builds
// with -race or -tags invariants count; others return 0.
func Outstanding() int64 { return 0 }
