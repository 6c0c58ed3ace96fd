package pool

import (
	"testing"

	"github.com/sluicerpc/sluice/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// checked tells whether this build finds mistakes with messages.
const checked = !recycle

// panics returns what f panicked with, or nil.
func panics(f func()) (r any) {
	defer func() { r = recover() }()
	f()
	return nil
}

// noneLost fails the test if it leaves more messages behind than it found.
func noneLost(t testing.TB) {
	before := Outstanding()
	t.Cleanup(func() {
		if n := Outstanding() - before; n != 0 {
			t.Errorf("%d messages were not released", n)
		}
	})
}
