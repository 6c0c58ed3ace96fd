package actor

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// Fill encodes the control frames that are due and, with data, messages of at most most
// bytes of credit. It returns the credit used, and whether there is more data. Only the
// party that writes the connection calls it.
func (s *Stream) Fill(sess frame.Session, o *frame.Out, most int, data bool) (used int, again bool) {
	s.mu.Lock()
	if data {
		s.dataRequested = false
	} else {
		s.controlRequested = false
	}
	if s.control != 0 {
		s.writeControl(sess, o)
	}
	if !data || s.st.retired {
		s.unlock()
		return 0, false
	}
	b := s.gather(most)
	again = s.hasData() && !b.end && !s.st.retired
	if again {
		s.dataRequested = true
	}
	if !b.piece.IsZero() {
		s.filling = filling
	}
	id := s.link.ID()
	if !s.cfg.granted() {
		s.admitWaiting() // the burst has freed a part of our window
	}
	s.unlock()
	b.write(sess, o, id)
	if b.end || !b.piece.IsZero() {
		s.filled(b.end)
	}
	return b.used, again
}

// writeControl encodes the control frames that are due.
func (s *Stream) writeControl(sess frame.Session, o *frame.Out) {
	c := s.control
	s.control = 0
	id := s.link.ID()
	oc := s.outcome
	if opening := s.firstFrame; c&controlOpen != 0 && opening != nil {
		s.firstFrame = nil
		opening.Stream = id
		sess.Control(o, opening)
		rejected, code := opening.Kind == frame.Reject, opening.Code
		frame.PutFrame(opening)
		if rejected {
			s.makeOutcome().refused = code
			s.apply(s.st.lost())
			s.dropIn() // nobody can receive it
			return
		}
	}
	if c&controlReset != 0 {
		f := o.Scratch(frame.Reset, id)
		f.Code, f.Reason = oc.resetErr.Code, oc.resetErr.Reason
		sess.Control(o, f)
		s.apply(s.st.resetWritten())
		return
	}
	if c&controlCredit != 0 {
		f := o.Scratch(frame.Credit, id)
		f.Value = s.win.granted
		sess.Control(o, f)
	}
	if c&controlStop != 0 {
		f := o.Scratch(frame.Stop, id)
		if oc != nil {
			f.Code = oc.stop
		}
		sess.Control(o, f)
	}
	if c&controlEnded != 0 {
		f := o.Scratch(frame.Ended, id)
		f.Value = s.messagesTaken
		sess.Control(o, f)
		s.st.sentEnded = true
		s.apply(s.st.checkDone())
	}
	if c&controlEnd != 0 && s.endDue() { // the end may have been written with the last data
		writeEnd(sess, o, id, s.status())
		s.apply(s.st.endWritten())
	}
}

// A burst is the data that one call of Fill writes, in this order.
type burst struct {
	run    pool.Queue   // whole messages
	piece  pool.Kept    // a fragment of this one:
	off, n int32        // from off to off+n of its cost; small, because it is on a flush's stack
	used   int          // credit of both, bytes
	status *frame.Frame // with end; nil: code OK alone

	complete int32 // messages that end in it
	end      bool  // our end
}

// gather takes out of the queue what most and the stream's credit allow.
func (s *Stream) gather(most int) (b burst) {
	room := min(s.cred.eligible, most)
	alone := s.opensWith // alone: the data behind it may have to wait for the answer
	if s.partial.IsZero() && !alone {
		s.gatherWhole(&b, room)
	}
	if room-b.used >= s.leastCost() && (b.used == 0 || !pool.IsBundle(s.out.Head())) { // a bundle has the next turn
		s.gatherPiece(&b, room-b.used)
	}
	s.cred.sent += uint64(b.used)
	s.sent.add(int(b.complete), b.payload(s.cfg.Caps.Overhead))
	if alone {
		s.opensWith = !s.partial.IsZero() || b.piece.IsZero()
	}
	switch {
	case s.cfg.granted():
	case alone: // the receiver does not report this message
		s.cred.granted += int64(b.used)
	default:
		s.freed(b.used, b.payload(s.cfg.Caps.Overhead))
	}
	s.recount()
	if s.endDue() {
		b.end, b.status = true, s.status()
	}
	return b
}

// gatherWhole takes whole messages: the entire queue if that fits.
func (s *Stream) gatherWhole(b *burst, room int) {
	if s.large == 0 && s.out.Cost() <= room {
		b.run, s.out = s.out, pool.Queue{}
	} else {
		b.run = s.out.Take(room, s.cfg.Caps.MaxFragment)
	}
	b.used, b.complete = b.run.Cost(), int32(b.run.Len())
}

// gatherPiece takes a fragment of the partial message, or of the next one.
func (s *Stream) gatherPiece(b *burst, room int) {
	m := s.partial.Message()
	if s.partial.IsZero() {
		m, _ = s.out.Pop()
		s.partial, s.partialSent = pool.Keep(m), 0
		if m.Len() > s.cfg.Caps.MaxFragment {
			s.large--
		}
	}
	b.piece, b.off = pool.Keep(m), s.partialSent
	off := int(b.off)
	caps := &s.cfg.Caps
	n := min(room, pool.Cost(m)-off, caps.MaxFragment+max(caps.Overhead-off, 0))
	b.n = int32(n)
	b.used += n
	s.partialSent += b.n
	if off+n == pool.Cost(m) {
		b.complete++
		s.partial = pool.Kept{}
	}
}

// payload is how many bytes of messages b has, where a message costs overhead bytes more.
func (b *burst) payload(overhead int) int {
	from, to := frame.Part(overhead, int(b.off), int(b.n))
	return b.run.Bytes() + to - from
}

// write encodes b. It needs no lock: gather has taken b out of the queue.
func (b *burst) write(sess frame.Session, o *frame.Out, id uint64) {
	o.Messages += uint64(b.complete)
	if b.run.Len() > 0 {
		sess.Messages(o, id, b.run)
	}
	switch {
	case b.piece.IsZero():
	case b.off == 0 && int(b.n) == pool.Cost(b.piece.Message()):
		b.run.Push(b.piece.Message())
		sess.Messages(o, id, b.run)
	default:
		sess.Fragment(o, id, b.piece.Message(), int(b.off), int(b.n))
	}
	if b.end {
		writeEnd(sess, o, id, b.status)
	}
}

// writeEnd encodes the end of our half.
func writeEnd(sess frame.Session, o *frame.Out, id uint64, status *frame.Frame) {
	f := o.Scratch(frame.EOS, id)
	if status != nil {
		f.Code, f.Reason, f.Metadata = status.Code, status.Reason, status.Metadata
	}
	sess.Control(o, f)
}

// filled is called when a burst with a fragment or an end has been encoded.
func (s *Stream) filled(end bool) {
	s.mu.Lock()
	defer s.unlock()
	if s.filling == fillingDropped {
		s.forgetPartial()
		s.requestData() // our end may be due now
	}
	s.filling = notFilling
	if end {
		s.apply(s.st.endWritten())
	}
}
