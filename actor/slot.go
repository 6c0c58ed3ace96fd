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
	ch := s.makeChannels()
	if ch.slots == nil {
		ch.slots = make(chan Slot, 1)
		if s.sendErr() != nil {
			ch.closeSlots()
		}
	}
	ch.offerSlot(s)
	return ch.slots
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
	if !s.ch.returnSlot(t) {
		return ErrSlotUsed
	}
	err := s.check(m)
	if err == nil {
		s.accept(m)
	}
	s.ch.offerSlot(s)
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
	if s.ch.returnSlot(t) {
		s.admitWaiting()
	}
}

func (ch *channels) returnSlot(t Slot) bool {
	if t.gen != ch.slotGen || !ch.slotOut {
		return false
	}
	ch.slotGen++
	ch.slotOut = false
	return true
}

// offerSlot puts a slot into the channel if one can be used now.
func (ch *channels) offerSlot(s *Stream) {
	if ch.slots == nil || ch.slotsClosed || ch.slotOut || ch.waitHead != nil || !s.st.canSend() || !s.canAccept() {
		return
	}
	ch.slotOut = true
	ch.slots <- Slot{s, ch.slotGen} // has room: only we send, and nothing is offered
	if !ch.slotWatched {
		ch.slotWatched, s.later().slot = true, true
	}
}

// withdrawSlot takes an untaken slot back when others used the credit up.
func (ch *channels) withdrawSlot(s *Stream) {
	if s.cred.left() <= 0 {
		ch.takeBackSlot()
	}
}

// takeBack takes an untaken slot back; false if there is none.
func (ch *channels) takeBackSlot() bool {
	if !ch.slotOut || ch.slotsClosed {
		return false
	}
	select {
	case <-ch.slots:
		ch.slotGen++
		ch.slotOut = false
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
	ch := s.ch
	if ch.slotWatched = false; ch.takeBackSlot() {
		ch.offerSlot(s)
	}
}

func (ch *channels) closeSlots() {
	if ch.slots == nil || ch.slotsClosed {
		return
	}
	ch.slotsClosed = true
	select {
	case <-ch.slots:
	default:
	}
	close(ch.slots)
}
