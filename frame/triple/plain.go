package triple

import (
	"strconv"
	"sync/atomic"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// Requests that are no calls of gRPC's are answered here: with a status of HTTP's, and a body
// that says why, which keeps to the windows as any data does. The kernel does not hear of them.

// A plain is the answer to such a request.
type plain struct {
	code int
	// credit is the stream's window, from its start. It goes below what was sent if the peer
	// takes credit back.
	credit atomic.Int64

	// The writer's.
	body   string // what was not written
	sent   int64
	headed bool
}

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
	a := &plain{code: code, body: why + "\n"}
	a.credit.Store(int64(s.in.peer.initialWindow))
	st.plain.Store(a)
	s.plains.open.Add(1)
	s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: replyHTTP, Reason: why})
}

// plainCredit takes a WINDOW_UPDATE of a stream that the kernel does not know.
func (s *Session) plainCredit(st *stream, n uint32) {
	a := st.plain.Load()
	switch {
	case a == nil:
	case n == 0:
		s.resetPlain(st, status.Protocol, "WINDOW_UPDATE of 0")
	case a.credit.Add(int64(n)) > maxWindow:
		s.resetPlain(st, status.FlowControl, "a window beyond 2^31-1")
	default:
		s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: replyBodies, Reason: "credit"})
	}
}

// plainSettings changes the windows of plain answers by delta, what the peer's settings do.
func (s *Session) plainSettings(delta int64) {
	if delta == 0 || s.plains.open.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		if a := st.plain.Load(); a != nil {
			a.credit.Add(delta)
		}
	}
	s.emit(frame.Frame{Kind: frame.Reply, Value: replyBodies, Reason: "credit"})
}

// resetPlain ends a stream that the kernel does not know, for what the peer sent.
func (s *Session) resetPlain(st *stream, c status.Code, why string) {
	s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: replyReset, Code: c, Reason: why})
}

// bodies writes what there is credit for of the bodies of all answers, or of one.
func (s *Session) bodies(o *frame.Out, id uint32) {
	if id != 0 {
		if st := s.find(id); st != nil {
			s.body(o, st)
		}
		return
	}
	s.mu.Lock()
	var waiting []*stream
	for _, st := range s.streams {
		if a := st.plain.Load(); a != nil && a.headed {
			waiting = append(waiting, st)
		}
	}
	s.mu.Unlock()
	for _, st := range waiting {
		s.body(o, st)
	}
}

// body writes what there is credit for of the body of one answer.
func (s *Session) body(o *frame.Out, st *stream) {
	a := st.plain.Load()
	if a == nil || !a.headed || st.sendEnd.Load() {
		return
	}
	n := min(int64(len(a.body)), a.credit.Load()-a.sent, s.plains.room(), int64(s.maxFrame.Load()))
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
		st.sendEnd.Store(true)
		s.rstUnread(o, st)
		s.drop(st)
	}
}

// writeHTTP begins an answer to a request that is not gRPC's.
func (s *Session) writeHTTP(o *frame.Out, st *stream, why string) {
	a := st.plain.Load()
	if a == nil || a.headed {
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
	h.once("grpc-message", why)
	h.end(st.id, 0, int(s.maxFrame.Load()))
	s.body(o, st)
}
