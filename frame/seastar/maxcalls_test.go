package seastar

import (
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// A connection whose calls in work are as many as allowed is not read until one ends.
func TestCallsWaitForRoom(t *testing.T) {
	c := newClock()
	s := mustServe(t, &Protocol{MaxCalls: 2, Now: c.now}, record{featTimeout, ""})
	defer s.Closed()
	if n := s.Caps().PeerStreams; n != 2 {
		t.Errorf("the session is said to let %d streams in", n)
	}
	var in []byte
	for id := range int64(4) {
		in = append(in, 100, 0, 0, 0, 0, 0, 0, 0)
		in = append(in, plainRequest(1, id+1, []byte("ask"))...)
	}
	l := listener{s: s}
	if err := l.feed(in); err != nil || len(l.lines) != 6 {
		t.Fatal(l.lines, err)
	}
	for _, stream := range []uint64{3, 1} { // calls may end in any order
		wait := s.Full()
		if wait == nil || closed(wait) {
			t.Fatal("there is room for a third call")
		}
		c.advance(30 * time.Millisecond)
		had := len(l.lines)
		control(s, &frame.Frame{Kind: frame.EOS, Stream: stream})
		if !closed(wait) {
			t.Fatal("a call has ended, and the reader waits")
		}
		if err := l.feed(nil); err != nil || len(l.lines) != had+3 {
			t.Fatal(l.lines, err)
		}
	}
	if s.Full() != nil {
		t.Error("the reader waits though nothing else has come")
	}
	equal(t, "the calls that waited", []string{l.lines[6], l.lines[9]}, []string{
		`5 open "#1" unary=true value=0x0 left=70ms grants=1`,
		`7 open "#1" unary=true value=0x0 left=70ms grants=1`,
	})
}

// A request that is refused takes no room.
func TestARefusedCallWaitsForNoRoom(t *testing.T) {
	s := mustServe(t, &Protocol{MaxCalls: 1})
	defer s.Closed()
	in := append(plainRequest(1, 1, nil), plainRequest(1, 2, make([]byte, testLimit+1))...)
	lines, err := events(s, append(in, plainRequest(1, 3, nil)...))
	if err != nil || len(lines) != 4 {
		t.Fatalf("%q, %v: want a call of three events and an answer", lines, err)
	}
	if s.Full() == nil {
		t.Error("the third call does not wait")
	}
}

// Without a limit of its own a connection has that of the server's streams.
func TestMaxCallsHasADefault(t *testing.T) {
	for most, want := range map[int]int{0: 100, 7: 7, 5000: 5000} {
		p := &Protocol{MaxCalls: most}
		w := &wire{in: hello()}
		s, err := p.Handshake(t.Context(), w, &frame.Greeting{Own: frame.Settings{MaxStreams: 100, MaxMessage: testLimit}})
		if err != nil {
			t.Fatal(err)
		}
		if n := s.Caps().PeerStreams; n != want {
			t.Errorf("MaxCalls %d of a server with 100 streams is %d", most, n)
		}
		s.Closed()
	}
}
