package triple

import (
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2/hpack"

	"github.com/sluicerpc/sluice/frame"
)

// Session is the protocol of one connection. It implements frame.Session.
type Session struct {
	frame.Base
	proto     Protocol
	client    bool
	sluice    bool   // the peer is a sluice program, and knows what is sluice's own here
	authority string // of a client's requests
	scheme    string
	token     string // of a client: what authorization is

	in  input  // the reader's
	out output // the writer's

	maxFrame  atomic.Uint32 // the peer's; set by the reader
	tableSize atomic.Uint32 // likewise
	opened    atomic.Uint32 // a client's: the last stream that it has opened; set by the writer
	refund    atomic.Uint64 // bytes of the connection's window that the kernel never heard of,
	said      atomic.Uint64 // and what of them the peer knows; set by the writer

	resets    atomic.Uint64 // streams that we have ended, and the peer had not
	plains    plains
	granted   atomic.Uint64 // the reader's connSum
	unwritten atomic.Uint64 // data of streams that the peer had reset, which has used credit above; set by the writer

	fatal      atomic.Uint32 // error of the connection, where its code does not say it; set by the reader
	ownWindow  uint64        // that every stream begins with
	connWindow uint64        // our connection's

	streams table

	mu         sync.Mutex
	closed     [16]uint32 // the last streams that the peer had ended when they were over
	nextClosed int
}

// A stream is what the session knows of one. It is in the table from its HEADERS until both
// sides have ended it, or one has reset it.
//
// There may be very many: it has 48 bytes. sent and told are modulo 2^32. What counts is by how
// much they differ from other sums, and that is a window.
type stream struct {
	extra    atomic.Pointer[extra] // set by the reader
	id       uint32
	flags    atomic.Uint32
	unspoken atomic.Uint32 // what came and was not handed on: the prefix, padding
	sent     atomic.Uint32 // bytes of data; set by the writer

	told uint32 // how much the peer may send, as it knows; the writer's

	// The reader's.
	left     uint32          // bytes of the message that are to come
	grown    uint64          // by how much the peer has opened our window
	prefix   [prefixLen]byte // of the message that is arriving
	nprefix  uint8           // bytes of it that have come
	encoding encoding        // of the peer's messages
	begun    bool            // a piece of that message was handed on
}

// What is true of a stream: all but one from some time on.
const (
	gone     = 1 << iota // it is not in the table
	recvEnd              // the peer has ended its half; set by the reader
	byPeer               // by END_STREAM or RST_STREAM
	sendEnd              // we have ended ours; set by the writer
	stopped              // the kernel reads no more; set by the writer
	answered             // a client's: the answer has come; set by the reader
	noReply              // nobody waits for the answer
	refused              // a server's: the kernel does not know it; the reader's
	dead                 // it was reset for what the peer sent, and what still comes is dropped; the reader's
	headed               // a server's: its HEADERS were written; the writer's
	inside               // a message was written in part, as yet; the writer's
)

// is reports whether a flag is set.
func (st *stream) is(flag uint32) bool { return st.flags.Load()&flag != 0 }

// set sets a flag, and reports whether it was set before.
func (st *stream) set(flag uint32) bool { return st.flags.Or(flag)&flag != 0 }

// plain is the answer to a request that is no gRPC's, or nil.
func (st *stream) plain() *plain {
	if x := st.extra.Load(); x != nil {
		return x.plain.Load()
	}
	return nil
}

// extra is what few streams need.
type extra struct {
	plain    atomic.Pointer[plain] // the answer to a request that is no gRPC's
	length   int64                 // content-length: bytes that are to come
	hasLimit bool
	// contentType of the request, if it is not application/grpc; set before the kernel
	// knows the stream.
	contentType string
}

func newSession(p Protocol, g *frame.Greeting) *Session {
	s := &Session{proto: p, client: g.Client}
	s.ownWindow = min(g.Own.InitialCredit, maxWindow)
	s.connWindow = max(min(g.Own.ConnCredit, maxWindow), defaultWindow)
	s.in.init(&g.Own)
	s.in.block.own = p.Dubbo
	s.out.init(p, s.connWindow)
	s.maxFrame.Store(defaultMaxFrame)
	s.tableSize.Store(defaultTableSize)
	if g.Client {
		s.authority, s.scheme = g.Authority, "http"
		if p.Authority != "" {
			s.authority = p.Authority
		}
		if g.Secure {
			s.scheme = "https"
		}
		if len(g.Own.Token) > 0 {
			s.token = "Bearer " + string(g.Own.Token)
		}
	}
	return s
}

// applyPeer has the writer keep to the peer's settings.
func (s *Session) applyPeer() {
	ps := &s.in.peer
	s.sluice = ps.maxMessage > 0
	s.maxFrame.Store(ps.maxFrame)
	s.tableSize.Store(ps.tableSize)
}

// Caps tells what the protocol can carry.
func (s *Session) Caps() frame.Caps { return s.proto.Caps() }

// remove takes st out of the table.
func (s *Session) remove(st *stream) {
	if st.set(gone) {
		return
	}
	s.refund.Add(uint64(st.unspoken.Swap(0)))
	if st.plain() != nil {
		s.plains.open.Add(-1)
	}
	if st.is(byPeer) {
		s.mu.Lock()
		s.closed[s.nextClosed] = st.id
		s.nextClosed = (s.nextClosed + 1) % len(s.closed)
		s.mu.Unlock()
	} else {
		s.resets.Add(1)
	}
	s.streams.remove(st)
}

// endedByPeer reports whether the peer itself has ended a stream that is over, as far as that
// is remembered.
func (s *Session) endedByPeer(id uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.closed[:], id)
}

// hold notes n bytes of credit of what is not handed on yet. Only the reader calls it. The writer
// may have ended the stream since the reader looked.
func (s *Session) hold(st *stream, n int) {
	st.unspoken.Add(uint32(n))
	if st.is(gone) {
		s.forget(st)
	}
}

// settle takes st out of the table if both sides have ended it.
func (s *Session) settle(st *stream) {
	if st.is(recvEnd) && st.is(sendEnd) {
		s.remove(st)
	}
}

// A recent is a cache of the stream that had data last.
type recent struct{ st *stream }

func (s *Session) lookup(r *recent, id uint32) *stream {
	if st := r.st; st != nil && st.id == id && !st.is(gone) {
		return st
	}
	st := s.streams.find(id)
	if st != nil {
		r.st = st
	}
	return st
}

// newDecoder returns a decoder of header blocks that calls emit.
func newDecoder(emit func(hpack.HeaderField)) *hpack.Decoder {
	d := hpack.NewDecoder(defaultTableSize, emit)
	d.SetMaxStringLength(maxString)
	return d
}
