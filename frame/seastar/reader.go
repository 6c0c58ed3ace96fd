package seastar

import (
	"encoding/binary"
	"errors"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// An action is what the reader does with a payload.
type action uint8

const (
	deliver   action = iota // return it as Data
	drop                    // skip it
	gather                  // keep it in reader.text, maxText bytes of it
	noPayload               // there is none, not even an empty message
)

// headerInfo is what the reader needs of a frame's header.
type headerInfo struct {
	size   int64 // of the payload
	action action
	stream uint64 // the number in its Data
}

// A frameHandler interprets the frames of one kind of connection. It belongs to the
// reader.
type frameHandler interface {
	// begin handles a header.
	begin(h []byte) (headerInfo, error)
	// admit tells whether the frame may be read now. If not, it is called again later.
	admit() bool
	// before fills f with the event that precedes the payload.
	before(f *frame.Frame) bool
	// after fills f with the next event that follows it, until it returns false.
	after(f *frame.Frame) bool
}

// A state is where the reader is within a frame.
type state uint8

const (
	atHead state = iota
	atAdmit
	atBefore
	atPayload
	atAfter
)

// A reader turns bytes into frames, and its handler turns those into events. It is a
// state machine over the bytes. How they are cut into calls changes nothing but how a
// large payload is cut into pieces.
type reader struct {
	handler frameHandler
	offset  int64 // bytes consumed
	begun   int64 // where the frame at hand starts

	at     state
	header int // length of a frame's header
	head   [maxHeader]byte
	nhead  int
	headerInfo
	left  int64 // of the payload, still to come
	text  []byte
	small []byte // a small payload that comes in parts

	pack *envelope // nil where nothing is compressed

	paused bool   // admit has returned false
	held   []byte // input that was not consumed then
	heldAt int    // how much of it was consumed since
}

// Begun implements frame.Session. While reading pauses no frame counts as incomplete: it
// is we who let it wait.
func (r *reader) Begun() (at int64, ok bool) { return r.begun, !r.between() && !r.paused }

// between tells whether the input ends between two frames, compressed or plain.
func (r *reader) between() bool { return r.boundary() && r.pack.idle() }

// boundary tells whether the plain bytes end between two frames.
func (r *reader) boundary() bool { return r.at == atHead && r.nhead == 0 }

// Buffered implements frame.Session.
func (r *reader) Buffered() int {
	n := len(r.small) + len(r.held) - r.heldAt
	if r.pack != nil {
		n += r.pack.held()
	}
	return n
}

// Next implements frame.Session.
func (r *reader) Next(p []byte, f *frame.Frame) (int, error) {
	f.Kind = frame.None
	if r.paused || len(r.held) > 0 {
		return r.resume(p, f)
	}
	n, err := r.next(p, f)
	if err == nil && r.paused {
		r.held = append(r.held, p[n:]...)
		n = len(p)
	}
	return n, err
}

// drop releases what a frame holds that is not complete.
func (r *reader) drop() {
	if r.pack != nil {
		r.pack.drop()
	}
}

var errPaused = &status.ProtocolError{
	Proto: name, Code: status.Internal, Detail: "the connection was read although reading was to pause",
}

// resume goes on with the held input.
func (r *reader) resume(p []byte, f *frame.Frame) (int, error) {
	if len(p) > 0 {
		if len(r.held)-r.heldAt > maxHeld {
			return 0, errPaused
		}
		r.held = append(r.held, p...)
	}
	r.paused = false
	n, err := r.next(r.held[r.heldAt:], f)
	r.heldAt += n
	if r.heldAt == len(r.held) && f.Kind == frame.None {
		r.held, r.heldAt = nil, 0
	}
	return len(p), err
}

// maxHeld is how much is held while reading pauses; what the transport reads at
// once is less.
const maxHeld = 256 << 10

// next consumes input until there is an event, or none of it is left.
func (r *reader) next(p []byte, f *frame.Frame) (n int, err error) {
	if r.pack != nil {
		n, err = r.unpack(p, f)
	} else {
		n, err = r.step(p, f)
	}
	r.offset += int64(n)
	if err != nil {
		return n, r.fail(err)
	}
	return n, nil
}

func (r *reader) fail(err error) error {
	var pe *status.ProtocolError
	if errors.As(err, &pe) {
		at := *pe
		at.Offset = r.begun
		return &at
	}
	return &status.ProtocolError{Proto: name, Code: status.Protocol, Offset: r.begun, Detail: err.Error()}
}

// step reads plain frames. Where they are compressed, it stops after each.
func (r *reader) step(p []byte, f *frame.Frame) (used int, err error) {
	for {
		switch r.at {
		case atHead:
			n := copy(r.head[r.nhead:r.header], p[used:])
			used += n
			if r.nhead += n; r.nhead < r.header {
				return used, nil
			}
			if err := r.start(); err != nil {
				return used, err
			}
		case atAdmit:
			if r.paused = !r.handler.admit(); r.paused {
				return used, nil
			}
			r.at = atBefore
		case atBefore:
			r.at = atPayload
			if r.handler.before(f) {
				return used, nil
			}
		case atPayload:
			n, done := r.payload(p[used:], f)
			used += n
			if done {
				r.at = atAfter
			}
			if !done || f.Kind != frame.None {
				return used, nil
			}
		case atAfter:
			if r.handler.after(f) {
				return used, nil
			}
			r.at = atHead
			if r.pack != nil {
				return used, nil
			}
			r.begun = r.offset + int64(used)
		}
	}
}

func (r *reader) start() (err error) {
	if r.headerInfo, err = r.handler.begin(r.head[:r.header]); err != nil {
		return err
	}
	r.nhead, r.at = 0, atAdmit
	r.left, r.text = r.size, r.text[:0]
	return nil
}

// payload handles what has come of a payload, and tells whether it is complete.
func (r *reader) payload(p []byte, f *frame.Frame) (n int, done bool) {
	switch r.action {
	case noPayload:
		return 0, true
	case deliver:
		return r.data(p, f)
	}
	n = int(min(r.left, int64(len(p))))
	if r.action == gather {
		r.text = append(r.text, p[:min(n, maxText-len(r.text))]...)
	}
	r.left -= int64(n)
	return n, r.left == 0
}

// data makes f Data: of a small message whole, of a large one in pieces as it comes.
func (r *reader) data(p []byte, f *frame.Frame) (n int, done bool) {
	first := r.left == r.size
	n = int(min(r.left, int64(len(p))))
	if r.size <= wholeMax && int64(n) < r.size {
		return r.collect(p[:n], f)
	}
	if n == 0 && r.size > 0 {
		return 0, false
	}
	r.left -= int64(n)
	f.Kind, f.Stream, f.Payload = frame.Data, r.stream, p[:n]
	f.First, f.Last, f.Total = first, r.left == 0, int(r.size)
	f.SetCost(overhead)
	return n, r.left == 0
}

// collect collects a small message that comes in parts. Its memory is not pooled.
func (r *reader) collect(p []byte, f *frame.Frame) (int, bool) {
	if len(p) == 0 {
		return 0, false
	}
	if r.small == nil {
		r.small = make([]byte, 0, r.size)
	}
	r.small = append(r.small, p...)
	if r.left -= int64(len(p)); r.left > 0 {
		return len(p), false
	}
	f.Kind, f.Stream, f.Payload = frame.Data, r.stream, r.small
	f.First, f.Last, f.Total, f.Cost = true, true, len(r.small), len(r.small)+overhead
	r.small = nil
	return len(p), true
}

// unpack reads compressed frames, each of which holds one plain frame or none.
func (r *reader) unpack(p []byte, f *frame.Frame) (used int, err error) {
	e := r.pack
	for {
		if len(e.plain) > 0 || r.at != atHead {
			n, err := r.step(e.plain, f)
			e.plain = e.plain[n:]
			if err != nil || f.Kind != frame.None || r.paused {
				return used, err
			}
			if r.boundary() && len(e.plain) > 0 {
				return used, errTrailing
			}
			e.complete = e.complete || r.boundary()
		}
		if e.inside && e.left == 0 {
			if err := e.end(r.boundary()); err != nil {
				return used, err
			}
			r.begun = r.offset + int64(used)
		}
		if used == len(p) {
			return used, nil
		}
		n, err := e.take(p[used:])
		used += n
		if err != nil {
			return used, err
		}
	}
}

var (
	errTrailing  = failf(status.Protocol, "bytes after the frame inside a compressed one")
	errTruncated = failf(status.Protocol, "a compressed frame ends inside a frame")
)

// An unpacker decompresses one algorithm's frames.
type unpacker interface {
	// reset begins a frame of n bytes.
	reset(n int)
	// feed takes bytes of the frame, and returns those that it used and what they
	// hold, which is valid until the next call.
	feed(p []byte) (used int, plain []byte, err error)
	// done ends the frame, with an error if it is not complete.
	done() error
	// held is how many bytes it keeps.
	held() int
	// drop ends a frame that is not complete, and releases its memory.
	drop()
}

// An envelope is the compressed frame at hand.
type envelope struct {
	unpacker
	most        int // bytes of the longest one
	head        [4]byte
	nhead       int
	left        int // bytes still to come
	inside      bool
	complete    bool // its plain frame is complete
	hasPlain    bool // it had plain bytes
	emptyFrames int  // frames in a row that held nothing
	plain       []byte
}

func (e *envelope) idle() bool { return e == nil || !e.inside && e.nhead == 0 }

// maxEmptyFrames is how many empty frames there may be in a row: Seastar's compressors
// may send each other data in them.
const maxEmptyFrames = 100

// take consumes input until there are plain bytes, or all of it.
func (e *envelope) take(p []byte) (int, error) {
	if !e.inside {
		n := copy(e.head[e.nhead:], p)
		if e.nhead += n; e.nhead < len(e.head) {
			return n, nil
		}
		size := binary.LittleEndian.Uint32(e.head[:])
		if int64(size) > int64(e.most) {
			return n, failf(status.FrameSize, "a compressed frame of %d bytes, limit %d", size, e.most)
		}
		e.nhead, e.left, e.inside, e.complete, e.hasPlain = 0, int(size), true, false, false
		e.reset(e.left)
		return n, nil
	}
	n, plain, err := e.feed(p[:min(e.left, len(p))])
	e.left -= n
	if err == nil && len(plain) > 0 && e.complete {
		err = errTrailing
	}
	e.plain = plain
	e.hasPlain = e.hasPlain || len(plain) > 0
	return n, err
}

// end is called when all of the frame was used.
func (e *envelope) end(boundary bool) error {
	e.inside = false
	if err := e.done(); err != nil {
		return err
	}
	if !boundary {
		return errTruncated
	}
	if e.hasPlain {
		e.emptyFrames = 0
		return nil
	}
	if e.emptyFrames++; e.emptyFrames > maxEmptyFrames {
		return failf(status.EnhanceYourCalm, "more than %d empty frames in a row", maxEmptyFrames)
	}
	return nil
}
