package conn

import (
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
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
			c.extraWindows = c.firstWindow / 2 // nothing to spare
			p := &unreadStream{}
			c.PreparePeer(&p.Port, p, false)
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

// cappedStream is a stream of a sender that chooses its window.
type cappedStream struct {
	fakeStream
	use       int
	unreadFor time.Duration
	evicted   bool
}

func (t *cappedStream) CapUse(time.Time) (int, time.Duration) { return t.use, t.unreadFor }
func (t *cappedStream) Evict(string)                          { t.evicted = true }

// Of a connection's streams those go that hold much and that nobody reads, as many as it
// takes. One that is read goes last, however much it holds, and one that holds little is no
// use.
func TestWhoIsReadIsTheLastToGo(t *testing.T) {
	const mb = 1 << 20
	type held struct {
		use       int
		unreadFor time.Duration
	}
	read := held{use: 5 * mb, unreadFor: 5 * time.Millisecond}
	for name, k := range map[string]struct {
		streams []held
		want    string // which are evicted
	}{
		"within it":   {[]held{{use: 8 * mb}, {use: 8 * mb}}, ".."},
		"one unread":  {[]held{read, {use: 12 * mb, unreadFor: time.Second}}, ".x"},
		"many unread": {[]held{{use: 4 * mb, unreadFor: time.Second}, read, {use: 5 * mb, unreadFor: time.Hour}, {use: 3 * mb, unreadFor: time.Minute}}, "..x."},
		"as many as it takes": {[]held{
			{use: 9 * mb, unreadFor: time.Minute}, read, {use: 8 * mb, unreadFor: time.Hour}, {use: 7 * mb, unreadFor: time.Hour}}, "x.x."},
		"a little, for long": {[]held{{use: 1000, unreadFor: time.Hour}, {use: 14 * mb, unreadFor: time.Second}, read}, ".x."},
		"all read":           {[]held{{use: 6 * mb}, {use: 7 * mb}, {use: 5 * mb}}, ".x."},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(Limits{SenderWindow: 4 * mb}, 1<<20)
			c := s.c
			c.pacing = frame.Reported
			c.in.used = 1 << 40
			got := ""
			ps := make([]cappedStream, len(k.streams))
			for i := range ps {
				p := &ps[i]
				p.use, p.unreadFor = k.streams[i].use, k.streams[i].unreadFor
				c.PreparePeer(&p.Port, p, false)
				c.OpenPeer(&p.Port, uint64(2*i+2), 0)
			}
			if err := c.overLimit(); err != nil {
				t.Fatal(err)
			}
			for i := range ps {
				if ps[i].evicted {
					got += "x"
				} else {
					got += "."
				}
			}
			if got != k.want {
				t.Errorf("evicted %s, want %s", got, k.want)
			}
			if c.in.limit <= c.in.used {
				t.Error("the next byte would be beyond the limit again")
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
