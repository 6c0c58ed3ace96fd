package actor

import "github.com/sluicerpc/sluice/pool"

// OnRequest says that the first message is the request, and calls f when it has arrived.
// The request stays unread until Request. The connection's reader calls OnRequest, before
// any message can arrive.
func (s *Stream) OnRequest(f func()) {
	s.mu.Lock()
	defer s.unlock()
	oc := s.makeOutcome()
	oc.firstMessage, oc.onRequest = firstRequest, f
}

// Request takes the request. It is called after the function given to OnRequest. It returns
// the zero Message if the request was dropped, and an error, the stream's, if it came
// compressed and can't be unpacked.
func (s *Stream) Request() (pool.Message, error) {
	s.mu.Lock()
	m, ok := s.in.Pop()
	if ok {
		s.accountOne(m)
	}
	s.unlock()
	return s.unpack(m)
}

// takeFirst is called when the first message has arrived, at the head of run. A reply does
// not go into the mailbox: Answer returns it, and it counts as kept from now on.
func (s *Stream) takeFirst(run *pool.Queue) {
	oc := s.outcome
	kind := oc.firstMessage
	oc.firstMessage = firstData
	if kind == firstRequest {
		s.later().wake, oc.onRequest = oc.onRequest, nil
		return
	}
	m, _ := run.Pop()
	s.accountOne(m)
	s.link.Charge(m.Len())
	oc.reply = m
	s.markAnswered()
	s.requeue()
}
