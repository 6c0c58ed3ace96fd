package strm

import (
	"testing"

	"github.com/sluicerpc/sluice/frame"
)

// A stream that loses its place because a request is given up has ended, as it has
// where a close takes its place.
func TestAStreamThatLosesItsPlaceToARequestGivenUpHasEnded(t *testing.T) {
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
		st.phase.Store(uint32(live))
		s.mu.Unlock()
		control(s, frame.Frame{Kind: frame.EOS, Stream: id})
		if s.Event(&in) {
			t.Fatalf("stream %d: %v", id, describe(&in))
		}
		id += 2
	}
	control(s, frame.Frame{Kind: frame.Open, Stream: id, Method: "S/M", Grants: grant})
	control(s, frame.Frame{Kind: frame.Reset, Stream: id, Code: frame.CodeCancelled})
	if s.find(1) != nil {
		t.Fatal("stream 1 has kept its place")
	}
	if !s.Event(&in) || in.Kind != frame.EOS || in.Stream != 1 {
		t.Fatalf("nobody was told of the end of stream 1: %s", describe(&in))
	}
}
