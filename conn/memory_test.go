package conn

import (
	"testing"
	"time"
)

// unreadStream is a stream that holds unread data.
type unreadStream struct {
	fakeStream
	taken   uint64
	evicted bool
}

func (t *unreadStream) ReadProgress() (int, uint64) { return 1 << 20, t.taken }
func (t *unreadStream) Evict(string)                { t.evicted = true }

// A stream is evicted for what it holds when nobody has read it for stallTime, also while
// the times of the last reads, in 32 bits, begin again.
func TestEvictStalled(t *testing.T) {
	const wrap = 1 << 32 * time.Millisecond
	for name, first := range map[string]time.Duration{"young": time.Minute, "old": wrap - 10*time.Second} {
		t.Run(name, func(t *testing.T) {
			s := newStage(Limits{}, 1<<20)
			c := s.c
			c.extraWindows = c.window / 2 // nothing to spare
			p := &unreadStream{}
			c.PreparePeer(&p.Port, p)
			c.OpenPeer(&p.Port, 2, 0)
			for _, step := range []struct {
				after   time.Duration
				taken   uint64
				evicted bool
			}{
				{0, 0, false},
				{29 * time.Second, 0, false},
				{29 * time.Second, 1000, false},
				{29 * time.Second, 0, false},
				{time.Second, 0, true},
			} {
				first += step.after
				p.taken += step.taken
				c.evictStalled(c.began.Add(first))
				if p.evicted != step.evicted {
					t.Fatalf("%v after the start: evicted: %v", first, p.evicted)
				}
			}
		})
	}
}

// A stream grows older until it is over.
func TestAge(t *testing.T) {
	var a age
	a.begin(100)
	if now, before := a.at(150), a.at(90); now != 50 || before != 0 {
		t.Errorf("after 50 ns: %d, and before it began: %d", now, before)
	}
	a.end(160)
	if got := a.at(1000); got != 60 {
		t.Errorf("it has lived 60 ns: %d", got)
	}
	a.begin(0)
	a.end(0)
	if got := a.at(1000); got != 1 {
		t.Errorf("over as it began: %d", got)
	}
}
