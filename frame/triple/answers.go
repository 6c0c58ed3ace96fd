package triple

import (
	"strconv"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// response handles the headers that answer a request of ours.
func (s *Session) response(b *block) {
	st := b.st
	code, err := strconv.Atoi(b.status)
	switch {
	case b.malformed != "":
		s.resetStream(st, status.Protocol, b.malformed)
		return
	case err != nil || len(b.status) != 3 || code == 101:
		s.resetStream(st, status.Protocol, "the answer's :status is "+strconv.Quote(b.status))
		return
	case code < 200: // the answer is still to come
		if b.end {
			s.resetStream(st, status.Protocol, "a preliminary answer with an end")
		}
		return
	case !st.setLength(b.length) || b.end && st.isLonger():
		s.resetStream(st, status.Protocol, "a wrong content-length")
		return
	}
	st.set(answered)
	if code != 200 || !isGRPC(b.contentType) && !b.hasStatus {
		s.notGRPC(b, code)
		return
	}
	if b.end {
		s.trailersOnly(b)
		return
	}
	enc, known := encodingOf(b.encoding)
	if !known {
		s.resetStream(st, status.Internal, "the answer's grpc-encoding, "+strconv.Quote(b.encoding)+", was not accepted")
		return
	}
	st.encoding = enc
	s.emit(frame.Frame{
		Kind: frame.Accept, Stream: uint64(st.id), Metadata: b.md, Omitted: b.omitted(),
		Grants: s.in.grants(), FollowsData: b.hasRequest,
	})
}

// notGRPC refuses an answer that is no gRPC server's. What follows is dropped.
func (s *Session) notGRPC(b *block, code int) {
	st := b.st
	c := ofHTTP(code)
	reason := "HTTP status " + strconv.Itoa(code)
	if b.hasStatus {
		c, reason = b.result()
	}
	if code == 200 {
		reason = "the answer's content-type is " + strconv.Quote(b.contentType)
	}
	st.set(dead)
	if b.end {
		s.noteEnd(st)
	}
	s.emit(frame.Frame{Kind: frame.Reject, Stream: uint64(st.id), Code: c, Reason: reason, Metadata: b.md, Omitted: b.omitted()})
	s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: replyReset, Code: status.Cancelled, Reason: reason})
}

// trailersOnly handles an answer that is an end too.
func (s *Session) trailersOnly(b *block) {
	st := b.st
	c, reason := b.result()
	s.noteEnd(st)
	if c == status.OK {
		s.emit(frame.Frame{Kind: frame.Accept, Stream: uint64(st.id), Grants: s.in.grants()})
		s.emit(frame.Frame{Kind: frame.EOS, Stream: uint64(st.id), Metadata: b.md, Omitted: b.omitted()})
		s.stopAfterEnd(st)
	} else {
		s.emit(frame.Frame{
			Kind: frame.Reject, Stream: uint64(st.id), Code: c, Reason: reason, NotProcessed: b.notProcessed,
			Metadata: b.md, Omitted: b.omitted(),
		})
		s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: replyDone, Reason: reason})
	}
	s.settleRead(st)
}

// trailers handles the end of a stream.
func (s *Session) trailers(b *block) {
	st := b.st
	switch {
	case st.plain() != nil && (b.malformed != "" || !b.end):
		s.resetPlain(st, status.Protocol, "trailers against the rules")
		return
	case st.plain() != nil:
		s.peerEnds(st)
		return
	case st.is(dead):
		if b.end {
			s.noteEnd(st)
			s.settleRead(st)
		}
		return
	case b.malformed != "":
		s.resetStream(st, status.Protocol, b.malformed)
		return
	case !b.end:
		s.resetStream(st, status.Protocol, "headers amid a stream without its end")
		return
	case !s.client:
		s.peerEnds(st) // nothing of a request's trailers has a meaning
		return
	}
	c, reason := b.result()
	if st.nprefix > 0 {
		if c == status.OK {
			c, reason = status.Internal, "the stream ends inside a message"
		}
		s.resetStream(st, c, reason)
		return
	}
	s.noteEnd(st)
	if b.aborted {
		s.emit(frame.Frame{Kind: frame.Reset, Stream: uint64(st.id), Code: c, Reason: reason})
		s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: replyDone, Reason: reason})
		return
	}
	s.emit(frame.Frame{Kind: frame.EOS, Stream: uint64(st.id), Code: c, Reason: reason, Metadata: b.md, Omitted: b.omitted()})
	if c != status.OK {
		s.emit(frame.Frame{Kind: frame.Stop, Stream: uint64(st.id)})
	} else {
		s.stopAfterEnd(st)
	}
	s.settleRead(st)
}

// noteEnd notes that the peer has ended its half.
func (s *Session) noteEnd(st *stream) {
	st.set(recvEnd)
	st.set(byPeer)
	s.forget(st)
}

// stopAfterEnd ends our half after the server's end in order. That ends a call of gRPC's
// both ways; a sluice server may go on reading, and says when it does not.
func (s *Session) stopAfterEnd(st *stream) {
	if !s.sluice {
		s.emit(frame.Frame{Kind: frame.Stop, Stream: uint64(st.id)})
	}
}

// result is the status that trailers have.
func (b *block) result() (status.Code, string) {
	if !b.hasStatus {
		return status.Unknown, "the answer has no grpc-status"
	}
	n, err := strconv.ParseUint(b.grpcStatus, 10, 32)
	if err != nil {
		return status.Unknown, "the answer's grpc-status is " + strconv.Quote(b.grpcStatus)
	}
	if n == 0 {
		return status.OK, ""
	}
	return status.Code(n), decodePercent(b.message)
}
