package triple

import (
	"encoding/binary"

	"golang.org/x/net/http2/hpack"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// state is what the reader is in the middle of.
type state uint8

const (
	atHeader state = iota // of a frame
	inFrame               // collecting the payload of a frame
	inBlock               // handing on a part of a header block, as it comes
	inData                // handing on the payload of a DATA frame, as it comes
	inPad                 // passing over padding
)

// input is what the reader owns. It is a state machine over the bytes. How they are cut into
// calls changes nothing but how a message is cut into pieces.
type input struct {
	state  state
	offset int64 // bytes consumed
	begun  int64 // where the frame at hand starts

	head  [headerLen]byte // the part of a header that has come
	nhead int

	typ, flags byte // of the frame at hand
	id         uint32
	left       int // bytes of it that are to come, without padding
	pad        int // padding behind that

	got []byte // what is collected of a payload that did not come whole

	st *stream // of a DATA frame; nil: it is gone

	block block // the header block at hand
	hpack *hpack.Decoder

	queue []frame.Frame // events that wait to be returned
	taken int           // how many of them were returned

	peer      peerSettings
	settled   bool   // the peer has our settings
	connSum   uint64 // the connection's credit that the peer has granted,
	connFirst uint64 // and what that was at first
	last      uint32 // a server's: the last stream that the client has opened
	peerLast  uint32 // of the peer's GOAWAYs
	recent    recent
	grant     [1]frame.Grant
	late      uint64 // bytes of data for streams that were over
	empty     int    // DATA frames without data, since there was some

	maxStreams int // of the peer's
}

func (in *input) init(own *frame.Settings) {
	in.peer = defaultSettings
	in.connSum = defaultWindow - plainReserve
	in.maxStreams = int(own.MaxStreams)
	in.peerLast = maxStream
	in.block.limit = int(own.MaxMetadata)
	in.hpack = newDecoder(in.block.emit)
}

// between tells whether nothing is incomplete. A header block is as long as it has no end.
func (in *input) between() bool { return in.state == atHeader && in.nhead == 0 && !in.block.open }

// Begun implements frame.Session.
func (s *Session) Begun() (at int64, ok bool) { return s.in.begun, !s.in.between() }

// Buffered implements frame.Session.
func (s *Session) Buffered() int { return len(s.in.got) }

// Next implements frame.Session.
func (s *Session) Next(p []byte, f *frame.Frame) (int, error) {
	in := &s.in
	f.Kind = frame.None
	used := 0
	for {
		if s.pop(f) {
			return used, nil
		}
		n, err := s.step(p[used:], f)
		used += n
		in.offset += int64(n)
		if err != nil {
			return used, err
		}
		if in.between() {
			in.begun = in.offset
		}
		if f.Kind != frame.None {
			return used, nil
		}
		if n == 0 && in.taken == len(in.queue) {
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
		if in.queue, in.taken = in.queue[:0], 0; cap(in.queue) > keptEvents {
			in.queue = nil
		}
	}
	return true
}

// keptEvents is how much memory for events a session keeps.
const keptEvents = 4

// emit queues f, for Next to return.
func (s *Session) emit(f frame.Frame) { s.in.queue = append(s.in.queue, f) }

// step goes on with p. It returns 0, and no event, if it needs more.
func (s *Session) step(p []byte, f *frame.Frame) (int, error) {
	in := &s.in
	switch in.state {
	case atHeader:
		return s.header(p)
	case inFrame:
		return s.collect(p)
	case inBlock:
		n := min(len(p), in.left)
		in.left -= n
		err := s.blockPart(p[:n])
		if err == nil && in.left == 0 {
			err = s.blockEnd()
		}
		return n, err
	case inPad:
		n := min(len(p), in.pad)
		if in.pad -= n; in.pad == 0 {
			in.state = atHeader
			return n, s.dataEnd()
		}
		return n, nil
	}
	return s.data(p, f)
}

// header takes a frame's header.
func (s *Session) header(p []byte) (int, error) {
	in := &s.in
	h, n := p, headerLen
	if in.nhead > 0 || len(p) < headerLen {
		n = copy(in.head[in.nhead:], p)
		if in.nhead += n; in.nhead < headerLen {
			return n, nil
		}
		h, in.nhead = in.head[:], 0
	}
	in.left = int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	in.typ, in.flags, in.pad = h[3], h[4], 0
	in.id = binary.BigEndian.Uint32(h[5:]) & maxStream
	if err := s.checkHeader(); err != nil {
		return n, err
	}
	switch {
	case in.typ == tData && in.flags&fPadded == 0:
		return n, s.dataBegin(nil)
	case in.typ == tHeaders && headersHead(in.flags) == 0:
		return n, s.headersBegin(nil)
	case in.typ == tContinuation:
		return n, s.continuation()
	case in.typ > tContinuation: // of an extension
		s.pass(in.left)
		return n, s.useless()
	case in.left == 0:
		return n, s.whole(nil)
	}
	in.state = inFrame
	return n, nil
}

// pass passes over n bytes that end the frame at hand.
func (s *Session) pass(n int) {
	in := &s.in
	if in.left, in.pad, in.state = 0, n, inPad; n == 0 {
		in.state = atHeader
	}
}

// checkHeader checks what every frame must keep to.
func (s *Session) checkHeader() error {
	in := &s.in
	switch {
	case in.left > ownMaxFrame:
		return s.fault(status.FrameSize, "a frame of %d bytes, at most %d", in.left, ownMaxFrame)
	case in.block.open && (in.typ != tContinuation || in.id != in.block.id):
		return s.fault(status.Protocol, "a frame of type %d, stream %d, inside the headers of stream %d", in.typ, in.id, in.block.id)
	case !in.block.open && in.typ == tContinuation:
		return s.fault(status.Protocol, "CONTINUATION without HEADERS")
	case (in.typ == tData || in.typ == tHeaders || in.typ == tPriority || in.typ == tRST) && in.id == 0:
		return s.fault(status.Protocol, "a frame of type %d on stream 0", in.typ)
	case (in.typ == tSettings || in.typ == tPing || in.typ == tGoAway) && in.id != 0:
		return s.fault(status.Protocol, "a frame of type %d on stream %d", in.typ, in.id)
	}
	return nil
}

// collect takes the payload of a frame that is handled when it is whole. Of a padded DATA,
// and of HEADERS, that is what comes before the data.
func (s *Session) collect(p []byte) (int, error) {
	in := &s.in
	want := in.left
	switch in.typ {
	case tData:
		want = 1
	case tHeaders:
		want = min(want, headersHead(in.flags))
	case tGoAway:
		want = min(want, 8+maxDebug)
	default:
		want = min(want, keptFrame)
	}
	if len(in.got) == 0 && len(p) >= want {
		in.left -= want
		return want, s.whole(p[:want])
	}
	n := min(want-len(in.got), len(p))
	in.got = append(in.got, p[:n]...)
	if len(in.got) < want {
		return n, nil
	}
	in.left -= want
	err := s.whole(in.got)
	in.got = in.got[:0]
	if cap(in.got) > keptFrame {
		in.got = nil
	}
	return n, err
}

// keptFrame is how much is looked at of a frame of another type than DATA and HEADERS.
const keptFrame = 4 << 10

// whole handles a frame, or its beginning, whose payload p is here.
func (s *Session) whole(p []byte) error {
	in := &s.in
	in.state = atHeader
	switch in.typ {
	case tData:
		return s.dataBegin(p)
	case tHeaders:
		return s.headersBegin(p)
	}
	err := s.control(p)
	s.pass(in.left) // what is not looked at
	return err
}

// dataBegin begins a DATA frame, behind its pad length.
func (s *Session) dataBegin(p []byte) error {
	in := &s.in
	size := in.left + len(p)
	if in.flags&fPadded != 0 {
		if len(p) == 0 {
			return s.fault(status.FrameSize, "padded DATA of no bytes")
		}
		if in.pad = int(p[0]); in.pad > in.left {
			return s.fault(status.Protocol, "padding of %d bytes in %d", in.pad, in.left)
		}
		in.left -= in.pad
	}
	st := s.lookup(&in.recent, in.id)
	in.st = st
	switch {
	case st == nil && s.idle(in.id):
		return s.fault(status.Protocol, "DATA on stream %d, which was never opened", in.id)
	case st == nil && (s.resets.Load() == 0 || s.endedByPeer(in.id)):
		return s.fault(status.StreamState, "DATA on stream %d, which is closed", in.id)
	case st != nil && st.is(byPeer):
		return s.fault(status.StreamState, "DATA on stream %d after its end", in.id)
	case st != nil && s.client && !st.is(answered):
		return s.fault(status.Protocol, "DATA on stream %d before its headers", in.id)
	}
	if st != nil {
		s.hold(st, size-in.left)
	} else if size > in.left {
		s.giveBack(size - in.left)
	}
	if in.left == 0 {
		if in.empty++; in.flags&fEndStream == 0 && in.empty > maxEmpty {
			return s.fault(status.EnhanceYourCalm, "too many DATA frames without data")
		}
		return s.dataOver()
	}
	in.empty = 0
	in.state = inData
	return nil
}

// maxEmpty is how many DATA frames without data may follow each other. An honest peer has
// one for the end of a stream.
const maxEmpty = 1000

// dataOver is called behind the data of a DATA frame.
func (s *Session) dataOver() error {
	if s.in.pad > 0 {
		s.in.state = inPad
		return nil
	}
	s.in.state = atHeader
	return s.dataEnd()
}

// dataEnd is called at the end of a frame that can be a DATA frame with END_STREAM.
func (s *Session) dataEnd() error {
	in := &s.in
	if in.typ != tData || in.flags&fEndStream == 0 {
		return nil
	}
	if st := in.st; st != nil {
		s.peerEnds(st)
	}
	return nil
}

// idle reports whether no stream with this number has been opened.
func (s *Session) idle(id uint32) bool {
	if s.client {
		return id&1 == 0 || id > s.opened.Load()
	}
	return id&1 == 0 || id > s.in.last
}

// data takes what p has of a DATA frame: one message, or a piece of one.
func (s *Session) data(p []byte, f *frame.Frame) (int, error) {
	in := &s.in
	st := in.st
	if len(p) == 0 {
		return 0, nil
	}
	p = p[:min(len(p), in.left)]
	if st == nil || st.is(dead) || st.is(gone) { // over: nothing but its credit is of interest
		in.left -= len(p)
		if st != nil && st.plain() != nil {
			st.extra.Load().length -= int64(len(p))
		}
		if err := s.lateData(len(p)); err != nil {
			return len(p), err
		}
		return len(p), s.dataPart()
	}
	n := s.message(p, st, f)
	in.left -= n
	if x := st.extra.Load(); x != nil && x.hasLimit {
		x.length -= int64(n)
	}
	return n, s.dataPart()
}

// lateData returns the credit of n bytes for a stream that is over. The bound is what a
// peer can have on its way when a stream ends, for each stream that we have ended.
func (s *Session) lateData(n int) error {
	in := &s.in
	if in.late += uint64(n); in.late > (s.resets.Load()+1)*s.connWindow {
		return s.fault(status.EnhanceYourCalm, "too much data for streams that have ended")
	}
	s.giveBack(n)
	return nil
}

func (s *Session) dataPart() error {
	if s.in.left > 0 {
		return nil
	}
	return s.dataOver()
}

// message takes a message, or a piece of one, off p. It returns how many bytes it took.
func (s *Session) message(p []byte, st *stream, f *frame.Frame) int {
	n := 0
	if st.nprefix < prefixLen {
		n = copy(st.prefix[st.nprefix:], p)
		if st.nprefix += uint8(n); st.nprefix < prefixLen {
			s.hold(st, n)
			return n
		}
		st.left = binary.BigEndian.Uint32(st.prefix[1:])
		if bad := s.checkPrefix(st); bad != "" {
			s.resetStream(st, status.Internal, bad)
			s.hold(st, n)
			return n
		}
		p = p[n:]
	}
	k := min(len(p), int(st.left))
	if k == 0 && st.left > 0 {
		s.hold(st, n)
		return n
	}
	total := int(binary.BigEndian.Uint32(st.prefix[1:]))
	st.left -= uint32(k)
	n += k
	f.Kind, f.Stream, f.Payload = frame.Data, uint64(st.id), p[:k]
	f.First, f.Last, f.Total = !st.begun, st.left == 0, total
	f.Packed = f.First && st.prefix[0] != 0 && total > 0
	if f.Cost = n; st.unspoken.Load() > 0 {
		f.Cost += int(st.unspoken.Swap(0))
	}
	if st.begun = st.left > 0; !st.begun {
		st.nprefix = 0
	}
	return n
}

// checkPrefix returns what is wrong with a message's prefix, "" if nothing is.
func (s *Session) checkPrefix(st *stream) string {
	switch {
	case st.prefix[0] > 1:
		return "a message with flags that are not known"
	case st.prefix[0] == 1 && st.encoding == identity:
		return "a compressed message, and the headers name no grpc-encoding"
	}
	return ""
}

// Run implements frame.Session: it takes small messages that are whole, one or more in each
// DATA frame.
func (s *Session) Run(p []byte, id uint64, a *pool.Arena, q *pool.Queue) int {
	in := &s.in
	st := in.st
	if st == nil || uint64(st.id) != id || st.begun || st.nprefix > 0 || st.unspoken.Load() > 0 || st.extra.Load() != nil || in.taken < len(in.queue) || st.is(dead) || st.is(gone) {
		return 0
	}
	used := 0
	for {
		if in.state == atHeader {
			h := p[used:]
			if in.nhead > 0 || len(h) < headerLen || h[3] != tData || h[4] != 0 || binary.BigEndian.Uint32(h[5:]) != st.id {
				break
			}
			n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
			if n < prefixLen || n > ownMaxFrame || len(h) < headerLen+prefixLen || !wholeMessage(h[headerLen:], n, st) {
				break
			}
			in.typ, in.flags, in.id, in.left, in.pad = tData, 0, st.id, n, 0
			in.state, in.empty = inData, 0
			used += headerLen
		}
		if in.state != inData {
			break
		}
		for {
			b := p[used:]
			if len(b) < prefixLen || !wholeMessage(b, in.left, st) {
				break
			}
			n := prefixLen + int(binary.BigEndian.Uint32(b[1:]))
			m := a.Copy(b[prefixLen:n])
			pool.SetCost(m, n)
			if b[0] == 1 && n > prefixLen {
				pool.MarkPacked(m)
			}
			q.Push(m)
			used += n
			in.left -= n
		}
		if in.left > 0 || in.pad > 0 || in.flags&fEndStream != 0 {
			break
		}
		in.state = atHeader
	}
	in.offset += int64(used)
	if in.between() {
		in.begun = in.offset
	} else if in.state == inData && in.left == 0 { // Next ends the frame
		s.endLater()
	}
	return used
}

// endLater has Next end a DATA frame whose data Run has taken.
func (s *Session) endLater() {
	if s.in.pad > 0 {
		s.in.state = inPad
		return
	}
	s.in.state = atHeader
	_ = s.dataEnd() // it emits events
	if s.in.between() {
		s.in.begun = s.in.offset
	}
}

// wholeMessage tells whether b, of a frame with left bytes, begins with a whole message
// that is short, of a stream that may send it.
func wholeMessage(b []byte, left int, st *stream) bool {
	n := binary.BigEndian.Uint32(b[1:])
	return n <= maxRun && int(n)+prefixLen <= left && int(n)+prefixLen <= len(b) && (b[0] == 0 || b[0] == 1 && st.encoding != identity)
}

// maxRun is the longest message that Run takes, bytes: longer ones have memory of their own.
const maxRun = 4 << 10
