package actor

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// Fill writes what the stream has to write: its control frames, then data of at
// most most bytes of credit. It returns what it used and whether there is more
// data. It is called by the one party that writes the connection.
func (s *Stream) Fill(sess frame.Session, o *frame.Out, most int, data bool) (used int, again bool) {
	s.mu.Lock()
	if data {
		s.inData = false
	} else {
		s.inControl = false
	}
	if s.want != 0 {
		s.controls(sess, o)
	}
	if !data || s.st.retired {
		s.unlock()
		return 0, false
	}
	b := s.gather(most)
	again = s.hasData() && !b.end && !s.st.retired
	if again {
		s.inData = true
	}
	s.filling = !b.piece.IsZero()
	id := s.link.ID()
	if !s.cfg.granted() {
		s.admitWaiting() // the burst freed some of the window
	}
	s.unlock()
	b.write(sess, o, id)
	if b.end || !b.piece.IsZero() {
		s.filled(b.end)
	}
	return b.used, again
}

// controls writes the control frames that are due.
func (s *Stream) controls(sess frame.Session, o *frame.Out) {
	w := s.want
	s.want = 0
	id := s.link.ID()
	e := s.ends
	if first := s.first; w&wantOpen != 0 && first != nil {
		s.first = nil
		first.Stream = id
		sess.Control(o, first)
		rejected := first.Kind == frame.Reject
		frame.PutFrame(first)
		if rejected {
			s.apply(s.st.lost())
			s.dropIn() // nobody can take it
			return
		}
	}
	if w&wantReset != 0 {
		f := o.Scratch(frame.Reset, id)
		f.Code, f.Reason = e.resetErr.Code, e.resetErr.Reason
		sess.Control(o, f)
		s.apply(s.st.resetWritten())
		return
	}
	if w&wantCredit != 0 {
		f := o.Scratch(frame.Credit, id)
		f.Value = s.win.granted
		sess.Control(o, f)
	}
	if w&wantStop != 0 {
		f := o.Scratch(frame.Stop, id)
		if e != nil {
			f.Code = e.stop
		}
		sess.Control(o, f)
	}
	if w&wantEnded != 0 {
		f := o.Scratch(frame.Ended, id)
		f.Value = s.messages
		sess.Control(o, f)
		s.st.toldHanded = true
		s.apply(s.st.settle())
	}
	if w&wantEnd != 0 && s.endDue() { // it may have gone with the last of the data
		writeEnd(sess, o, id, s.status())
		s.apply(s.st.endWritten())
	}
}

// status is what our end says, nil if it is in order.
func (s *Stream) status() *frame.Frame {
	if s.ends == nil {
		return nil
	}
	return s.ends.status
}

func writeEnd(sess frame.Session, o *frame.Out, id uint64, status *frame.Frame) {
	f := o.Scratch(frame.EOS, id)
	if status != nil {
		f.Code, f.Reason, f.Metadata = status.Code, status.Reason, status.Metadata
	}
	sess.Control(o, f)
}

// A burst is what one turn writes.
type burst struct {
	run    pool.Queue   // whole messages
	piece  pool.Message // a fragment of this one,
	off, n int          // from off to off+n of its cost
	used   int
	end    bool
	status *frame.Frame
}

// gather takes what fits into most and the stream's credit out of the queue.
func (s *Stream) gather(most int) (b burst) {
	room := min(s.cred.eligible, most)
	lead := s.lead // goes alone: what is behind it may have to wait
	if s.cur.IsZero() && !lead {
		s.gatherWhole(&b, room)
	}
	if room-b.used >= s.firstCost() {
		s.gatherPiece(&b, room-b.used)
	}
	s.cred.sent += uint64(b.used)
	if lead {
		s.lead = !s.cur.IsZero() || b.piece.IsZero()
	}
	switch {
	case s.cfg.granted():
	case lead: // it is no part of what the receiver reports
		s.cred.granted += uint64(b.used)
	default:
		s.freed(&b)
	}
	s.recount()
	if s.endDue() {
		b.end, b.status = true, s.status()
	}
	return b
}

// gatherWhole takes messages that fit as they are; all at once if they do.
func (s *Stream) gatherWhole(b *burst, room int) {
	if s.large == 0 && s.out.Cost() <= room {
		b.run, s.out = s.out, pool.Queue{}
	} else {
		b.run = s.out.Take(room, s.cfg.Caps.MaxFragment)
	}
	b.used = b.run.Cost()
}

// gatherPiece takes a fragment of the message whose turn it is.
func (s *Stream) gatherPiece(b *burst, room int) {
	if s.cur.IsZero() {
		s.cur, _ = s.out.Pop()
		s.curOff = 0
		if s.cur.Len() > s.cfg.Caps.MaxFragment {
			s.large--
		}
	}
	b.piece, b.off = s.cur, int(s.curOff)
	caps := &s.cfg.Caps
	b.n = min(room, pool.Cost(s.cur)-b.off, caps.MaxFragment+max(caps.Overhead-b.off, 0))
	b.used += b.n
	s.curOff += int32(b.n)
	if b.off+b.n == pool.Cost(s.cur) {
		s.cur = pool.Message{}
	}
}

// write encodes the burst. It runs without the stream's lock: what it works on
// was taken out of the queue.
func (b *burst) write(sess frame.Session, o *frame.Out, id uint64) {
	if b.run.Len() > 0 {
		sess.Messages(o, id, b.run)
	}
	switch {
	case b.piece.IsZero():
	case b.off == 0 && b.n == pool.Cost(b.piece):
		b.run.Push(b.piece)
		sess.Messages(o, id, b.run)
	default:
		sess.Fragment(o, id, b.piece, b.off, b.n)
	}
	if b.end {
		writeEnd(sess, o, id, b.status)
	}
}

// filled: the burst is in the output.
func (s *Stream) filled(end bool) {
	s.mu.Lock()
	defer s.unlock()
	s.filling = false
	if s.dropCur {
		s.dropCur = false
		s.forgetCur()
		s.turn() // nothing is before our end any more
	}
	if end {
		s.apply(s.st.endWritten())
	}
}
