package actor

import "github.com/sluicerpc/sluice/pool"

// A Slot is the right to send one message, taken from Writable. It must be used
// or cancelled, once; the next slot is offered after that. The zero Slot, which
// a closed Writable yields, can do neither.
type Slot struct {
	s   *Stream
	gen uint32
}

// Writable offers a slot whenever there is credit and nobody holds one, and is
// closed when the sending half ends.
func (s *Stream) Writable() <-chan Slot {
	s.mu.Lock()
	defer s.unlock()
	f := s.face()
	if f.slots == nil {
		f.slots = make(chan Slot, 1)
		if s.sendErr() != nil {
			f.closeSlots()
		}
	}
	f.offerSlot(s)
	return f.slots
}

// Send hands m over by the slot's right. On an error m still belongs to the
// caller.
func (t Slot) Send(m pool.Message) error {
	s := t.s
	if s == nil {
		return ErrSlotUsed
	}
	s.mu.Lock()
	defer s.unlock()
	if !s.f.returnSlot(t) {
		return ErrSlotUsed
	}
	err := s.check(m)
	if err == nil {
		s.accept(m)
	}
	s.f.offerSlot(s)
	return err
}

// Cancel gives the slot back unused. After Send it does nothing, so that it can
// be deferred.
func (t Slot) Cancel() {
	s := t.s
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.unlock()
	if s.f.returnSlot(t) {
		s.admitWaiting()
	}
}

func (f *faces) returnSlot(t Slot) bool {
	if t.gen != f.slotGen || !f.slotOut {
		return false
	}
	f.slotGen++
	f.slotOut = false
	return true
}

// offerSlot puts a slot into the channel if one can be used now.
func (f *faces) offerSlot(s *Stream) {
	if f.slots == nil || f.slotsClosed || f.slotOut || f.waitHead != nil || !s.st.canSend() || !s.canAccept() {
		return
	}
	f.slotOut = true
	f.slots <- Slot{s, f.slotGen} // has room: only we send, and nothing is offered
	if !f.slotKnown {
		f.slotKnown, s.later().slot = true, true
	}
}

// withdrawSlot takes an untaken slot back when others used the credit up.
func (f *faces) withdrawSlot(s *Stream) {
	if s.cred.left() <= 0 {
		f.takeBack()
	}
}

// takeBack takes an untaken slot back; false if there is none.
func (f *faces) takeBack() bool {
	if !f.slotOut || f.slotsClosed {
		return false
	}
	select {
	case <-f.slots:
		f.slotGen++
		f.slotOut = false
		return true
	default: // somebody has it
		return false
	}
}

// RoomGone is called when other streams have used up the connection's room: an
// untaken slot is withdrawn, and offered again when its turn for room comes.
func (s *Stream) RoomGone() {
	s.mu.Lock()
	defer s.unlock()
	f := s.f
	if f.slotKnown = false; f.takeBack() {
		f.offerSlot(s)
	}
}

func (f *faces) closeSlots() {
	if f.slots == nil || f.slotsClosed {
		return
	}
	f.slotsClosed = true
	select {
	case <-f.slots:
	default:
	}
	close(f.slots)
}
