package actor

import (
	"math"

	"github.com/sluicerpc/sluice/pool"
)

// requestData asks for a call of Fill if there is data that could be written. An end
// with no data before it needs no credit. It goes with the control frames, so that it
// does not wait until other streams get credit.
func (s *Stream) requestData() {
	switch {
	case s.dataRequested && s.st.send != sendEnding, s.st.retired, !s.hasData():
	case s.cfg.granted() && s.endDue():
		s.requestControl(controlEnd)
	case !s.dataRequested:
		s.dataRequested, s.later().ready = true, true
	}
}

// hasData reports whether Fill could write data or our end.
func (s *Stream) hasData() bool {
	if s.awaitsAnswer() && !s.opensWith {
		return false
	}
	if s.endDue() {
		return true
	}
	return s.cred.eligible >= s.leastCost()
}

// leastCost is the least credit that the next piece costs. The first piece of a message
// costs its overhead too.
func (s *Stream) leastCost() int {
	switch {
	case !s.partial.IsZero():
		return 1
	case s.out.Len() == 0:
		return math.MaxInt
	}
	return min(pool.Cost(s.out.Head()), s.cfg.Caps.LeastPiece)
}

// endDue reports whether our end is the next thing to write.
func (s *Stream) endDue() bool {
	return s.st.send == sendEnding && s.out.Len() == 0 && s.partial.IsZero()
}

// requeue tells the connection how much it could write now, and asks for a call of Fill
// if that is something.
func (s *Stream) requeue() {
	s.recount()
	s.requestData()
}

// requeueOne is requeue after one message of that cost was queued. While all messages
// have credit, there is nothing to compute again.
func (s *Stream) requeueOne(cost int) {
	c := &s.cred
	c.admitted += uint64(cost)
	if !s.cfg.granted() || int64(c.admitted) > c.granted || s.awaitsAnswer() {
		s.requeue()
		return
	}
	c.eligible += cost
	s.count(cost)
	if !s.dataRequested {
		s.requestData()
	}
}

// recount is requeue without the call of Fill. Data that waits for the answer to our
// open does not count: it would take room from other streams.
func (s *Stream) recount() {
	switch {
	case s.awaitsAnswer():
		s.count(s.cred.set(s.openLeft()))
	case s.cfg.granted():
		s.count(s.cred.update(false))
	default:
		s.count(s.cred.update(true))
		s.countUnreported()
	}
	if s.hasUnsent() || s.starvedSince != 0 {
		s.noteStarved()
		s.tellHeld()
	} else if s.told != 0 {
		s.tellHeld()
	}
}

// countEvery is the most bytes that a stream may have queued without telling the
// connection. So it tells once for many small messages. Where many streams are open, it is
// less: see Link.Uncounted.
const countEvery = 4 << 10

// leastUncounted is what a stream may always have queued without telling, in bytes.
const leastUncounted = 256

// count adds d to the bytes to write, and tells the connection if it is time to.
func (s *Stream) count(d int) {
	if s.uncounted += int32(d); s.uncounted < 0 || s.uncounted >= int32(s.countAt) {
		s.later().queued += s.uncounted
		s.uncounted = 0
		s.countAt = uint16(s.mostUncounted())
		s.tellHeld()
	}
}

func (s *Stream) mostUncounted() int { return min(max(s.link.Uncounted(), leastUncounted), countEvery) }

// dropOut drops what was accepted and not written.
func (s *Stream) dropOut() {
	s.countDroppedOut(s.out.Len())
	s.out.Release()
	s.large, s.opensWith = 0, false
	if s.filling == notFilling {
		s.forgetPartial()
	} else {
		s.filling = fillingDropped
	}
	s.cred.drop()
	s.requeue()
}

// countDroppedOut counts n messages that were accepted and will not be written.
func (s *Stream) countDroppedOut(n int) {
	if n > 0 {
		s.makeOutcome().droppedOut += uint64(n)
	}
}

// forgetPartial leaves the partial message to the garbage collector: the connection may
// still be writing fragments of it.
func (s *Stream) forgetPartial() {
	if !s.partial.IsZero() {
		s.countDroppedOut(1)
	}
	pool.Forget(s.partial.Message())
	s.partial, s.partialSent, s.starvedSince = pool.Kept{}, 0, 0
}

// openLeft is what may be written now of the message that belongs to our open or answer,
// in bytes of credit.
func (s *Stream) openLeft() int {
	if !s.opensWith {
		return 0
	}
	n := pool.Cost(s.partial.Message()) - int(s.partialSent)
	if s.partial.IsZero() {
		n = pool.Cost(s.out.Head())
	}
	if s.cfg.granted() {
		n = max(min(n, int(s.cred.granted-int64(s.cred.sent))), 0)
	}
	return n
}

// canAccept reports whether the stream and the connection have credit for one more
// message. An offer has none until it is accepted.
func (s *Stream) canAccept() bool { return s.accepts(false) }

// canAdmit is canAccept for a sender that waits until it may. Its message takes memory while it
// waits, too: so a stream of which little is unwritten needs no room in the queue, which a large
// message of another stream may take up for long. The connection gives each its turn.
func (s *Stream) canAdmit() bool {
	if !s.accepts(int64(s.cred.admitted)-int64(s.cred.sent) <= int64(s.mostUncounted())) {
		return false
	}
	s.post.room = false // for this sender it was asked for a moment ago
	return true
}

func (s *Stream) accepts(little bool) bool {
	if s.sendsHeld || s.cred.left() <= 0 || !s.cfg.granted() && (s.backlogged() || s.crowdedOut()) {
		return false
	}
	if !s.link.Room(little) {
		s.later().room = true
		return false
	}
	return true
}

// hasCredit reports whether one more message may be accepted now: canAccept, and no
// other sender waits.
func (s *Stream) hasCredit() bool {
	if s.ch != nil && !s.ch.waiters.empty() {
		return false
	}
	return s.canAccept()
}

// needNotWait is hasCredit for a sender that waits otherwise.
func (s *Stream) needNotWait() bool {
	return (s.ch == nil || s.ch.waiters.empty()) && s.canAdmit()
}
