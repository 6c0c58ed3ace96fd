package frame

import "github.com/sluicerpc/sluice/pool"

// A Session is one connection's protocol. Next belongs to whoever reads the
// connection, everything else to whoever writes it; the two may run at once.
type Session interface {
	// Next cuts the first frame off p, fills f and returns how many bytes it
	// consumed. If p holds no complete frame it keeps what it needs of p,
	// consumes all of it and sets f.Kind to None. An error ends the connection.
	Next(p []byte, f *Frame) (int, error)

	// Messages appends whole messages, and takes them over.
	Messages(o *Out, id uint64, run pool.Queue)
	// Fragment appends m's bytes from off to off+n as one piece of m.
	Fragment(o *Out, id uint64, m pool.Message, off, n int)
	// Control appends any other frame.
	Control(o *Out, f *Frame)
	// Flush completes what was appended: after it, o can be written.
	Flush(o *Out)

	// Caps tells what the protocol can carry.
	Caps() Caps
}

// Pacing is what bounds the bytes that were sent and that the peer's application
// has not taken.
type Pacing uint8

// The ways of pacing.
const (
	// Granted: the receiver grants credit, MessageOverhead for each message among
	// it. Credit frames carry what may be sent in all.
	Granted Pacing = iota
	// Reported: the receiver reports what its application has taken, and the
	// sender keeps to a window of its own. Credit frames carry the payload bytes
	// taken in all, reports when the receiver's queue has run dry, at the latest.
	// A message is never held back for want of the rest of its credit.
	Reported
	// Unpaced: nobody says anything. What was accepted and not written is
	// bounded, and a receiver that can hold no more stops reading the connection.
	Unpaced
)

// Caps is what a protocol can carry.
type Caps struct {
	Name        string
	Pacing      Pacing
	HalfClose   bool   // one direction can end before the other
	Ended       bool   // a side says when its application was handed the end
	Status      bool   // an end carries code, reason and trailers
	Stop        bool   // a receiver can stop its sender
	ServerOpens bool   // the accepting side of the connection may open streams
	Early       bool   // data may follow an open at once; else it waits for the answer
	Ping        bool   // a side can ask whether the other is there
	Outlives    bool   // an open's deadline is that of its answer: the stream outlives it
	ALPN        string // the protocol's name in TLS, which clients must give; "": they give none
	StreamsByID bool   // a stream has a connection of its own, and a call names it by a number
	MaxFragment int    // largest piece of a message, bytes
	MaxInline   int    // longest request or reply in an Open or Accept, bytes; 0: as long as any message
	MaxStream   uint64 // the last number that a stream can have
}

// inlineMax is the longest payload that is copied into the output. A longer one
// is written from where it is: beyond a few KiB the copy costs more than one
// more element in a gathered write.
const inlineMax = 4 << 10

// Out is output under construction: encoded bytes, and between them the
// payloads of large messages by reference.
type Out struct {
	Buf  []byte
	refs []ref
	refd int // bytes by reference
	held pool.Queue
	f    *Frame // what Scratch returns; nil: not asked for since Reset
}

// Scratch returns an empty frame of a kind, to be filled and passed to Control
// at once: it is used again by the next call.
func (o *Out) Scratch(k Kind, id uint64) *Frame {
	if o.f == nil {
		o.f = GetFrame(k)
	}
	*o.f = Frame{Kind: k, Stream: id, Grants: o.f.Grants[:0]}
	return o.f
}

type ref struct {
	at int // position in Buf that the payload precedes
	p  []byte
}

// Len is the number of bytes to write.
func (o *Out) Len() int { return len(o.Buf) + o.refd }

// Payload appends p, by copy or by reference. By reference, the caller keeps p
// alive until the output was written: see Hold.
func (o *Out) Payload(p []byte) {
	if len(p) <= inlineMax {
		o.Buf = append(o.Buf, p...)
		return
	}
	o.refs = append(o.refs, ref{len(o.Buf), p})
	o.refd += len(p)
}

// Hold releases m when the output has been written.
func (o *Out) Hold(m pool.Message) {
	if m.Len() <= inlineMax {
		m.Release()
		return
	}
	o.held.Push(m)
}

// HoldAll releases every message of run when the output has been written; at
// once if from says that nothing by reference was appended since.
func (o *Out) HoldAll(run pool.Queue, from int) {
	if o.refd == from {
		run.Release()
		return
	}
	o.held.Append(&run)
}

// Refs is how many bytes were appended by reference.
func (o *Out) Refs() int { return o.refd }

// A Mark is a position in an Out.
type Mark struct{ buf, ref int }

// Mark returns the current end.
func (o *Out) Mark() Mark { return Mark{len(o.Buf), len(o.refs)} }

// Since calls f with every piece appended after m, in order.
func (o *Out) Since(m Mark, f func(p []byte)) {
	at := m.buf
	for _, r := range o.refs[m.ref:] {
		f(o.Buf[at:r.at])
		f(r.p)
		at = r.at
	}
	f(o.Buf[at:])
}

// LenSince is the number of bytes appended after m.
func (o *Out) LenSince(m Mark) int {
	n := len(o.Buf) - m.buf
	for _, r := range o.refs[m.ref:] {
		n += len(r.p)
	}
	return n
}

// Vec appends the output to v as pieces to write in order.
func (o *Out) Vec(v [][]byte) [][]byte {
	at := 0
	for _, r := range o.refs {
		if r.at > at {
			v = append(v, o.Buf[at:r.at])
		}
		v = append(v, r.p)
		at = r.at
	}
	if at < len(o.Buf) {
		v = append(v, o.Buf[at:])
	}
	return v
}

// Reset empties o after its bytes were written, or when they never will be.
func (o *Out) Reset() {
	o.held.Release()
	clear(o.refs)
	if o.f != nil {
		PutFrame(o.f)
		o.f = nil
	}
	o.Buf, o.refs, o.refd = o.Buf[:0], o.refs[:0], 0
}

// At is the position of m in Buf.
func (o *Out) At(m Mark) int { return m.buf }
