package kernel

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// What ends before its begin is told is told all the same, once, and nothing whose begin was
// dropped is.
func TestObservedEndsWhenever(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(o *observing, bits *atomic.Uint32)
		want int
	}{
		{"in order", func(o *observing, bits *atomic.Uint32) {
			o.begun(bits, event{})
			o.ended(bits, event{})
		}, 2},
		{"the other way round", func(o *observing, bits *atomic.Uint32) {
			o.ended(bits, event{})
			o.begun(bits, event{})
		}, 2},
		{"an end alone", func(o *observing, bits *atomic.Uint32) { o.ended(bits, event{}) }, 0},
		{"a begin that is dropped", func(o *observing, bits *atomic.Uint32) {
			o.in = make([]event, mostEvents)
			o.begun(bits, event{})
			o.in = nil
			o.ended(bits, event{})
		}, 0},
	} {
		o := &observing{o: struct{ Observer }{}, running: true} // nobody takes the calls out
		var bits atomic.Uint32
		bits.Store(lifeServed)
		c.do(o, &bits)
		if len(o.in) != c.want || c.want == 2 && (o.in[0].end || !o.in[1].end) {
			t.Errorf("%s: %+v", c.name, o.in)
		}
		if bits.Load()&lifeOfHandler != lifeServed {
			t.Errorf("%s: the other bits are %b", c.name, bits.Load())
		}
	}
}

// After the time for the last calls no more wait.
func TestNothingIsObservedAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &observing{o: struct{ Observer }{}, running: true}
		var early, late atomic.Uint32
		o.begun(&early, event{})
		o.finish()
		o.ended(&early, event{})
		o.begun(&late, event{})
		o.ended(&late, event{})
		if len(o.in) != 0 || o.dropped.Load() != 4 {
			t.Errorf("%d calls wait, %d were dropped", len(o.in), o.dropped.Load())
		}
	})
}
