package strm

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Session is the protocol of one connection. It implements frame.Session.
type Session struct {
	frame.Base
	proto      Protocol
	client     bool
	maxMessage int           // longest message that we take, bytes
	peerBody   int           // longest body that the peer takes, bytes
	settle     time.Duration // see Protocol.Settle
	maxCalls   int           // see Protocol.MaxCalls

	in  input  // the reader's
	out output // the writer's

	mu      sync.Mutex
	table   table
	called  bool      // a Reply is on its way to the writer
	pending []byte    // what the reader wants written
	young   []*stream // a client's that were established, for the writer to look after
	owed    owed
	// lateFrames is how many frames may still come for what was removed from the table.
	// They do not count as useless.
	lateFrames int
}

func newSession(client bool, maxMessage, peerBody int) *Session {
	s := &Session{client: client, maxMessage: maxMessage, peerBody: peerBody}
	s.in.next = 1
	s.in.rpc.most = maxMetadata
	s.table.streams = map[uint64]*stream{}
	return s
}

// Caps tells what the protocol can carry.
func (s *Session) Caps() frame.Caps {
	c := s.proto.Caps()
	c.PeerCalls = s.maxCalls
	return c
}

// Closed implements frame.Session.
func (s *Session) Closed() {
	in := &s.in
	in.got.Release()
	in.got, in.ngot = pool.Message{}, 0
	in.stale.Release()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.table.streams {
		if c := st.call.Load(); c != nil {
			s.forgetEarly(c)
		}
	}
}

// maxStream is the last number of a stream. The peer knows the stream by the same number.
const maxStream = 1 << 62

// Begun implements frame.Session. A long packet or frame counts as several, each as long
// as the largest frame that we write: brpc sends tens of megabytes in one, and only a
// peer that stops in the middle is late.
func (s *Session) Begun() (at int64, ok bool) {
	in := &s.in
	whole := (in.offset - in.begun) / maxFragment * maxFragment
	return in.begun + whole, !in.between()
}

// phase is how far a stream is.
type phase uint32

const (
	requested     phase = iota // by us: its request has no answer yet
	offered                    // by the peer: its request has no answer yet
	established                // established
	closeReceived              // the peer has sent CLOSE, we have not
	closeSent                  // we have sent CLOSE, the peer has not
	discarding                 // as closeSent, and what still comes is discarded
	removed                    // not in the table
)

// A stream is what the session knows of one. It is in the table from its request
// until one of these:
//   - its request failed, or its answer did not accept it;
//   - each side has sent CLOSE or RST;
//   - it waits for the peer's CLOSE, and is the oldest of too many that do;
//   - for a call: its answer was written or has come, or the call was canceled.
type stream struct {
	id    uint64               // the kernel's number, by which the peer knows it
	peer  int64                // the id by which we know the peer's end
	phase atomic.Uint32        // changes under the session's lock
	call  atomic.Pointer[call] // its request, while that has no answer

	// Set before the phase is established.
	feedback  bool // the peer wants reports of what was taken
	noReceive bool // the peer reads nothing

	// See young.go.
	heard   atomic.Bool   // the peer has written on it since it was established
	held    atomic.Uint32 // type of the frame that ends it and that is written later; 0: none
	greeted bool          // a report of nothing has come; the reader's
	asked   uint8         // how often the peer has asked whether we know it; the reader's
	lost    bool          // the peer was asked, and may answer that it does not know it; under the lock
	young   time.Time     // a server's: until when its end is held back; the writer's
	waits   atomic.Bool   // a client's: the kernel waits for Ready

	canceled      bool // before the answer; under the lock
	givenUp       bool // by us, before the answer, and it counts as that; under the lock
	closeRepeated bool // the peer may have forgotten the stream and answer with an RST; under the lock
	ended         bool // before the answer, and the end is written behind that; the writer's

	sent     atomic.Uint64 // payload bytes
	reported atomic.Uint64 // payload bytes that the peer says it has taken; set by the reader

	// The writer's: see retry.go.
	window  uint64 // bytes that may be unread at the peer; 0: no bound
	probeAt uint64 // of sent, when the window is full and has not been probed
	probes  uint8

	inMessage bool // between two segments of a message; the reader's

	older, newer *stream // of those that wait for the peer's last frame; under the lock
}

func (st *stream) is(p phase) bool { return phase(st.phase.Load()) == p }

// A call is a request that has no answer yet. Its answer is one message, or it
// establishes streams.
type call struct {
	first       uint64 // number of its stream, or of the first
	n           int    // streams
	unary       bool
	correlation int64
	noPackage   bool // a server's: the service's name has no dot

	written  bool // a client's: the peer may answer; under the lock
	canceled int  // streams that were canceled; under the lock

	// The writer's.
	method          string
	metadata        metadata.MD   // the request's, or the reply's headers
	timeout         int64         // milliseconds; 0 is none
	feedback        bool          // we want reports of what the peer takes
	writable        bool          // we read
	accepted        int           // a server's: streams that were accepted
	limits          []frame.Grant // and their windows; nil: by default
	waits           bool          // for the first message, which is the request or reply
	handlerAccepted bool          // a server's
	payload         []byte        // of the Open or Accept
	msg             pool.Message
	messages        int
	deferred        []byte // frames for the further streams, their ends too, behind the answer

	// The reader's.
	answered  bool // the reply has begun
	early     []earlyFrame
	earlySize int
}

// newCall enters a request and its streams, with what this side grants on them, into the
// table. A call and its one stream live equally long, so they are allocated together.
func (s *Session) newCall(v call, p phase, gs []frame.Grant) *call {
	var c *call
	var one *stream
	if v.unary {
		both := &struct {
			stream
			call
		}{call: v}
		c, one = &both.call, &both.stream
	} else {
		c = &v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range c.n {
		st := one
		if st == nil {
			st = new(stream)
		}
		st.id = c.first + 2*uint64(i)
		st.setWindow(window(gs, i))
		st.call.Store(c)
		st.phase.Store(uint32(p))
		s.table.add(st)
	}
	return c
}

// setWindow is called before anything is written to the stream.
func (st *stream) setWindow(n uint64) {
	if st.window, st.probeAt = n, n; n == 0 {
		st.probeAt = never
	}
}

// earlyFrame is a frame for a stream whose request has no answer yet.
type earlyFrame struct {
	st      *stream
	meta    frameMeta
	payload pool.Message
}

// table is the streams by their numbers.
type table struct {
	streams map[uint64]*stream
	oldest  *stream // those that wait for the peer, the oldest first
	newest  *stream
	waiting int
	peak    int // streams that did not wait, at most
	givenUp int // see owed
}

func (t *table) add(st *stream) {
	t.streams[st.id] = st
	t.peak = max(t.peak, len(t.streams)-t.waiting)
}

// remove takes st out of the table, if it is there.
func (t *table) remove(st *stream) {
	if phase(st.phase.Swap(uint32(removed))) == removed {
		return
	}
	delete(t.streams, st.id)
	t.unwait(st)
	t.settleGivenUp(st)
}

// wait notes that st only waits for the peer's last frame. It returns the stream that
// has waited longest if too many do.
func (t *table) wait(st *stream) (evicted *stream) {
	if st.older != nil || t.oldest == st {
		return nil
	}
	st.older = t.newest
	if t.newest != nil {
		t.newest.newer = st
	} else {
		t.oldest = st
	}
	t.newest = st
	if t.waiting++; t.waiting <= max(leastClosing, t.peak) {
		return nil
	}
	return t.oldest
}

func (t *table) unwait(st *stream) {
	if st.older == nil && t.oldest != st {
		return
	}
	t.waiting--
	if st.older != nil {
		st.older.newer = st.newer
	} else {
		t.oldest = st.newer
	}
	if st.newer != nil {
		st.newer.older = st.older
	} else {
		t.newest = st.older
	}
	st.older, st.newer = nil, nil
}

// await has st wait for the peer's last frame in phase p, under the lock. It removes the
// oldest such stream if there are too many; an answer that still comes for it is a frame
// for an unknown stream. If ended is not 0 the kernel waits for the end of that stream,
// and the caller reports it.
func (s *Session) await(st *stream, p phase) (ended uint64) {
	st.phase.Store(uint32(p))
	old := s.table.wait(st)
	if old == nil {
		return 0
	}
	if c := old.call.Load(); c != nil { // a request that was canceled
		s.each(c, func(_ int, st *stream) { s.table.remove(st) })
		return 0
	}
	if old.is(closeSent) {
		ended = old.id
	}
	s.table.remove(old)
	return ended
}

// recent is a cache of streams that had data lately, indexed by their numbers: a lookup
// costs a fraction of one in the table. The array is allocated for the second stream.
type recent struct {
	one  *stream
	many *[recentSlots]*stream
}

const recentSlots = 64

// get returns the stream with number id, if it is here and still in the table.
func (r *recent) get(id uint64) *stream {
	st := r.one
	if st == nil || st.id != id {
		if r.many == nil {
			return nil
		}
		if st = r.many[id/2%recentSlots]; st == nil || st.id != id {
			return nil
		}
	}
	if st.is(removed) {
		return nil
	}
	return st
}

// put notes st.
func (r *recent) put(st *stream) {
	if r.one == nil || r.one.is(removed) {
		r.one = st
		return
	}
	if r.many == nil {
		r.many = new([recentSlots]*stream)
	}
	r.many[st.id/2%recentSlots] = st
}

// find returns the stream with number id, or nil.
func (s *Session) find(id uint64) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.streams[id]
}

// each calls f, under the lock, with the streams of a call that are in the table.
func (s *Session) each(c *call, f func(i int, st *stream)) {
	for i := range c.n {
		if st := s.table.streams[c.first+2*uint64(i)]; st != nil && st.call.Load() == c {
			f(i, st)
		}
	}
}

// A codeError gives an error its code.
type codeError struct {
	code status.Code
	text string
}

func (e *codeError) Error() string { return e.text }

func failf(format string, args ...any) error {
	return &codeError{status.Protocol, fmt.Sprintf(format, args...)}
}

func codef(c status.Code, format string, args ...any) error {
	return &codeError{c, fmt.Sprintf(format, args...)}
}
