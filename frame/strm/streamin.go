package strm

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// frame reads the meta of a stream frame, and decides how its payload is read.
func (s *Session) frame(meta []byte, f *frame.Frame) error {
	in := &s.in
	if err := in.fm.parse(meta); err != nil {
		return err
	}
	in.rest = in.body - in.meta
	if t := in.fm.typ; in.rest > 0 && (t == typeRST || t == typeClose || t == typeFeedback) {
		return codef(status.FrameSize, "stream frame of type %d with %d bytes of data", t, in.rest)
	}
	st := s.streamFor(in.fm.stream)
	in.st = st
	in.state = inDrop
	if in.rest == 0 {
		in.state = atHeader
	}
	switch {
	case st == nil:
		return s.stray(&in.fm)
	case st.is(requested):
		return s.unanswered(st, f)
	}
	if err := s.hear(st, in.fm.typ); err != nil {
		return err
	}
	switch {
	case in.fm.typ != typeData:
		return s.controlFrame(st, &in.fm)
	case st.is(established) || st.is(closeSent):
		return s.data(st, f)
	case st.is(discarding):
		return nil // sent before the peer had our end
	}
	return s.uselessFrame()
}

// streamFor is the stream that a frame is for, or nil if the peer can't know of it yet.
func (s *Session) streamFor(id int64) *stream {
	if id < 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.table.streams[uint64(id)]
	if st == nil || st.is(offered) {
		return nil
	}
	if c := st.call.Load(); c != nil && (c.unary || !c.written) {
		return nil
	}
	return st
}

// stray answers a frame for an unknown stream, as brpc does: with an RST, unless the
// frame is a report or names no source stream. Several in a row from one stream get one
// answer.
func (s *Session) stray(fm *frameMeta) error {
	in := &s.in
	if fm.typ == typeRST && !fm.hasSource {
		return s.lateFrame()
	}
	if !fm.hasSource || fm.typ == typeFeedback || in.hasAnswer && in.answered == fm.source {
		return s.uselessFrame()
	}
	in.answered, in.hasAnswer = fm.source, true
	return s.reset(fm.source)
}

// data begins a message, or a segment of one.
func (s *Session) data(st *stream, f *frame.Frame) error {
	in := &s.in
	if in.fm.more || st.inMessage {
		if err := s.segment(in.rest); err != nil {
			return err
		}
	} else {
		in.tiny, in.empty = 0, 0
	}
	in.first = !st.inMessage
	switch {
	case in.rest > wholeMax:
		in.state = inPieces
	case in.rest > 0:
		in.state = inWhole
	default:
		return s.whole(nil, f)
	}
	return nil
}

// segment counts segments that cost more than they carry.
func (s *Session) segment(n int) error {
	in := &s.in
	if n >= tinySegment {
		in.tiny, in.empty = 0, 0
		return nil
	}
	in.tiny++
	if in.empty++; n > 0 {
		in.empty = 0
	}
	if in.tiny > maxTiny || in.empty > maxEmpty {
		return codef(status.EnhanceYourCalm, "too many tiny segments in a row")
	}
	return nil
}

// whole handles a payload that was collected.
func (s *Session) whole(b []byte, f *frame.Frame) error {
	in := &s.in
	switch st := in.st; {
	case st.isFirst() && st.is(requested):
		return s.wrapped(b, st)
	case st.is(requested):
		return s.stash(st, &in.fm, b)
	case st.is(established), st.is(closeSent):
		s.setData(f, st, &in.fm, b, in.first, true)
	}
	return nil // it was reset meanwhile
}

// piece hands on what has come of a payload.
func (s *Session) piece(p []byte, f *frame.Frame) int {
	in := &s.in
	n := min(in.rest, len(p))
	if n == 0 {
		return 0
	}
	first := in.first
	in.first = false
	if in.rest -= n; in.rest == 0 {
		in.state = atHeader
	}
	switch st := in.st; {
	case in.call:
		s.callPiece(p[:n], first, f)
	case st.is(established), st.is(closeSent): // else it was reset meanwhile
		s.setData(f, st, &in.fm, p[:n], first, in.rest == 0)
	}
	return n
}

// setData makes f a piece of a message. It is the first piece if the frame's payload
// begins here and no segment precedes it, and the last if the payload ends here and no
// segment follows.
func (s *Session) setData(f *frame.Frame, st *stream, fm *frameMeta, p []byte, first, end bool) {
	s.in.useless = 0
	f.Kind, f.Stream, f.Payload = frame.Data, st.id, p
	f.First, f.Last = first, end && !fm.more
	f.Total = frame.UnknownTotal
	if !fm.more && !st.inMessage {
		f.Total = s.in.body - s.in.meta
	}
	if end {
		st.inMessage = fm.more
	}
	f.SetCost(overhead)
}

// controlFrame handles a frame without data.
func (s *Session) controlFrame(st *stream, fm *frameMeta) error {
	switch fm.typ {
	case typeFeedback:
		return s.feedback(st, fm.consumed)
	case typeClose:
		return s.peerClosed(st, fm)
	case typeRST:
		return s.peerReset(st)
	case typeUnknown: // the peer asks whether we know the stream
		if st.asked++; st.asked <= maxRetries {
			return nil
		}
	}
	return s.uselessFrame()
}

// feedback handles a report of what the peer has taken.
func (s *Session) feedback(st *stream, consumed int64) error {
	before := st.reported.Load()
	if !st.takeReport(consumed) {
		return codef(status.FlowControl, "stream %d: %d bytes consumed, %d were sent", st.id, consumed, st.sent.Load())
	}
	switch {
	case consumed == 0 && st.greeted:
		return s.uselessFrame()
	case consumed == 0: // see greet
		st.greeted = true
		return nil
	case st.is(established):
	case st.reported.Load() > before:
		return nil // nothing more is sent
	default:
		return s.uselessFrame()
	}
	s.emit(frame.Frame{Kind: frame.Credit, Stream: st.id, Value: st.reported.Load()})
	return nil
}

// takeReport notes what the peer has taken. It ignores a report older than the last, and
// returns false for one of more than was sent.
func (st *stream) takeReport(consumed int64) bool {
	if consumed < 0 || uint64(consumed) > st.sent.Load() {
		return false
	}
	if uint64(consumed) > st.reported.Load() {
		st.reported.Store(uint64(consumed))
	}
	return true
}

// peerClosed handles a CLOSE. It ends both directions, cleanly unless it comes inside a
// message.
func (s *Session) peerClosed(st *stream, fm *frameMeta) error {
	s.mu.Lock()
	was := phase(st.phase.Load())
	switch {
	case was == established && st.inMessage, was == closeSent, was == discarding:
		s.table.remove(st)
	case was == established:
		st.phase.Store(uint32(closeReceived))
	}
	s.mu.Unlock()
	switch {
	case was == established && st.inMessage:
		s.emit(frame.Frame{Kind: frame.Reset, Stream: st.id, Code: status.DataLoss, Reason: "closed inside a message"})
		return s.reply(func(b []byte) []byte { return s.appendOurClose(b, st) })
	case was == established:
		s.emit(frame.Frame{Kind: frame.EOS, Stream: st.id})
		s.emit(frame.Frame{Kind: frame.Stop, Stream: st.id})
		return nil
	case was == closeSent: // a message cut short by our CLOSE is no error: we read no more
		s.emit(frame.Frame{Kind: frame.EOS, Stream: st.id})
	}
	if was == closeReceived || was == removed || !fm.hasSource {
		return s.uselessFrame()
	}
	return s.reset(fm.source) // CLOSE, CLOSE, RST
}

// resetReason is brpc's text for an RST.
const resetReason = "Received RST frame"

// peerReset handles an RST. It ends both directions at once. brpc answers an RST with a
// CLOSE.
func (s *Session) peerReset(st *stream) error {
	s.mu.Lock()
	was := phase(st.phase.Load())
	if was == established || was == closeSent || was == discarding {
		s.table.remove(st)
	}
	unknown := was == closeSent && st.closeRepeated && !st.inMessage
	reason := resetReason
	if st.lost && !st.heard.Load() {
		reason = lostReason
	}
	s.mu.Unlock()
	switch {
	case unknown: // the peer had closed the stream without a CLOSE
		s.emit(frame.Frame{Kind: frame.EOS, Stream: st.id})
	case was == established, was == closeSent:
		s.emit(frame.Frame{Kind: frame.Reset, Stream: st.id, Code: codeRST, Reason: reason})
	}
	if was == established {
		return s.reply(func(b []byte) []byte { return s.appendOurClose(b, st) })
	}
	if was == closeReceived || was == removed {
		return s.lateFrame()
	}
	return nil
}

// unanswered handles a frame for a stream whose request has no answer yet: the answer
// itself, or what the peer sends on the request's further streams before it.
func (s *Session) unanswered(st *stream, f *frame.Frame) error {
	in := &s.in
	fm := &in.fm
	first := st.isFirst()
	switch {
	case first && fm.typ == typeData && !fm.more:
		// The answer is in it.
	case first && (fm.typ == typeData || fm.typ == typeClose || fm.typ == typeRST):
		return failf("stream %d: a frame of type %d before the answer", st.id, fm.typ)
	case fm.typ != typeData && fm.typ != typeClose && fm.typ != typeRST && fm.typ != typeFeedback:
		return s.uselessFrame()
	case first, s.isCanceled(st):
		return s.uselessFrame()
	case in.rest > maxEarly:
		return errEarly
	}
	if in.rest == 0 {
		return s.whole(nil, f)
	}
	if err := collectable(in.rest); err != nil {
		return err
	}
	in.state = inWhole
	return nil
}

func (s *Session) isCanceled(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return st.canceled
}

var errEarly = codef(status.FlowControl, "too much data for streams whose request is not answered")

// stash keeps a frame for a stream until its request is answered.
func (s *Session) stash(st *stream, fm *frameMeta, b []byte) error {
	c := st.call.Load()
	if c == nil {
		return nil // ended meanwhile
	}
	if c.earlySize += len(b); c.earlySize > maxEarly || len(c.early) == maxEarlyCount {
		return errEarly
	}
	c.early = append(c.early, earlyFrame{st, *fm, pool.Copy(b)})
	return nil
}

// replay handles the stashed frames, after the answer.
func (s *Session) replay(c *call) error {
	for i := range c.early {
		e := &c.early[i]
		p := e.payload.Bytes()
		s.in.stale.Push(e.payload)
		switch {
		case !e.st.is(established):
		case e.typ() != typeData:
			if err := s.controlFrame(e.st, &e.meta); err != nil {
				return err
			}
		default:
			s.replayData(e, p)
		}
	}
	c.early = nil
	return nil
}

func (e *earlyFrame) typ() int32 { return e.meta.typ }

func (s *Session) replayData(e *earlyFrame, p []byte) {
	f := frame.Frame{Kind: frame.Data, Stream: e.st.id, Payload: p, First: !e.st.inMessage, Last: !e.meta.more}
	f.SetCost(overhead)
	f.Total = frame.UnknownTotal
	if f.First && f.Last {
		f.Total = len(p)
	}
	e.st.inMessage = e.meta.more
	s.emit(f)
}
