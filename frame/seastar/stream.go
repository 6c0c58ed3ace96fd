package seastar

import (
	"encoding/binary"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// streamNumber is the number of a stream that has a connection of its own.
const streamNumber = 1

// stream is a connection that is one stream. Both sides of it are the same but
// for how it begins.
type stream struct {
	frame.Base
	reader
	sender
	agreed
	p        *Protocol
	isClient bool

	// Owned by the reader.
	announced bool // a server's Open was returned
	let       bool // the stream is known above
	ended     bool // the peer's end was read
	said      bool // and returned

	// open is closed when a client's stream is known above, so that what comes of
	// it has somewhere to go.
	open chan struct{}

	// Owned by the writer.
	opened  bool
	answers bool          // an Accept is to be returned by Event
	reject  []frame.Frame // other opens are refused
	sentEnd bool
	handed  bool // the application was handed the peer's end
	broken  bool // nothing is written any more, and the connection is to end
	over    bool // Event has returned Finished
}

func newStream(p *Protocol, a agreed, isClient bool) *stream {
	s := &stream{p: p, agreed: a, isClient: isClient, open: make(chan struct{})}
	s.algorithm = a.compress
	s.reader.kind, s.header = s, streamLen
	s.pack = newEnvelope(a.compress, a.limit+s.header)
	s.announced, s.let = isClient, !isClient
	return s
}

// Caps tells what the protocol can carry.
func (s *stream) Caps() frame.Caps { return caps }

// Next implements frame.Session. A server's stream begins with its Open, before
// anything was read.
func (s *stream) Next(p []byte, f *frame.Frame) (int, error) {
	if s.announced {
		if n := s.short(p, f); n > 0 {
			return n, nil
		}
		return s.reader.Next(p, f)
	}
	s.announced = true
	f.Kind, f.Stream, f.Value = frame.Open, streamNumber, s.id
	f.Method, f.Metadata, f.Deadline = "", nil, 0
	f.Payload, f.FollowsData, f.Unary = nil, false, false
	f.Grants = append(f.Grants[:0], frame.Grant{})
	return 0, nil
}

// short is the short way for a message that has come whole: most are like that. It
// returns 0 if this one is not.
func (s *stream) short(p []byte, f *frame.Frame) int {
	if len(p) < streamLen || s.pack != nil || !s.let || s.ended || !s.boundary() || len(s.held) > 0 {
		return 0
	}
	n := int64(binary.LittleEndian.Uint32(p))
	if n > int64(s.limit) || n > int64(len(p)-streamLen) {
		return 0
	}
	f.Kind, f.Stream, f.Payload = frame.Data, streamNumber, p[streamLen:streamLen+n]
	f.First, f.Last, f.Total, f.Cost = true, true, int(n), int(n)+overhead
	s.offset += streamLen + n
	s.reader.begun = s.offset
	return streamLen + int(n)
}

// Full implements frame.Session: a client has nobody yet to give to what has come.
func (s *stream) Full() <-chan struct{} {
	if !s.paused {
		return nil
	}
	return s.open
}

// begin implements kind.
func (s *stream) begin(h []byte) (v verdict, err error) {
	n := binary.LittleEndian.Uint32(h)
	v = verdict{size: int64(n), stream: streamNumber}
	switch {
	case s.ended:
		return v, failf(frame.CodeStreamState, "a frame after the end of the stream")
	case n == endOfStream:
		s.ended = true
		v.size, v.fate = 0, nothing
	case v.size > int64(s.limit):
		return v, failf(frame.CodeTooLarge, "a message of %d bytes, limit %d", n, s.limit)
	}
	return v, nil
}

// admit implements kind.
func (s *stream) admit() bool {
	if s.let {
		return true
	}
	select {
	case <-s.open:
		s.let = true
	default:
	}
	return s.let
}

// before implements kind.
func (s *stream) before(*frame.Frame) bool { return false }

// after implements kind.
func (s *stream) after(f *frame.Frame) bool {
	if !s.ended || s.said {
		return false
	}
	s.said = true
	f.Kind, f.Stream, f.Code, f.Reason, f.Metadata = frame.EOS, streamNumber, frame.CodeOK, "", nil
	return true
}

// Messages implements frame.Session.
func (s *stream) Messages(o *frame.Out, _ uint64, run pool.Queue) {
	if s.sentEnd || s.broken {
		run.Release()
		return
	}
	if s.algorithm != "" {
		for m, ok := run.Pop(); ok; m, ok = run.Pop() {
			s.message(o, uint32(m.Len()), m)
		}
		return
	}
	refs := o.Refs()
	run.Each(func(m pool.Message) {
		o.Buf = binary.LittleEndian.AppendUint32(o.Buf, uint32(m.Len()))
		o.Payload(m.Bytes())
	})
	o.HoldAll(run, refs)
}

// message writes a frame, and takes m over.
func (s *stream) message(o *frame.Out, length uint32, m pool.Message) {
	var head [streamLen]byte
	binary.LittleEndian.PutUint32(head[:], length)
	s.sender.frame(o, head[:], m)
}

// Fragment implements frame.Session: nothing else is on the connection, so pieces
// can follow each other under one length. What is compressed waits for the last.
func (s *stream) Fragment(o *frame.Out, _ uint64, m pool.Message, off, n int) {
	off, to := frame.Part(overhead, off, n)
	last := to == m.Len()
	switch {
	case s.sentEnd || s.broken:
		if last {
			m.Release()
		}
		return
	case s.algorithm != "":
		if last {
			s.message(o, uint32(m.Len()), m)
		}
		return
	case off == 0:
		o.Buf = binary.LittleEndian.AppendUint32(o.Buf, uint32(m.Len()))
	}
	o.Payload(m.Bytes()[off:to])
	if last {
		o.Hold(m)
	}
}

// Control implements frame.Session.
func (s *stream) Control(o *frame.Out, f *frame.Frame) {
	switch f.Kind {
	case frame.Open:
		s.begun(f)
	case frame.EOS:
		s.finish(o, f.Code)
	case frame.Ended:
		s.handed = true
	case frame.Reject, frame.Reset:
		s.broken = true
	}
}

// begun takes our wish for the stream, which the peer has granted by letting the
// connection be.
func (s *stream) begun(f *frame.Frame) {
	if f.Stream == streamNumber && !f.Unary && !s.opened && s.isClient {
		s.opened, s.answers = true, true
		return
	}
	s.reject = append(s.reject, frame.Frame{
		Kind: frame.Reject, Stream: f.Stream, Code: frame.CodeUnimplemented, NotProcessed: true,
		Reason: "the connection is that of one stream",
	})
}

// finish writes the end of our direction. An end that is none in order can't be
// said: the connection ends without one.
func (s *stream) finish(o *frame.Out, c frame.Code) {
	switch {
	case s.sentEnd || s.broken:
	case c != frame.CodeOK:
		s.broken = true
	default:
		s.sentEnd = true
		s.message(o, endOfStream, pool.Message{})
	}
}

// Event implements frame.Session.
func (s *stream) Event(f *frame.Frame) bool {
	switch {
	case s.answers:
		s.answers = false
		accept(f, streamNumber)
		f.Value = s.id
		return true
	case len(s.reject) > 0:
		*f = s.reject[0]
		s.reject = s.reject[1:]
		return true
	case s.opened:
		s.resumeReader()
	}
	return s.finished(f)
}

// resumeReader has the reader go on: the stream has heard that it is accepted.
func (s *stream) resumeReader() {
	select {
	case <-s.open:
	default:
		close(s.open)
	}
}

// finished fills f with the end of the connection, when it is time for that. A peer that
// may lose an end with a FIN behind it is given the time to close first.
func (s *stream) finished(f *frame.Frame) bool {
	if s.over || !s.broken && !(s.sentEnd && s.handed) {
		return false
	}
	s.over = true
	f.Kind, f.Stream, f.Deadline = frame.Finished, 0, 0
	if !s.broken && !s.prompt {
		f.Deadline = s.p.linger()
	}
	return true
}
