package actor

import (
	"testing"

	"github.com/sluicerpc/sluice/frame"
)

// A peer that does not know our settings yet may send what its protocol begins with, and no
// more.
func TestEarlyWindow(t *testing.T) {
	for early, most := range map[bool]int{false: 1000, true: 65_535} {
		cfg := &Config{Caps: frame.Caps{Overhead: 5, EarlyWindow: 65_535}, Window: 1000, MaxWindow: 1000}
		s := &Stream{cfg: cfg}
		s.win.begin(cfg, cfg.Window)
		if early {
			s.AllowEarly()
		}
		if !s.win.arrive(most) {
			t.Errorf("early %v: %d bytes are too much", early, most)
		}
		if s.win.arrive(1) {
			t.Errorf("early %v: a byte more is not", early)
		}
	}
}
