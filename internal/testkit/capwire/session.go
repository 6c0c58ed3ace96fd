package capwire

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/gob"
	"io"
	"sync"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// On the wire a frame is its length in 4 bytes, its kind in one, its stream in 8, and a
// payload. That of data is a part of the stream's messages in a row, each behind a prefix
// of Overhead bytes, the first 4 of which are its length. That of a credit is a number of
// 8 bytes. Any other is a frame.Frame in gob's encoding.
const headLen = 4 + 1 + 8

// session is one connection's.
type session struct {
	frame.Base
	p *Protocol

	client bool

	own frame.Settings
	in  input

	// The writer's.
	enc  *gob.Encoder
	body bytes.Buffer

	mu      sync.Mutex
	peer    frame.Settings
	streams map[uint64]*stream
	told    uint64 // the connection's credit that the peer knows of
	given   uint64 // what the kernel has granted of it
	refund  uint64 // what the kernel never heard of: beginnings of prefixes whose streams ended
	owed    bool   // and that the peer is to be told of that
}

// A stream is what a session knows of one, from its Open to its end both ways.
type stream struct {
	unary    bool
	offered  bool   // by the peer, and not accepted
	told     uint64 // credit that the peer knows of
	got      uint64 // credit that the peer has granted
	sentEnd  bool
	readEnd  bool
	stop     bool   // to be told behind our end
	prefix   []byte // of the message that is arriving; the reader's
	left     int    // bytes of it that are to come
	begun    bool   // a piece of it was handed on
	unspoken int    // what its prefix costs, until a piece is handed on
}

func newSession(p *Protocol, g *frame.Greeting) *session {
	s := &session{p: p, client: g.Client, own: g.Own, peer: g.Peer, streams: map[uint64]*stream{}, told: g.Own.ConnCredit}
	s.given = s.told
	s.enc = gob.NewEncoder(&s.body)
	s.in.dec = gob.NewDecoder(&s.in.gob)
	s.in.got = g.Peer.ConnCredit
	return s
}

// Caps implements frame.Session.
func (s *session) Caps() frame.Caps { return s.p.C }

// open notes a stream with what each side may send on it at first.
func (s *session) open(id uint64, unary bool) *stream {
	st := &stream{unary: unary, told: s.own.InitialCredit, got: s.peer.InitialCredit}
	s.streams[id] = st
	return st
}

func (s *session) find(id uint64) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[id]
}

// forget drops a stream that has ended both ways. The lock is held.
func (s *session) forget(id uint64) {
	if st := s.streams[id]; st != nil && st.sentEnd && st.readEnd {
		delete(s.streams, id)
		s.refund += uint64(st.unspoken)
		s.owed = s.owed || st.unspoken > 0
	}
}

func head(b []byte, k frame.Kind, id uint64, n int) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	return binary.BigEndian.AppendUint64(append(b, byte(k)), id)
}

// Messages implements frame.Session.
func (s *session) Messages(o *frame.Out, id uint64, run pool.Queue) {
	for m, ok := run.Pop(); ok; m, ok = run.Pop() {
		s.Fragment(o, id, m, 0, s.p.C.Cost(m.Len()))
	}
}

// Fragment implements frame.Session: the piece is cut from the prefix and the message in
// a row.
func (s *session) Fragment(o *frame.Out, id uint64, m pool.Message, off, n int) {
	overhead := s.p.C.Overhead
	o.Buf = head(o.Buf, frame.Data, id, n)
	if off < overhead {
		prefix := binary.BigEndian.AppendUint32(nil, uint32(m.Len()))
		prefix = append(prefix, make([]byte, overhead-len(prefix))...)
		if overhead > 4 && pool.IsPacked(m) {
			prefix[4] = 1
		}
		o.Buf = append(o.Buf, prefix[off:min(off+n, overhead)]...)
	}
	from, to := frame.Part(overhead, off, n)
	o.Payload(m.Bytes()[from:to])
	if off+n == overhead+m.Len() {
		o.Hold(m)
	}
}

// Control implements frame.Session.
func (s *session) Control(o *frame.Out, f *frame.Frame) {
	c := &s.p.C
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if s.owed {
			s.credit(o, 0, nil, s.given)
		}
	}()
	out := *f
	st := s.streams[f.Stream]
	switch f.Kind {
	case frame.Open:
		for i := range max(len(f.Grants), 1) {
			s.open(f.Stream+2*uint64(i), f.Unary)
		}
	case frame.EOS:
		if !c.Status && (st == nil || !st.unary) {
			out.Metadata = nil
			if f.Code != status.OK { // an end that can't be said is none in order
				out = frame.Frame{Kind: frame.Reset, Stream: f.Stream, Code: status.Aborted, Value: awaitsEnd}
			}
		}
		s.ended(f.Stream, st, false, true)
	case frame.Reset:
		if !c.Status && (st == nil || !st.offered && !st.unary) { // else it is the answer
			out.Code, out.Reason = status.Aborted, ""
		}
		s.ended(f.Stream, st, true, true)
	case frame.Accept:
		for i := range f.Grants {
			if st := s.streams[f.Stream+2*uint64(i)]; st != nil {
				st.offered = false
			}
		}
	case frame.Reply:
		if f.Stream != 0 {
			s.end(o, f.Stream, st)
		}
		return
	case frame.Reject:
		s.ended(f.Stream, st, true, true)
	case frame.Credit:
		s.credit(o, f.Stream, st, f.Value)
		return
	case frame.Ended:
		if !c.Ended {
			return
		}
	case frame.Stop:
		if !c.Stop && st != nil && !st.sentEnd {
			st.stop = true
		}
		if !c.Stop && (st == nil || !c.StopAtEnd || st.stop) {
			return
		}
	case frame.Read:
		if !c.ReadReports {
			return
		}
	case frame.Ping:
		s.p.Pings.Add(1)
	}
	s.write(o, &out)
	if out.Kind == frame.EOS && c.StopAtEnd && st != nil && st.stop {
		s.write(o, &frame.Frame{Kind: frame.Stop, Stream: f.Stream})
	}
	if f.Kind == frame.Open || f.Kind == frame.Accept {
		s.grants(o, f)
	}
}

// awaitsEnd is the Value of a Reset that stands for the end of one half: who sent it
// waits for the other's.
const awaitsEnd = 1

// end answers such a Reset: our application was handed it. The lock is held.
func (s *session) end(o *frame.Out, id uint64, st *stream) {
	if s.p.C.Ended {
		s.write(o, &frame.Frame{Kind: frame.Ended, Stream: id})
	}
	if st != nil && !st.sentEnd {
		s.write(o, &frame.Frame{Kind: frame.EOS, Stream: id})
	}
	s.ended(id, st, true, true)
}

// ended notes an end; both says that it ends both directions. The lock is held.
func (s *session) ended(id uint64, st *stream, both, ours bool) {
	if st == nil {
		return
	}
	st.sentEnd = st.sentEnd || ours || both
	st.readEnd = st.readEnd || !ours || both
	s.forget(id)
}

// grants says what an Open or Accept grants beyond what every stream begins with. The
// lock is held.
func (s *session) grants(o *frame.Out, f *frame.Frame) {
	for i, g := range f.Grants {
		id := f.Stream + 2*uint64(i)
		st := s.streams[id]
		switch {
		case st == nil:
		case s.p.C.FixedWindow:
			s.credit(o, id, st, g.Credit)
		default: // it is in the frame
			st.told = g.Credit
			s.limit(&st.got, g)
		}
	}
}

// limit lowers a total to what the sender wants to have unread: both count from there.
func (s *session) limit(total *uint64, g frame.Grant) {
	if g.Limit > 0 {
		*total = min(*total, max(g.Limit, uint64(s.p.C.MinWindow())))
	}
}

// credit says what the peer may send in all. The lock is held.
func (s *session) credit(o *frame.Out, id uint64, st *stream, total uint64) {
	told := &s.told
	if id != 0 {
		if st == nil {
			return
		}
		told = &st.told
	}
	if id == 0 {
		s.given, s.owed = total, false
		total += s.refund
	}
	value := total
	if s.p.Relative {
		value = total - *told
	}
	if total <= *told {
		return
	}
	*told = total
	o.Buf = head(o.Buf, frame.Credit, id, 8)
	o.Buf = binary.BigEndian.AppendUint64(o.Buf, value)
	if s.p.PingEach {
		s.write(o, &frame.Frame{Kind: frame.Ping, Value: estimate})
	}
}

// estimate is the Value of a ping beside a grant; its answer is the session's own.
const estimate = 1<<64 - 1

// write encodes any other frame.
func (s *session) write(o *frame.Out, f *frame.Frame) {
	s.body.Reset()
	if s.p.C.FixedWindow {
		g := make([]frame.Grant, len(f.Grants))
		f.Grants = g
	}
	_ = s.enc.Encode(f) // a Frame always can be
	o.Buf = head(o.Buf, f.Kind, f.Stream, s.body.Len())
	o.Buf = append(o.Buf, s.body.Bytes()...)
}

// Unpack implements frame.Session: what is marked as packed is deflated.
func (s *session) Unpack(_ uint64, m pool.Message, most int) (pool.Message, error) {
	defer m.Release()
	p, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(m.Bytes())), int64(most)+1))
	switch {
	case err != nil:
		return pool.Message{}, err
	case len(p) > most:
		return pool.Message{}, frame.ErrUnpacked
	}
	return pool.MessageOf(p), nil
}

// Pack implements frame.Session: one way of compressing stands for all.
func (s *session) Pack(m pool.Message, _ pool.Compression) pool.Message {
	p, err := Packed(m.Bytes())
	if err == nil && p.Len() < m.Len() {
		return p
	}
	p.Release()
	return m
}

// Packed is a message that holds p, compressed.
func Packed(p []byte) (pool.Message, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(p)
	}
	if err == nil {
		err = w.Close()
	}
	m := pool.MessageOf(b.Bytes())
	pool.MarkPacked(m)
	return m, err
}

// Flush implements frame.Session: settings that are to change go along.
func (s *session) Flush(o *frame.Out) {
	if s.client {
		return
	}
	select {
	case change := <-s.p.Changes:
		s.mu.Lock()
		defer s.mu.Unlock()
		old := s.own.InitialCredit
		change(&s.own)
		for _, st := range s.streams {
			st.told += s.own.InitialCredit - old
		}
		s.write(o, &frame.Frame{Kind: frame.NewSettings, Settings: s.own})
	default:
	}
}
