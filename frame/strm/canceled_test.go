package strm

import (
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// The oldest stream that waits for the peer's CLOSE is evicted, and ends, when a request
// is canceled beyond the limit, as it is when another stream is closed.
func TestACanceledRequestEvictsTheOldestClosingStream(t *testing.T) {
	s := connect(t, true, "")
	grant := []frame.Grant{{}}
	id := uint64(1)
	var in frame.Frame
	for range leastClosing {
		control(s, frame.Frame{Kind: frame.Open, Stream: id, Method: "S/M", Grants: grant})
		s.mu.Lock() // as if it had been answered
		st := s.table.streams[id]
		st.call.Store(nil)
		st.peer = int64(id)
		st.phase.Store(uint32(established))
		s.mu.Unlock()
		control(s, frame.Frame{Kind: frame.EOS, Stream: id})
		if s.Event(&in) {
			t.Fatalf("stream %d: %v", id, describe(&in))
		}
		id += 2
	}
	control(s, frame.Frame{Kind: frame.Open, Stream: id, Method: "S/M", Grants: grant})
	control(s, frame.Frame{Kind: frame.Reset, Stream: id, Code: status.Cancelled})
	if s.find(1) != nil {
		t.Fatal("stream 1 was not evicted")
	}
	if !s.Event(&in) || in.Kind != frame.EOS || in.Stream != 1 {
		t.Fatalf("no event for the end of stream 1: %s", describe(&in))
	}
}
