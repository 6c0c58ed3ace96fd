package kernel_test

import (
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/kernel"
)

// A peer that takes small fragments only is sent none that are larger.
func TestThePeersLargestFragmentIsRespected(t *testing.T) {
	for _, most := range []uint64{64 << 10, 4 << 10, 1 << 10} {
		tg := newTarget(t, false, kernel.ServerOptions{})
		own := hello()
		own.MaxFragment = most
		r := tg.attack(own)
		id := r.open("source")
		if !tg.Settle(func() bool { return r.over() != nil || r.count(frame.Data) >= 20 }) {
			t.Fatalf("stream %d: %v", id, r.tail())
		}
		if err := r.over(); err != nil {
			t.Fatalf("a peer that takes %d bytes a fragment: %v", most, err)
		}
	}
}
