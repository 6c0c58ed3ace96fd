package actor

// GivenUp is closed when this side reads no more: after CloseReceive, Close or
// Abort here, or the handler's end. A stream that the peer has ended is read on.
func (s *Stream) GivenUp() <-chan struct{} {
	s.mu.Lock()
	defer s.unlock()
	f := s.face()
	if f.givenUp {
		return closed
	}
	if f.stop == nil {
		f.stop = make(chan struct{})
	}
	return f.stop
}

// GiveUp says that this side reads no more on a channel. What was not handed over
// stays for Receive.
func (s *Stream) GiveUp() {
	s.mu.Lock()
	defer s.unlock()
	s.stopPump()
}
