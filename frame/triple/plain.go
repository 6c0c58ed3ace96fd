package triple

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// Requests that are no calls of gRPC's are answered here: with a status of HTTP's, and a body
// that says why, which keeps to the windows as any data does. The kernel does not hear of them.

// A plain is the answer to such a request.
type plain struct {
	code    int
	granted int64 // the stream's window, from its start; the reader's

	// The writer's.
	known  bool   // it was told of the answer
	credit int64  // the window, as the writer was told
	body   string // what was not written
	sent   int64
	headed bool
	due    time.Time // when it is written, whether or not the request has ended
}

// plainWait is how long an answer waits for the end of its request: what breaks HTTP/2's rules
// on the way there is an error of the stream, which the answer would end.
const plainWait = 100 * time.Millisecond

// plainReserve is how much of the connection's window is kept back for bodies of answers,
// bytes. What they take of it comes back with the window that the peer grants next.
const plainReserve = 1 << 10

// plains is what the session knows of all plain answers.
type plains struct {
	open  atomic.Int32 // streams with one
	used  atomic.Int64 // bytes that were sent of bodies
	taken atomic.Int64 // bytes of granted credit that have refilled the reserve
}

// room is how many bytes of bodies the connection's window has room for.
func (p *plains) room() int64 { return plainReserve + p.taken.Load() - p.used.Load() }

// refill takes of n bytes of new credit what is missing in the reserve, and returns the rest.
func (p *plains) refill(n uint64) (rest uint64) {
	missing := min(uint64(p.used.Load()-p.taken.Load()), n)
	p.taken.Add(int64(missing))
	return n - missing
}

// answer has the writer answer a request.
func (s *Session) answer(st *stream, code int, why string) {
	if int(s.plains.open.Load()) >= s.in.maxStreams {
		s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: replyReset, Code: status.Refused, Reason: "too many streams"})
		return
	}
	window := s.in.peer.initialWindow
	a := &plain{code: code, granted: int64(window), body: why + "\n"}
	st.more().plain.Store(a)
	s.plains.open.Add(1)
	v := uint64(replyHTTP)
	if !st.is(recvEnd) {
		v = replyLater
	}
	s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: v, Code: status.Code(window), Reason: why})
}

// plainCredit takes a WINDOW_UPDATE of a stream that the kernel does not know.
func (s *Session) plainCredit(st *stream, n uint32) {
	a := st.plain()
	if a == nil {
		return
	}
	a.granted += int64(n)
	switch {
	case n == 0:
		s.resetPlain(st, status.Protocol, "WINDOW_UPDATE of 0")
	case a.granted > maxWindow:
		s.resetPlain(st, status.FlowControl, "a window beyond 2^31-1")
	default:
		s.emit(bodiesFor(st.id, int64(n)))
	}
}

// bodiesFor asks the writer for bodies, after a change of the window of one stream, or of all.
// The change travels as the code.
func bodiesFor(id uint32, delta int64) frame.Frame {
	return frame.Frame{Kind: frame.Reply, Stream: uint64(id), Value: replyBodies, Code: status.Code(int32(delta)), Reason: "credit"}
}

// plainSettings changes the windows of plain answers by delta, what the peer's settings do.
func (s *Session) plainSettings(delta int64) {
	if delta == 0 || s.plains.open.Load() == 0 {
		return
	}
	s.eachPlain(func(_ *stream, a *plain) { a.granted += delta })
	s.emit(bodiesFor(0, delta))
}

// eachPlain calls f with each plain answer.
func (s *Session) eachPlain(f func(st *stream, a *plain)) {
	s.streams.each(func(st *stream) {
		if a := st.plain(); a != nil {
			f(st, a)
		}
	})
}

// resetPlain ends a stream that the kernel does not know, for what the peer sent.
func (s *Session) resetPlain(st *stream, c status.Code, why string) {
	s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: replyReset, Code: c, Reason: why})
}

// bodies writes what there is credit for of the bodies of all answers, or of one. delta is by
// how much the window of each has changed.
func (s *Session) bodies(o *frame.Out, id uint32, delta int64) {
	if id == 0 {
		s.eachPlain(func(st *stream, a *plain) {
			if a.known {
				a.credit += delta
				s.body(o, st)
			}
		})
		return
	}
	if st := s.streams.find(id); st != nil && st.plain() != nil {
		st.plain().credit += delta
		s.body(o, st)
	}
}

// body writes what there is credit for of the body of one answer.
func (s *Session) body(o *frame.Out, st *stream) {
	a := st.plain()
	if a == nil || !a.headed || st.is(sendEnd) {
		return
	}
	n := min(int64(len(a.body)), a.credit-a.sent, s.plains.room(), int64(s.maxFrame.Load()))
	if n <= 0 {
		return
	}
	flags := byte(0)
	if n == int64(len(a.body)) {
		flags = fEndStream
	}
	o.Buf = append(appendHeader(o.Buf, int(n), tData, flags, st.id), a.body[:n]...)
	a.body = a.body[n:]
	a.sent += n
	s.plains.used.Add(n)
	if a.body == "" {
		st.set(sendEnd)
		s.rstUnread(o, st)
		s.drop(st)
	}
}

// answerHTTP begins an answer, or has it wait for the end of its request, until it is due.
func (s *Session) answerHTTP(o *frame.Out, st *stream, later bool, window int64) {
	a := st.plain()
	if a == nil {
		return
	}
	if !a.known {
		a.known, a.credit = true, window
	}
	if !later {
		s.writeHTTP(o, st)
		return
	}
	a.due = o.Now().Add(plainWait)
	s.out.waiting = append(s.out.waiting, st)
}

// isWaiting reports whether a stream's answer was not begun.
func (st *stream) isWaiting() bool { return !st.is(gone) && !st.plain().headed }

// Wake implements frame.Session: it is when the first answer that waits is due.
func (s *Session) Wake() time.Time {
	w := &s.out
	for len(w.waiting) > 0 {
		if st := w.waiting[0]; st.isWaiting() {
			return st.plain().due
		}
		w.waiting[0] = nil
		if w.waiting = w.waiting[1:]; len(w.waiting) == 0 {
			w.waiting = nil
		}
	}
	return time.Time{}
}

// Tick implements frame.Session: it begins the answers that are due.
func (s *Session) Tick(o *frame.Out) {
	for at := s.Wake(); !at.IsZero() && !o.Now().Before(at); at = s.Wake() {
		s.writeHTTP(o, s.out.waiting[0])
	}
}

// writeHTTP begins an answer.
func (s *Session) writeHTTP(o *frame.Out, st *stream) {
	a := st.plain()
	if a.headed {
		return
	}
	a.headed = true
	h := &s.out.headers
	h.begin(o)
	h.field(":status", strconv.Itoa(a.code))
	switch a.code {
	case 405:
		h.field("allow", "POST")
	case 415:
		h.field("accept-post", contentType)
	}
	h.field("content-type", "text/plain")
	h.field("content-length", strconv.Itoa(len(a.body)))
	h.once("grpc-status", strconv.Itoa(int(ofHTTP(a.code))))
	h.once("grpc-message", strings.TrimSpace(a.body))
	h.end(st.id, 0, int(s.maxFrame.Load()))
	s.body(o, st)
}
