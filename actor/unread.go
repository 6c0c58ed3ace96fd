package actor

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// taken counts messages that the application has and that the stream has not accounted
// for yet.
type taken struct {
	messages int
	length   int
	bytes    int  // their length, but for the paid one
	cost     int  // and their cost
	paid     bool // the paid message is among them: see assembly
}

// add counts a message of n bytes.
func (t *taken) add(n, cost int, paid bool) { t.addSome(1, n, cost, paid) }

// addSome counts so many messages of n bytes together.
func (t *taken) addSome(messages, n, cost int, paid bool) {
	t.messages += messages
	t.length += n
	switch {
	case paid:
		t.paid = true
		return
	case cost == 0: // it has been unpacked, and was accounted for before that
		return
	}
	t.cost += cost
	t.bytes += n
}

// account returns the credit of the messages that t counts, and empties t.
func (s *Stream) account(t *taken) {
	s.messagesTaken += uint64(t.messages)
	s.mailbox.add(-t.messages, -t.length)
	if s.told != 0 && (t.length >= mixedSize || int(s.mailbox.messages)%tellTaken < t.messages) || t.length > inBytes {
		s.tellHeld()
	}
	if t.paid && s.asm != nil {
		if s.win.returned { // then it counts as unread, like any other
			s.win.gathered -= int32(s.asm.owed)
		}
		s.tookPaid(s.asm)
	}
	if t.messages > 0 {
		s.returnCredit(t.cost, t.bytes)
	}
	*t = taken{}
}

// accountOne accounts for one message, which the application gets now.
func (s *Stream) accountOne(m pool.Message) {
	var t taken
	t.add(m.Len(), pool.Cost(m), s.isPaid(m))
	s.account(&t)
}

// isPaid reports whether m's credit was returned as its fragments arrived.
func (s *Stream) isPaid(m pool.Message) bool { return s.asm != nil && s.asm.paid == m }

// tookPaid is called when the paid message has left the mailbox. The next one that arrives
// in fragments may be paid then.
func (s *Stream) tookPaid(a *assembly) {
	a.paid = pool.Message{}
	s.returnBudget(a)
	if a.active {
		a.paying = true
		s.returnCredit(a.cost, 0)
		a.cost = 0
		return
	}
	s.asm = nil
}

// returnBudget returns the memory reserved for the paid message. The arriving one keeps
// its own.
func (s *Stream) returnBudget(a *assembly) {
	keep := 0
	if a.active {
		keep = a.m.Len()
	}
	s.link.Assemble(keep - a.reserve)
	a.reserve = keep
}

// returnCredit returns cost, of messages of n bytes, to the connection, and to the peer if a
// grant is due.
func (s *Stream) returnCredit(cost, n int) {
	s.returnToConn(cost)
	s.countPayload(n)
	if s.st.recv == recvOpen {
		s.renew()
	} else {
		s.renewDropped()
	}
	if s.ch != nil && s.ch.idle != nil {
		s.ch.idle.taken()
	}
}

// renew grants the peer a window again, if it is due.
func (s *Stream) renew() {
	w := &s.win
	ahead := s.ahead()
	if !w.due(ahead) {
		return
	}
	if s.st.recv == recvOpen && !s.cfg.NoReceive {
		w.resize(s.link)
	}
	if granted := w.taken + uint64(w.size) + uint64(ahead); granted > w.granted { // else the window has become smaller
		w.granted = granted
		s.requestControl(controlCredit)
	}
}

// ahead is how much may come beyond the window: what is to come of the paid message, as far as
// there is memory for it already. Otherwise a request of 240 KiB would take 30 round trips with a
// window of 8 KiB, which does not grow until the stream is accepted. With the window it is no
// more than reserveAtOnce: beside bulk that had more, small messages of other streams were slower.
func (s *Stream) ahead() int {
	a := s.asm
	if a == nil || !a.active || !a.paying || a.total == frame.UnknownTotal {
		return 0
	}
	return max(min(a.m.Len()-a.got, reserveAtOnce-int(s.win.size)), 0)
}

// renewDropped is renew where what arrives is dropped, because this side reads no more, or
// never did, and can't tell the peer: the peer has to get to its end.
func (s *Stream) renewDropped() {
	switch s.st.recv {
	case recvStopped:
		if !s.cfg.Caps.Stop {
			s.renew()
		}
	case recvOpen:
		if s.cfg.NoReceive {
			s.renew()
		}
	}
}

// returnEvery is how much of the connection's credit a stream gathers before it returns
// it, in bytes, while more messages wait. The limit is also a quarter of the window, so
// that many streams that nobody reads keep little from others.
const returnEvery = 1 << 10

// returnToConn returns cost to the connection's credit.
func (s *Stream) returnToConn(cost int) {
	w := &s.win
	if w.returned {
		w.gathered -= int32(cost)
		return
	}
	w.taken += uint64(cost)
	if w.gathered += int32(cost); w.gathered >= min(returnEvery, w.size/4) || s.in.Len() == 0 {
		s.later().taken += w.gathered
		w.gathered = 0
	}
}

// discard returns the connection's credit for arriving data that is dropped, n payload
// bytes.
func (s *Stream) discard(cost, n int) {
	s.win.taken += uint64(cost)
	s.later().taken += int32(cost)
	s.countPayload(n)
	s.renewDropped()
}

// countDroppedIn counts n messages that arrived and that the application will not take.
func (s *Stream) countDroppedIn(n int) {
	if n > 0 {
		s.makeOutcome().droppedIn += uint64(n)
	}
}

// dropIn releases what has arrived and was not taken, a part of a message too: no more of it
// may be kept.
func (s *Stream) dropIn() {
	s.dropMailbox()
	s.dropAssembly()
}

// dropMailbox releases the messages that have arrived and were not taken.
func (s *Stream) dropMailbox() {
	s.countDroppedIn(s.in.Len())
	for m, ok := s.in.Pop(); ok; m, ok = s.in.Pop() {
		cost := pool.Cost(m)
		s.mailbox.add(-1, -m.Len())
		if cost > 0 { // else it has been unpacked, and was accounted for before that
			s.countPayload(m.Len())
		}
		if a := s.asm; a != nil && m == a.paid {
			s.tookPaid(a)
			cost = 0
		}
		m.Release()
		s.returnToConn(cost)
	}
	if s.told != 0 {
		s.tellHeld()
	}
}

// dropAssembly releases a message that will not be complete.
func (s *Stream) dropAssembly() {
	a := s.asm
	if a == nil || !a.active {
		return
	}
	a.m.Release()
	a.active, a.m = false, pool.Message{}
	s.returnToConn(a.cost)
	s.countPayload(a.got)
	a.cost = 0
	s.returnBudget(a)
	if a.paid.IsZero() {
		s.asm = nil
	}
}

// returnAllCredit returns to the connection the credit and memory of all messages that
// are here: the application may take them late, or never.
func (s *Stream) returnAllCredit() {
	w := &s.win
	if w.returned {
		return
	}
	unread := w.recvd - w.taken
	s.later().taken += int32(unread) + w.gathered
	w.taken, w.gathered, w.returned = w.recvd, int32(unread), true
	if a := s.asm; a != nil {
		s.link.Assemble(-a.reserve)
		a.reserve = 0
		if !a.paid.IsZero() { // from now on it counts as unread, like any other
			w.gathered += int32(a.owed)
			a.paid = pool.Message{}
		}
	}
}

// shrink makes the window n bytes and returns the rest to the connection.
func (s *Stream) shrink(n int) {
	from := int(s.win.size)
	s.win.size = int32(n)
	if from != n {
		s.link.Shrink(from, n)
	}
}

// ReadProgress returns how many bytes are unread, memory reserved for fragments included, and how
// many were ever taken. A message that waits for a reader of In or Batches is unread.
func (s *Stream) ReadProgress() (int, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int(s.win.recvd - s.win.taken)
	if s.asm != nil {
		n += s.asm.reserve
	}
	return n, s.win.taken
}

// Unread is how many bytes of credit are unread, also when the stream is over, and how many
// those messages take beside that.
func (s *Stream) Unread() (credit, beside int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	credit = int(s.win.recvd - s.win.taken)
	if s.win.returned {
		credit = int(s.win.gathered)
	}
	if m := int(s.mailbox.messages); m > 0 && credit > 0 {
		beside = sizeBeside(m, int(s.mailbox.bytes), s.cfg.Caps.Overhead)
	}
	return credit, beside
}

// Drop releases what is unread of a stream that is over, or that is refused. Until the refusal
// is written more may arrive of a message whose first part is here.
func (s *Stream) Drop() {
	s.mu.Lock()
	defer s.unlock()
	s.dropMailbox()
	if !s.st.wantsData() {
		s.dropAssembly()
	}
}
