package strm

import (
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// A brpc server that handles the first frames of a stream before it has marked the stream
// as connected never answers them (seen in brpc's master of August 2026): neither the
// report of the first messages nor the answer to a CLOSE comes. So a window that is full
// without any report is probed, one message at a time, as TCP probes a zero window: any
// later report makes up for the lost one, since reports are totals. And a CLOSE without
// an answer is repeated: the server then answers that the stream is unknown.

const (
	retryAfter = 100 * time.Millisecond
	maxRetries = 3 // and each waits twice as long as the one before
)

// never is a threshold that no stream reaches.
const never = 1<<64 - 1

// retryKind is what is done when its time has come.
type retryKind uint8

const (
	retryWindow retryKind = iota // probe the stream's window
	retryClose                   // repeat its CLOSE
	retryAsk                     // ask whether the peer knows it
	retryReady                   // let the kernel send on it
	retryEnd                     // write its end, which was held back
)

// A retry waits until it is time to do something for a stream.
type retry struct {
	st   *stream
	due  time.Time
	kind retryKind
}

// retries are those of a connection, by the number of attempts before, and at last those
// of streams that settle. Each list is in the order in which the retries are due, since
// all in it wait equally long. The writer owns them.
type retries [maxRetries + 1][]retry

// settling is the list of what waits for Protocol.Settle.
const settling = maxRetries

func (r *retries) add(n int, st *stream, due time.Time, k retryKind) {
	r[n] = append(r[n], retry{st, due, k})
}

// wanted tells whether the peer has still not sent what the retry waits for.
func (r *retry) wanted() bool {
	switch r.kind {
	case retryClose:
		return r.st.is(closeSent)
	case retryAsk:
		return r.st.is(established) && !r.st.heard.Load()
	case retryReady:
		return r.st.waits.Load()
	case retryEnd:
		return r.st.held.Load() != 0
	}
	return r.st.is(established) && r.st.reported.Load() == 0
}

// trim drops the retries at the front that are no longer wanted.
func (r *retries) trim() {
	for n := range r {
		q := r[n]
		for len(q) > 0 && !q[0].wanted() {
			q = q[1:]
		}
		if r[n] = q; len(q) == 0 {
			r[n] = nil
		}
	}
}

// Wake implements frame.Session.
func (s *Session) Wake() (at time.Time) {
	r := &s.out.retries
	r.trim()
	for _, q := range r {
		if len(q) > 0 && (at.IsZero() || q[0].due.Before(at)) {
			at = q[0].due
		}
	}
	if g := s.out.growAt; !g.IsZero() && (at.IsZero() || g.Before(at)) {
		at = g
	}
	return at
}

// Tick implements frame.Session.
func (s *Session) Tick(o *frame.Out) {
	now := o.Now()
	s.grow(now)
	for n := range s.out.retries {
		q := s.out.retries[n]
		for len(q) > 0 && !q[0].due.After(now) {
			one := q[0]
			q = q[1:]
			s.out.retries[n] = q
			if one.wanted() {
				s.retry(o, &one, n+1)
			}
			q = s.out.retries[n]
		}
	}
	s.out.retries.trim()
}

// retry does, for the n-th time, what r is for.
func (s *Session) retry(o *frame.Out, r *retry, n int) {
	switch r.kind {
	case retryWindow:
		s.probe(r.st)
	case retryClose:
		s.repeatClose(o, r.st, n)
	case retryAsk:
		s.ask(o, r.st, n)
	case retryReady:
		s.ready(o, r.st)
	case retryEnd:
		s.mu.Lock()
		s.writeHeld(o, r.st)
		s.mu.Unlock()
	}
}

// window is how many bytes a stream of a request may have unread at the peer; 0 is no
// bound.
func window(gs []frame.Grant, i int) uint64 {
	switch {
	case i >= len(gs) || gs[i].Limit == 0:
		return sendWindow
	case gs[i].Limit >= unlimited:
		return 0
	}
	return gs[i].Limit
}

// sent counts n bytes of payload that are written to a stream.
func (s *Session) sent(o *frame.Out, st *stream, n int) {
	if total := st.sent.Add(uint64(n)); total >= st.probeAt {
		s.windowFull(o, st)
	}
}

// windowFull schedules a probe of the window, unless there was a report or the probes are
// used up.
func (s *Session) windowFull(o *frame.Out, st *stream) {
	st.probeAt = never
	if st.reported.Load() == 0 && st.probes < maxRetries {
		s.out.retries.add(int(st.probes), st, o.Now().Add(retryAfter<<st.probes), retryWindow)
	}
}

// probe allows one more message, by an event as if the peer had reported enough for it.
// The next report corrects that, since it is a total too.
func (s *Session) probe(st *stream) {
	st.probes++
	reported := st.sent.Load() - st.window + 1
	st.probeAt = st.window + reported
	s.emitEvent(frame.Frame{Kind: frame.Credit, Stream: st.id, Value: reported})
}

// repeatClose sends CLOSE again, for the n-th time.
func (s *Session) repeatClose(o *frame.Out, st *stream, n int) {
	s.mu.Lock()
	st.closeRepeated = true
	o.Buf = s.appendOurClose(o.Buf, st)
	s.mu.Unlock()
	if n < maxRetries {
		s.out.retries.add(n, st, o.Now().Add(retryAfter<<n), retryClose)
	}
}
