package actor

import "cmp"

// apply does what a step of the state machine asks for.
func (s *Stream) apply(fx effect) {
	if fx&fxDropOut != 0 {
		s.dropOut()
	}
	if fx&fxSendOver != 0 {
		s.sendOver()
	}
	if fx&fxDropIn != 0 {
		s.dropIn()
	}
	if fx&fxWriteStop != 0 {
		s.requestControl(controlStop)
	}
	if fx&fxWriteReset != 0 {
		s.requestControl(controlReset)
	}
	if fx&fxWriteEnd != 0 {
		s.requestData()
	}
	if fx&fxRecvOver != 0 {
		s.recvOver()
	}
	if s.st.peerEnd != endUnseen && !s.st.sentEnded && s.control&controlEnded == 0 && !s.st.done && !s.pumping {
		s.requestControl(controlEnded) // not while a goroutine feeds a channel: ENDED counts what it has delivered
	}
	if fx&fxDone != 0 {
		s.over()
	}
	if fx&fxRetire != 0 {
		s.retire()
	}
}

// retire takes the stream out of the connection and returns all that it has of it.
func (s *Stream) retire() {
	s.later().retire = true
	if s.firstFrame != nil { // then nothing that comes behind it may be written either
		s.control = 0
		s.dropFirstFrame()
	}
	s.win.size = 0
	s.dropAssembly()
	s.returnAllCredit()
	s.post.queued += s.uncounted
	s.uncounted = 0
	s.endHeld()
	s.countUnreported()
}

// over closes the channels that announce the stream's end: nothing changes any more.
func (s *Stream) over() {
	s.endContext()
	ch := s.ch
	if ch == nil {
		return
	}
	if ch.done != nil {
		close(ch.done)
	}
	if ch.idle != nil {
		ch.idle.stop()
	}
}

// sendOver fails the waiting senders and closes SendDone and Writable: no message is
// accepted any more.
func (s *Stream) sendOver() {
	ch := s.ch
	if ch == nil {
		return
	}
	err := s.sendErr()
	for w := ch.waiters.pop(); w != nil; w = ch.waiters.pop() {
		w.ready <- err
	}
	s.tellHeld()
	if ch.sendOver {
		return
	}
	ch.sendOver = true
	if ch.sendDone != nil {
		close(ch.sendDone)
	}
	ch.closeSlots()
}

// recvOver is called when no more messages will arrive. Readers see the end after the
// messages that are here.
func (s *Stream) recvOver() {
	if s.st.recv != recvEnded {
		s.dropAssembly()
	}
	ch := s.ch
	if ch == nil {
		return
	}
	s.closeInbound(ch)
	ch.wakeReceiver()
}

// closeInbound closes the receive channel if all messages were delivered, or no more
// will be. It is called when no more can arrive.
func (s *Stream) closeInbound(ch *channels) {
	if ch.inbound == channelNone || s.pumping || ch.inboundClosed || s.in.Len() > 0 && !ch.feedStopped {
		return
	}
	ch.inboundClosed = true
	if s.in.Len() > 0 && s.st.recv == recvEnded && s.errLocked() == nil {
		s.makeOutcome().channelErr = cmp.Or(ch.cut, ErrClosed) // else it would look as if all had been read
	}
	if ch.inbound == channelIn {
		close(ch.in.c)
	} else {
		close(ch.batches)
	}
	s.apply(s.st.endSeen())
}

// markAnswered wakes those who wait for the peer's answer.
func (s *Stream) markAnswered() {
	s.answered = true
	if s.ch != nil && s.ch.answered != nil {
		close(s.ch.answered)
		s.ch.answered = nil
		if *s.ch == (channels{}) { // it was made only for this
			s.ch = nil
		}
	}
}
