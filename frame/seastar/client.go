package seastar

import (
	"encoding/binary"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// client is a client's connection for calls. Each is a unary stream.
type client struct {
	frame.Base
	reader
	sender
	agreed
	p *Protocol

	// Owned by the reader.
	cur response

	// Owned by the writer.
	local []frame.Frame

	mu      sync.Mutex
	last    int64 // message id
	calls   map[uint64]*request
	pending map[int64]*request // by message id: written, and no reply yet
}

// A request is a call of ours without its reply.
type request struct {
	stream uint64
	id     int64 // 0: not written
	verb   uint64
	left   time.Duration // until its deadline, at start; 0: none
	start  time.Time
	noWait bool
	unsent bool // its deadline passed before it could be written
}

// A response is the one that the reader is reading.
type response struct {
	stream uint64
	took   uint32
	failed bool
	large  bool

	concluded   bool // accept and end are set
	accept      bool // an Accept is to be returned before the end
	end         frame.Frame
	endReturned bool
}

func newClient(p *Protocol, a agreed) *client {
	s := &client{p: p, agreed: a, calls: map[uint64]*request{}, pending: map[int64]*request{}}
	s.algorithm = a.compress
	s.reader.handler, s.header = s, responseLen
	if a.duration {
		s.header += durationLen
	}
	s.pack = newEnvelope(a.compress, a.limit+s.header)
	return s
}

// Caps tells what the protocol can carry.
func (s *client) Caps() frame.Caps { return caps }

// Closed implements frame.Session.
func (s *client) Closed() { s.reader.drop() }

// begin implements frameHandler.
func (s *client) begin(h []byte) (v headerInfo, err error) {
	id := int64(binary.LittleEndian.Uint64(h))
	v.size = int64(binary.LittleEndian.Uint32(h[8:]))
	s.cur = response{took: notMeasured, failed: id < 0}
	if s.duration {
		s.cur.took = binary.LittleEndian.Uint32(h[responseLen:])
	}
	if id < 0 {
		id = -id
	}
	r, ok := s.answered(id)
	switch {
	case !ok:
		return v, failf(status.StreamState, "a response to message %d, which was never sent", id)
	case r == nil: // the call was canceled
		v.action, s.cur.concluded, s.cur.endReturned = drop, true, true
		return v, nil
	}
	s.cur.stream, v.stream = r.stream, r.stream
	switch {
	case s.cur.failed:
		v.action = gather
	case v.size > int64(s.limit):
		v.action, s.cur.large = drop, true
	}
	return v, nil
}

// answered removes and returns the call with a message id. It is nil if the call was
// canceled; ok is false if no such message was sent.
func (s *client) answered(id int64) (r *request, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id <= 0 || id > s.last {
		return nil, false
	}
	if r = s.pending[id]; r != nil {
		delete(s.pending, id)
		delete(s.calls, r.stream)
	}
	return r, true
}

// admit implements frameHandler.
func (s *client) admit() bool { return true }

// before implements frameHandler: the call has been served.
func (s *client) before(f *frame.Frame) bool {
	if s.action != deliver {
		return false
	}
	setAccept(f, s.cur.stream)
	return true
}

func setAccept(f *frame.Frame, stream uint64) {
	f.Kind, f.Stream, f.Value = frame.Accept, stream, 0
	f.Metadata, f.Payload, f.FollowsData = nil, nil, false
	f.Grants = append(f.Grants[:0], frame.Grant{})
}

// after implements frameHandler: the response's end, or an exception's events.
func (s *client) after(f *frame.Frame) bool {
	c := &s.cur
	if !c.concluded {
		c.concluded = true
		s.conclude()
	}
	switch {
	case c.endReturned:
		return false
	case c.accept:
		c.accept = false
		setAccept(f, c.stream)
		return true
	}
	c.endReturned = true
	f.Kind, f.Stream, f.Code, f.Reason = c.end.Kind, c.stream, c.end.Code, c.end.Reason
	f.Metadata, f.NotProcessed = c.end.Metadata, c.end.NotProcessed
	return true
}

// conclude finds out how the call ends.
func (s *client) conclude() {
	c := &s.cur
	c.end.Kind = frame.EOS
	if c.took != notMeasured && s.duration {
		c.end.Metadata = metadata.MD{{Key: HandlerMicros, Value: strconv.FormatUint(uint64(c.took), 10)}}
	}
	c.accept = c.failed || c.large
	switch {
	case c.failed && exception(s.text, s.size, &c.end):
		c.end.Kind, c.end.NotProcessed, c.accept = frame.Reject, true, false
	case c.large:
		c.end.Code, c.end.Reason = status.TooLarge, "a reply of "+strconv.FormatInt(s.size, 10)+" bytes"
	}
}

// Messages implements frame.Session.
func (s *client) Messages(o *frame.Out, id uint64, run pool.Queue) {
	for m, ok := run.Pop(); ok; m, ok = run.Pop() {
		s.request(o, id, m)
	}
}

// Fragment implements frame.Session: a request is written in one piece, when its
// last one comes.
func (s *client) Fragment(o *frame.Out, id uint64, m pool.Message, off, n int) {
	if _, to := frame.Part(overhead, off, n); to == m.Len() {
		s.request(o, id, m)
	}
}

// request writes a call's request, and takes m over. It drops a second message, and one
// for a call that was canceled.
func (s *client) request(o *frame.Out, id uint64, m pool.Message) {
	s.mu.Lock()
	r := s.calls[id]
	if r == nil || r.id != 0 || r.unsent {
		s.mu.Unlock()
		m.Release()
		return
	}
	left := r.left
	if left > 0 {
		left -= s.p.now().Sub(r.start)
		r.unsent = left <= 0
	}
	if r.unsent { // the deadline has passed
		s.mu.Unlock()
		m.Release()
		return
	}
	s.last++
	r.id = s.last
	if !r.noWait {
		s.pending[r.id] = r
	}
	s.mu.Unlock()

	var head [maxHeader]byte
	h := head[:0]
	if s.timeout {
		h = binary.LittleEndian.AppendUint64(h, millis(left))
	}
	h = binary.LittleEndian.AppendUint64(h, r.verb)
	h = binary.LittleEndian.AppendUint64(h, uint64(r.id))
	h = binary.LittleEndian.AppendUint32(h, uint32(m.Len()))
	s.sender.frame(o, h, m)
}

// Control implements frame.Session.
func (s *client) Control(o *frame.Out, f *frame.Frame) {
	switch f.Kind {
	case frame.Open:
		s.open(o, f)
	case frame.EOS:
		s.request(o, f.Stream, pool.Message{}) // unless there was one
		s.requestSent(f.Stream)
	case frame.Reset:
		s.forget(f.Stream)
	}
}

// open notes a call. Nothing is written before its message.
func (s *client) open(o *frame.Out, f *frame.Frame) {
	verb, ok := verbOf(f.Method)
	switch {
	case !f.Unary:
		s.refuse(f, "a stream needs a connection of its own")
		return
	case !ok:
		s.refuse(f, "a method of this protocol is a number, such as #7")
		return
	}
	r := &request{stream: f.Stream, verb: verb, noWait: f.NoReply || marked(f.Metadata, NoWait)}
	if f.Deadline > 0 {
		r.left, r.start = f.Deadline, s.p.now()
	}
	s.mu.Lock()
	s.calls[f.Stream] = r
	s.mu.Unlock()
	if len(f.Payload) > 0 {
		s.request(o, f.Stream, pool.Copy(f.Payload))
	}
}

// refuse rejects an open that the protocol can't carry.
func (s *client) refuse(f *frame.Frame, why string) {
	s.local = append(s.local, frame.Frame{
		Kind: frame.Reject, Stream: f.Stream, Code: status.Unimplemented, Reason: why, NotProcessed: true,
	})
}

// verbOf is the number in a method's name.
func verbOf(method string) (uint64, bool) {
	digits, ok := strings.CutPrefix(method, "#")
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, ok && err == nil
}

// requestSent is called when the request is complete. It ends a call without a reply.
func (s *client) requestSent(id uint64) {
	s.mu.Lock()
	r := s.calls[id]
	done := r != nil && r.noWait
	if done {
		delete(s.calls, id)
	}
	s.mu.Unlock()
	if done {
		s.local = append(s.local,
			frame.Frame{Kind: frame.Accept, Stream: id}, frame.Frame{Kind: frame.EOS, Stream: id})
	}
}

// forget cancels a call. The protocol can't tell the server.
func (s *client) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.calls[id]; r != nil {
		delete(s.calls, id)
		delete(s.pending, r.id)
	}
}

// Event implements frame.Session.
func (s *client) Event(f *frame.Frame) bool {
	if len(s.local) == 0 {
		return false
	}
	e := &s.local[0]
	grants := f.Grants[:0]
	*f = *e
	f.Grants = grants
	if e.Kind == frame.Accept {
		f.Grants = append(f.Grants, frame.Grant{})
	}
	if s.local = s.local[1:]; len(s.local) == 0 {
		s.local = nil
	}
	return true
}
