package actor

// A Slot is the right to send one message, received from Writable. Its owner calls Send
// or Cancel, once; only then can the stream offer another one. The zero Slot, which a
// closed Writable yields, can do neither.
type Slot struct {
	s   *Stream
	gen uint32
}

// returnSlot reports whether t is the slot that is out, which it no longer is then.
func (ch *channels) returnSlot(t Slot) bool {
	if t.gen != ch.slotGen || !ch.slotOut {
		return false
	}
	ch.slotGen++
	ch.slotOut = false
	return true
}

// offerSlot puts a slot into the channel if it could be used now.
func (s *Stream) offerSlot(ch *channels) {
	if ch.slots == nil || ch.slotsClosed || ch.slotOut || !ch.waiters.empty() || !s.st.canSend() {
		return
	}
	if !s.canAccept() {
		if ch.slotSince == 0 {
			ch.slotSince = stampNow()
		}
		return
	}
	ch.slotSince = 0
	ch.slotOut = true
	ch.slots <- Slot{s, ch.slotGen} // never waits: only we send, and the channel is empty
	if !ch.slotWatched {
		ch.slotWatched, s.later().full = true, true
	}
}

// withdrawSlot takes the slot out of the channel if others have used up the credit.
func (s *Stream) withdrawSlot(ch *channels) {
	if s.cred.left() <= 0 || s.backlogged() {
		ch.takeBackSlot()
	}
}

// takeBackSlot takes the slot out of the channel. It reports false if there is none.
func (ch *channels) takeBackSlot() bool {
	if !ch.slotOut || ch.slotsClosed {
		return false
	}
	select {
	case <-ch.slots:
		ch.slotGen++
		ch.slotOut = false
		ch.slotSince = stampNow()
		return true
	default: // the application has it
		return false
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

// RoomGone is called when other streams have used up the connection's room. It withdraws
// the slot, and offers it again once the connection has room for this stream.
func (s *Stream) RoomGone() {
	s.mu.Lock()
	defer s.unlock()
	ch := s.ch
	if ch.slotWatched = false; ch.takeBackSlot() {
		s.offerSlot(ch)
	}
}
