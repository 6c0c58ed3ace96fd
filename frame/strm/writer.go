package strm

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// output is what the writer owns.
type output struct {
	token []byte // of the first request, until that is written

	recent recent
	head   []byte // of a data frame, while messages of its stream are written

	local []frame.Frame // events that writing has caused
	told  int           // of them, those that were passed on

	retries retries

	meta []byte // of a packet, while it is made
	body []byte // of a packet, compressed
}

// stream returns the stream of ours that has number id, or nil.
func (s *Session) stream(id uint64) *stream {
	st := s.out.recent.get(id)
	if st == nil {
		if st = s.find(id); st != nil {
			s.out.recent.put(st)
		}
	}
	return st
}

// Messages appends whole messages and takes them over. Those of a stream that has
// ended meanwhile, or whose peer reads nothing, are dropped.
func (s *Session) Messages(o *frame.Out, id uint64, run pool.Queue) {
	st := s.stream(id)
	switch {
	case st == nil:
		run.Release()
	case st.is(live):
		s.dataRun(o, st, run)
	case st.is(asked), st.is(offered):
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

// Fragment appends a piece of m as a segment. m belongs to the session with its last
// piece.
func (s *Session) Fragment(o *frame.Out, id uint64, m pool.Message, off, n int) {
	off, to := frame.Part(overhead, off, n)
	last := to == m.Len()
	st := s.stream(id)
	switch {
	case st == nil:
	case st.is(live) && !st.noReceive:
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
	case last && (st.is(asked) || st.is(offered)):
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

// isFirst tells whether st is the one that its request's answer comes by.
func (st *stream) isFirst() bool {
	c := st.call.Load()
	return c != nil && c.first == st.id
}

// early takes messages of a stream whose request has no answer: the request or
// reply of a call, what belongs to an open or its answer, or what has to wait
// behind the answer.
func (s *Session) early(o *frame.Out, st *stream, run pool.Queue) {
	c := st.call.Load()
	switch {
	case c == nil, st.is(asked) && !st.isFirst():
		run.Release() // nothing is sent before the answer
	case !st.isFirst():
		run.Each(func(m pool.Message) { c.deferred = appendData(c.deferred, st, m.Bytes(), false) })
		run.Release()
	case c.unary:
		c.take(&run)
	case c.waits:
		c.waits = false
		c.msg, _ = run.Pop()
		if st.is(asked) {
			s.ask(o, c)
			run.Release()
			return
		}
		s.grant(o, c)
		if st.is(live) {
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

// Event implements frame.Session: a request or an answer that could not be written
// ends its streams, and a stream that loses its place has ended.
func (s *Session) Event(f *frame.Frame) bool {
	w := &s.out
	if w.told == len(w.local) {
		return false
	}
	*f = w.local[w.told]
	if w.told++; w.told == len(w.local) {
		clear(w.local)
		w.local, w.told = kept(w.local, keptEvents), 0
	}
	return true
}

// tell has Event return f.
func (s *Session) tell(f frame.Frame) { s.out.local = append(s.out.local, f) }

// tellEnd has it return the end of a stream, if id is not 0.
func (s *Session) tellEnd(id uint64) {
	if id != 0 {
		s.tell(frame.Frame{Kind: frame.EOS, Stream: id})
	}
}

// Control appends any other frame. What brpc can't carry writes nothing.
func (s *Session) Control(o *frame.Out, f *frame.Frame) {
	switch f.Kind {
	case frame.Open:
		s.open(o, f)
		return
	case frame.Reply:
		s.mu.Lock()
		o.Buf = append(o.Buf, s.pending...)
		s.pending = kept(s.pending, keptBytes)
		s.mu.Unlock()
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
		s.reject(o, st, f.Code, f.Reason, f.NotProcessed)
	case frame.EOS:
		s.end(o, st, f)
	case frame.Reset:
		s.abort(o, st, f)
	case frame.Credit:
		if st.is(live) && st.feedback && f.Value > 0 {
			o.Buf = appendFeedback(o.Buf, st.peer, int64(st.id), f.Value)
		}
	}
}

// end writes the end of our half. For a stream that is the end of both: CLOSE,
// or, as brpc has no status for an end, RST.
func (s *Session) end(o *frame.Out, st *stream, f *frame.Frame) {
	c := st.call.Load()
	switch {
	case c != nil && c.unary && st.is(asked) && !c.written:
		s.ask(o, c)
	case c != nil && c.unary && st.is(offered):
		s.respond(o, c, f)
	case c != nil && st.is(offered) && !st.isFirst():
		// As what was sent before it, the end waits for the answer; and as after any
		// end of its half, the kernel waits for the peer's.
		s.mu.Lock()
		c.deferred = s.appendEnd(c.deferred, st, f)
		s.mu.Unlock()
		st.ended = true
	default:
		s.abort(o, st, f)
	}
}

// appendEnd appends CLOSE for an end in order, and RST for any other, under the lock.
func (s *Session) appendEnd(b []byte, st *stream, f *frame.Frame) []byte {
	if f.Kind == frame.EOS && f.Code == frame.CodeOK {
		return s.appendOurClose(b, st)
	}
	return appendRST(b, st.peer)
}

// appendOurClose appends a CLOSE, under the lock. If it is the answer to the peer's, or
// crosses one, an RST comes of it that finds nobody.
func (s *Session) appendOurClose(b []byte, st *stream) []byte {
	s.owed++
	return appendClose(b, st.peer, int64(st.id))
}

// abort ends a stream, or its request, at once.
func (s *Session) abort(o *frame.Out, st *stream, f *frame.Frame) {
	switch {
	case st.is(offered):
		s.reject(o, st, f.Code, f.Reason, false)
	case st.is(asked) && s.giveUp(st):
	default:
		s.close(o, st, f)
	}
}

// close ends an established stream, in order or not. After an end of its half the
// kernel waits for the peer's, whatever ours said; after a reset it does not.
func (s *Session) close(o *frame.Out, st *stream, f *frame.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch phase(st.phase.Load()) {
	case closed: // the answer to the peer's CLOSE
		o.Buf = s.appendOurClose(o.Buf, st)
		s.table.remove(st)
	case live:
		o.Buf = s.appendEnd(o.Buf, st, f)
		next := closing
		if f.Kind == frame.Reset {
			next = dropped
		}
		s.tellEnd(s.await(st, next))
		if next == closing {
			s.out.retries.add(0, st, o.Now(), true)
		}
	case closing:
		if f.Kind == frame.Reset {
			st.phase.Store(uint32(dropped))
		}
	}
}
