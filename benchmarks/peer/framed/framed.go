// Package framed makes messages of a byte stream: four bytes of length, then
// the payload. It is what a Go user would write by hand around a TCP
// connection or a stream of a multiplexer.
package framed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

const (
	prefix  = 4
	endMark = 1<<32 - 1 // instead of a length: no more messages follow
)

// classes are the sizes of buffers. They grow with use, so that ten thousand
// idle streams don't hold ten thousand times 64 KiB.
var classes = [...]int{64, 512, 8 << 10, Buffer + prefix}

const (
	// Buffer is the size of the buffers with which most byte streams are fastest.
	Buffer = 64 << 10

	firstPlain = 512 // of a receiver
	// With batches the first must take one whole: a batch that is read in
	// pieces is answered in pieces, and stays in pieces from then on where
	// the multiplexer keeps the boundaries of writes (smux does).
	firstBatch = 8 << 10
)

// class returns the smallest class of at least n bytes, or the largest buffer.
func (s *Stream) class(n int) int {
	for _, c := range classes {
		if c >= n {
			return c
		}
	}
	return s.most
}

func grown(b []byte, n int) []byte {
	b2 := make([]byte, n)
	copy(b2, b)
	return b2
}

// A Stream carries messages over rw. It has no lock: see peer.Options.Duplex.
type Stream struct {
	rw        io.ReadWriteCloser
	batch     bool         // Send keeps messages back
	limit     int          // longest message
	most      int          // bytes of a buffer
	halfClose func() error // nil: the end is marked between messages
	onClose   func() error // nil: Close closes rw

	// The receiver's.
	in         []byte
	r, w       int
	big        []byte
	flushFirst bool // a Recv that has to wait flushes before

	// The sender's.
	out      []byte // kept back, and the message being made behind it
	kept     int
	bigOut   []byte
	inBigOut bool
}

// New returns a stream of messages over rw. With batch, Send keeps messages
// back in a buffer of so many bytes, at least Buffer; without, each is one Write.
func New(rw io.ReadWriteCloser, batch bool, buffer int, o peer.Options) *Stream {
	return &Stream{rw: rw, batch: batch, most: buffer + prefix, limit: max(o.MaxMessage, 4<<20), flushFirst: !o.Duplex}
}

// HalfClose says that the byte stream has half-close: f ends our half. Then that ends
// the messages instead of a mark, and Close calls closed.
func (s *Stream) HalfClose(f, closed func() error) { s.halfClose, s.onClose = f, closed }

// Preface puts p before the first message.
func (s *Stream) Preface(p ...byte) {
	s.room(s.kept + len(p))
	s.kept += copy(s.out[s.kept:], p)
}

// room makes out n bytes long, or as long as a buffer may be.
func (s *Stream) room(n int) {
	if n > len(s.out) && len(s.out) < s.most {
		s.out = grown(s.out, s.class(n))
	}
}

// ReadByte takes one byte that precedes the first message.
func (s *Stream) ReadByte() (byte, error) {
	if err := s.fill(1); err != nil {
		return 0, err
	}
	s.r++
	return s.in[s.r-1], nil
}

// Buf returns room behind what is kept back, or an own buffer if the message
// is large.
func (s *Stream) Buf(n int) []byte {
	at := s.kept + prefix
	s.room(at + n)
	if s.inBigOut = at+n > len(s.out); !s.inBigOut {
		return s.out[at : at+n]
	}
	if cap(s.bigOut) < prefix+n {
		s.bigOut = make([]byte, prefix+n)
	}
	s.bigOut = s.bigOut[:prefix+n]
	return s.bigOut[prefix:]
}

// Send appends the message to what is kept back, or writes it.
func (s *Stream) Send(p []byte) error {
	if s.inBigOut {
		return s.sendBig(len(p))
	}
	binary.LittleEndian.PutUint32(s.out[s.kept:], uint32(len(p)))
	s.kept += prefix + len(p)
	if s.batch && len(p) < s.most/2 { // longer ones are not worth waiting for more
		return nil
	}
	return s.Flush()
}

// sendBig flushes and writes bigOut, or appends it if it fits now.
func (s *Stream) sendBig(n int) error {
	if err := s.Flush(); err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(s.bigOut, uint32(n))
	if s.batch && prefix+n <= len(s.out)/2 {
		s.kept = copy(s.out, s.bigOut[:prefix+n])
		return nil
	}
	_, err := s.rw.Write(s.bigOut[:prefix+n])
	return err
}

// Flush writes what was kept back.
func (s *Stream) Flush() error {
	if s.kept == 0 {
		return nil
	}
	n := s.kept
	s.kept = 0
	_, err := s.rw.Write(s.out[:n])
	return err
}

// Recv returns the next message in place; large ones are read straight into
// a buffer of their own.
func (s *Stream) Recv() ([]byte, error) {
	if err := s.fill(prefix); err != nil {
		if s.halfClose != nil && s.r == s.w && errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, io.EOF
		}
		return nil, err
	}
	size := binary.LittleEndian.Uint32(s.in[s.r:])
	s.r += prefix
	n := int(size)
	switch {
	case size == endMark:
		s.r -= prefix // so that every later Recv finds it again
		return nil, io.EOF
	case n > s.limit:
		return nil, fmt.Errorf("framed: message of %d bytes, limit is %d", n, s.limit)
	case prefix+n > s.most:
		return s.recvBig(n)
	}
	if err := s.fill(n); err != nil {
		return nil, cutShort(err)
	}
	s.r += n
	return s.in[s.r-n : s.r], nil
}

func (s *Stream) recvBig(n int) ([]byte, error) {
	if cap(s.big) < n {
		s.big = make([]byte, n)
	}
	s.big = s.big[:n]
	have := copy(s.big, s.in[s.r:s.w])
	s.r += have
	if err := s.beforeWait(); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(s.rw, s.big[have:]); err != nil {
		return nil, cutShort(err)
	}
	return s.big, nil
}

// fill reads until n bytes are buffered.
func (s *Stream) fill(n int) error {
	if s.w-s.r >= n {
		return nil
	}
	if err := s.beforeWait(); err != nil {
		return err
	}
	s.makeRoom(n)
	for s.w-s.r < n {
		m, err := s.rw.Read(s.in[s.w:])
		s.w += m
		if err != nil && s.w-s.r < n {
			return cutShort(err)
		}
	}
	return nil
}

// makeRoom moves what is buffered to the front, of a larger buffer if this
// one is too small for n bytes or was filled by the last read.
func (s *Stream) makeRoom(n int) {
	full := s.w == len(s.in)
	if s.r+n > len(s.in) || s.r == s.w || full {
		s.w = copy(s.in, s.in[s.r:s.w])
		s.r = 0
	}
	if n > len(s.in) || full && len(s.in) < s.most {
		first := firstPlain
		if s.batch {
			first = firstBatch
		}
		s.in = grown(s.in[:s.w], s.class(max(n, len(s.in)+1, first)))
	}
}

func (s *Stream) beforeWait() error {
	if !s.flushFirst {
		return nil
	}
	return s.Flush()
}

// cutShort turns the end of the byte stream into an error: it is not the end of the
// messages.
func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// CloseSend tells the receiver that no message follows.
func (s *Stream) CloseSend() error {
	if s.halfClose != nil {
		if err := s.Flush(); err != nil {
			return err
		}
		return s.halfClose()
	}
	s.room(s.kept + prefix)
	if s.kept+prefix > len(s.out) {
		if err := s.Flush(); err != nil {
			return err
		}
	}
	binary.LittleEndian.PutUint32(s.out[s.kept:], endMark)
	s.kept += prefix
	return s.Flush()
}

// Close frees the stream.
func (s *Stream) Close() error {
	if s.onClose != nil {
		return s.onClose()
	}
	return s.rw.Close()
}

// Serve reads the mode that Open wrote, serves the stream and waits for the client to
// close it first.
func (s *Stream) Serve(o peer.Options) error {
	m, err := s.ReadByte()
	if err != nil {
		return err
	}
	if err := o.Handle(peer.Mode(m), s); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, s.rw)
	return nil
}

// Open starts the stream in mode m. Unless the mode is Park, the byte that
// says so goes out with the first message.
func (s *Stream) Open(m peer.Mode) error {
	s.Preface(byte(m))
	if m == peer.Park {
		return s.Flush()
	}
	return nil
}
