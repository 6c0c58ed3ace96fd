package triple

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Bounds of a header block. What is beyond the peer's share of metadata is decoded, for the
// sake of what follows, and dropped.
const (
	maxBlock  = 256 << 10 // bytes of it, compressed
	maxParts  = 128       // frames of it
	maxString = 64 << 10  // bytes of a name or value
)

// What a header block is for.
type blockKind uint8

const (
	blockGone     blockKind = iota // a stream that is over
	blockRequest                   // a new stream
	blockResponse                  // the answer to one of ours
	blockTrailers
)

// A block is a header block while it arrives, and what it has said.
type block struct {
	limit int // bytes of metadata that are kept

	open bool // CONTINUATION is to come
	id   uint32
	kind blockKind
	st   *stream
	end  bool // END_STREAM

	bytes, parts int
	size         int    // of the metadata, as Size counts
	malformed    string // why the block is against the rules; "": it is not
	regular      bool   // a field has come that is no pseudo-header

	method, scheme, path, status string
	authority                    bool
	contentType                  string
	te                           string
	timeout                      string
	encoding, accept             string
	length                       string
	grpcStatus, message, details string
	hasStatus, hasRequest        bool
	notProcessed, aborted        bool
	md                           metadata.MD
}

// begin empties b for a new block.
func (b *block) begin(id uint32, kind blockKind, st *stream, end bool) {
	*b = block{limit: b.limit, id: id, kind: kind, st: st, end: end}
}

// headersHead is how many bytes come before the header block in a HEADERS.
func headersHead(flags byte) int {
	n := 0
	if flags&fPadded != 0 {
		n++
	}
	if flags&fPriority != 0 {
		n += 5
	}
	return n
}

// headersBegin begins a HEADERS; p is what comes before the block.
func (s *Session) headersBegin(p []byte) error {
	in := &s.in
	if len(p) < headersHead(in.flags) {
		return s.fault(status.FrameSize, "HEADERS of %d bytes", len(p))
	}
	if in.flags&fPadded != 0 {
		if in.pad = int(p[0]); in.pad > in.left {
			return s.fault(status.Protocol, "padding of %d bytes in %d", in.pad, in.left)
		}
		in.left -= in.pad
	}
	kind, st := blockGone, s.find(in.id)
	switch {
	case st != nil && s.client && !st.answered:
		kind = blockResponse
	case st != nil:
		kind = blockTrailers
	case s.client:
		if s.idle(in.id) {
			return s.fault(status.Protocol, "HEADERS on stream %d, which was never opened", in.id)
		}
	case in.id&1 == 0:
		return s.fault(status.Protocol, "HEADERS on stream %d of a client", in.id)
	case in.id > in.last:
		kind, in.last = blockRequest, in.id
	}
	if st != nil && st.byPeer.Load() || kind == blockGone && (s.resets.Load() == 0 || s.endedByPeer(in.id)) {
		return s.fault(status.StreamState, "HEADERS on stream %d after its end", in.id)
	}
	in.block.begin(in.id, kind, st, in.flags&fEndStream != 0)
	return s.blockBegin()
}

// continuation begins a CONTINUATION.
func (s *Session) continuation() error {
	if s.in.block.parts++; s.in.block.parts > maxParts {
		return s.fault(status.EnhanceYourCalm, "a header block in more than %d frames", maxParts)
	}
	return s.blockBegin()
}

func (s *Session) blockBegin() error {
	if s.in.left == 0 {
		return s.blockEnd()
	}
	s.in.state = inBlock
	return nil
}

// blockPart takes a part of the header block.
func (s *Session) blockPart(p []byte) error {
	b := &s.in.block
	if b.bytes += len(p); b.bytes > maxBlock {
		return s.fault(status.EnhanceYourCalm, "a header block of more than %d bytes", maxBlock)
	}
	if _, err := s.in.hpack.Write(p); err != nil {
		return s.badBlock(err)
	}
	return nil
}

// blockEnd is called at the end of a frame of the header block.
func (s *Session) blockEnd() error {
	in := &s.in
	b := &in.block
	s.pass(in.pad)
	if b.open = in.flags&fEndHeaders == 0; b.open {
		return nil
	}
	if err := in.hpack.Close(); err != nil {
		return s.badBlock(err)
	}
	s.headers(b)
	b.begin(0, blockGone, nil, false)
	return nil
}

func (s *Session) badBlock(err error) error {
	s.fatal.Store(uint32(eCompression))
	return s.fault(status.Protocol, "header block: %v", err)
}

// emit takes a field of the block.
func (b *block) emit(f hpack.HeaderField) {
	if strings.HasPrefix(f.Name, ":") {
		b.pseudo(f)
		return
	}
	b.regular = true
	switch f.Name {
	case "content-type":
		b.contentType = f.Value
	case "te":
		if b.te = f.Value; f.Value != "trailers" {
			b.wrong("te is not trailers")
		}
	case "grpc-timeout":
		b.timeout = f.Value
	case "grpc-encoding":
		b.encoding = f.Value
	case "grpc-accept-encoding":
		b.accept = f.Value
	case "grpc-status":
		b.grpcStatus, b.hasStatus = f.Value, true
	case "grpc-message":
		b.message = f.Value
	case "content-length":
		b.length = f.Value
	case requestFollows:
		b.hasRequest = true
	case notProcessed:
		b.notProcessed = true
	case aborted:
		b.aborted = true
	case "user-agent":
		if f.Value != agent {
			b.field(f)
		}
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		b.wrong("a field of the connection: " + f.Name)
	default:
		b.field(f)
	}
}

// The names of fields that sluice programs send each other: the first message is the request
// of an open, or the reply of its acceptance; no handler has seen the stream; both halves
// end now.
const (
	requestFollows = "sluice-first"
	notProcessed   = "sluice-not-processed"
	aborted        = "sluice-aborted"
)

func (b *block) wrong(why string) {
	if b.malformed == "" {
		b.malformed = why
	}
}

func (b *block) pseudo(f hpack.HeaderField) {
	var v *string
	switch f.Name {
	case ":method":
		v = &b.method
	case ":scheme":
		v = &b.scheme
	case ":path":
		v = &b.path
	case ":status":
		v = &b.status
	case ":authority":
		if b.authority {
			b.wrong("two " + f.Name)
		}
		b.authority = true
	}
	switch request := b.kind == blockRequest; {
	case b.regular:
		b.wrong("a pseudo-header behind other fields")
	case b.kind == blockTrailers:
		b.wrong("a pseudo-header in trailers")
	case b.kind != blockGone && (request == (f.Name == ":status")), v == nil && f.Name != ":authority":
		b.wrong("pseudo-header " + f.Name)
	case v != nil && *v != "":
		b.wrong("two " + f.Name)
	case v != nil && f.Value == "":
		b.wrong("an empty " + f.Name)
	}
	if v != nil {
		*v = f.Value
	}
}

// field takes a field of the application's. Those whose names metadata can't have are left
// out.
func (b *block) field(f hpack.HeaderField) {
	name := fieldName(f.Name)
	if name == nameWrong || !fieldValue(f.Value) {
		b.wrong("a field's name or value")
		return
	}
	if name == nameOther || b.kind == blockGone {
		return
	}
	if b.size += len(f.Name) + len(f.Value) + 32; b.size > b.limit {
		b.md = nil
		return
	}
	if strings.HasSuffix(f.Name, binSuffix) {
		b.binary(f)
		return
	}
	b.md = append(b.md, metadata.Field{Key: f.Name, Value: f.Value})
}

// binary takes a field with binary values, of which several can be joined by commas.
func (b *block) binary(f hpack.HeaderField) {
	if f.Name == detailsKey && b.kind != blockRequest {
		b.details = f.Value
	}
	for v := range strings.SplitSeq(f.Value, ",") {
		p, ok := decodeBase64(strings.Trim(v, " \t"))
		if !ok {
			b.wrong("a value of " + f.Name + " that is not base64")
			return
		}
		b.md = append(b.md, metadata.Field{Key: f.Name, Value: p})
	}
}

// omitted is the size of the metadata if that was too large to keep.
func (b *block) omitted() int {
	if b.size > b.limit {
		return b.size
	}
	return 0
}

// headers handles a complete header block.
func (s *Session) headers(b *block) {
	switch b.kind {
	case blockRequest:
		s.request(b)
	case blockResponse:
		s.response(b)
	case blockTrailers:
		s.trailers(b)
	default:
		_ = s.useless()
	}
}

// request handles the headers that open a stream.
func (s *Session) request(b *block) {
	st := &stream{id: b.id, told: s.ownWindow}
	reset := func(c status.Code, why string) {
		st.dead, st.refused = true, true
		s.add(st)
		s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: replyReset, Code: c, Reason: why})
	}
	refuse := func() {
		st.dead, st.refused = true, true
		if b.end {
			s.noteEnd(st)
		}
		s.add(st)
	}
	answer := func(c status.Code, why string) {
		refuse()
		s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: replyStatus, Code: c, Reason: why})
	}
	timeout, okTimeout := parseTimeout(b.timeout)
	enc, known := encodingOf(b.encoding)
	method, okPath := methodOf(b.path)
	switch {
	case b.malformed != "":
		reset(status.Protocol, b.malformed)
		return
	case b.method == "" || b.scheme == "" || b.path == "":
		reset(status.Protocol, "a request without :method, :scheme or :path")
		return
	case !st.setLength(b.length) || b.end && st.extra != nil && st.extra.length > 0:
		reset(status.Protocol, "a wrong content-length")
		return
	case b.method != "POST":
		refuse()
		s.answer(st, 405, "gRPC takes POST only")
		return
	case !isGRPC(b.contentType):
		refuse()
		s.answer(st, 415, "gRPC takes application/grpc only")
		return
	case !okPath:
		answer(status.Unimplemented, "malformed method name")
		return
	case !okTimeout:
		answer(status.Internal, "malformed grpc-timeout")
		return
	case !known:
		answer(status.Unimplemented, "grpc-encoding "+strconv.Quote(b.encoding)+" is not known: accepted are "+acceptEncoding)
		return
	}
	if b.contentType != contentType {
		st.more().contentType = b.contentType
	}
	st.encoding = enc
	s.add(st)
	s.emit(frame.Frame{
		Kind: frame.Open, Stream: uint64(st.id), Method: method, Metadata: b.md, Omitted: b.omitted(),
		Deadline: timeout, Grants: s.in.grants(), FollowsData: b.hasRequest, Unpacks: accepts(b.accept),
	})
	if b.end {
		s.peerEnds(st)
	}
}

// grants is one grant with the peer's first window. It is copied before the next call.
func (in *input) grants() []frame.Grant {
	in.grant[0] = frame.Grant{Credit: uint64(in.peer.initialWindow)}
	return in.grant[:]
}

// setLength takes a content-length; false if it is none.
func (st *stream) setLength(v string) bool {
	if v == "" {
		return true
	}
	n, err := strconv.ParseUint(v, 10, 62)
	if err != nil {
		return false
	}
	x := st.more()
	x.length, x.hasLimit = int64(n), true
	return true
}

func (st *stream) more() *extra {
	if st.extra == nil {
		st.extra = &extra{}
	}
	return st.extra
}

// isGRPC reports whether a content-type is gRPC's: "application/grpc", "application/grpc+proto"
// and the like.
func isGRPC(ct string) bool {
	const grpc = "application/grpc"
	if len(ct) < len(grpc) || !strings.EqualFold(ct[:len(grpc)], grpc) {
		return false
	}
	rest := ct[len(grpc):]
	return rest == "" || rest[0] == '+' || rest[0] == ';'
}

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
	case !st.setLength(b.length) || b.end && st.extra != nil && st.extra.length > 0:
		s.resetStream(st, status.Protocol, "a wrong content-length")
		return
	}
	st.answered = true
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
	st.dead = true
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
	s.settle(st)
}

// trailers handles the end of a stream.
func (s *Session) trailers(b *block) {
	st := b.st
	switch {
	case st.plain.Load() != nil && (b.malformed != "" || !b.end):
		s.resetPlain(st, status.Protocol, "trailers against the rules")
		return
	case st.plain.Load() != nil:
		s.peerEnds(st)
		return
	case st.dead:
		if b.end {
			s.noteEnd(st)
			s.settle(st)
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
	s.settle(st)
}

// noteEnd notes that the peer has ended its half.
func (s *Session) noteEnd(st *stream) {
	st.recvEnd.Store(true)
	st.byPeer.Store(true)
	s.forget(st)
}

// stopAfterEnd ends our half after the server's end in order. That ends a call of gRPC's
// both ways; a sluice server may go on reading, and says when it does not.
func (s *Session) stopAfterEnd(st *stream) {
	if !s.kin {
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

// parseTimeout parses a grpc-timeout: at most 8 digits, and a unit. Zero is 0; what is too
// short to be counted is a nanosecond.
func parseTimeout(v string) (time.Duration, bool) {
	if v == "" {
		return 0, true
	}
	n := len(v) - 1
	if n < 1 || n > 8 {
		return 0, false
	}
	u, err := strconv.ParseUint(v[:n], 10, 32)
	if err != nil || v[0] == '+' {
		return 0, false
	}
	unit := timeUnit(v[n])
	if unit == 0 {
		return 0, false
	}
	if u > uint64(longest/unit) {
		return longest, true
	}
	return max(time.Duration(u)*unit, 1), true
}

// longest is the longest time that is told apart: 10^8 hours are more than 63 bits hold.
const longest = time.Duration(1 << 62)

func timeUnit(c byte) time.Duration {
	switch c {
	case 'H':
		return time.Hour
	case 'M':
		return time.Minute
	case 'S':
		return time.Second
	case 'm':
		return time.Millisecond
	case 'u':
		return time.Microsecond
	case 'n':
		return time.Nanosecond
	}
	return 0
}

// appendTimeout appends d as a grpc-timeout, rounded up, in the smallest unit in which it
// has at most 8 digits.
func appendTimeout(b []byte, d time.Duration) []byte {
	const most = 99_999_999
	for _, c := range []byte("numSMH") {
		unit := timeUnit(c)
		n := int64((d + unit - 1) / unit)
		if d > longest {
			n = int64(d / unit)
		}
		if n <= most {
			return append(strconv.AppendInt(b, n, 10), c)
		}
	}
	return append(b, "99999999H"...)
}

// accepts is what a grpc-accept-encoding names of what we know.
func accepts(v string) (set pool.Compressions) {
	for v != "" {
		var name string
		name, v, _ = strings.Cut(v, ",")
		if e, known := encodingOf(strings.TrimSpace(name)); known && e != identity {
			set |= pool.CompressionsOf(e.compression())
		}
	}
	return set
}
