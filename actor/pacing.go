package actor

import (
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// What is different where the receiver grants no credit (frame.Pacing). The sender's
// window is its own, and the receiver limits what it keeps unread.

// freed returns a part of a burst to the sender's window: used bytes of credit, payload
// of them in messages. A receiver that reports counts the payload alone, so the overhead
// is free at once. Where the receiver says nothing, all is free once it is written.
func (s *Stream) freed(used, payload int) {
	switch s.cfg.Caps.Pacing {
	case frame.Reported:
		s.cred.granted += int64(used - payload)
	case frame.Unpaced:
		s.cred.granted += int64(used)
	}
}

// reported takes the receiver's report of the payload bytes that it has taken in all. It
// reports false if that is not news.
func (s *Stream) reported(total uint64) bool {
	oc := s.makeOutcome()
	total = min(total, s.cred.sent)
	if total <= oc.reported {
		return false
	}
	s.cred.granted += int64(total - oc.reported)
	oc.reported = total
	return true
}

// backlogged reports whether the stream has accepted so much that is not written that it
// takes no more, whatever its window: that may have no bound. Who accepts a message may
// exceed the limit by it.
func (s *Stream) backlogged() bool {
	most := s.cfg.MaxUnsent
	return most > 0 && int64(s.cred.admitted)-int64(s.cred.sent) >= int64(most)
}

// unreported is how much the stream has accepted that the receiver has not reported, in
// bytes; 0 where it asks for no reports, or is over.
func (s *Stream) unreported() int64 {
	w := ownWindow(s.cfg)
	if w >= noWindow || s.st.retired {
		return 0
	}
	return max(w-s.cred.left(), 0)
}

// countUnreported tells the connection how much that is. It is told in steps, once for many
// small messages.
func (s *Stream) countUnreported() {
	caps := &s.cfg.Caps
	if caps.ConnUnreported == 0 || caps.Pacing != frame.Reported {
		return
	}
	n := s.unreported()
	told := int64(0)
	if s.outcome != nil {
		told = s.outcome.unreported
	}
	if d := n - told; d >= countEvery || d <= -countEvery || d != 0 && n == 0 {
		s.makeOutcome().unreported = n
		s.link.Unreported(d)
	}
}

// crowdedOut reports whether the streams of the connection have so much unread at the peer
// that this one may have no more.
func (s *Stream) crowdedOut() bool {
	caps := &s.cfg.Caps
	return caps.ConnUnreported > 0 && caps.Pacing == frame.Reported &&
		s.unreported() >= int64(caps.LeastUnreported) && s.link.Crowded()
}

// reportEvery is how many payload bytes we take before we report them while more wait. If
// none wait we report at once: the sender's window may be small.
const reportEvery = 64 << 10

// countPayload counts n payload bytes that are no longer here, and reports them if it is
// time to.
func (s *Stream) countPayload(n int) {
	if s.cfg.Caps.Pacing != frame.Reported || s.st.done {
		return
	}
	w := &s.win
	w.payload += uint64(n)
	unreported := w.payload - w.granted
	if unreported == 0 || unreported < reportEvery && s.in.Len() > 0 {
		return
	}
	w.granted = w.payload
	s.requestControl(controlCredit)
}

// messageCap is what a message takes at least of the cap on what is unread, in bytes. A
// sender's window counts payload alone. With brpc's window of 2 MiB, and our cap of 16 MiB,
// 2,396,745 messages may be unread: as many as there can be in the window, if each has a byte.
const messageCap = 7

// connMessageCap is what it takes of the connection's cap, which is four times as large: the
// number of small messages is bounded for the connection as for a stream, since each takes
// some 116 bytes of memory.
const connMessageCap = 4 * messageCap

// overCap reports whether a sender that has a window of its own has more unread here than
// we keep, once n bytes in that many messages have arrived.
func (s *Stream) overCap(n, messages int) bool {
	return s.cfg.Caps.Pacing == frame.Reported &&
		max(s.unreadPayload()+n, messageCap*(int(s.mailbox.messages)+messages)) > s.cfg.Window
}

// unreadPayload is how many bytes of messages are here, those of an incomplete one too.
func (s *Stream) unreadPayload() int {
	n := int(s.mailbox.bytes)
	if s.asm != nil && s.asm.active {
		n += s.asm.got
	}
	return n
}

// CapUse returns what the stream takes of the connection's cap on what is unread, and for
// how long nothing was taken.
func (s *Stream) CapUse(now time.Time) (use int, unreadFor time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := stampOf(now)
	if s.mailbox.messages > 0 && s.hasTaken() {
		s.noteUnread(at)
	}
	if s.mailbox.messages > 0 {
		unreadFor = s.unreadSince.Until(at)
	}
	return max(s.unreadPayload(), connMessageCap*int(s.mailbox.messages)), unreadFor
}
