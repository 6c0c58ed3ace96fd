package strm

import (
	"testing"

	"github.com/sluicerpc/sluice/frame"
)

var (
	_ frame.Session  = (*Session)(nil)
	_ frame.Protocol = Protocol{}
)

// grants are n grants without options.
func grants(n int) []frame.Grant { return make([]frame.Grant, n) }

// opening is the Open of n streams from number id on.
func opening(id uint64, n int) frame.Frame {
	return frame.Frame{Kind: frame.Open, Stream: id, Method: "lab.StreamLab/Open", Grants: grants(n), Payload: []byte("hi")}
}

// accepting is the answer.
func accepting(id uint64, n int) frame.Frame {
	return frame.Frame{Kind: frame.Accept, Stream: id, Grants: grants(n), Payload: []byte("ok")}
}

// pair makes a client and a server.
func pair(t testing.TB) (c, s *side) {
	t.Helper()
	return &side{Session: connect(t, true, "")}, &side{Session: connect(t, false, "")}
}

// establishedPair makes a pair with streams 1, 3, ...: n are requested, k accepted. It
// clears the events.
func establishedPair(t testing.TB, n, k int) (c, s *side) {
	t.Helper()
	c, s = pair(t)
	s.feed(control(c.Session, opening(1, n)))
	c.feed(control(s.Session, accepting(1, k)))
	if c.err != nil || s.err != nil || len(c.events) != 1 || len(s.events) != 1 {
		t.Fatalf("client:\n%server:\n%s", c.log(), s.log())
	}
	c.events, s.events = nil, nil
	return c, s
}
