package actor

import (
	"fmt"
	"math"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
)

// What is different where the receiver does not grant credit (frame.Pacing): the
// window is the sender's own, and the receiver's protection is a cap.

// The sender's own windows, where StreamOptions.SendLimit names none.
const (
	reportedWindow = 2 << 20   // what brpc's max_buf_size is by default
	unpacedWindow  = 100 << 10 // what a Seastar sink may have on its way
)

// reportEvery is how many bytes may be taken while more wait before the sender
// is told. When nothing waits it is told at once: its window may be small.
const reportEvery = 64 << 10

// ownWindow is how many bytes a stream may have unread, or unwritten, by its
// own rule.
func ownWindow(cfg *Config) uint64 {
	switch {
	case cfg.SendLimit == math.MaxInt:
		return 1 << 62
	case cfg.SendLimit > 0:
		return uint64(cfg.SendLimit)
	case cfg.Caps.Pacing == frame.Reported:
		return reportedWindow
	}
	return unpacedWindow
}

func (c *Config) granted() bool { return c.Caps.Pacing == frame.Granted }

// freed gives back what a burst needs no more of the sender's own window: where
// the receiver reports the payload that it has taken, the messages' overhead;
// where it says nothing, all of it.
func (s *Stream) freed(b *burst, first bool) {
	switch s.cfg.Caps.Pacing {
	case frame.Reported:
		n := b.run.Len()
		if first {
			n++
		}
		s.cred.granted += uint64(n * frame.MessageOverhead)
	case frame.Unpaced:
		s.cred.granted += uint64(b.used)
	}
}

// peerReport takes the payload bytes that the receiver has taken in all.
func (s *Stream) peerReport(total uint64) {
	e := s.more()
	total = min(total, s.cred.sent)
	if total <= e.reported {
		return
	}
	s.cred.granted += total - e.reported
	s.cred.granted -= e.nudged // what it was let through for is reported now, or will be
	e.nudged = 0
	e.reported = total
	s.admitWaiting()
	s.requeue()
}

// report tells the sender what was taken, if it is time to.
func (s *Stream) report() {
	w := &s.win
	n := w.payload - w.granted
	if n == 0 || n < reportEvery && s.in.Len() > 0 {
		return
	}
	w.granted = w.payload
	s.ask(wantCredit)
}

// overCap tells whether a sender that chooses its window itself has more unread
// here than we hold.
func (s *Stream) overCap() bool {
	return s.cfg.Caps.Pacing == frame.Reported && s.win.recvd-s.win.taken > uint64(s.cfg.Window)
}

// resetOverCap ends the stream for that.
func (s *Stream) resetOverCap() error {
	s.abort(s.fail(frame.CodeResourceExhausted,
		fmt.Sprintf("%d bytes are unread, at most %d are held", s.win.recvd-s.win.taken, s.cfg.Window), false))
	return frame.ErrFault
}

// A nudge lets one more message through where the window is full and the
// receiver has never reported anything. A brpc server that consumes the first
// messages before it has noted that the stream is connected loses its report of
// them (seen in brpc's master of August 2026); any later one repairs it, for reports
// are of totals.
type nudge struct {
	s     *Stream
	timer timers.Timer
	left  int
}

const (
	nudgeAfter = 100 * time.Millisecond
	nudges     = 3 // and each waits twice as long as the one before
)

// awaitReport starts the nudge's timer when the window is full for the first time.
func (s *Stream) awaitReport() {
	if s.cfg.Caps.Pacing != frame.Reported || s.cred.left() > 0 || s.st.done {
		return
	}
	e := s.more()
	if e.reported > 0 || e.nudge != nil {
		return
	}
	e.nudge = &nudge{s: s, left: nudges}
	s.link.Timers().Set(&e.nudge.timer, e.nudge, time.Now().Add(nudgeAfter))
}

// Expire implements timers.Owner.
func (n *nudge) Expire(_ *timers.Timer, now time.Time) {
	s := n.s
	s.mu.Lock()
	defer s.unlock()
	if s.st.done || s.ends.reported > 0 || n.left == 0 {
		return
	}
	wait := nudgeAfter
	if over := -s.cred.left(); over >= 0 && s.cred.eligible == 0 && !s.unanswered() {
		n.left--
		wait <<= nudges - n.left
		s.cred.granted += uint64(over) + 1
		s.ends.nudged += uint64(over) + 1
		s.admitWaiting()
		s.requeue()
	}
	s.link.Timers().Set(&n.timer, n, now.Add(wait))
}

// A repeat says again that our half has ended, where that ends both and the peer has
// not ended its own. A brpc server that is told before it has noted that the stream is
// connected closes it without a word; asked again, it says that it knows no such stream.
type repeat struct {
	s     *Stream
	timer timers.Timer
	left  int
}

// awaitEnd starts the repeat's timer when our end is written.
func (s *Stream) awaitEnd() {
	caps := &s.cfg.Caps
	if caps.Pacing != frame.Reported || caps.HalfClose || s.st.done || s.peerOver() {
		return
	}
	r := &repeat{s: s, left: nudges}
	s.more().repeat = r
	s.link.Timers().Set(&r.timer, r, time.Now().Add(nudgeAfter))
}

// peerOver tells whether the peer has ended its half.
func (s *Stream) peerOver() bool { return s.st.recv != recvOpen && s.st.recv != recvStopped }

// Expire implements timers.Owner.
func (r *repeat) Expire(_ *timers.Timer, now time.Time) {
	s := r.s
	s.mu.Lock()
	defer s.unlock()
	if s.st.done || s.peerOver() || r.left == 0 {
		return
	}
	r.left--
	s.ask(wantAgain)
	s.link.Timers().Set(&r.timer, r, now.Add(nudgeAfter<<(nudges-r.left)))
}

// leading is what is not written of the message that belongs to our open or
// answer, as credit counts it.
func (s *Stream) leading() int {
	switch {
	case !s.lead:
		return 0
	case s.cur.IsZero():
		return frame.Cost(s.out.Head().Len())
	}
	return s.cur.Len() - int(s.curOff)
}

// unanswered tells whether data must wait for the answer to our open.
func (s *Stream) unanswered() bool { return !s.answered && !s.cfg.Caps.Early }
