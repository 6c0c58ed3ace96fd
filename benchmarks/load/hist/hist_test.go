package hist

import (
	"sync"
	"testing"
	"time"
)

func TestNothingIsLostBetweenDrains(t *testing.T) {
	r := NewRecorder()
	total := New()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 5000 {
				r.Record(time.Duration(i) * time.Microsecond)
			}
		})
	}
	for range 20 {
		r.Drain(total)
	}
	wg.Wait()
	r.Drain(total)
	if got := total.TotalCount(); got != 20000 {
		t.Errorf("%d values, want 20000", got)
	}
	r.Drain(total)
	if got := total.TotalCount(); got != 20000 {
		t.Errorf("an empty drain added %d", got-20000)
	}
}

func TestValuesOutsideTheRangeCountAsItsEnds(t *testing.T) {
	r, h := NewRecorder(), New()
	r.Record(-time.Second)
	r.Record(100 * time.Hour)
	r.Drain(h)
	if h.TotalCount() != 2 || h.Max() < int64(59*time.Minute) {
		t.Errorf("%d values, max %v", h.TotalCount(), time.Duration(h.Max()))
	}
}

func TestEncodedHistogramsDecode(t *testing.T) {
	h := New()
	for i := range int64(1000) {
		_ = h.RecordValue(i * 1000)
	}
	s, err := Encode(h)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(s)
	if err != nil || !back.Equals(h) {
		t.Errorf("different: %v", err)
	}
}

func BenchmarkRecord(b *testing.B) {
	r := NewRecorder()
	b.ReportAllocs()
	for i := range b.N {
		r.Record(time.Duration(i & 0xfffff))
	}
}
