package actor

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// fillWindow has the peer use up a window of ten messages of 100 bytes.
const tenMessages = 10 * (100 + overhead)

func fillWindow(t *testing.T, s *Stream) {
	t.Helper()
	var run pool.Queue
	for range 10 {
		run.Push(arriving(pool.New(100)))
	}
	if err := s.Deliver(&run, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// wantsMore checks that the peer, which has used up its credit, gets more.
func wantsMore(t *testing.T, s *Stream) {
	t.Helper()
	if g := s.Granted(); g <= tenMessages {
		t.Errorf("the peer has used all of its %d bytes of credit, and gets none", g)
	}
}

// Where the peer can't be told that we have stopped reading, it gets credit for what is
// dropped, whoever holds that at the time: it has to get to its end.
func TestAPeerThatCannotBeStoppedGetsCredit(t *testing.T) {
	for name, read := range map[string]func(s *Stream){
		"In": func(s *Stream) { _ = s.In() }, "Batches": func(s *Stream) { _ = s.Batches() }, "nobody": func(*Stream) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				caps := nativeCaps
				caps.Stop = false
				s := &Stream{}
				s.Init(newFakeLink(), &Config{Caps: caps, MaxBatch: 100, MaxReceive: 1000, MaxSend: 1000, Window: tenMessages})
				read(s)
				fillWindow(t, s)
				synctest.Wait()
				s.CloseReceive(status.OK)
				synctest.Wait()
				wantsMore(t, s)
			})
		})
	}
}

// So it is where a stream that receives nothing has the window of all nevertheless.
func TestAStreamThatReceivesNothingGrantsWhatItDrops(t *testing.T) {
	for _, opener := range []bool{true, false} {
		caps := nativeCaps
		caps.Stop, caps.FixedWindow = false, true
		cfg := Config{Caps: caps, MaxBatch: 100, MaxReceive: 1000, MaxSend: 1000, Window: tenMessages, NoReceive: opener}
		s := &Stream{}
		s.Init(newFakeLink(), &cfg)
		if !opener {
			accepted := cfg
			accepted.NoReceive = true
			s.Establish(&accepted, accepted.Window)
		}
		fillWindow(t, s)
		wantsMore(t, s)
	}
}

// What the initial credit takes back and gives adds up, whichever comes first.
func TestChangesOfTheInitialCreditAddUp(t *testing.T) {
	for _, deltas := range [][2]int64{{90, -100}, {-100, 90}} {
		s := &Stream{}
		s.Init(newFakeLink(), &Config{Caps: nativeCaps, MaxSend: 1000, SendCredit: 10})
		for _, d := range deltas {
			s.AddCredit(d)
		}
		if s.cred.granted != 0 {
			t.Errorf("10 and %v make %d", deltas, s.cred.granted)
		}
	}
}
