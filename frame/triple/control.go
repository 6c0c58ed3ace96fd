package triple

import (
	"encoding/binary"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// control handles a frame that is neither DATA nor a part of a header block.
func (s *Session) control(p []byte) error {
	in := &s.in
	switch in.typ {
	case tPriority:
		return s.priority(p)
	case tRST:
		return s.rst(p)
	case tSettings:
		return s.peerSettings(p)
	case tPushPromise:
		return s.fault(status.Protocol, "PUSH_PROMISE, which was forbidden")
	case tPing:
		if len(p)+in.left != 8 {
			return s.fault(status.FrameSize, "PING of %d bytes", len(p)+in.left)
		}
		k := frame.Ping
		if in.flags&fAck != 0 {
			k = frame.Pong
		}
		s.emit(frame.Frame{Kind: k, Value: binary.BigEndian.Uint64(p)})
	case tGoAway:
		return s.goAway(p)
	case tWindowUpdate:
		return s.windowUpdate(p)
	}
	return nil
}

// priority checks a PRIORITY, which is ignored (RFC 9113, section 5.3.2).
func (s *Session) priority(p []byte) error {
	if n := len(p) + s.in.left; n != 5 {
		return s.fault(status.FrameSize, "PRIORITY of %d bytes", n)
	}
	return s.useless()
}

// rst takes an RST_STREAM.
func (s *Session) rst(p []byte) error {
	in := &s.in
	if n := len(p) + in.left; n != 4 {
		return s.fault(status.FrameSize, "RST_STREAM of %d bytes", n)
	}
	if s.idle(in.id) {
		return s.fault(status.Protocol, "RST_STREAM of stream %d, which was never opened", in.id)
	}
	st := s.streams.find(in.id)
	if st == nil {
		return s.useless()
	}
	e := http2Error(binary.BigEndian.Uint32(p))
	ended := st.set(recvEnd)
	st.set(byPeer)
	s.forget(st)
	s.remove(st)
	s.sayRefund()
	if st.is(refused) {
		return s.useless()
	}
	switch {
	case e == eNo && ended: // all was said, and nothing more is read
		s.emit(frame.Frame{Kind: frame.Stop, Stream: uint64(st.id)})
	case !s.client && !ended && st.is(sendEnd) && st.is(stopped): // it is over here too
		s.emit(frame.Frame{Kind: frame.EOS, Stream: uint64(st.id)})
	case e == eNo && !s.client:
		s.emit(frame.Frame{Kind: frame.Reset, Stream: uint64(st.id), Code: status.Cancelled, Reason: e.String()})
	case e == eRefused && s.client && !st.is(answered):
		s.emit(frame.Frame{Kind: frame.Reject, Stream: uint64(st.id), Code: status.Refused, Reason: e.String(), NotProcessed: true})
	default:
		s.emit(frame.Frame{Kind: frame.Reset, Stream: uint64(st.id), Code: e.code(), Reason: e.String()})
	}
	return nil
}

// useless counts a frame that changes nothing.
func (s *Session) useless() error {
	s.emit(frame.Frame{Kind: frame.Reply, Value: replyNothing})
	return nil
}

// peerSettings takes a SETTINGS.
func (s *Session) peerSettings(p []byte) error {
	in := &s.in
	n := len(p) + in.left
	switch {
	case in.flags&fAck != 0 && n > 0:
		return s.fault(status.FrameSize, "an acknowledgement of SETTINGS with %d bytes", n)
	case in.flags&fAck != 0:
		if in.settled { // there is one of ours to acknowledge
			return s.useless()
		}
		in.settled = true
		s.emit(frame.Frame{Kind: frame.Skip})
		return nil
	case n%6 != 0 || in.left > 0:
		return s.fault(status.FrameSize, "SETTINGS of %d bytes", n)
	}
	before := int64(in.peer.initialWindow)
	if err := s.readPeerSettings(p); err != nil {
		return err
	}
	if int64(in.peer.initialWindow) > before && s.isAnyWindowTooLarge() {
		return s.fault(status.FlowControl, "SETTINGS_INITIAL_WINDOW_SIZE of %d makes a stream's window larger than 2^31-1", in.peer.initialWindow)
	}
	s.emit(frame.Frame{Kind: frame.NewSettings, Settings: s.settings()})
	s.emit(frame.Frame{Kind: frame.Reply, Value: replySettings, Reason: "SETTINGS"})
	s.plainSettings(int64(in.peer.initialWindow) - before)
	return nil
}

// isAnyWindowTooLarge looks at all streams' windows, after a change of what they begin with.
func (s *Session) isAnyWindowTooLarge() bool {
	large := false
	s.streams.each(func(st *stream) {
		large = large || st.window(s.in.peer.initialWindow, 0) > maxWindow
	})
	return large
}

// goAway takes a GOAWAY. A number beyond our last stream says that all are served.
func (s *Session) goAway(p []byte) error {
	in := &s.in
	if len(p) < 8 {
		return s.fault(status.FrameSize, "GOAWAY of %d bytes", len(p))
	}
	last := binary.BigEndian.Uint32(p) & maxStream
	e := http2Error(binary.BigEndian.Uint32(p[4:]))
	if s.client && last > s.opened.Load() || !s.client {
		last = maxStream
	}
	if last > in.peerLast {
		last = in.peerLast
	}
	in.peerLast = last
	f := frame.Frame{Kind: frame.GoAway, Value: uint64(last)}
	if e != eNo {
		f.Code, f.Reason = e.code(), e.String()
		switch {
		case len(p) > 8 && e > sluiceError:
			f.Reason = string(p[8:])
		case len(p) > 8:
			f.Reason += ": " + string(p[8:])
		}
	}
	s.emit(f)
	return nil
}

// windowUpdate takes a WINDOW_UPDATE.
func (s *Session) windowUpdate(p []byte) error {
	in := &s.in
	if n := len(p) + in.left; n != 4 {
		return s.fault(status.FrameSize, "WINDOW_UPDATE of %d bytes", n)
	}
	n := binary.BigEndian.Uint32(p) & maxWindow
	if in.id == 0 {
		if n == 0 {
			return s.fault(status.Protocol, "WINDOW_UPDATE of 0")
		}
		in.connSum += s.plains.refill(uint64(n))
		s.granted.Store(in.connSum)
		s.emit(frame.Frame{Kind: frame.Credit, Value: in.connSum + s.unwritten.Load()})
		if s.plains.open.Load() > 0 {
			s.emit(bodiesFor(0, 0))
		}
		return nil
	}
	if s.idle(in.id) {
		return s.fault(status.Protocol, "WINDOW_UPDATE of stream %d, which was never opened", in.id)
	}
	st := s.lookup(&in.recent, in.id)
	if st == nil { // over: a peer may grant each DATA frame that came before the end
		s.emit(frame.Frame{Kind: frame.Credit})
		return nil
	}
	if st.is(refused) {
		s.plainCredit(st, n)
		return nil
	}
	window := st.window(in.peer.initialWindow, n)
	st.grown += uint64(n)
	switch {
	case n == 0:
		s.resetStream(st, status.Protocol, "WINDOW_UPDATE of 0")
	case window > maxWindow:
		s.resetStream(st, status.FlowControl, "a window beyond 2^31-1")
	default:
		s.emit(frame.Frame{Kind: frame.Credit, Stream: uint64(st.id), Value: uint64(in.peer.initialWindow) + st.grown})
	}
	return nil
}

// What a Reply asks the writer for, as its Value.
const (
	replyNothing  = iota
	replySettings // acknowledge them
	replyReset    // RST_STREAM with the error of the Code
	replyRefund   // the connection's credit, which has grown
	replyDone     // the server has refused: we send no more
	replyStatus   // trailers alone, with a status of gRPC's
	replyHTTP     // the answer to a request that is no gRPC's
	replyLater    // the same, in a while
	replyBodies   // more of the bodies of such answers; of one stream, or of all
)

// window is how much we may send, after a grant of n more. grown is never far from sent: neither by
// more than a window.
func (st *stream) window(first, n uint32) int64 {
	return int64(first) + int64(int32(uint32(st.grown)-st.sent.Load())) + int64(n)
}

// resetStream ends a stream for what the peer sent, and nothing else.
func (s *Session) resetStream(st *stream, c status.Code, why string) {
	if st.is(dead) {
		return
	}
	st.set(dead)
	s.forget(st)
	s.emit(frame.Frame{Kind: frame.Reset, Stream: uint64(st.id), Code: c, Reason: why, Local: true})
	s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: replyReset, Code: c, Reason: why})
}

// forget gives back what the kernel has not heard of a stream that is over.
func (s *Session) forget(st *stream) {
	if n := int(st.unspoken.Swap(0)); n > 0 {
		s.giveBack(n)
	}
}

// giveBack returns n bytes of the connection's window that the kernel never hears of.
func (s *Session) giveBack(n int) {
	s.refund.Add(uint64(n))
	s.sayRefund()
}

// sayRefund has the peer told of what was given back, when that is much or no stream is left.
func (s *Session) sayRefund() {
	if n := s.refund.Load() - s.said.Load(); n >= refundEvery || n > 0 && s.streams.n.Load() == 0 {
		s.emit(frame.Frame{Kind: frame.Reply, Value: replyRefund, Reason: "credit"})
	}
}

// refundEvery is how much of the connection's window is given back at once, bytes: less than
// half of the smallest.
const refundEvery = 16 << 10

// peerEnds is called at the peer's END_STREAM.
func (s *Session) peerEnds(st *stream) {
	if st.is(gone) || st.set(recvEnd) {
		return
	}
	st.set(byPeer)
	s.forget(st)
	switch x := st.extra.Load(); {
	case x != nil && x.hasLimit && x.length != 0 && st.plain() != nil:
		s.resetPlain(st, status.Protocol, "content-length is not the length of the data")
	case x != nil && x.hasLimit && x.length != 0:
		s.resetStream(st, status.Protocol, "content-length is not the length of the data")
	case st.plain() != nil:
		s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: replyHTTP, Reason: "the request's end"})
	case st.is(dead):
	case st.nprefix > 0:
		s.resetStream(st, status.Internal, "the stream ends inside a message")
	case s.client:
		s.emit(frame.Frame{Kind: frame.EOS, Stream: uint64(st.id), Code: status.Internal, Reason: "the server has ended the stream without trailers"})
	default:
		s.emit(frame.Frame{Kind: frame.EOS, Stream: uint64(st.id)})
	}
	s.settleRead(st)
}

// settleRead is settle for the reader: with the last stream all credit is back.
func (s *Session) settleRead(st *stream) {
	s.settle(st)
	s.sayRefund()
}
