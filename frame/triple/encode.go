package triple

import (
	"cmp"
	"encoding/base64"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// headerWriter writes header blocks. It is a part of the writer.
type headerWriter struct {
	enc   *hpack.Encoder
	size  uint32 // of the encoder's table
	o     *frame.Out
	at    int
	agent string
}

// agent is what a client calls itself.
const agent = "grpc-go-sluice"

func (h *headerWriter) init(p Protocol) {
	h.enc, h.size = hpack.NewEncoder(h), defaultTableSize
	if h.agent = agent; p.UserAgent != "" {
		h.agent = p.UserAgent + " " + agent
	}
}

// Write implements io.Writer, for the encoder.
func (h *headerWriter) Write(p []byte) (int, error) {
	h.o.Buf = append(h.o.Buf, p...)
	return len(p), nil
}

// resize keeps the table within what the peer takes.
func (h *headerWriter) resize(most uint32) {
	if n := min(most, defaultTableSize); n != h.size {
		h.size = n
		h.enc.SetMaxDynamicTableSize(n)
	}
}

func (h *headerWriter) begin(o *frame.Out) {
	h.o, h.at = o, len(o.Buf)
	o.Buf = appendHeader(o.Buf, 0, tHeaders, 0, 0)
}

// field writes a field that is likely to come again.
func (h *headerWriter) field(name, value string) {
	_ = h.enc.WriteField(hpack.HeaderField{Name: name, Value: value}) // Write never fails
}

// once writes a field that is not: it stays out of the table.
func (h *headerWriter) once(name, value string) {
	_ = h.enc.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: true})
}

// metadata writes fields of the application's. Caps say which there can be.
func (h *headerWriter) metadata(md metadata.MD) {
	for i := range md {
		switch f := &md[i]; {
		case f.Key == KeyContentSubtype || f.Key == KeyAuthority:
		case strings.HasSuffix(f.Key, binSuffix):
			h.field(f.Key, base64.RawStdEncoding.EncodeToString([]byte(f.Value)))
		case isText(f.Value):
			h.field(f.Key, f.Value)
		}
	}
}

// end completes the block, in as many frames as the peer's largest asks for.
func (h *headerWriter) end(id uint32, flags byte, most int) {
	o := h.o
	h.o = nil
	n := len(o.Buf) - h.at - headerLen
	head := appendHeader(nil, min(n, most), tHeaders, flags, id)
	if n <= most {
		head[4] |= fEndHeaders
		copy(o.Buf[h.at:], head)
		return
	}
	block := append([]byte(nil), o.Buf[h.at+headerLen:]...)
	o.Buf = append(append(o.Buf[:h.at], head...), block[:most]...)
	for block = block[most:]; len(block) > 0; {
		k := min(len(block), most)
		flags := byte(0)
		if k == len(block) {
			flags = fEndHeaders
		}
		o.Buf = append(appendHeader(o.Buf, k, tContinuation, flags, id), block[:k]...)
		block = block[k:]
	}
}

// reserved are the keys that metadata can't have, because HTTP or gRPC gives them a meaning.
const reserved = ",content-type,content-length,te,user-agent,host,connection,proxy-connection,keep-alive," +
	"transfer-encoding,upgrade,grpc-status,grpc-message,grpc-timeout,grpc-encoding,grpc-accept-encoding," +
	requestFollows + "," + notProcessed + "," + aborted + ","

// open writes the request that opens a stream.
func (s *Session) open(o *frame.Out, f *frame.Frame) {
	st := &stream{id: uint32(f.Stream), told: uint32(s.ownWindow)}
	if f.NoReply {
		st.set(noReply)
	}
	s.streams.add(st)
	s.opened.Store(st.id)
	h := &s.out.headers
	h.begin(o)
	h.field(":method", "POST")
	h.field(":scheme", s.scheme)
	h.field(":path", "/"+encodePercent(f.Method, inPath))
	h.field(":authority", cmp.Or(f.Metadata.Get(KeyAuthority), s.authority))
	h.field("content-type", typeWith(f.Metadata.Get(KeyContentSubtype)))
	h.field("te", "trailers")
	h.field("user-agent", h.agent)
	h.field("grpc-accept-encoding", acceptEncoding)
	s.encoding(f.Compression)
	if f.Deadline > 0 {
		h.once("grpc-timeout", string(appendTimeout(nil, f.Deadline)))
	}
	if s.token != "" && f.Metadata.Get("authorization") == "" {
		h.field("authorization", s.token)
	}
	if f.FollowsData && s.sluice {
		h.field(requestFollows, "1")
	}
	h.metadata(f.Metadata)
	h.end(st.id, 0, int(s.maxFrame.Load()))
	s.grants(o, st, f)
}

// contentType is that of requests, and of answers to requests with it.
const contentType = "application/grpc"

// KeyContentSubtype is a key of a request's metadata that says how its messages are encoded, such
// as "json": what stands behind the plus in gRPC's content-type, "application/grpc+json". Without
// it the content-type is "application/grpc".
const KeyContentSubtype = "grpc-content-subtype"

// KeyAuthority is a key of a request's metadata that says what it names as the server, in place of
// Protocol.Authority. Servers don't tell their handlers.
const KeyAuthority = "grpc-authority"

// maxSubtype is the longest subtype that is told of, bytes.
const maxSubtype = 64

// typeWith is the content-type with a subtype; "" is none.
func typeWith(subtype string) string {
	if subtype == "" {
		return contentType
	}
	return contentType + "+" + subtype
}

// subtypeOf is the subtype of a content-type of gRPC's, "" if it has none.
func subtypeOf(ct string) string {
	sub, _, _ := strings.Cut(ct[len(contentType):], ";")
	return strings.ToLower(strings.TrimSpace(strings.TrimPrefix(sub, "+")))
}

// encoding names how our messages are compressed.
func (s *Session) encoding(c pool.Compression) {
	if c > pool.NoCompression {
		s.out.headers.field("grpc-encoding", c.String())
	}
}

// grants says what an Open or Accept grants beyond what every stream begins with.
func (s *Session) grants(o *frame.Out, st *stream, f *frame.Frame) {
	if len(f.Grants) > 0 && !st.is(recvEnd) {
		s.streamCredit(o, st, f.Grants[0].Credit)
	}
}

// accept writes the headers of an answer.
func (s *Session) accept(o *frame.Out, st *stream, f *frame.Frame) {
	s.writeAnswer(o, st, f)
	s.grants(o, st, f)
}

func (s *Session) writeAnswer(o *frame.Out, st *stream, f *frame.Frame) {
	st.set(headed)
	h := &s.out.headers
	h.begin(o)
	h.field(":status", "200")
	h.field("content-type", st.contentType())
	h.field("grpc-accept-encoding", acceptEncoding)
	s.encoding(f.Compression)
	if f.FollowsData && s.sluice {
		h.field(requestFollows, "1")
	}
	if s.proto.Dubbo {
		h.dubboAnswer()
	}
	h.metadata(f.Metadata)
	h.end(st.id, 0, int(s.maxFrame.Load()))
}

// reject refuses a stream: by trailers alone or, where the client may try again, by an
// RST_STREAM that says so.
func (s *Session) reject(o *frame.Out, st *stream, f *frame.Frame) {
	if f.NotProcessed && !s.sluice && codes[f.Code].err == eRefused {
		o.Buf = appendRST(o.Buf, st.id, eRefused)
	} else {
		s.writeTrailers(o, st, f)
		s.rstUnread(o, st)
	}
	s.drop(st)
}

// writeTrailers writes the status that ends a stream, with the headers of the answer if none
// were written.
func (s *Session) writeTrailers(o *frame.Out, st *stream, f *frame.Frame) {
	h := &s.out.headers
	h.begin(o)
	if !st.is(headed) {
		h.field(":status", "200")
		h.field("content-type", st.contentType())
		if f.Code == status.Unimplemented {
			h.field("grpc-accept-encoding", acceptEncoding)
		}
	}
	h.field("grpc-status", strconv.FormatUint(uint64(s.statusOf(f.Code)), 10))
	switch {
	case f.Reason != "":
		h.once("grpc-message", encodePercent(errtext.Clip(f.Reason, maxReason), inMessage))
	case s.proto.Dubbo && f.Code == status.OK:
		h.field("grpc-message", okMessage)
	}
	if s.proto.Dubbo {
		h.dubboTrailers(st, f.Code)
	}
	switch {
	case !s.sluice:
	case f.Kind == frame.Reject && f.NotProcessed:
		h.field(notProcessed, "1")
	case f.Kind == frame.Reset:
		h.field(aborted, "1")
	}
	h.metadata(f.Metadata)
	h.end(st.id, fEndStream, int(s.maxFrame.Load()))
	st.set(sendEnd)
}

// maxReason is how much of a reason is sent, bytes.
const maxReason = 4 << 10

// contentType is the one that the request had.
func (st *stream) contentType() string {
	if x := st.extra.Load(); x != nil && x.contentType != "" {
		return x.contentType
	}
	return contentType
}
