package strm

import (
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// output is what the writer owns.
type output struct {
	token []byte // of the first request, until that is written

	recent recent
	head   []byte // of a data frame, while messages of its stream are written

	events []frame.Frame // caused by writing, for Event
	taken  int           // how many of them Event has returned

	retries retries
	growAt  time.Time // see owed

	meta []byte // of a packet, while it is made
	body []byte // of a packet, compressed
}

// stream returns the stream with number id, or nil.
func (s *Session) stream(id uint64) *stream {
	st := s.out.recent.get(id)
	if st == nil {
		if st = s.find(id); st != nil {
			s.out.recent.put(st)
		}
	}
	return st
}

// Messages implements frame.Session. It drops messages of a stream that has ended
// meanwhile, or whose peer reads nothing.
func (s *Session) Messages(o *frame.Out, id uint64, run pool.Queue) {
	st := s.stream(id)
	switch {
	case st == nil:
		run.Release()
	case st.is(established):
		s.dataRun(o, st, run)
	case st.is(requested), st.is(offered):
		s.early(o, st, run)
	default:
		run.Release()
	}
}

// dataRun writes messages on an established stream, one frame each.
func (s *Session) dataRun(o *frame.Out, st *stream, run pool.Queue) {
	if st.noReceive || run.Len() == 0 {
		run.Release()
		return
	}
	s.sent(o, st, run.Bytes())
	if run.Len() == 1 {
		m, _ := run.Pop()
		o.Buf = appendDataHead(o.Buf, st.peer, int64(st.id), m.Len(), false)
		o.Payload(m.Bytes())
		o.Hold(m)
		return
	}
	refs := o.Refs()
	head := appendDataHead(s.out.head[:0], st.peer, int64(st.id), 0, false)
	s.out.head = head
	run.Each(func(m pool.Message) {
		p := m.Bytes()
		n := len(o.Buf)
		o.Buf = append(o.Buf, head...)
		putBodySize(o.Buf[n:], len(head)-headerLen+len(p))
		o.Payload(p)
	})
	o.HoldAll(run, refs)
}

func putBodySize(head []byte, n int) {
	head[4], head[5], head[6], head[7] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
}

// Fragment implements frame.Session: a piece is a segment.
func (s *Session) Fragment(o *frame.Out, id uint64, m pool.Message, off, n int) {
	off, to := frame.Part(overhead, off, n)
	last := to == m.Len()
	st := s.stream(id)
	switch {
	case st == nil:
	case st.is(established) && !st.noReceive:
		s.sent(o, st, to-off)
		o.Buf = appendDataHead(o.Buf, st.peer, int64(st.id), to-off, !last)
		o.Payload(m.Bytes()[off:to])
		if last {
			o.Hold(m)
		}
		return
	case st.is(offered) && !st.isFirst():
		c := st.call.Load()
		c.deferred = appendData(c.deferred, st, m.Bytes()[off:to], !last)
	case last && (st.is(requested) || st.is(offered)):
		var run pool.Queue
		run.Push(m)
		s.early(o, st, run)
		return
	}
	if last {
		m.Release()
	}
}

// appendData appends a data frame with its payload.
func appendData(b []byte, st *stream, p []byte, more bool) []byte {
	st.sent.Add(uint64(len(p)))
	return append(appendDataHead(b, st.peer, int64(st.id), len(p), more), p...)
}

// isFirst tells whether st is the first stream of its request, on which the answer comes.
func (st *stream) isFirst() bool {
	c := st.call.Load()
	return c != nil && c.first == st.id
}

// early takes messages of a stream whose request has no answer yet: the request or reply
// of a call, the first message of an open or its answer, or what has to follow the
// answer.
func (s *Session) early(o *frame.Out, st *stream, run pool.Queue) {
	c := st.call.Load()
	switch {
	case c == nil, st.is(requested) && !st.isFirst():
		run.Release() // nothing is sent before the answer
	case !st.isFirst():
		run.Each(func(m pool.Message) { c.deferred = appendData(c.deferred, st, m.Bytes(), false) })
		run.Release()
	case c.unary:
		c.take(&run)
	case c.waits:
		c.waits = false
		c.msg, _ = run.Pop()
		if st.is(requested) {
			s.writeRequest(o, c)
			run.Release()
			return
		}
		s.writeAccept(o, c)
		if st.is(established) {
			s.dataRun(o, st, run)
			return
		}
		run.Release()
	default:
		run.Release()
	}
}

// take keeps the message of a call and counts those that are too many.
func (c *call) take(run *pool.Queue) {
	if run.Len() == 0 {
		return
	}
	if c.messages == 0 {
		c.msg, _ = run.Pop()
		c.messages++
	}
	c.messages += run.Len()
	run.Release()
}

// Event implements frame.Session: the streams of a request or answer that could not be
// written end, and so do streams that await has removed.
func (s *Session) Event(f *frame.Frame) bool {
	w := &s.out
	if w.taken == len(w.events) {
		return false
	}
	*f = w.events[w.taken]
	if w.taken++; w.taken == len(w.events) {
		clear(w.events)
		w.events, w.taken = reuse(w.events, keptEvents), 0
	}
	return true
}

// emitEvent queues f, for Event to return.
func (s *Session) emitEvent(f frame.Frame) { s.out.events = append(s.out.events, f) }

// emitEnd queues the end of a stream, if id is not 0.
func (s *Session) emitEnd(id uint64) {
	if id != 0 {
		s.emitEvent(frame.Frame{Kind: frame.EOS, Stream: id})
	}
}

// Control implements frame.Session. A frame that brpc does not have writes nothing.
func (s *Session) Control(o *frame.Out, f *frame.Frame) {
	switch f.Kind {
	case frame.Open:
		s.open(o, f)
		return
	case frame.Reply:
		s.mu.Lock()
		o.Buf = append(o.Buf, s.pending...)
		s.pending, s.called = reuse(s.pending, keptBytes), false
		young := s.young
		s.young = nil
		if s.owed.limit > 0 && s.out.growAt.IsZero() {
			s.out.growAt = o.Now().Add(growEvery)
		}
		s.mu.Unlock()
		s.lookAfter(young, o.Now())
		return
	case frame.Accept, frame.Reject, frame.EOS, frame.Reset, frame.Credit:
	default:
		return
	}
	st := s.stream(f.Stream)
	if st == nil {
		return
	}
	switch f.Kind {
	case frame.Accept:
		s.accept(o, st, f)
	case frame.Reject:
		s.reject(o, st, f)
	case frame.EOS:
		s.end(o, st, f)
	case frame.Reset:
		s.abort(o, st, f)
	case frame.Credit:
		if st.is(established) && st.feedback && f.Value > 0 {
			o.Buf = appendFeedback(o.Buf, st.peer, int64(st.id), f.Value)
		}
	}
}

// end writes the end of our half. It ends both halves of a stream: with CLOSE, or with
// RST if it has a status, which brpc can't carry.
func (s *Session) end(o *frame.Out, st *stream, f *frame.Frame) {
	c := st.call.Load()
	switch {
	case c != nil && c.unary && st.is(requested) && !c.written:
		s.writeRequest(o, c)
	case c != nil && c.unary && st.is(offered):
		s.respond(o, c, f)
	case c != nil && st.is(offered) && !st.isFirst():
		// The end waits for the answer, as the data before it does. The kernel then
		// waits for the peer's end, as after any end of its half.
		st.held.Store(endType(f))
		st.ended = true
	default:
		s.abort(o, st, f)
	}
}

// endType is CLOSE for a clean end, and RST for any other.
func endType(f *frame.Frame) uint32 {
	if f.Kind == frame.EOS && f.Code == status.OK {
		return typeClose
	}
	return typeRST
}

// appendEnd appends the end of a stream, under the lock.
func (s *Session) appendEnd(b []byte, st *stream, typ uint32) []byte {
	if typ == typeClose {
		return s.appendOurClose(b, st)
	}
	return appendRST(b, st.peer)
}

// appendOurClose appends a CLOSE, under the lock. If it answers the peer's, or crosses
// one, the peer answers with an RST for a stream that is no longer in the table.
func (s *Session) appendOurClose(b []byte, st *stream) []byte {
	s.lateFrames++
	return appendClose(b, st.peer, int64(st.id))
}

// abort ends a stream, or its request, at once.
func (s *Session) abort(o *frame.Out, st *stream, f *frame.Frame) {
	switch {
	case st.is(offered):
		s.reject(o, st, f)
	case st.is(requested) && s.cancel(st):
	default:
		s.close(o, st, f)
	}
}

// close ends an established stream, cleanly or not. After an end of its half the kernel
// waits for the peer's, whatever its status; after a reset it does not.
func (s *Session) close(o *frame.Out, st *stream, f *frame.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch phase(st.phase.Load()) {
	case closeReceived: // the answer to the peer's CLOSE
		o.Buf = s.appendOurClose(o.Buf, st)
		s.table.remove(st)
	case established:
		next := closeSent
		if f.Kind == frame.Reset {
			next = discarding
		}
		s.emitEnd(s.await(st, next))
		st.held.Store(endType(f))
		s.holdEnd(o, st)
	case closeSent:
		if f.Kind == frame.Reset {
			st.phase.Store(uint32(discarding))
		}
	}
}
