package capwire

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// input is what the reader owns.
type input struct {
	buf    []byte // what has come and is not looked at
	offset int64  // bytes consumed before buf
	got    uint64 // the connection's credit that the peer has granted
	gob    bytes.Buffer
	dec    *gob.Decoder
	queue  []frame.Frame // events that wait to be returned
}

// Begun implements frame.Session.
func (s *session) Begun() (int64, bool) { return s.in.offset, len(s.in.buf) > 0 }

// Buffered implements frame.Session.
func (s *session) Buffered() int { return len(s.in.buf) }

// Next implements frame.Session.
func (s *session) Next(p []byte, f *frame.Frame) (int, error) {
	in := &s.in
	in.buf = append(in.buf, p...)
	for {
		if len(in.queue) > 0 {
			grants := f.Grants[:0]
			*f = in.queue[0]
			f.Grants = append(grants, f.Grants...)
			in.queue = in.queue[1:]
			return len(p), nil
		}
		f.Kind = frame.None
		if len(in.buf) < headLen {
			return len(p), nil
		}
		n := int(binary.BigEndian.Uint32(in.buf))
		if n > 1<<20 {
			return len(p), &status.ProtocolError{Proto: s.p.Name(), Code: status.FrameSize, Offset: in.offset, Detail: "a frame that is too long"}
		}
		if len(in.buf) < headLen+n {
			return len(p), nil
		}
		k, id, body := frame.Kind(in.buf[4]), binary.BigEndian.Uint64(in.buf[5:]), in.buf[headLen:headLen+n]
		in.buf = in.buf[headLen+n:]
		in.offset += int64(headLen + n)
		if err := s.frame(k, id, body, f); err != nil {
			return len(p), err
		}
		if f.Kind != frame.None {
			return len(p), nil
		}
	}
}

// frame takes one frame in; what comes of it is in f, or in the queue.
func (s *session) frame(k frame.Kind, id uint64, body []byte, f *frame.Frame) error {
	switch k {
	case frame.Data:
		s.data(id, body, f)
		return nil
	case frame.Credit:
		s.granted(id, binary.BigEndian.Uint64(body), f)
		return nil
	}
	var g frame.Frame
	s.in.gob.Write(body)
	if err := s.in.dec.Decode(&g); err != nil {
		return &status.ProtocolError{Proto: s.p.Name(), Code: status.Protocol, Offset: s.in.offset, Detail: err.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[id]
	switch k {
	case frame.Open:
		for i := range g.Grants {
			st := s.open(id+2*uint64(i), g.Unary)
			st.offered = true
			s.opened(&g, i, st)
		}
	case frame.Accept:
		for i := range g.Grants {
			if st := s.streams[id+2*uint64(i)]; st != nil {
				s.opened(&g, i, st)
			}
		}
	case frame.EOS:
		whole := !s.p.C.HalfClose && st != nil && !st.unary // it ends both directions
		switch {
		case whole && !st.sentEnd && len(st.prefix) > 0: // inside a message
			g = frame.Frame{Kind: frame.Reset, Stream: id, Code: status.DataLoss}
		case whole:
			s.in.queue = append(s.in.queue, frame.Frame{Kind: frame.Stop, Stream: id})
		}
		s.ended(id, st, g.Kind == frame.Reset, false)
	case frame.Reset, frame.Reject:
		answer := k == frame.Reset && g.Value == awaitsEnd
		if answer {
			s.in.queue = append(s.in.queue, frame.Frame{Kind: frame.Reply, Stream: id})
		}
		s.ended(id, st, !answer, false)
	case frame.Pong:
		if g.Value == estimate {
			g.Kind = frame.Skip
		}
	case frame.NewSettings:
		delta := g.Settings.InitialCredit - s.peer.InitialCredit
		s.peer = g.Settings
		for _, st := range s.streams {
			st.got += delta
		}
	}
	if s.owed {
		s.in.queue = append(s.in.queue, frame.Frame{Kind: frame.Reply})
	}
	grants := append(f.Grants[:0], g.Grants...)
	*f = g
	f.Grants = grants
	return nil
}

// opened notes what a stream of an Open or Accept may be sent, or says it where the frame
// does not. The lock is held.
func (s *session) opened(g *frame.Frame, i int, st *stream) {
	if s.p.C.FixedWindow {
		g.Grants[i] = frame.Grant{Credit: st.got}
		return
	}
	st.got = g.Grants[i].Credit
	s.limit(&st.told, g.Grants[i])
}

func (s *session) granted(id, value uint64, f *frame.Frame) {
	got := &s.in.got
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != 0 {
		st := s.streams[id]
		if st == nil {
			return
		}
		got = &st.got
	}
	if s.p.Relative {
		value += *got
	}
	*got = value
	f.Kind, f.Stream, f.Value = frame.Credit, id, value
}

// data takes a part of a stream's messages: a piece of one, for that is how they are cut.
func (s *session) data(id uint64, p []byte, f *frame.Frame) {
	overhead := s.p.C.Overhead
	st := s.find(id)
	if st == nil { // it is over: nothing but its credit is of interest
		f.Kind, f.Stream, f.Payload, f.First, f.Last, f.Packed, f.Total, f.Cost = frame.Data, id, p, true, true, false, len(p), len(p)
		return
	}
	cost := len(p)
	if n := overhead - len(st.prefix); n > 0 {
		n = min(n, len(p))
		st.prefix, p = append(st.prefix, p[:n]...), p[n:]
		if len(st.prefix) < overhead {
			s.unspoken(st, id, cost)
			return
		}
		st.left = int(binary.BigEndian.Uint32(st.prefix))
	}
	total := int(binary.BigEndian.Uint32(st.prefix))
	if len(p) == 0 && total > 0 {
		s.unspoken(st, id, cost)
		return
	}
	st.left -= len(p)
	f.Kind, f.Stream, f.Payload = frame.Data, id, p
	f.First, f.Last, f.Total = !st.begun, st.left == 0, total
	f.Packed = f.First && overhead > 4 && st.prefix[4] == 1
	f.Cost = cost + s.spoken(st, id)
	if st.begun = st.left > 0; !st.begun {
		st.prefix = st.prefix[:0]
	}
}

// unspoken notes the cost of a part of a prefix, which nothing is handed on of.
func (s *session) unspoken(st *stream, id uint64, cost int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.unspoken += cost
	if s.streams[id] != st { // it was reset meanwhile
		s.refund += uint64(cost)
		s.owed = true
		s.in.queue = append(s.in.queue, frame.Frame{Kind: frame.Reply})
	}
}

// spoken is that cost when something is, unless it was given back.
func (s *session) spoken(st *stream, id uint64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := st.unspoken
	if st.unspoken = 0; s.streams[id] != st {
		return 0
	}
	return n
}
