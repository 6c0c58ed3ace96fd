package seastar

import (
	"encoding/binary"
	"errors"

	"github.com/sluicerpc/sluice/frame"
)

// A fate is what becomes of a payload.
type fate uint8

const (
	deliver fate = iota // it goes up as data
	drop                // nobody wants it
	gather              // it is kept for the kind, maxText bytes of it
	nothing             // there is none, and it is no message either
)

// A verdict is what a header has told.
type verdict struct {
	size   int64 // of the payload
	fate   fate
	stream uint64 // whose data it is
}

// A kind is what the frames of one sort of connection mean. It belongs to the
// reader.
type kind interface {
	// begin takes a header in.
	begin(h []byte) (verdict, error)
	// admit tells whether the frame may come in now. If not, it is asked again.
	admit() bool
	// before fills f with the event that precedes the payload.
	before(f *frame.Frame) bool
	// after fills f with the next event that follows it, until it returns false.
	after(f *frame.Frame) bool
}

// What the reader is at, within a frame.
type place uint8

const (
	atHead place = iota
	atAdmit
	atBefore
	atPayload
	atAfter
)

// A reader turns bytes into frames, and frames into what its kind makes of them.
// It is a state machine over the bytes: how they are cut into calls makes no
// difference, but to how a large payload is cut into pieces.
type reader struct {
	kind   kind
	offset int64 // bytes consumed
	begun  int64 // where the frame at hand starts

	at     place
	header int // length of a frame's header
	head   [maxHeader]byte
	nhead  int
	verdict
	left  int64 // of the payload, still to come
	text  []byte
	small []byte // a small payload that comes in parts

	pack *envelope // nil where nothing is compressed

	paused bool   // admit said no
	held   []byte // input that came before that, and
	heldAt int    // what of it was consumed
}

// Begun tells where in the input the frame begins that has begun and is not
// complete; ok is false if there is none, or if it is we who let it wait. It
// belongs to the reader.
func (r *reader) Begun() (at int64, ok bool) { return r.begun, !r.between() && !r.paused }

// between tells whether nothing has begun that is not complete.
func (r *reader) between() bool { return r.boundary() && r.pack.idle() }

// boundary is between, within what was compressed.
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

var errPaused = &frame.ProtocolError{
	Proto: name, Code: frame.CodeInternal, Detail: "more was read while reading was to pause",
}

// resume goes on with input that had to wait.
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
	var pe *frame.ProtocolError
	if errors.As(err, &pe) {
		at := *pe
		at.Offset = r.begun
		return &at
	}
	return &frame.ProtocolError{Proto: name, Code: frame.CodeProtocol, Offset: r.begun, Detail: err.Error()}
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
			if r.paused = !r.kind.admit(); r.paused {
				return used, nil
			}
			r.at = atBefore
		case atBefore:
			r.at = atPayload
			if r.kind.before(f) {
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
			if r.kind.after(f) {
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
	if r.verdict, err = r.kind.begin(r.head[:r.header]); err != nil {
		return err
	}
	r.nhead, r.at = 0, atAdmit
	r.left, r.text = r.size, r.text[:0]
	return nil
}

// payload takes what has come of a payload, and tells whether that was the rest.
func (r *reader) payload(p []byte, f *frame.Frame) (n int, done bool) {
	switch r.fate {
	case nothing:
		return 0, true
	case deliver:
		return r.data(p, f)
	}
	n = int(min(r.left, int64(len(p))))
	if r.fate == gather {
		r.text = append(r.text, p[:min(n, maxText-len(r.text))]...)
	}
	r.left -= int64(n)
	return n, r.left == 0
}

// data hands a message on: a small one whole, a large one in pieces as it comes.
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

// collect gathers a small message that comes in parts. Its memory is the garbage
// collector's: the connection may end at any time.
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
			e.full = e.full || r.boundary()
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
	errTrailing  = failf(frame.CodeProtocol, "bytes after the frame inside a compressed one")
	errTruncated = failf(frame.CodeProtocol, "a compressed frame ends inside a frame")
)

// An unpacker decompresses one algorithm's frames.
type unpacker interface {
	// reset begins a frame of n bytes.
	reset(n int)
	// feed takes bytes of the frame, and returns those that it used and what they
	// hold, which is valid until the next call.
	feed(p []byte) (used int, plain []byte, err error)
	// done ends the frame; it is an error if it is not complete.
	done() error
	// held is how many bytes it keeps.
	held() int
}

// An envelope is the compressed frame at hand.
type envelope struct {
	unpacker
	most   int // bytes of the longest one
	head   [4]byte
	nhead  int
	left   int // bytes still to come
	inside bool
	full   bool // its plain frame is complete
	any    bool // it had plain bytes
	idles  int  // frames in a row that held nothing
	plain  []byte
}

func (e *envelope) idle() bool { return e == nil || !e.inside && e.nhead == 0 }

// maxIdles is how many empty frames there may be in a row: compressors talk to
// each other through them, ours have nothing to say.
const maxIdles = 100

// take consumes input of which something comes, or all.
func (e *envelope) take(p []byte) (int, error) {
	if !e.inside {
		n := copy(e.head[e.nhead:], p)
		if e.nhead += n; e.nhead < len(e.head) {
			return n, nil
		}
		size := binary.LittleEndian.Uint32(e.head[:])
		if int64(size) > int64(e.most) {
			return n, failf(frame.CodeFrameSize, "a compressed frame of %d bytes, limit %d", size, e.most)
		}
		e.nhead, e.left, e.inside, e.full, e.any = 0, int(size), true, false, false
		e.reset(e.left)
		return n, nil
	}
	n, plain, err := e.feed(p[:min(e.left, len(p))])
	e.left -= n
	if err == nil && len(plain) > 0 && e.full {
		err = errTrailing
	}
	e.plain = plain
	e.any = e.any || len(plain) > 0
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
	if e.any {
		e.idles = 0
		return nil
	}
	if e.idles++; e.idles > maxIdles {
		return failf(frame.CodeEnhanceYourCalm, "more than %d empty frames in a row", maxIdles)
	}
	return nil
}
