package actor

import (
	"errors"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/status"
)

// An Info is a stream's figures at one moment. Messages are counted with their bytes as they
// travel.
type Info struct {
	State    string
	Code     status.Code // that the stream has failed with, or that this side has ended it with
	Sent     Volume      // written
	Received Volume      // arrived
	Mailbox  Volume      // of those, not taken
	Queued   Volume      // accepted and not written

	// Bytes of credit since the stream's start. Where receivers grant no credit,
	// SendGranted is this side's own window and RecvGranted is 0.
	SendGranted, SendUsed int64
	RecvGranted, RecvUsed int64

	Idle    time.Duration // since a message, or a piece, arrived; -1: none has
	Wait    Wait
	WaitFor time.Duration // 0 with WaitTurn: the connection knows
}

// A Volume is a number of messages, and of their bytes.
type Volume struct{ Messages, Bytes uint64 }

func (v *Volume) add(messages, bytes int) {
	v.Messages += uint64(messages)
	v.Bytes += uint64(bytes)
}

// A mailbox says what has arrived and is not taken. The bytes are never more than a window,
// which is below 2 GiB.
type mailbox struct{ messages, bytes uint32 }

func (b *mailbox) add(messages, bytes int) {
	b.messages += uint32(messages)
	b.bytes += uint32(bytes)
}

// A Wait is what a stream waits for.
type Wait uint8

// What a stream can wait for. Of several, the first of these is told: who can't send does not
// read.
const (
	WaitNone   Wait = iota
	WaitCredit      // a sender, or accepted messages, for credit of the stream
	WaitRoom        // a sender, until the connection takes more
	WaitQueue       // a sender, until more of what its stream has accepted is written
	WaitTurn        // accepted messages, to be written
	WaitReader      // arrived messages, to be taken
)

// epoch is what stamps count from.
var epoch = time.Now()

func stampOf(t time.Time) timers.Stamp { return timers.StampAt(t.Sub(epoch)) }

func stampNow() timers.Stamp { return timers.StampAt(time.Since(epoch)) }

// Info returns the stream's figures. now is the time.
func (s *Stream) Info(now time.Time) Info {
	at := stampOf(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := Info{
		State: s.stateName(), Code: s.code(),
		Sent: s.sent, Received: s.received(), Queued: s.unsent(),
		Mailbox:     Volume{uint64(s.mailbox.messages), uint64(s.mailbox.bytes)},
		SendGranted: s.cred.granted, SendUsed: int64(s.cred.admitted), RecvUsed: int64(s.win.recvd),
	}
	if s.cfg.granted() {
		i.RecvGranted = int64(s.win.granted)
	}
	i.Idle = -1
	if s.heardAt != 0 {
		i.Idle = s.heardAt.Until(at)
	}
	var since timers.Stamp
	if i.Wait, since = s.waits(at); since != 0 {
		i.WaitFor = since.Until(at)
	}
	return i
}

func (s *Stream) stateName() string {
	local, remote := s.st.send != sendOpen, s.st.recv != recvOpen
	switch {
	case s.st.done || s.st.retired:
		return "closed"
	case !s.answered:
		return "opening"
	case local && remote:
		return "closing"
	case local:
		return "half-closed (local)"
	case remote:
		return "half-closed (remote)"
	}
	return "open"
}

func (s *Stream) code() status.Code {
	var e *status.StreamError
	if errors.As(s.errLocked(), &e) {
		return e.Code
	}
	if end := s.status(); end != nil {
		return end.Code
	}
	if s.outcome != nil {
		return s.outcome.refused
	}
	return status.OK
}

func (s *Stream) hasUnsent() bool { return s.out.Len() > 0 || !s.partial.IsZero() }

// unsent is what was accepted and is not written.
func (s *Stream) unsent() Volume {
	v := Volume{uint64(s.out.Len()), uint64(s.out.Bytes())}
	if !s.partial.IsZero() {
		_, sent := frame.Part(s.cfg.Caps.Overhead, 0, int(s.partialSent))
		v.add(1, s.partial.Message().Len()-sent)
	}
	return v
}

// messagesAccepted is how many messages the application has sent: each is written, queued or
// dropped.
func (s *Stream) messagesAccepted() uint64 {
	n := s.sent.Messages + s.unsent().Messages
	if s.outcome != nil {
		n += s.outcome.droppedOut
	}
	return n
}

// received is what has arrived: each message is taken, in the mailbox or dropped.
func (s *Stream) received() Volume {
	n := s.messagesTaken + uint64(s.mailbox.messages)
	if s.outcome != nil {
		n += s.outcome.droppedIn
	}
	return Volume{n, s.bytesReceived}
}

// waits returns what the stream waits for, and since when.
func (s *Stream) waits(at timers.Stamp) (Wait, timers.Stamp) {
	sender := timers.Stamp(0)
	if s.ch != nil && s.sends() {
		sender = s.ch.senderSince()
	}
	switch {
	case sender != 0 && s.cred.left() <= 0:
		if s.starvedSince.Until(at) > sender.Until(at) && s.starvedSince != 0 {
			sender = s.starvedSince
		}
		return WaitCredit, sender
	case sender != 0 && s.backlogged():
		return WaitQueue, sender
	case sender != 0 && s.crowdedOut():
		return WaitCredit, sender
	case sender != 0 && !s.link.Room(false):
		return WaitRoom, sender
	case s.starvedSince != 0:
		return WaitCredit, s.starvedSince
	case s.dataRequested && s.hasUnsent():
		return WaitTurn, 0
	case s.mailbox.messages > 0:
		if s.hasTaken() {
			s.noteUnread(at)
		}
		return WaitReader, s.unreadSince
	}
	return WaitNone, 0
}

// senderSince is since when a sender waits, or nothing could be sent by a slot; 0 if neither
// is so.
func (ch *channels) senderSince() timers.Stamp {
	if w := ch.waiters.head; w != nil {
		return w.since
	}
	return ch.slotSince
}

// noteStarved notes since when accepted messages wait for credit.
func (s *Stream) noteStarved() {
	switch {
	case !s.hasUnsent() || s.cred.eligible >= s.leastCost() || s.awaitsAnswer():
		s.starvedSince = 0
	case s.starvedSince == 0:
		s.starvedSince = stampNow()
	}
}

// noteUnread begins to count for how long nothing was taken.
func (s *Stream) noteUnread(at timers.Stamp) {
	s.unreadSince, s.unreadTaken = at, uint32(s.messagesTaken)
}

// hasTaken reports whether something was taken since noteUnread. Taking leaves no stamp,
// which would cost more than the taking itself: arrivals and Info ask.
func (s *Stream) hasTaken() bool { return uint32(s.messagesTaken) != s.unreadTaken }
