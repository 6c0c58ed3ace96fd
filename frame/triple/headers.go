package triple

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
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
	limit int  // bytes of metadata that are kept
	own   bool // metadata has gRPC's own fields too

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
	*b = block{limit: b.limit, own: b.own, id: id, kind: kind, st: st, end: end}
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
	kind, st := blockGone, s.streams.find(in.id)
	switch {
	case st != nil && s.client && !st.is(answered):
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
	if st != nil && st.is(byPeer) || kind == blockGone && (s.resets.Load() == 0 || s.endedByPeer(in.id)) {
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
	if b.own && isOwn(f.Name) {
		b.field(f)
	}
	switch f.Name {
	case "content-type":
		b.contentType = f.Value
	case "te":
		if b.te = f.Value; f.Value != "trailers" {
			b.wrong("te is not trailers", "")
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
	case KeyContentSubtype, KeyAuthority: // are said by other fields
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		b.wrong("a field of the connection: ", f.Name)
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

// wrong notes why the block is against the rules, the first time. It is called for each of
// 200,000 fields where a peer wants that.
func (b *block) wrong(why, name string) {
	if b.malformed == "" {
		b.malformed = why + name
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
			b.wrong("two ", f.Name)
		}
		b.authority = true
	}
	switch request := b.kind == blockRequest; {
	case b.regular:
		b.wrong("a pseudo-header behind other fields", "")
	case b.kind == blockTrailers:
		b.wrong("a pseudo-header in trailers", "")
	case b.kind != blockGone && (request == (f.Name == ":status")), v == nil && f.Name != ":authority":
		b.wrong("pseudo-header ", f.Name)
	case v != nil && *v != "":
		b.wrong("two ", f.Name)
	case v != nil && f.Value == "":
		b.wrong("an empty ", f.Name)
	}
	if v != nil {
		*v = f.Value
	}
}

// field takes a field of the application's. Those whose names metadata can't have are left
// out. What is beyond the limit is not looked at: a byte can stand for a field of 4 KiB.
func (b *block) field(f hpack.HeaderField) {
	size := len(f.Name) + len(f.Value) + 32
	if b.size > b.limit || b.kind == blockGone {
		b.size += size
		return
	}
	name := fieldName(f.Name)
	if name == nameWrong || !fieldValue(f.Value) {
		b.wrong("a field's name or value", "")
		return
	}
	if name == nameOther {
		return
	}
	if b.size += size; b.size > b.limit {
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
			b.wrong("not base64: ", f.Name)
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
	st := &stream{id: b.id, told: uint32(s.ownWindow)}
	reset := func(c status.Code, why string) {
		st.set(dead | refused)
		s.streams.add(st)
		s.emit(frame.Frame{Kind: frame.Reply, Stream: uint64(st.id), Value: replyReset, Code: c, Reason: why})
	}
	refuse := func() {
		st.set(dead | refused)
		if b.end {
			s.noteEnd(st)
		}
		s.streams.add(st)
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
	case !st.setLength(b.length) || b.end && st.isLonger():
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
		if sub := subtypeOf(b.contentType); sub != "" && len(sub) <= maxSubtype && isText(sub) {
			b.md.Add(KeyContentSubtype, sub)
		}
	}
	st.encoding = enc
	s.streams.add(st)
	s.emit(frame.Frame{
		Kind: frame.Open, Stream: uint64(st.id), Method: method, Metadata: b.md, Omitted: b.omitted(),
		Deadline: timeout, Grants: s.in.grants(), FollowsData: b.hasRequest, Unpacks: accepts(b.accept), Unsettled: !s.in.settled,
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

// isLonger reports whether data is to come, by the content-length.
func (st *stream) isLonger() bool {
	x := st.extra.Load()
	return x != nil && x.length > 0
}

func (st *stream) more() *extra {
	x := st.extra.Load()
	if x == nil {
		x = &extra{}
		st.extra.Store(x)
	}
	return x
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
