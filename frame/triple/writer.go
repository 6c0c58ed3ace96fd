package triple

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// output is what the writer owns.
type output struct {
	headers headerWriter
	given   uint64 // the connection's credit that the kernel has granted
	told    uint64 // what the peer knows of
	recent  recent

	lastAt int    // where the last DATA frame's header is in the output,
	lastID uint32 // and its stream; 0: there is none

	events  []frame.Frame
	waiting []*stream // whose plain answers wait for the ends of their requests, until they are due
}

func (w *output) init(p Protocol, window uint64) {
	w.headers.init(p)
	w.given, w.told = window, window
}

// Flush implements frame.Session.
func (s *Session) Flush(*frame.Out) { s.out.lastID = 0 }

// Event implements frame.Session.
func (s *Session) Event(f *frame.Frame) bool {
	w := &s.out
	if len(w.events) == 0 {
		return false
	}
	*f = w.events[0]
	if w.events = w.events[1:]; len(w.events) == 0 {
		w.events = nil
	}
	return true
}

func (w *output) emit(f frame.Frame) { w.events = append(w.events, f) }

// A dataWriter writes the data of one stream, in frames of at most max bytes.
type dataWriter struct {
	o    *frame.Out
	id   uint32
	max  int
	at   int // of the header of the frame at hand
	size int // of its payload
}

func (s *Session) dataWriter(o *frame.Out, id uint32) dataWriter {
	d := dataWriter{o: o, id: id, max: int(s.maxFrame.Load())}
	d.begin()
	return d
}

func (d *dataWriter) begin() {
	d.at, d.size = len(d.o.Buf), 0
	d.o.Buf = appendHeader(d.o.Buf, 0, tData, 0, d.id)
}

// end completes the frame at hand.
func (d *dataWriter) end() { patchLength(d.o.Buf[d.at:], d.size, 0) }

// next begins another frame if the one at hand has something, and no room for n bytes more.
func (d *dataWriter) next(n int) {
	if d.size > 0 && d.size+n > d.max {
		d.end()
		d.begin()
	}
}

// write writes a part of a message, in more frames if it is longer than there is room.
func (d *dataWriter) write(p []byte) {
	for len(p) > d.max-d.size {
		k := d.max - d.size
		d.o.Payload(p[:k])
		d.size += k
		p = p[k:]
		d.end()
		d.begin()
	}
	d.o.Payload(p)
	d.size += len(p)
}

func (d *dataWriter) done(s *Session) {
	d.end()
	s.out.lastAt, s.out.lastID = d.at, d.id
}

// Messages implements frame.Session: many short messages share a frame.
func (s *Session) Messages(o *frame.Out, id uint64, run pool.Queue) {
	st := s.lookup(&s.out.recent, uint32(id))
	if st == nil { // the peer has reset it meanwhile
		s.notWritten(run.Cost())
		run.Release()
		return
	}
	st.sent.Add(uint32(run.Cost()))
	refs := o.Refs()
	d := s.dataWriter(o, st.id)
	run.Each(func(m pool.Message) {
		p := m.Bytes()
		d.next(prefixLen + len(p))
		o.Buf = appendPrefix(o.Buf, len(p), pool.IsPacked(m))
		d.size += prefixLen
		d.write(p)
	})
	d.done(s)
	o.HoldAll(run, refs)
}

// notWritten gives back what data of n bytes has used of the connection's credit.
func (s *Session) notWritten(n int) {
	s.out.emit(frame.Frame{Kind: frame.Credit, Value: s.unwritten.Add(uint64(n)) + s.granted.Load()})
}

// Fragment implements frame.Session: the piece is cut from the prefix and the message in a
// row.
func (s *Session) Fragment(o *frame.Out, id uint64, m pool.Message, off, n int) {
	last := off+n == prefixLen+m.Len()
	st := s.lookup(&s.out.recent, uint32(id))
	if st == nil {
		s.notWritten(n)
		if last {
			m.Release()
		}
		return
	}
	st.sent.Add(uint32(n))
	if last {
		st.flags.And(^uint32(inside))
	} else {
		st.set(inside)
	}
	d := s.dataWriter(o, st.id)
	if off < prefixLen {
		var prefix [prefixLen]byte
		appendPrefix(prefix[:0], m.Len(), pool.IsPacked(m))
		part := prefix[off:min(off+n, prefixLen)]
		o.Buf = append(o.Buf, part...)
		d.size += len(part)
	}
	from, to := frame.Part(prefixLen, off, n)
	d.write(m.Bytes()[from:to])
	d.done(s)
	if last {
		o.Hold(m)
	}
}

// Control implements frame.Session.
func (s *Session) Control(o *frame.Out, f *frame.Frame) {
	switch f.Kind {
	case frame.Open:
		s.open(o, f)
	case frame.Ping:
		o.Buf = appendPing(o.Buf, f.Value, 0)
	case frame.Pong:
		o.Buf = appendPing(o.Buf, f.Value, fAck)
	case frame.GoAway:
		s.writeGoAway(o, f)
	case frame.Credit:
		s.credit(o, f)
	case frame.Reply:
		s.reply(o, f)
	case frame.Accept, frame.Reject, frame.EOS, frame.Reset, frame.Stop:
		if st := s.lookup(&s.out.recent, uint32(f.Stream)); st != nil {
			s.streamControl(o, st, f)
		}
	}
	if s.streams.n.Load() == 0 && s.refund.Load() != s.said.Load() { // the peer gets all its credit back
		s.connCredit(o)
	}
}

func (s *Session) streamControl(o *frame.Out, st *stream, f *frame.Frame) {
	switch f.Kind {
	case frame.Accept:
		s.accept(o, st, f)
	case frame.Reject:
		s.reject(o, st, f)
	case frame.EOS:
		s.end(o, st, f)
	case frame.Reset:
		s.abort(o, st, f.Code, f.Reason)
	case frame.Stop:
		st.set(stopped)
		if st.is(sendEnd) {
			s.stopPeer(o, st)
		}
	}
}

func (s *Session) writeGoAway(o *frame.Out, f *frame.Frame) {
	e := eNo
	switch c := f.Code; {
	case c == status.OK:
	case s.fatal.Load() != 0:
		e = http2Error(s.fatal.Load())
	case s.sluice && !isWire(c) && c <= maxSluiceCode:
		e = sluiceError + http2Error(c)
	case c == status.Cancelled || c == status.Unavailable || c == status.GoingAway || c == status.IdleTimeout: // no fault of anybody's
	default:
		e = errorOf(c)
	}
	o.Buf = appendGoAway(o.Buf, uint32(min(f.Value, maxStream)), e, f.Reason)
}

// credit says what the peer may send in all: HTTP/2 has increments.
func (s *Session) credit(o *frame.Out, f *frame.Frame) {
	if f.Stream == 0 {
		s.out.given = f.Value
		s.connCredit(o)
		return
	}
	st := s.lookup(&s.out.recent, uint32(f.Stream))
	switch {
	case st == nil || st.is(recvEnd):
	case s.client && st.is(stopped) && st.is(sendEnd) && !st.is(noReply):
		// Half a window has come of what nobody reads.
		o.Buf = appendRST(o.Buf, st.id, eCancel)
		s.over(st)
	default:
		s.streamCredit(o, st, f.Value)
	}
}

func (s *Session) streamCredit(o *frame.Out, st *stream, total uint64) {
	if n := int32(uint32(total) - st.told); n > 0 {
		o.Buf = appendWindowUpdate(o.Buf, st.id, uint32(n))
		st.told += uint32(n)
	}
}

// connCredit says the same of the connection. What the kernel never heard of is a part of it.
func (s *Session) connCredit(o *frame.Out) {
	w := &s.out
	refund := s.refund.Load()
	s.said.Store(refund)
	if total := w.given + refund; total > w.told {
		n := min(total-w.told, maxWindow)
		o.Buf = appendWindowUpdate(o.Buf, 0, uint32(n))
		w.told += n
	}
}

// over has the kernel's half that reads end in order, because nothing more will come.
func (s *Session) over(st *stream) {
	if !st.set(recvEnd) {
		s.out.emit(frame.Frame{Kind: frame.EOS, Stream: uint64(st.id), Local: true})
	}
	s.remove(st)
}

// stopPeer is called when we have ended our half, and read no more.
func (s *Session) stopPeer(o *frame.Out, st *stream) {
	switch {
	case st.is(recvEnd):
	case !s.client || s.sluice && !st.is(noReply):
		o.Buf = appendRST(o.Buf, st.id, eNo)
		s.over(st)
	}
	// A server of others has still to serve what we have sent, and an RST_STREAM would end
	// that: what it sends is dropped, as far as that is little. See credit.
}

// end ends our half.
func (s *Session) end(o *frame.Out, st *stream, f *frame.Frame) {
	switch {
	case st.is(sendEnd):
		return
	case !s.client:
		s.writeTrailers(o, st, f)
	case f.Code != status.OK || st.is(inside): // a client has no status
		o.Buf = appendRST(o.Buf, st.id, s.resetOf(f.Code))
		st.set(sendEnd)
		if !st.set(recvEnd) {
			s.out.emit(frame.Frame{Kind: frame.Reset, Stream: uint64(st.id), Code: f.Code, Reason: f.Reason, Local: true})
		}
		s.remove(st)
		return
	case s.out.lastID == st.id:
		o.Buf[s.out.lastAt+4] |= fEndStream
	default:
		o.Buf = appendHeader(o.Buf, 0, tData, fEndStream, st.id)
	}
	st.set(sendEnd)
	if st.is(stopped) {
		s.stopPeer(o, st)
	}
	s.settle(st)
}

// abort ends both halves at once. A server says why first.
func (s *Session) abort(o *frame.Out, st *stream, c status.Code, why string) {
	e := s.resetOf(c)
	if !s.client && !st.is(sendEnd) {
		f := frame.Frame{Kind: frame.Reset, Code: c, Reason: why}
		s.writeTrailers(o, st, &f)
		e = eNo
	}
	if !st.is(recvEnd) || !st.is(sendEnd) && s.client {
		o.Buf = appendRST(o.Buf, st.id, e)
	}
	s.drop(st)
}

// drop forgets a stream that both sides are done with.
func (s *Session) drop(st *stream) {
	st.set(sendEnd)
	st.set(recvEnd)
	s.remove(st)
}

// reply writes what the reader has asked for.
func (s *Session) reply(o *frame.Out, f *frame.Frame) {
	switch f.Value {
	case replyNothing:
		return
	case replySettings:
		s.out.headers.resize(s.tableSize.Load())
		o.Buf = appendHeader(o.Buf, 0, tSettings, fAck, 0)
		return
	case replyRefund:
		s.connCredit(o)
		return
	case replyBodies:
		s.bodies(o, uint32(f.Stream), int64(int32(f.Code)))
		return
	}
	st := s.lookup(&s.out.recent, uint32(f.Stream))
	if st == nil {
		return
	}
	switch {
	case f.Value == replyReset && (s.client || isWire(f.Code) || f.Code == status.Refused):
		o.Buf = appendRST(o.Buf, st.id, errorOf(f.Code))
	case f.Value == replyDone:
		if !st.is(sendEnd) {
			o.Buf = appendRST(o.Buf, st.id, eNo)
		}
	case f.Value == replyHTTP, f.Value == replyLater:
		s.answerHTTP(o, st, f.Value == replyLater, int64(f.Code))
		return
	default: // replyReset, replyStatus
		if !st.is(sendEnd) {
			end := frame.Frame{Kind: frame.EOS, Code: f.Code, Reason: f.Reason}
			s.writeTrailers(o, st, &end)
		}
		s.rstUnread(o, st)
	}
	s.drop(st)
}

// isWire reports whether c is about HTTP/2's rules, which gRPC has no status for.
// rstUnread tells a client that nothing more is read.
func (s *Session) rstUnread(o *frame.Out, st *stream) {
	if !st.is(recvEnd) {
		o.Buf = appendRST(o.Buf, st.id, eNo)
	}
}
