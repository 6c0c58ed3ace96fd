package actor

import (
	"math"

	"github.com/sluicerpc/sluice/pool"
)

// What messages take of memory. The connection counts their credit while they are unread, and
// while they can be written. A stream tells it what there is beside that: what a small message
// takes more than its credit, and messages that were accepted and can't be written yet. What is in In's buffer counts too.
// Nobody tells when it is taken from there: until the next message comes, or somebody looks, it counts on.

// messageSize is what a message takes beside its bytes, at most: its handle, of 40 bytes, and
// an empty one's share of a block of 16 KiB that 224 messages share.
const messageSize = 40 + 16<<10/224 + 1

// tellEvery is how far what the connection knows may be from what there is, in bytes, where many
// streams are open. Where few are it is twice what count leaves untold. So a reader that keeps up
// tells nothing.
const tellEvery = 1 << 10

// tellTaken is of how many small messages that are taken the stream tells together.
const tellTaken = 8

// tellHeld tells the connection what the stream's messages take that nothing else counts, if
// that has changed.
func (s *Stream) tellHeld() {
	n, most := s.heldBeside(), max(2*int(s.countAt), tellEvery)
	if d := n - int(s.told); (d >= most || d <= -most || n == 0 && d != 0) && !s.st.retired {
		s.told = int32(n)
		s.link.Beside(d)
	}
}

// endHeld takes it all back: the stream leaves its connection.
func (s *Stream) endHeld() {
	if s.told != 0 {
		s.link.Beside(-int(s.told))
		s.told = 0
	}
}

// heldBeside is what the stream's messages take that nothing else counts, in bytes: what is
// accepted beyond the credit, and what of a partly written message has been written; what
// senders wait with, and In's buffer has; and what messages take more than their bytes.
func (s *Stream) heldBeside() int {
	n := int(s.cred.admitted-s.cred.sent) - s.cred.eligible
	if !s.partial.IsZero() {
		n += int(s.partialSent) + sizeBeside(1, s.partial.Message().Len(), s.cfg.Caps.Overhead)
	}
	if m := int(s.mailbox.messages); m > 0 {
		n += sizeBeside(m, int(s.mailbox.bytes), s.cfg.Caps.Overhead)
	}
	if m := s.out.Len(); m > 0 {
		n += sizeBeside(m, s.out.Bytes(), s.cfg.Caps.Overhead) + s.out.Spare()
	}
	if ch := s.ch; ch != nil {
		if w := ch.waiters.bytes; w > 0 {
			n += w + sizeBeside(1, w, 0)
		}
		n += ch.in.held()
	}
	return min(n, math.MaxInt32)
}

// sizeBeside is what messages take beside their bytes and overhead, which the credit counts.
// A long one has a block to itself, whose size is a power of two. Of many the average counts.
func sizeBeside(messages, bytes, overhead int) int {
	each := bytes / messages
	more := pool.Footprint(each) - each
	if each >= mixedSize && more == 0 {
		more = each / 4 // there may be long ones among them
	}
	return messages * max(more+messageSize-overhead, 0)
}

// mixedSize is from what average on messages may differ much, in bytes.
const mixedSize = 1 << 10

// tellIn is tellHeld where messages stay in In's buffer.
func (s *Stream) tellIn(ch *channels) {
	if len(ch.in.c) > 1 && ch.in.held() >= int(s.told)+tellEvery {
		s.tellHeld()
	}
}

// Compact copies what is unread and unwritten out of memory that it shares with what is not
// here any more: see pool.Queue.Compact. It returns how many messages it has copied. And it tells
// the connection what In's buffer holds.
func (s *Stream) Compact(a *pool.Arena) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellHeld()
	n := s.out.Compact(a)
	if s.asm == nil { // which may know a message of the mailbox by its handle
		n += s.in.Compact(a)
	}
	return n
}

// Held is how many bytes of memory the stream's end would free. It tells the connection what
// has changed unnoticed: what was taken from In's buffer.
func (s *Stream) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellHeld()
	n := int(s.win.recvd-s.win.taken) + int(s.cred.eligible) + s.heldBeside()
	if s.asm != nil {
		n += s.asm.reserve
	}
	return n
}
