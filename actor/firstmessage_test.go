package actor

import (
	"errors"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// receiver returns a stream on which a test can make messages arrive.
func receiver() (*Stream, *fakeLink) {
	s, l := &Stream{}, newFakeLink()
	s.Init(l, &Config{Method: "m", Caps: nativeCaps, InBuffer: 16, MaxBatch: 8, MaxReceive: 1 << 20, Window: 1000, MaxWindow: 1000})
	return s, l
}

func arrive(t *testing.T, s *Stream, sizes ...int) {
	t.Helper()
	var run pool.Queue
	for _, n := range sizes {
		run.Push(arriving(pool.New(n)))
	}
	if err := s.Deliver(&run, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// A request that came as a message keeps its credit until it is taken, and its memory of
// the budget if it came in fragments.
func TestARequestIsUnreadUntilItIsTaken(t *testing.T) {
	for name, come := range map[string]func(s *Stream){
		"whole": func(s *Stream) { arrive(t, s, 500, 100) },
		"in fragments": func(s *Stream) {
			for i := range 5 {
				if err := fragment(s, make([]byte, 100), i == 0, i == 4, 500, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			arrive(t, s, 100)
		},
	} {
		s, l := receiver()
		told := 0
		s.OnRequest(func() { told++ })
		come(s)
		if held, _ := s.ReadProgress(); told != 1 || held < 600 {
			t.Errorf("%s: told %d times, %d bytes are held", name, told, held)
		}
		err := s.ReadRequest()
		m, ok := s.TakeRequest()
		if m.Len() != 500 || !ok || err != nil {
			t.Errorf("%s: a request of %d bytes, %v", name, m.Len(), err)
		}
		if _, ok := s.TakeRequest(); ok {
			t.Errorf("%s: it can be taken twice", name)
		}
		m.Release()
		if held, _ := s.ReadProgress(); held != 132 {
			t.Errorf("%s: %d bytes are held after the request was taken", name, held)
		}
		if taken, reserve := l.owed(); taken != 532 || reserve != 0 {
			t.Errorf("%s: %d bytes of credit are back, %d reserved", name, taken, reserve)
		}
		s.PeerReset(status.Cancelled, "")
		s.Drop()
		if n := unread(s); n != 0 {
			t.Errorf("%s: %d bytes are unread in the end", name, n)
		}
	}
}

// A request that is dropped before it was taken is gone, and its credit is returned.
func TestARequestGoesWithItsStream(t *testing.T) {
	s, l := receiver()
	s.OnRequest(func() {})
	arrive(t, s, 500)
	s.PeerReset(status.Cancelled, "")
	s.Drop()
	if err := s.ReadRequest(); err != nil {
		t.Error(err)
	}
	if m, ok := s.TakeRequest(); ok {
		t.Errorf("a request of %d bytes", m.Len())
	}
	if taken, reserve := l.owed(); taken != 532 || reserve != 0 {
		t.Errorf("%d bytes of credit are back, %d reserved", taken, reserve)
	}
}

// Nothing is sent on an offer before it is accepted, nor before a reply that follows the
// acceptance.
func TestAReplyIsSentFirst(t *testing.T) {
	for _, follows := range []bool{false, true} {
		s := &Stream{}
		s.Init(newFakeLink(), &Config{Method: "m", Caps: nativeCaps, MaxSend: 1000, SendCredit: 1000})
		s.HoldSends()
		early := pool.New(1)
		slots := s.Writable()
		refused := func() bool { return errors.Is(s.TrySend(early), ErrNotAccepted) && len(slots) == 0 }
		if !refused() {
			t.Error("sent before the acceptance")
		}
		s.SetFirstFrame(&frame.Frame{Kind: frame.Accept, FollowsData: follows})
		if follows {
			if !refused() {
				t.Error("sent before the reply")
			}
			if err := s.Push(pool.New(2)); err != nil {
				t.Error(err)
			}
		}
		if len(slots) != 1 {
			t.Error("no slot after the acceptance")
		}
		if err := s.TrySend(early); err != nil {
			t.Error(err)
		}
		s.Abort(status.Cancelled, "", nil)
	}
}

// A reply that came as a message does not hold up those behind it, and counts as kept. So
// do trailers and the reason of an end.
func TestRepliesAndEndsAreKept(t *testing.T) {
	s, l := receiver()
	s.Accepted(pool.Message{}, nil, frame.Grant{Credit: 100}, true)
	arrive(t, s, 500, 100)
	if held, _ := s.ReadProgress(); held != 132 || l.kept != 500 {
		t.Errorf("%d bytes are held, %d kept", held, l.kept)
	}
	m, _, err := s.Answer(t.Context())
	if err != nil || m.Len() != 500 {
		t.Errorf("a reply of %d bytes, %v", m.Len(), err)
	}
	m.Release()
	if err := s.PeerEnd(status.Aborted, "reason", metadata.MD{{Key: "k", Value: "v"}}); err != nil || l.kept != 500+6+34 {
		t.Errorf("%d bytes are kept, %v", l.kept, err)
	}
	s.Evict("no memory")
	if md := s.Trailer(); md != nil {
		t.Errorf("evicted, it has trailers: %v", md)
	}
}
