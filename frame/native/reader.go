package native

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Limits on what only a hostile peer sends.
const (
	maxSkipped    = 100  // unknown frames in a row
	maxTinyFrames = 1000 // fragments of less than tinyFragment bytes in a row
	tinyFragment  = 32
	maxEmpty      = 10 // fragments without a byte in a row
)

// reader is the half that decodes. It is a state machine over the bytes. How they are cut
// into calls changes nothing but how a large payload is cut into pieces.
type reader struct {
	frame.Base  // methods that the native protocol does not need
	maxFragment int
	maxMetadata int // bytes, as Metadata.Size counts
	checked     bool
	offset      int64 // bytes consumed
	begun       int64 // where the frame or record at hand starts

	head  [maxHeader]byte // the part of a header that has come
	nhead int

	typ  byte // of the frame at hand
	id   uint64
	left int // bytes of payload still to come in pieces

	whole *buffer // a payload or record that is collected; nil: there is none
	got   int     // bytes of it so far
	stale *buffer // the one that the last call has returned

	verified   int // unread bytes of a verified record
	longRecord int // bytes still to come of a record that is read in pieces
	sum        uint32
	expect     uint32

	first            bool
	msgTotal         int
	skipped          int
	empty, tinyCount int
}

// Next implements frame.Session.
func (r *reader) Next(p []byte, f *frame.Frame) (int, error) {
	f.Kind = frame.None
	r.releaseStale()
	n, err := r.next(p, f)
	r.offset += int64(n)
	if err != nil {
		return n, r.fail(err)
	}
	if r.between() {
		r.begun = r.offset
	}
	return n, nil
}

// releaseStale releases the memory of the last frame.
func (r *reader) releaseStale() {
	if r.stale != nil {
		buffers.Put(r.stale)
		r.stale = nil
	}
}

// between tells whether the input ends between two frames, and between two records.
func (r *reader) between() bool {
	return r.nhead == 0 && r.left == 0 && r.whole == nil && r.verified == 0 && r.longRecord == 0
}

// next steps until there is a frame or p is used up.
func (r *reader) next(p []byte, f *frame.Frame) (int, error) {
	used := 0
	for {
		var n int
		var err error
		if r.checked {
			n, err = r.stepChecked(p[used:], f)
		} else {
			n, err = r.step(p[used:], f)
		}
		used += n
		if err != nil || f.Kind != frame.None || used == len(p) && !r.pending() {
			return used, err
		}
	}
}

// pending tells whether a collected and verified record has frames left, which need no
// input.
func (r *reader) pending() bool { return r.verified > 0 && r.whole != nil }

// A codeError gives a framing error its code.
type codeError struct {
	code status.Code
	text string
}

func (e *codeError) Error() string { return e.text }

func failf(c status.Code, format string, args ...any) error {
	return &codeError{c, fmt.Sprintf(format, args...)}
}

func (r *reader) fail(err error) error {
	code := status.Protocol
	var ce *codeError
	switch {
	case errors.As(err, &ce):
		code = ce.code
	case errors.Is(err, errSettings):
		code = status.EnhanceYourCalm
	}
	return &status.ProtocolError{Proto: "sluice", Code: code, Offset: r.begun, Detail: err.Error()}
}

// step reads plain frames: a header, then a payload in one piece or several.
func (r *reader) step(p []byte, f *frame.Frame) (int, error) {
	switch {
	case r.left > 0:
		return r.piece(p, f)
	case r.whole != nil:
		return r.fill(p, f)
	}
	h, used := r.header(p)
	if h == nil {
		return used, nil
	}
	n, err := r.start(h)
	if err != nil {
		return used, err
	}
	if kinds[r.typ&typeMask] == frame.Data && n > wholeMax {
		r.left, r.first = n, true
		return used, nil
	}
	if len(p)-used < n {
		r.whole, r.got = getBuffer(n), 0
		return used, nil
	}
	return used + n, r.emit(p[used:used+n], f)
}

// header returns the next frame's header once it has come, and how much of p it used. It
// does not copy a header that p holds whole.
func (r *reader) header(p []byte) ([]byte, int) {
	if r.nhead == 0 && len(p) >= maxHeader {
		n := headerSize(p[3])
		return p[:n], n
	}
	used := 0
	for {
		need := headerLen
		if r.nhead >= headerLen {
			need = headerSize(r.head[3])
		}
		if r.nhead == need {
			r.nhead = 0
			return r.head[:need], used
		}
		n := copy(r.head[r.nhead:need], p[used:])
		if n == 0 {
			return nil, used
		}
		r.nhead += n
		used += n
	}
}

// headerSize counts the total in front of a first fragment as header.
func headerSize(typ byte) int {
	if typ&typeMask == tData && typ&(fMore|fCont) == fMore {
		return maxHeader
	}
	return headerLen
}

// start reads a header and returns the length of what follows it.
func (r *reader) start(h []byte) (int, error) {
	w := binary.LittleEndian.Uint64(h)
	n := int(w & 0xffffff)
	r.typ, r.id = byte(w>>24), w>>32
	t := r.typ & typeMask
	if t == tData {
		if n > r.maxFragment+len(h)-headerLen {
			return 0, failf(status.FrameSize, "data frame of %d bytes, limit %d", n, r.maxFragment)
		}
		if n -= len(h) - headerLen; n < 0 {
			return 0, failf(status.FrameSize, "first fragment of %d bytes has no room for its total", n+totalLen)
		}
		r.total(h, n)
		return n, r.tiny(n)
	}
	if r.id > maxStreamID {
		return 0, failf(status.Protocol, "stream number %d is out of range", r.id)
	}
	if err := checkLen(t, n); err != nil {
		return 0, err
	}
	return n, nil
}

func (r *reader) total(h []byte, n int) {
	if len(h) == maxHeader {
		n = int(binary.LittleEndian.Uint32(h[headerLen:]))
	}
	r.msgTotal = n
}

// checkLen checks a control frame's length before a byte of it is kept.
func checkLen(t byte, n int) error {
	switch t {
	case tCredit, tRead, tPing:
		if n != 8 {
			return failf(status.FrameSize, "frame type %d of %d bytes, must be 8", t, n)
		}
	case tOpen, tAccept, tReject, tEnded, tReset, tStop, tGoAway:
		if n == 0 {
			return failf(status.FrameSize, "frame type %d without a payload", t)
		}
	}
	if n > maxControl {
		return failf(status.FrameSize, "frame type %d of %d bytes, limit %d", t, n, maxControl)
	}
	return nil
}

// tiny counts fragments that cost more than they carry.
func (r *reader) tiny(n int) error {
	if r.typ&(fMore|fCont) == 0 {
		r.tinyCount, r.empty = 0, 0
		return nil
	}
	if n >= tinyFragment {
		r.tinyCount, r.empty = 0, 0
		return nil
	}
	r.tinyCount++
	if n == 0 && r.typ&fCont != 0 {
		r.empty++
	} else {
		r.empty = 0
	}
	if r.empty > maxEmpty || r.tinyCount > maxTinyFrames {
		return failf(status.EnhanceYourCalm, "too many tiny fragments in a row")
	}
	return nil
}

// piece hands on what has come of a large payload.
func (r *reader) piece(p []byte, f *frame.Frame) (int, error) {
	n := min(r.left, len(p))
	if n == 0 {
		return 0, nil
	}
	r.left -= n
	r.data(p[:n], f, r.first, r.left == 0)
	r.first = false
	return n, nil
}

// fill collects a payload that is handed on whole.
func (r *reader) fill(p []byte, f *frame.Frame) (int, error) {
	b := r.whole.b
	n := copy(b[r.got:], p)
	r.got += n
	if r.got < len(b) {
		return n, nil
	}
	r.stale, r.whole = r.whole, nil
	return n, r.emit(b, f)
}

// data makes f a piece of a Data frame's payload. first and last say whether it is the
// first and the last piece of that.
func (r *reader) data(p []byte, f *frame.Frame, first, last bool) {
	f.Kind, f.Stream, f.Payload = frame.Data, r.id, p
	f.First = first && r.typ&fCont == 0
	f.Packed = f.First && r.typ&fPacked != 0
	f.Last = last && r.typ&fMore == 0
	f.Total = r.msgTotal
	f.SetCost(overhead)
}

// emit hands a complete frame on.
func (r *reader) emit(p []byte, f *frame.Frame) error {
	t := r.typ & typeMask
	if t == tData {
		r.data(p, f, true, true)
		return nil
	}
	f.Stream = r.id
	f.Kind = kinds[t]
	if f.Kind == frame.None {
		return r.unknown(t, f)
	}
	r.skipped = 0
	if err := control(p, r.typ, f, r.maxMetadata); err != nil {
		f.Kind = frame.None
		return fmt.Errorf("frame type %d: %w", t, err)
	}
	return nil
}

func (r *reader) unknown(t byte, f *frame.Frame) error {
	if t < firstIgnorable {
		return failf(status.Protocol, "unknown frame type %d", t)
	}
	if r.skipped++; r.skipped > maxSkipped {
		return failf(status.EnhanceYourCalm, "too many frames of unknown types in a row")
	}
	f.Kind = frame.Skip
	return nil
}

// stepChecked reads records. One that has come whole is verified in place. One of several
// frames that has not come whole is collected first. A record of one large Data frame is
// handed on in pieces, the last only when the checksum is right: no message is complete
// before that.
func (r *reader) stepChecked(p []byte, f *frame.Frame) (int, error) {
	switch {
	case r.longRecord > 0:
		return r.stepLongRecord(p, f)
	case r.verified > 0 && r.whole != nil:
		return 0, r.stepCollected(f)
	case r.verified > 0:
		n, err := r.inRecord(p[:r.verified], f)
		r.verified -= n
		return n, err
	case r.whole != nil:
		return r.collect(p)
	}
	return r.startRecord(p)
}

// startRecord reads a record's header and the header of its first frame.
func (r *reader) startRecord(p []byte) (int, error) {
	n := copy(r.head[r.nhead:recordLen], p)
	if r.nhead += n; r.nhead < recordLen {
		return n, nil
	}
	r.nhead = 0
	w := binary.LittleEndian.Uint32(r.head[:])
	size := int(w & 0xffffff)
	if byte(w>>24) != lengthCheck(size) {
		return n, failf(status.Checksum, "a record's length of %d has check %02x, must be %02x", size, w>>24, lengthCheck(size))
	}
	if size < headerLen || size > max(maxRecord, r.maxFragment+maxHeader, maxControl+headerLen) {
		return n, failf(status.FrameSize, "record of %d bytes", size)
	}
	r.expect = binary.LittleEndian.Uint32(r.head[4:])
	r.sum = crc32.Update(0, castagnoli, r.head[:4])
	if size > maxRecord { // of one frame
		r.longRecord = size
		return n, nil
	}
	if rest := p[n:]; len(rest) >= size {
		r.sum = crc32.Update(r.sum, castagnoli, rest[:size])
		r.verified = size
		return n, r.verify()
	}
	r.whole, r.got = getBuffer(size), 0
	return n, nil
}

func (r *reader) verify() error {
	if r.sum != r.expect {
		return failf(status.Checksum, "record has checksum %08x, its bytes %08x", r.expect, r.sum)
	}
	return nil
}

// inRecord reads one frame, which must be wholly inside p.
func (r *reader) inRecord(p []byte, f *frame.Frame) (int, error) {
	h, n := r.header(p)
	if h == nil {
		return n, failf(status.Protocol, "a frame's header crosses the end of its record")
	}
	size, err := r.start(h)
	if err != nil {
		return n, err
	}
	if size > len(p)-n {
		return n, failf(status.Protocol, "a frame crosses the end of its record")
	}
	return n + size, r.emit(p[n:n+size], f)
}

// collect gathers a record that came in parts, and verifies it.
func (r *reader) collect(p []byte) (int, error) {
	b := r.whole.b
	n := copy(b[r.got:], p)
	if r.got += n; r.got < len(b) {
		return n, nil
	}
	r.sum = crc32.Update(r.sum, castagnoli, b)
	r.verified = len(b)
	return n, r.verify()
}

// stepCollected reads one frame of a collected record.
func (r *reader) stepCollected(f *frame.Frame) error {
	b := r.whole.b
	n, err := r.inRecord(b[len(b)-r.verified:], f)
	if r.verified -= n; r.verified == 0 {
		r.stale, r.whole = r.whole, nil
	}
	return err
}

// stepLongRecord reads a record of one frame, in pieces as they come.
func (r *reader) stepLongRecord(p []byte, f *frame.Frame) (int, error) {
	if r.left == 0 && r.whole == nil {
		return r.startLongRecord(p)
	}
	n := min(r.longRecord, len(p))
	r.sum = crc32.Update(r.sum, castagnoli, p[:n])
	if r.longRecord -= n; r.longRecord == 0 {
		if err := r.verify(); err != nil {
			return n, err
		}
	}
	if r.whole != nil {
		return r.fill(p[:n], f)
	}
	return r.piece(p[:n], f)
}

func (r *reader) startLongRecord(p []byte) (int, error) {
	h, n := r.header(p)
	if h == nil {
		return n, nil
	}
	r.sum = crc32.Update(r.sum, castagnoli, h)
	size, err := r.start(h)
	if err != nil {
		return n, err
	}
	if size != r.longRecord-len(h) {
		return n, failf(status.Protocol, "a record of several frames is longer than %d", maxRecord)
	}
	r.longRecord = size
	if r.typ&typeMask == tData {
		r.left, r.first = size, true
	} else {
		r.whole, r.got = getBuffer(size), 0
	}
	return n, nil
}

// Run implements frame.Session, for small messages.
func (r *reader) Run(p []byte, id uint64, a *pool.Arena, q *pool.Queue) (used int) {
	p = r.ready(p)
	most := min(wholeMax, r.maxFragment)
	for len(p)-used >= headerLen {
		w := binary.LittleEndian.Uint64(p[used:])
		n := int(w & 0xffffff)
		end := used + headerLen + n
		if w>>24 != tData|id<<8 || n > most || end > len(p) {
			break
		}
		m := a.Copy(p[used+headerLen : end])
		pool.SetCost(m, n+overhead)
		q.Push(m)
		used = end
	}
	r.ran(used)
	return used
}

// RunBundles implements frame.Session.
func (r *reader) RunBundles(p []byte, id uint64, q *pool.Queue) (used int) {
	p = r.ready(p)
	most := min(pool.BundleMost, r.maxFragment)
	end := 0
	for len(p)-end >= headerLen && end < bundleScan {
		w := binary.LittleEndian.Uint64(p[end:])
		next := end + headerLen + int(w&0xffffff)
		if w>>24 != tData|id<<8 || int(w&0xffffff) > most || next > len(p) {
			break
		}
		end = next
	}
	for end-used >= pool.BundleLeast {
		used += q.PushFrames(p[used:end], overhead)
	}
	r.ran(used)
	return used
}

// bundleScan is how many bytes of small messages RunBundles looks for at a time.
const bundleScan = 16 << 10

// ready is what Run may take of p: nothing in the middle of a frame, and only what is verified.
func (r *reader) ready(p []byte) []byte {
	switch {
	case r.nhead > 0 || r.left > 0 || r.longRecord > 0 || r.whole != nil:
		return nil
	case r.checked:
		return p[:min(r.verified, len(p))]
	}
	return p
}

// ran is called when whole messages of n bytes were taken out of the input.
func (r *reader) ran(n int) {
	if n == 0 {
		return
	}
	r.tinyCount, r.empty = 0, 0
	r.offset += int64(n)
	if r.checked {
		r.verified -= n
	}
	if r.between() {
		r.begun = r.offset
	}
}
