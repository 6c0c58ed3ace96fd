package actor

import (
	"fmt"
	"math"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// What is different where the receiver does not grant credit (frame.Pacing): the
// window is the sender's own, and the receiver's protection is a cap.

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
	}
	return uint64(cfg.Caps.SendWindow)
}

func (c *Config) granted() bool { return c.Caps.Pacing == frame.Granted }

// freed gives back what a burst needs no more of the sender's own window: where
// the receiver reports the payload that it has taken, the messages' overhead;
// where it says nothing, all of it.
func (s *Stream) freed(b *burst) {
	switch s.cfg.Caps.Pacing {
	case frame.Reported:
		from, to := frame.Part(s.cfg.Caps.Overhead, b.off, b.n)
		s.cred.granted += uint64(b.used - b.run.Bytes() - (to - from))
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

// leading is what could be written of the message that belongs to our open or
// answer, as credit counts it.
func (s *Stream) leading() int {
	if !s.lead {
		return 0
	}
	n := pool.Cost(s.cur) - int(s.curOff)
	if s.cur.IsZero() {
		n = pool.Cost(s.out.Head())
	}
	if s.cfg.granted() {
		n = max(min(n, int(int64(s.cred.granted)-int64(s.cred.sent))), 0)
	}
	return n
}

// unanswered tells whether data must wait for the answer to our open.
func (s *Stream) unanswered() bool { return !s.answered && !s.cfg.Caps.Early }
