package strm

import (
	"encoding/binary"
	"errors"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// state is what the reader is in the middle of.
type state uint8

const (
	atHeader state = iota // of a packet or frame
	inPacket              // collecting the body of a packet
	inHead                // collecting the meta of a packet with a long message
	inMeta                // collecting the meta of a frame
	inWhole               // collecting the payload of a frame
	inPieces              // handing on the payload of a frame as it comes
	inDrop                // passing over the payload of a frame
)

// input is what the reader owns. It is a state machine over the bytes. How they are cut
// into calls changes nothing but how a large payload is cut into pieces.
type input struct {
	state  state
	offset int64 // bytes consumed
	begun  int64 // where the packet or frame at hand starts

	head  [headerLen]byte // the part of a header that has come
	nhead int
	body  int // of the packet or frame at hand, the meta included
	meta  int
	rest  int // bytes of payload still to come in pieces, or to pass over

	got   pool.Message // what is collected, as long as it is so far
	ngot  int
	stale pool.Queue // memory of events that were returned, to be released

	fm    frameMeta // the frame at hand
	st    *stream   // whose it is
	first bool      // no piece of its payload was handed on
	call  bool      // its payload is the message of a call

	trailer metadata.MD // of the answer whose message that is: brpc has one set of fields

	queue []frame.Frame // events that wait to be returned
	taken int           // how many of them were returned

	recent recent
	last   pattern

	rpc    rpcMeta
	next   uint64 // number of the next stream that the peer opens
	method string // of the last request
	grants []frame.Grant

	loggedOff bool  // the server has said that it is stopping
	answered  int64 // the source that the last answer to a stray frame went to
	hasAnswer bool
	useless   int
	tiny      int
	empty     int
}

// between tells whether the input ends between two packets or frames.
func (in *input) between() bool { return in.state == atHeader && in.nhead == 0 }

// Buffered implements frame.Session.
func (s *Session) Buffered() int { return s.in.got.Len() }

// Next implements frame.Session. Payloads of events from one packet alias the input that
// completed it.
func (s *Session) Next(p []byte, f *frame.Frame) (int, error) {
	in := &s.in
	f.Kind = frame.None
	if n := s.fast(p, f); n > 0 {
		in.offset += int64(n)
		in.begun = in.offset
		return n, nil
	}
	if s.pop(f) {
		return 0, nil
	}
	in.stale.Release()
	n, err := s.next(p, f)
	if err != nil {
		return n, s.fail(err)
	}
	return n, nil
}

// next goes on until there is an event or p is used up.
func (s *Session) next(p []byte, f *frame.Frame) (int, error) {
	used := 0
	for {
		n, err := s.step(p[used:], f)
		used += n
		s.in.offset += int64(n)
		if err != nil {
			return used, err
		}
		if s.in.between() {
			s.in.begun = s.in.offset
		}
		if f.Kind != frame.None || s.pop(f) {
			return used, nil
		}
		if n == 0 {
			return used, nil
		}
	}
}

// pop moves the next queued event to f, if there is one.
func (s *Session) pop(f *frame.Frame) bool {
	in := &s.in
	if in.taken == len(in.queue) {
		return false
	}
	// f keeps its own memory for grants: the caller may pass f on.
	grants := append(f.Grants[:0], in.queue[in.taken].Grants...)
	*f = in.queue[in.taken]
	f.Grants = grants
	if in.taken++; in.taken == len(in.queue) {
		clear(in.queue)
		in.queue, in.taken = reuse(in.queue, keptEvents), 0
	}
	in.useless = 0
	return true
}

// How much memory a session keeps after a burst: an idle connection should be small.
const (
	keptEvents = 8
	keptFields = 8
	keptBytes  = 4 << 10
)

// reuse empties b. It drops the memory if that is larger than most.
func reuse[T any](b []T, most int) []T {
	if cap(b) > most {
		return nil
	}
	return b[:0]
}

// emit queues f, for Next to return.
func (s *Session) emit(f frame.Frame) { s.in.queue = append(s.in.queue, f) }

// fast handles the common case: a complete frame that is a whole message, or a report
// of what was taken. It returns 0 if there is none.
func (s *Session) fast(p []byte, f *frame.Frame) int {
	in := &s.in
	if len(p) < headerLen || in.state != atHeader || in.nhead != 0 || len(in.queue) > 0 {
		return 0
	}
	end := headerLen + uint64(binary.BigEndian.Uint32(p[4:]))
	from := headerLen + uint64(binary.BigEndian.Uint32(p[8:]))
	if binary.BigEndian.Uint32(p) != magicStream || end > uint64(len(p)) || from > end || from > headerLen+maxFrameMeta ||
		end-from > uint64(s.maxMessage) {
		return 0
	}
	meta := p[headerLen:from]
	if st := in.last.stream(meta); st != nil {
		if !st.is(established) || st.inMessage {
			return 0
		}
		s.message(f, st, p[from:end])
		return int(end)
	}
	id, typ, rest, ok := metaHead(meta)
	if !ok {
		return 0
	}
	st := in.recent.get(uint64(id))
	if st == nil {
		if st = s.find(uint64(id)); st == nil {
			return 0
		}
		in.recent.put(st)
	}
	switch {
	case !st.is(established), s.hear(st, int32(typ)) != nil:
		return 0
	case typ == typeData && wholeTail(rest) && !st.inMessage:
		in.last.note(st, meta)
		s.message(f, st, p[from:end])
	case typ == typeFeedback && from == end:
		consumed, ok := reportTail(rest)
		if !ok || consumed == 0 || !st.takeReport(consumed) {
			return 0
		}
		in.useless = 0
		f.Kind, f.Stream, f.Value = frame.Credit, st.id, st.reported.Load()
	default:
		return 0
	}
	return int(end)
}

// message makes f a whole message.
func (s *Session) message(f *frame.Frame, st *stream, p []byte) {
	in := &s.in
	in.useless, in.tiny, in.empty = 0, 0, 0
	f.Kind, f.Stream, f.Payload = frame.Data, st.id, p
	f.First, f.Last, f.Total, f.Cost = true, true, len(p), len(p)+overhead
}

// pattern is the meta of the last frame that was a whole message. All of its stream have
// the same meta, so that comparing replaces parsing.
type pattern struct {
	st   *stream
	n    int
	meta [maxDataHead - headerLen]byte
}

func (l *pattern) note(st *stream, meta []byte) {
	if len(meta) <= len(l.meta) {
		l.st, l.n = st, copy(l.meta[:], meta)
	}
}

// stream returns the stream that meta belongs to, if it is the pattern.
func (l *pattern) stream(meta []byte) *stream {
	if string(meta) == string(l.meta[:l.n]) {
		return l.st
	}
	return nil
}

// Run implements frame.Session, for small messages whose frames have the same meta as
// the last message.
func (s *Session) Run(p []byte, id uint64, a *pool.Arena, q *pool.Queue) (used int) {
	in := &s.in
	st := in.last.st
	if in.state != atHeader || in.nhead != 0 || len(in.queue) > 0 || st == nil || st.id != id || !st.is(established) || st.inMessage {
		return 0
	}
	meta := in.last.meta[:in.last.n]
	from := headerLen + len(meta)
	most := min(wholeMax, s.maxMessage)
	for len(p)-used >= from {
		b := p[used:]
		n := int(binary.BigEndian.Uint32(b[4:])) - len(meta)
		if binary.BigEndian.Uint32(b) != magicStream || binary.BigEndian.Uint32(b[8:]) != uint32(len(meta)) ||
			n < 0 || n > most || n > len(b)-from || string(b[headerLen:from]) != string(meta) {
			break
		}
		m := a.Copy(b[from : from+n])
		pool.SetCost(m, n+overhead)
		q.Push(m)
		used += from + n
	}
	if used > 0 {
		in.useless, in.tiny, in.empty = 0, 0, 0
		in.offset += int64(used)
		in.begun = in.offset
	}
	return used
}

// fail makes err the connection's end.
func (s *Session) fail(err error) error {
	code := status.Protocol
	var ce *codeError
	if errors.As(err, &ce) {
		code = ce.code
	}
	return &status.ProtocolError{Proto: Name, Code: code, Offset: s.in.begun, Detail: err.Error()}
}

// step takes one thing off p: a header, what is collected, or a piece.
func (s *Session) step(p []byte, f *frame.Frame) (int, error) {
	in := &s.in
	switch in.state {
	case atHeader:
		return s.header(p)
	case inPacket:
		b, n, ok := in.collect(p, in.body)
		if !ok {
			return n, nil
		}
		in.state = atHeader
		return n, s.packet(b[:in.meta], b[in.meta:], nil)
	case inHead, inMeta:
		b, n, ok := in.collect(p, in.meta)
		switch {
		case !ok:
			return n, nil
		case in.state == inHead:
			return n, s.longPacket(b)
		}
		return n, s.frame(b, f)
	case inWhole:
		b, n, ok := in.collect(p, in.body-in.meta)
		if !ok {
			return n, nil
		}
		in.state = atHeader
		return n, s.whole(b, f)
	case inPieces:
		return s.piece(p, f), nil
	}
	n := min(in.rest, len(p))
	if in.rest -= n; in.rest == 0 {
		in.state = atHeader
	}
	return n, nil
}

// header reads a header, and begins what follows it.
func (s *Session) header(p []byte) (int, error) {
	in := &s.in
	n := copy(in.head[in.nhead:], p)
	in.nhead += n
	magic := binary.BigEndian.Uint32(in.head[:])
	if in.nhead < headerLen || magic != magicRPC && magic != magicStream {
		return n, checkMagic(in.head[:in.nhead])
	}
	in.nhead = 0
	body, meta := int64(binary.BigEndian.Uint32(in.head[4:])), int64(binary.BigEndian.Uint32(in.head[8:]))
	// What is too long is not skipped: four gigabytes are as cheap to announce as one.
	most := int64(s.maxMessage) + headerLen + maxRPCMeta + maxFrameMeta
	switch {
	case meta == 0:
		return n, failf("packet or frame without a meta")
	case meta > body:
		return n, codef(status.FrameSize, "meta of %d bytes in a body of %d", meta, body)
	case body > most:
		return n, codef(status.FrameSize, "body of %d bytes, at most %d", body, most)
	case magic == magicRPC && meta > maxRPCMeta, magic == magicStream && meta > maxFrameMeta:
		return n, codef(status.FrameSize, "meta of %d bytes", meta)
	}
	in.body, in.meta = int(body), int(meta)
	switch {
	case magic == magicStream:
		in.state = inMeta
	case body-meta > wholeMax:
		in.state = inHead
	default:
		in.state = inPacket
	}
	return n, nil
}

// checkMagic refuses input that can't become a packet or frame, at its first wrong
// byte.
func checkMagic(head []byte) error {
	for k := 1; k <= min(len(head), 4); k++ {
		if got := head[:k]; string(got) != "PRPC"[:k] && string(got) != "STRM"[:k] {
			return failf("%q where a packet or frame must begin", string(got))
		}
	}
	return nil
}

// collectable refuses what is longer than the largest buffer of package pool.
func collectable(n int) error {
	if n > pool.MaxLen {
		return codef(status.FrameSize, "%d bytes to be taken as one, at most %d", n, pool.MaxLen)
	}
	return nil
}

// collect returns n bytes once they have come, and how many it used of p. If p holds all
// of them they are not copied; else they are, into memory that grows with what has come.
func (in *input) collect(p []byte, n int) (b []byte, used int, ok bool) {
	if in.ngot == 0 && len(p) >= n {
		return p[:n], n, true
	}
	if len(p) == 0 {
		return nil, 0, false
	}
	used = min(n-in.ngot, len(p))
	if need := in.ngot + used; need > in.got.Len() {
		m := pool.New(min(n, max(need, 2*in.got.Len(), wholeMax)))
		copy(m.Bytes(), in.got.Bytes()[:in.ngot])
		in.got.Release()
		in.got = m
	}
	copy(in.got.Bytes()[in.ngot:], p[:used])
	if in.ngot += used; in.ngot < n {
		return nil, used, false
	}
	b = in.got.Bytes()[:n]
	in.stale.Push(in.got)
	in.got, in.ngot = pool.Message{}, 0
	return b, used, true
}

// uselessFrame counts a frame without effect.
func (s *Session) uselessFrame() error {
	if s.in.useless++; s.in.useless > maxUseless {
		return codef(status.EnhanceYourCalm, "too many frames without effect in a row")
	}
	return nil
}

// lateFrame counts a frame for a call or stream that was removed. Each removal allows one
// such frame, since many calls can be canceled at once; the others are useless.
func (s *Session) lateFrame() error {
	s.mu.Lock()
	expected := s.lateFrames > 0
	if expected {
		s.lateFrames--
	}
	s.mu.Unlock()
	if expected {
		return nil
	}
	return s.uselessFrame()
}

// reply has the writer write what b appends. What is appended while other replies are
// pending is written with them.
func (s *Session) reply(b func(b []byte) []byte) error {
	s.mu.Lock()
	first := !s.called
	s.called = true
	s.pending = b(s.pending)
	n := len(s.pending)
	s.mu.Unlock()
	if n > maxPending {
		return codef(status.EnhanceYourCalm, "the peer does not read: more than %d bytes of answers are pending", maxPending)
	}
	if first {
		s.emit(frame.Frame{Kind: frame.Reply})
	}
	return nil
}

// callWriter has the writer look at what it has to do.
func (s *Session) callWriter() error { return s.reply(func(b []byte) []byte { return b }) }

// reset answers with an RST.
func (s *Session) reset(peer int64) error {
	return s.reply(func(b []byte) []byte { return appendRST(b, peer) })
}
