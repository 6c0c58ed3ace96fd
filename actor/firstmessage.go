package actor

import (
	"context"

	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// OnRequest says that the first message is the request, and calls f when it has arrived.
// The request stays unread until Request. The connection's reader calls OnRequest, before
// any message can arrive.
func (s *Stream) OnRequest(f func()) {
	s.mu.Lock()
	defer s.unlock()
	oc := s.makeOutcome()
	oc.firstMessage, oc.onRequest = firstRequest, f
}

// HoldRequest keeps the request that came with the open, for TakeRequest. It is called
// before the stream is shared.
func (s *Stream) HoldRequest(m pool.Message) {
	oc := s.makeOutcome()
	oc.request, oc.hasRequest = m, true
}

// ReadRequest moves the request from the mailbox to where HoldRequest would have put it. It
// is called after the function given to OnRequest. The error, the stream's, is that the
// request came compressed and can't be unpacked. A request that was dropped is none.
func (s *Stream) ReadRequest() error {
	s.mu.Lock()
	m, ok := s.in.Pop()
	if !ok {
		s.unlock()
		return nil
	}
	s.accountOne(m)
	s.unlock()
	m, err := s.unpack(m)
	s.mu.Lock()
	defer s.unlock()
	oc := s.makeOutcome()
	oc.request, oc.hasRequest = m, err == nil
	return err
}

// TakeRequest returns the request that is kept, once. The caller owns it.
func (s *Stream) TakeRequest() (m pool.Message, ok bool) {
	s.mu.Lock()
	defer s.unlock()
	if oc := s.outcome; oc != nil && oc.hasRequest {
		m, oc.request, oc.hasRequest = oc.request, pool.Message{}, false
		return m, true
	}
	return m, false
}

// ReceiveOnly returns the request, which is kept or is the first message. It is the only one: if
// another message is here, or comes while the stream is open, the stream is reset with
// status.Unimplemented. ReceiveOnly is called once, before any message is received.
func (s *Stream) ReceiveOnly(ctx context.Context) (pool.Message, error) {
	s.mu.Lock()
	if s.requests = oneRequest; s.outcome == nil || !s.outcome.hasRequest {
		s.unlock()
		return s.Receive(ctx)
	}
	m := s.outcome.request
	s.outcome.request, s.outcome.hasRequest = pool.Message{}, false
	s.requestTaken()
	s.unlock()
	return m, nil
}

// requestTaken is called when the only request was taken.
func (s *Stream) requestTaken() {
	s.requests = requestHere
	if s.in.Len() > 0 || s.asm != nil && s.asm.active {
		s.resetSecond()
	}
}

// resetSecond resets the stream because of a second request. Nobody reads it.
func (s *Stream) resetSecond() {
	s.abort(s.fail(status.Unimplemented, "more than one request", false))
	s.dropIn()
}

// dropRequest releases the request that is kept.
func (s *Stream) dropRequest() {
	if oc := s.outcome; oc != nil {
		oc.request.Release()
		oc.request, oc.hasRequest = pool.Message{}, false
	}
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
