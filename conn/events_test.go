package conn

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// dueSession has something due at some times, none of which is output.
type dueSession struct {
	frame.Session
	due   []time.Time
	ticks int
	late  time.Duration // of what was done
}

func (s *dueSession) Wake() (at time.Time) {
	if len(s.due) > 0 {
		at = s.due[0]
	}
	return at
}

func (s *dueSession) Tick(o *frame.Out) {
	for s.ticks++; len(s.due) > 0 && !s.due[0].After(o.Now()); s.due = s.due[1:] {
		s.late += time.Since(s.due[0])
	}
	if s.ticks > 100 {
		s.due = nil // it is woken in vain
	}
}

// A session is woken when it wants to be, and asks its output for the time, also where it
// had nothing to write the time before.
func TestASessionIsTickedAtItsWakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStage(Limits{InFlight: Unlimited}, 1<<30)
		start := time.Now()
		d := &dueSession{Session: st.c.sess, due: []time.Time{start.Add(100 * time.Millisecond), start.Add(150 * time.Millisecond)}}
		st.c.sess = d
		st.stream("a", 64, 1).Ready(false) // a flush, which sets the timer
		time.Sleep(time.Second)
		synctest.Wait()
		if d.ticks != 2 || d.late != 0 {
			t.Errorf("%d ticks for two things, which are %v late", d.ticks, d.late)
		}
	})
}
