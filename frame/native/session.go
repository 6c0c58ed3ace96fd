package native

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// Session is the native protocol of one connection. It implements
// frame.Session.
type Session struct {
	reader
	writer
	version uint64
}

// New returns a session that exchanges frames without records until
// SetChecksum. maxFragment is what we announced: the largest Data payload that
// the peer may send, in bytes.
func New(maxFragment int) *Session {
	s := &Session{version: Version}
	s.reader.maxFragment = maxFragment
	s.reader.maxMetadata = maxControl
	return s
}

// Begun implements frame.Session: it is where an incomplete frame or record begins.
func (s *Session) Begun() (at int64, ok bool) { return s.reader.begun, !s.reader.between() }

// Buffered implements frame.Session.
func (s *Session) Buffered() int { return s.reader.whole.len() }

// SetChecksum sets whether frames travel in records. It must not be called while a frame
// or a record is half read or half written.
func (s *Session) SetChecksum(on bool) {
	s.reader.checked = on
	s.writer.checked = on
}

// Version is the version of the wire that the handshake has chosen.
func (s *Session) Version() uint64 { return s.version }

// Caps tells what the native protocol can carry: everything.
func (s *Session) Caps() frame.Caps { return Protocol{}.Caps() }

// writer is the half that encodes.
type writer struct {
	checked bool
	open    bool       // a record is under construction
	mark    frame.Mark // where it starts
	size    int        // bytes of frames in it
	scratch []byte     // a control frame's payload
}

func header(length int, typ byte, id uint64) uint64 {
	return uint64(length) | uint64(typ)<<24 | id<<32
}

// Messages appends whole messages, one frame each, and takes them over.
func (w *writer) Messages(o *frame.Out, id uint64, run pool.Queue) {
	refs := o.Refs()
	run.Each(func(m pool.Message) {
		if pool.IsBundle(m) {
			w.bundle(o, m)
			return
		}
		p := m.Bytes()
		if w.checked {
			w.room(o, len(p))
		}
		typ := byte(tData)
		if pool.IsPacked(m) {
			typ |= fPacked
		}
		o.Buf = binary.LittleEndian.AppendUint64(o.Buf, header(len(p), typ, id))
		o.Payload(p)
	})
	o.HoldAll(run, refs)
}

// bundle appends frames that are encoded already: where they are many, by reference, as a
// record of their own.
func (w *writer) bundle(o *frame.Out, m pool.Message) {
	p := pool.Frames(m)
	frames := p[recordLen:]
	switch {
	case len(frames) <= wholeMax: // which Payload copies
		if w.checked {
			w.room(o, len(frames)-headerLen)
		}
		o.Payload(frames)
	case !w.checked:
		o.Payload(frames)
	default:
		w.Flush(o)
		binary.LittleEndian.PutUint32(p, recordLength(len(frames)))
		crc := crc32.Update(0, castagnoli, p[:4])
		binary.LittleEndian.PutUint32(p[4:], crc32.Update(crc, castagnoli, frames))
		o.Payload(p)
	}
}

// Fragment appends n bytes of m from off as one frame. The whole message in one
// frame must go through Messages.
func (w *writer) Fragment(o *frame.Out, id uint64, m pool.Message, off, n int) {
	off, to := frame.Part(overhead, off, n)
	typ, length, total := byte(tData), to-off, m.Len()
	if off > 0 {
		typ |= fCont
	} else {
		length += totalLen
		if pool.IsPacked(m) {
			typ |= fPacked
		}
	}
	last := to == total
	if !last {
		typ |= fMore
	}
	if w.checked {
		w.room(o, length)
	}
	o.Buf = binary.LittleEndian.AppendUint64(o.Buf, header(length, typ, id))
	if off == 0 {
		o.Buf = binary.LittleEndian.AppendUint32(o.Buf, uint32(total))
	}
	o.Payload(m.Bytes()[off:to])
	if last {
		o.Hold(m)
	}
}

// Control appends a frame that is not Data.
func (w *writer) Control(o *frame.Out, f *frame.Frame) {
	if !w.checked {
		at := len(o.Buf)
		o.Buf = binary.LittleEndian.AppendUint64(o.Buf, 0)
		var flags byte
		o.Buf, flags = appendControl(o.Buf, f)
		binary.LittleEndian.PutUint64(o.Buf[at:], header(len(o.Buf)-at-headerLen, types[f.Kind]|flags, f.Stream))
		return
	}
	// Its length decides which record it belongs to, so it is encoded first.
	var flags byte
	w.scratch, flags = appendControl(w.scratch[:0], f)
	w.room(o, len(w.scratch))
	o.Buf = binary.LittleEndian.AppendUint64(o.Buf, header(len(w.scratch), types[f.Kind]|flags, f.Stream))
	o.Buf = append(o.Buf, w.scratch...)
	if cap(w.scratch) > wholeMax {
		w.scratch = nil
	}
}

// room makes sure that a record is open that may take a frame of n bytes.
func (w *writer) room(o *frame.Out, n int) {
	if w.open && (w.size >= sealRecord || n > wholeMax) {
		w.seal(o)
	}
	if !w.open {
		w.open, w.mark, w.size = true, o.Mark(), 0
		o.Buf = append(o.Buf, make([]byte, recordLen)...)
	}
	w.size += headerLen + n
}

// Flush ends the record under construction.
func (w *writer) Flush(o *frame.Out) {
	if w.open {
		w.seal(o)
	}
}

func (w *writer) seal(o *frame.Out) {
	w.open = false
	n := o.LenSince(w.mark) - recordLen
	head := o.Buf[o.At(w.mark):]
	binary.LittleEndian.PutUint32(head, recordLength(n))
	crc := crc32.Update(0, castagnoli, head[:4])
	skip := recordLen
	o.Since(w.mark, func(p []byte) {
		k := min(skip, len(p))
		skip -= k
		crc = crc32.Update(crc, castagnoli, p[k:])
	})
	binary.LittleEndian.PutUint32(head[4:], crc)
}

// recordLength is how a record's header begins whose frames take n bytes.
func recordLength(n int) uint32 { return uint32(n) | uint32(lengthCheck(n))<<24 }
