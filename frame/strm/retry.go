package strm

import (
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// A brpc server that handles the first frames of a stream before it has noted that the
// stream is connected loses what it should say about them (seen in brpc's master of
// August 2026): the report of the first messages, and the answer to a CLOSE. So a
// window that is full without any report is probed, one message at a time, as TCP probes
// a window of zero: any later report repairs it, for reports are of totals. And a CLOSE
// without an answer is sent again: the server then says that it knows no such stream.

const (
	retryAfter = 100 * time.Millisecond
	maxRetries = 3 // and each waits twice as long as the one before
)

// never is a threshold that no stream reaches.
const never = 1<<64 - 1

// A retry waits until it is time to probe a stream's window or to repeat its CLOSE.
type retry struct {
	st    *stream
	due   time.Time
	close bool
}

// retries are those of a connection, by how often they were made before. Within each
// they are in the order in which they are due, for all wait as long. The writer owns
// them.
type retries [maxRetries][]retry

func (r *retries) add(n int, st *stream, now time.Time, isClose bool) {
	r[n] = append(r[n], retry{st, now.Add(retryAfter << n), isClose})
}

// wanted tells whether the peer has not said yet what the retry is for.
func (r *retry) wanted() bool {
	if r.close {
		return r.st.is(closing)
	}
	return r.st.is(live) && r.st.reported.Load() == 0
}

// trim forgets those at the front that are not wanted any more.
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
	return at
}

// Tick implements frame.Session.
func (s *Session) Tick(o *frame.Out) {
	now := o.Now()
	for n := range s.out.retries {
		q := s.out.retries[n]
		for len(q) > 0 && !q[0].due.After(now) {
			one := q[0]
			q = q[1:]
			switch {
			case !one.wanted():
			case one.close:
				s.repeatClose(o, one.st, n+1)
			default:
				s.probe(one.st)
			}
		}
		s.out.retries[n] = q
	}
	s.out.retries.trim()
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

// windowFull has the window probed after a while, if there is no report until then.
func (s *Session) windowFull(o *frame.Out, st *stream) {
	st.probeAt = never
	if st.reported.Load() == 0 && st.probes < maxRetries {
		s.out.retries.add(int(st.probes), st, o.Now(), false)
	}
}

// probe lets one more message go, as if so much had been reported. The next report
// takes that back, as it is of a total too.
func (s *Session) probe(st *stream) {
	st.probes++
	shown := st.sent.Load() - st.window + 1
	st.probeAt = st.window + shown
	s.tell(frame.Frame{Kind: frame.Credit, Stream: st.id, Value: shown})
}

// repeatClose sends CLOSE again, for the n-th time.
func (s *Session) repeatClose(o *frame.Out, st *stream, n int) {
	s.mu.Lock()
	st.again = true
	o.Buf = s.appendOurClose(o.Buf, st)
	s.mu.Unlock()
	if n < maxRetries {
		s.out.retries.add(n, st, o.Now(), true)
	}
}
