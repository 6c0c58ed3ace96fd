package actor

import "time"

// SendDone returns a channel that is closed when the stream accepts no more messages.
func (s *Stream) SendDone() <-chan struct{} {
	s.mu.Lock()
	defer s.unlock()
	ch := s.makeChannels()
	if ch.sendDone == nil {
		if s.sendErr() != nil {
			ch.sendOver, ch.sendDone = true, closed
			return closed
		}
		ch.sendDone = make(chan struct{})
	}
	return ch.sendDone
}

// Done returns a channel that is closed when both halves have ended and nothing changes
// any more.
func (s *Stream) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.unlock()
	return s.doneLocked()
}

func (s *Stream) doneLocked() <-chan struct{} {
	ch := s.makeChannels()
	if ch.done == nil {
		if s.st.done {
			return closed
		}
		ch.done = make(chan struct{})
	}
	return ch.done
}

// ContextDone returns the Done channel of the stream's context. It is closed when the
// stream has ended, or EndContext was called.
func (s *Stream) ContextDone() <-chan struct{} {
	s.mu.Lock()
	defer s.unlock()
	ch := s.makeChannels()
	if ch.ctxDone == nil {
		if s.contextOver {
			ch.ctxDone = closed
		} else {
			ch.ctxDone = make(chan struct{})
		}
	}
	return ch.ctxDone
}

// EndContext ends the stream's context, after the handler has returned.
func (s *Stream) EndContext() {
	s.mu.Lock()
	defer s.unlock()
	s.endContext()
}

func (s *Stream) endContext() {
	if s.ch != nil && s.ch.ctxDone != nil && !s.contextOver {
		close(s.ch.ctxDone)
	}
	s.contextOver = true
}

// ContextOver reports whether the stream's context has ended, and the stream's failure if
// that was why.
func (s *Stream) ContextOver() (bool, error) {
	s.mu.Lock()
	defer s.unlock()
	return s.contextOver, s.errLocked()
}

// Idle returns a channel that offers the time of the last message once the stream has been
// silent for its IdleTimeout. It is nil if there is no such timeout.
func (s *Stream) Idle() <-chan time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := s.ch
	if ch == nil || ch.idle == nil {
		return nil
	}
	if ch.idle.ch == nil {
		ch.idle.start()
	}
	return ch.idle.ch
}
