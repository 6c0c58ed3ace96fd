package actor

import (
	"fmt"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Deliver takes over whole messages, in the order in which they arrived. It never waits.
// Only the connection's reader calls it. An error is a *frame.Violation, or frame.ErrFault
// if the stream was reset.
func (s *Stream) Deliver(run *pool.Queue, now time.Time) error {
	s.mu.Lock()
	defer s.unlock()
	cost := run.Cost()
	s.bytesReceived += uint64(run.Bytes())
	s.heardAt = stampOf(now)
	if keep, err := s.checkArrival(cost, run.Bytes(), run.Len()); !keep {
		s.discard(cost, run.Bytes())
		s.dropRun(run)
		return err
	}
	if s.requests == requestHere {
		s.resetSecond()
		s.discard(cost, run.Bytes())
		s.dropRun(run)
		return nil
	}
	if s.asm != nil && s.asm.active {
		s.dropRun(run)
		return violation(status.Protocol, "a message inside a fragmented one")
	}
	if n := s.tooLong(run); n > 0 {
		s.resetTooLarge(n)
		s.discard(cost, run.Bytes())
		s.dropRun(run)
		return nil
	}
	s.enqueue(run, now)
	return nil
}

// dropRun releases messages that have arrived and are not kept.
func (s *Stream) dropRun(run *pool.Queue) {
	s.countDroppedIn(run.Len())
	run.Release()
}

// tooLong returns the length of the longest message if it exceeds the limit, else 0. A run
// that does not exceed it as a whole is not searched.
func (s *Stream) tooLong(run *pool.Queue) int {
	most := 0
	if run.Bytes() <= s.cfg.MaxReceive {
		return 0
	}
	for range run.Len() {
		m, _ := run.Pop()
		most = max(most, m.Len())
		run.Push(m)
	}
	if most <= s.cfg.MaxReceive {
		return 0
	}
	return most
}

// resetTooLarge resets the stream because of a message of n bytes.
func (s *Stream) resetTooLarge(n int) {
	s.abort(s.fail(status.TooLarge, fmt.Sprintf("message of %d bytes, limit %d", n, s.cfg.MaxReceive), false))
}

// checkArrival checks that data of that cost may arrive, n bytes in so many messages, and
// reports whether to keep it.
func (s *Stream) checkArrival(cost, n, messages int) (bool, error) {
	if !s.st.dataAllowed() && s.isEndedHere() {
		s.win.recvd += uint64(cost)
		return false, nil
	}
	if !s.st.dataAllowed() {
		s.win.recvd += uint64(cost)
		s.abort(s.fail(status.StreamState, "data after the end", false))
		return false, frame.ErrFault
	}
	if !s.cfg.granted() {
		s.win.recvd += uint64(cost)
		keep := s.st.wantsData() && !s.cfg.NoReceive
		if keep && s.overCap(n, messages) {
			s.abort(s.fail(status.ResourceExhausted, fmt.Sprintf("%d bytes in %d messages are unread, at most %d are kept, and a message counts %d at least",
				s.unreadPayload()+n, int(s.mailbox.messages)+messages, s.cfg.Window, messageCap), false))
			return false, frame.ErrFault
		}
		return keep, nil
	}
	if !s.win.arrive(cost) {
		return false, violation(status.FlowControl, "stream %d: %d bytes beyond its credit",
			s.link.ID(), s.win.recvd-s.win.granted)
	}
	return s.st.wantsData() && !s.cfg.NoReceive, nil
}

// enqueue puts messages into the mailbox and offers it to its reader.
func (s *Stream) enqueue(run *pool.Queue, now time.Time) {
	if s.mailbox.messages == 0 || s.hasTaken() {
		s.noteUnread(s.heardAt)
	}
	s.mailbox.add(run.Len(), run.Bytes())
	s.tellHeld()
	if s.outcome != nil && s.outcome.firstMessage != firstData {
		s.takeFirst(run)
	}
	s.in.Append(run)
	ch := s.ch
	if ch == nil {
		return
	}
	if ch.idle != nil {
		ch.idle.traffic(now)
	}
	s.offer(ch)
}

func violation(c status.Code, format string, args ...any) error {
	return &frame.Violation{Code: c, Detail: fmt.Sprintf(format, args...)}
}
