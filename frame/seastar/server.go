package seastar

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// server is a server's connection for calls. Each is a unary stream.
type server struct {
	frame.Base
	reader
	sender
	agreed
	p *Protocol

	// Owned by the reader.
	last    int64  // message id
	next    uint64 // number of the next call's stream
	cur     call
	outcome outcome
	waiter  *waiter       // for the memory of the call at hand
	wait    chan struct{} // closed when the call at hand may be admitted; nil: it does not wait
	since   time.Time     // when the call at hand began to wait
	names   map[uint64]string

	mu     sync.Mutex
	calls  map[uint64]*call // by stream
	closed bool
	queued *waiter       // the same waiter, for Closed to cancel
	full   chan struct{} // closed when there is room for a call; nil if nobody waits
}

// An outcome is how the reader has judged the call at hand.
type outcome struct {
	refusal      string // why it was refused; empty if it was not
	code         status.Code
	lastReturned bool // its last event was returned
}

// A call is one of the client's without its reply.
type call struct {
	stream uint64
	id     int64
	verb   uint64
	left   time.Duration // until its deadline, when it came; 0: none
	start  time.Time
	cost   int64

	// Owned by the writer.
	noWait  bool
	replied bool
	extra   bool // more than one reply
	reply   pool.Message
}

func newServer(p *Protocol, a agreed) *server {
	s := &server{p: p, agreed: a, next: 1, calls: map[uint64]*call{}}
	s.algorithm = a.compress
	s.reader.handler, s.header = s, requestLen
	if a.timeout {
		s.header += timeoutLen
	}
	s.pack = newEnvelope(a.compress, a.limit+s.header)
	return s
}

// Caps tells what the protocol can carry.
func (s *server) Caps() frame.Caps {
	c := caps
	c.PeerStreams = s.maxCalls
	return c
}

// Closed implements frame.Session: the connection can't be the parent of a stream any
// more, and the memory of its calls is returned.
func (s *server) Closed() {
	s.reader.drop()
	if s.id != 0 {
		s.p.parents.remove(s.id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	for _, c := range s.calls {
		s.p.budget.release(c.cost)
		c.reply.Release()
	}
	s.calls = nil
	if s.queued != nil {
		s.p.budget.cancel(s.queued)
		s.queued = nil
	}
}

// Full implements frame.Session: reading pauses while the next request waits for room.
func (s *server) Full() <-chan struct{} {
	if !s.paused {
		return nil
	}
	return s.wait
}

// begin implements frameHandler.
func (s *server) begin(h []byte) (v headerInfo, err error) {
	c := &s.cur
	*c = call{}
	if s.timeout {
		c.left = timeLeft(binary.LittleEndian.Uint64(h))
		h = h[timeoutLen:]
	}
	c.verb = binary.LittleEndian.Uint64(h)
	c.id = int64(binary.LittleEndian.Uint64(h[8:]))
	v.size = int64(binary.LittleEndian.Uint32(h[16:]))
	if c.id <= s.last {
		return v, failf(status.Protocol, "message %d after %d", c.id, s.last)
	}
	s.last = c.id
	s.outcome = outcome{}
	s.setCost(c, v.size)
	if s.outcome.refusal != "" {
		v.action = drop
		return v, nil
	}
	c.stream = s.next
	s.next += 2
	v.stream = c.stream
	return v, nil
}

// setCost sets what a request of n bytes costs, and refuses it if that is too much.
func (s *server) setCost(c *call, n int64) {
	p := s.p
	cost := n
	most := int64(s.limit)
	if p.MaxMemory > 0 {
		c.cost = int64(p.RequestSize) + n*int64(max(p.Bloat, 1))
		if c.cost > int64(p.MaxMemory) {
			cost, most = c.cost, int64(p.MaxMemory)
		}
	}
	if cost <= most {
		return
	}
	c.cost = 0
	s.outcome.code = status.TooLarge
	s.outcome.refusal = fmt.Sprintf("std::runtime_error (request size %d large than memory limit %d, verb %d)",
		cost, most, c.verb)
}

// admit implements frameHandler: a call is admitted when it is one of MaxCalls, and there
// is memory for it. One that is refused needs neither.
func (s *server) admit() bool {
	if s.action != deliver {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := s.room()
	if wait == nil {
		wait = s.memory()
	}
	switch {
	case wait != nil && s.wait == nil:
		s.since = s.p.now()
	case wait == nil && s.wait != nil:
		s.waited(s.p.now().Sub(s.since))
	}
	s.wait = wait
	return wait == nil
}

// room returns what is closed when one more call may be served, nil if it may now. The
// lock is held.
func (s *server) room() chan struct{} {
	if s.maxCalls == 0 || len(s.calls) < s.maxCalls {
		return nil
	}
	if s.full == nil {
		s.full = make(chan struct{})
	}
	return s.full
}

// memory returns what is closed when the call at hand has its memory, nil if it has. The
// lock is held.
func (s *server) memory() chan struct{} {
	if s.cur.cost == 0 {
		return nil
	}
	if s.waiter == nil {
		t := s.p.budget.acquire(s.cur.cost)
		if t == nil {
			return nil
		}
		if s.waiter = t; s.closed {
			s.p.budget.cancel(t)
		} else {
			s.queued = t
		}
	}
	select {
	case <-s.waiter.ready:
		if s.queued == nil { // Closed has returned it
			s.cur.cost = 0
		}
		s.waiter, s.queued = nil, nil
		return nil
	default:
		return s.waiter.ready
	}
}

// waited subtracts the time waited from the time left of the call, and drops the call if
// its deadline has passed.
func (s *server) waited(d time.Duration) {
	c := &s.cur
	if c.left == 0 {
		return
	}
	if c.left -= d; c.left > 0 {
		return
	}
	s.p.budget.release(c.cost)
	s.action, s.outcome.lastReturned = drop, true
}

// before implements frameHandler: the call begins.
func (s *server) before(f *frame.Frame) bool {
	if s.action != deliver {
		return false
	}
	c := s.cur
	if s.duration {
		c.start = s.p.now()
	}
	s.mu.Lock()
	if s.closed {
		s.p.budget.release(c.cost)
	} else {
		s.calls[c.stream] = &c
	}
	s.mu.Unlock()
	f.Kind, f.Stream, f.Value = frame.Open, c.stream, 0
	f.Method, f.Metadata, f.Deadline = s.method(c.verb), nil, c.left
	f.Payload, f.FollowsData, f.Unary = nil, false, true
	f.Grants = append(f.Grants[:0], frame.Grant{})
	return true
}

// maxNames is how many verbs' names a connection remembers.
const maxNames = 256

func (s *server) method(verb uint64) string {
	n, ok := s.names[verb]
	if !ok {
		n = "#" + strconv.FormatUint(verb, 10)
		if s.names == nil {
			s.names = map[uint64]string{}
		}
		if len(s.names) < maxNames {
			s.names[verb] = n
		}
	}
	return n
}

// after implements frameHandler: the client's half ends after its one message.
func (s *server) after(f *frame.Frame) bool {
	if s.outcome.lastReturned {
		return false
	}
	s.outcome.lastReturned = true
	f.Metadata = nil
	if s.outcome.refusal != "" {
		f.Kind, f.Stream, f.Value = frame.Reply, 0, uint64(s.cur.id)
		f.Code, f.Reason = s.outcome.code, s.outcome.refusal
		return true
	}
	f.Kind, f.Stream, f.Code, f.Reason = frame.EOS, s.cur.stream, status.OK, ""
	return true
}

// Messages implements frame.Session.
func (s *server) Messages(_ *frame.Out, id uint64, run pool.Queue) {
	for m, ok := run.Pop(); ok; m, ok = run.Pop() {
		s.reply(id, m)
	}
}

// Fragment implements frame.Session: a reply is written in one piece, at its end.
func (s *server) Fragment(_ *frame.Out, id uint64, m pool.Message, off, n int) {
	if _, to := frame.Part(overhead, off, n); to == m.Len() {
		s.reply(id, m)
	}
}

// reply keeps a message until the call's end is known: it may still fail.
func (s *server) reply(id uint64, m pool.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calls[id]
	if c == nil || c.replied {
		if c != nil {
			c.extra = true
		}
		m.Release()
		return
	}
	c.reply, c.replied = m, true
}

// Control implements frame.Session.
func (s *server) Control(o *frame.Out, f *frame.Frame) {
	switch f.Kind {
	case frame.Accept:
		s.accepted(f)
	case frame.EOS, frame.Reject, frame.Reset:
		if c := s.take(f.Stream); c != nil {
			s.end(o, c, f)
			s.p.budget.release(c.cost)
		}
	case frame.Reply:
		s.throw(o, &call{id: int64(f.Value)}, exceptionUser, f.Reason, notMeasured)
	}
}

// take removes and returns a call; nil if it was removed before.
func (s *server) take(id uint64) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calls[id]
	delete(s.calls, id)
	if c != nil && s.full != nil {
		close(s.full)
		s.full = nil
	}
	return c
}

func (s *server) accepted(f *frame.Frame) {
	noWait := marked(f.Metadata, NoWait)
	s.mu.Lock()
	if c := s.calls[f.Stream]; c != nil {
		c.noWait = c.noWait || noWait
	}
	s.mu.Unlock()
	if len(f.Payload) > 0 {
		s.reply(f.Stream, pool.Copy(f.Payload))
	}
}

// marked tells whether md has key.
func marked(md metadata.MD, key string) bool {
	for i := range md {
		if md[i].Key == key {
			return true
		}
	}
	return false
}

// end writes the response to a call, unless the caller does not wait for one: it never
// did, or the deadline has passed.
func (s *server) end(o *frame.Out, c *call, f *frame.Frame) {
	late := f.Kind == frame.Reset && f.Code == status.DeadlineExceeded && c.left > 0
	ok := f.Kind == frame.EOS && f.Code == status.OK
	switch {
	case c.noWait || late || f.Kind != frame.Reset && marked(f.Metadata, NoWait):
		c.reply.Release()
	case ok && c.extra:
		c.reply.Release()
		s.throw(o, c, exceptionUser, "INTERNAL: a call with more than one reply", s.took(c))
	case ok:
		s.respond(o, c.id, c.reply, s.took(c))
	case f.Kind == frame.Reject && f.Code == status.Unimplemented && f.NotProcessed:
		c.reply.Release()
		s.throw(o, c, exceptionUnknownVerb, string(binary.LittleEndian.AppendUint64(nil, c.verb)), notMeasured)
	default:
		c.reply.Release()
		s.throw(o, c, exceptionUser, exceptionText(f.Code, f.Reason), s.took(c))
	}
}

// took is how long the handler took, as a response carries it.
func (s *server) took(c *call) uint32 {
	if !s.duration {
		return 0
	}
	return micros(s.p.now().Sub(c.start))
}

// throw writes an exception.
func (s *server) throw(o *frame.Out, c *call, kind uint32, text string, took uint32) {
	s.respond(o, -c.id, pool.MessageOf(appendException(nil, kind, text)), took)
}

func (s *server) respond(o *frame.Out, id int64, m pool.Message, took uint32) {
	var head [responseLen + durationLen]byte
	binary.LittleEndian.PutUint64(head[:], uint64(id))
	binary.LittleEndian.PutUint32(head[8:], uint32(m.Len()))
	n := responseLen
	if s.duration {
		binary.LittleEndian.PutUint32(head[responseLen:], took)
		n += durationLen
	}
	s.sender.frame(o, head[:n], m)
}
