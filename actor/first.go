package actor

import "github.com/sluicerpc/sluice/pool"

// first says what the first message of a stream is.
type first uint8

const (
	firstData    first = iota
	firstRequest       // it was too long to travel with the open
	firstReply         // it was too long to travel with the answer
)

// OnRequest has f called when the first message has come, the request, which then
// waits unread for Request. It is called by the connection's reader, before any
// message can have come.
func (s *Stream) OnRequest(f func()) {
	s.mu.Lock()
	defer s.unlock()
	e := s.more()
	e.first, e.onRequest = firstRequest, f
}

// Request takes the request that OnRequest's function was told of. It is zero if it
// was let go.
func (s *Stream) Request() pool.Message {
	s.mu.Lock()
	defer s.unlock()
	m, ok := s.in.Pop()
	if ok {
		s.took(m)
	}
	return m
}

// divert looks at what begins with the first message. A reply leaves the mailbox at
// once, for its reader need not ask for it: from now on it counts as what the answer
// brought.
func (s *Stream) divert(run *pool.Queue) {
	e := s.ends
	what := e.first
	e.first = firstData
	if what == firstRequest {
		s.later().wake, e.onRequest = e.onRequest, nil
		return
	}
	m, _ := run.Pop()
	s.took(m)
	s.link.Charge(m.Len())
	e.reply = m
	s.answer()
	s.requeue()
}

// Drop lets go what waits unread of a stream that is over.
func (s *Stream) Drop() {
	s.mu.Lock()
	defer s.unlock()
	s.dropIn()
}
