package seastar

import (
	"encoding/binary"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// streamNumber is the number of the stream on a connection of its own.
const streamNumber = 1

// stream is a connection that carries one stream. Both sides are the same but for how it
// begins.
type stream struct {
	frame.Base
	reader
	sender
	agreed
	p        *Protocol
	isClient bool

	// Owned by the reader.
	openReturned bool // a server's Open was returned
	known        bool // the kernel knows the stream
	ended        bool // the peer's end was read
	endReturned  bool // and its event returned

	// open is closed when the kernel knows a client's stream. Input waits until then.
	open chan struct{}

	// Owned by the writer.
	opened           bool
	acceptDue        bool          // an Accept is to be returned by Event
	rejects          []frame.Frame // for opens of further streams, which are refused
	sentEnd          bool
	endHeld          bool // our end waits until the application has the peer's: see Unread
	endTaken         bool // the application has received the peer's end
	broken           bool // nothing more is written, and the connection is to end
	finishedReturned bool // Event has returned Finished
}

func newStream(p *Protocol, a agreed, isClient bool) *stream {
	s := &stream{p: p, agreed: a, isClient: isClient, open: make(chan struct{})}
	s.algorithm = a.compress
	s.reader.handler, s.header = s, streamLen
	s.pack = newEnvelope(a.compress, a.limit+s.header)
	s.openReturned, s.known = isClient, !isClient
	return s
}

// Caps tells what the protocol can carry.
func (s *stream) Caps() frame.Caps { return caps }

// Closed implements frame.Session.
func (s *stream) Closed() { s.reader.drop() }

// Next implements frame.Session. A server's stream begins with its Open, before
// anything was read.
func (s *stream) Next(p []byte, f *frame.Frame) (int, error) {
	if s.openReturned {
		if n := s.short(p, f); n > 0 {
			return n, nil
		}
		return s.reader.Next(p, f)
	}
	s.openReturned = true
	f.Kind, f.Stream, f.Value = frame.Open, streamNumber, s.id
	f.Method, f.Metadata, f.Deadline = "", nil, 0
	f.Payload, f.FollowsData, f.Unary = nil, false, false
	f.Grants = append(f.Grants[:0], frame.Grant{})
	return 0, nil
}

// short handles the common case of a message that has come whole. It returns 0 if the
// next frame is not one.
func (s *stream) short(p []byte, f *frame.Frame) int {
	if len(p) < streamLen || s.pack != nil || !s.known || s.ended || !s.boundary() || len(s.held) > 0 {
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

// Full implements frame.Session: a client pauses until the kernel knows the stream.
func (s *stream) Full() <-chan struct{} {
	if !s.paused {
		return nil
	}
	return s.open
}

// begin implements frameHandler.
func (s *stream) begin(h []byte) (v headerInfo, err error) {
	n := binary.LittleEndian.Uint32(h)
	v = headerInfo{size: int64(n), stream: streamNumber}
	switch {
	case s.ended:
		return v, failf(status.StreamState, "a frame after the end of the stream")
	case n == endOfStream:
		s.ended = true
		v.size, v.action = 0, noPayload
	case v.size > int64(s.limit):
		return v, failf(status.TooLarge, "a message of %d bytes, limit %d", n, s.limit)
	}
	return v, nil
}

// admit implements frameHandler.
func (s *stream) admit() bool {
	if s.known {
		return true
	}
	select {
	case <-s.open:
		s.known = true
	default:
	}
	return s.known
}

// before implements frameHandler.
func (s *stream) before(*frame.Frame) bool { return false }

// after implements frameHandler.
func (s *stream) after(f *frame.Frame) bool {
	if !s.ended || s.endReturned {
		return false
	}
	s.endReturned = true
	f.Kind, f.Stream, f.Code, f.Reason, f.Metadata = frame.EOS, streamNumber, status.OK, "", nil
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

// Fragment implements frame.Session: nothing else is on the connection, so the pieces
// follow one length. A compressed message is written with its last piece.
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
		s.takeOpen(f)
	case frame.EOS:
		if s.endHeld = f.Code == status.OK && s.holdsEnd(f); !s.endHeld {
			s.finish(o, f.Code)
		}
	case frame.Ended:
		s.endTaken = true
		if s.endHeld {
			s.endHeld = false
			s.finish(o, status.OK)
		}
	case frame.Reject, frame.Reset:
		s.broken = true
	}
}

// takeOpen handles our Open of the stream. The peer has accepted it already, in the
// handshake.
func (s *stream) takeOpen(f *frame.Frame) {
	if f.Stream == streamNumber && !f.Unary && !s.opened && s.isClient {
		s.opened, s.acceptDue = true, true
		return
	}
	s.rejects = append(s.rejects, frame.Frame{
		Kind: frame.Reject, Stream: f.Stream, Code: status.Unimplemented, NotProcessed: true,
		Reason: "the connection carries one stream only",
	})
}

// holdsEnd tells whether the end of our direction waits for the peer's. Where both sides
// are sluice's nothing is lost without that.
func (s *stream) holdsEnd(f *frame.Frame) bool {
	return !s.endTaken && !s.noLinger && marked(f.Metadata, Unread)
}

// finish writes the end of our direction. The protocol has no end with a code: then the
// connection closes without one.
func (s *stream) finish(o *frame.Out, c status.Code) {
	switch {
	case s.sentEnd || s.broken:
	case c != status.OK:
		s.broken = true
	default:
		s.sentEnd = true
		s.message(o, endOfStream, pool.Message{})
	}
}

// Event implements frame.Session.
func (s *stream) Event(f *frame.Frame) bool {
	switch {
	case s.acceptDue:
		s.acceptDue = false
		setAccept(f, streamNumber)
		f.Value = s.id
		return true
	case len(s.rejects) > 0:
		*f = s.rejects[0]
		s.rejects = s.rejects[1:]
		return true
	case s.opened:
		s.resumeReader()
	}
	return s.finished(f)
}

// resumeReader lets the reader go on: the kernel has the Accept.
func (s *stream) resumeReader() {
	select {
	case <-s.open:
	default:
		close(s.open)
	}
}

// finished fills f with Finished, once, when the stream is over. A peer that may lose an
// end with a FIN behind it is given time to close first.
func (s *stream) finished(f *frame.Frame) bool {
	if s.finishedReturned || !s.broken && !(s.sentEnd && s.endTaken) {
		return false
	}
	s.finishedReturned = true
	f.Kind, f.Stream, f.Deadline = frame.Finished, 0, 0
	if !s.broken && !s.noLinger {
		f.Deadline = s.p.linger()
	}
	return true
}
