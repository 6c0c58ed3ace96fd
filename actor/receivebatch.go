package actor

import (
	"context"

	"github.com/sluicerpc/sluice/pool"
)

// A lent is what the last ReceiveBatch has returned. It belongs to the one goroutine that may
// call it.
type lent struct {
	msgs   pool.Queue // which bytes are in
	packed pool.Message
	bytes  [][]byte
}

// lendMost is how many bytes ReceiveBatch returns, or one message.
const lendMost = 64 << 10

// ReceiveBatch returns the messages that are here, at least one and up to 64 KiB of them, or the
// next one. They are valid until the next call: their memory is used again then. Only one
// goroutine at a time may call it. Errors are those of Receive, and ErrChannelInUse.
func (s *Stream) ReceiveBatch(ctx context.Context) ([][]byte, error) {
	var l *lent
	waited := nextMessage
	for {
		s.mu.Lock()
		if l == nil {
			l = s.takeBackLent()
		}
		next, err := s.lend(l, waited)
		s.unlock()
		switch waited = next; next {
		case nextMessage:
			return s.unpackLent(l)
		case nextEnd:
			return nil, err
		case nextWait:
			select {
			case <-s.ch.receiverWake:
			case <-ctx.Done():
				if !s.endedWithMore(next) {
					return nil, s.receiveCancelled(ctx, next)
				}
			}
		}
	}
}

// takeBackLent releases what the last ReceiveBatch has returned. From now on small messages
// arrive in bundles.
func (s *Stream) takeBackLent() *lent {
	ch := s.makeChannels()
	if ch.lent == nil {
		ch.lent = &lent{}
	}
	l := ch.lent
	l.msgs.Release()
	l.packed.Release()
	l.packed = pool.Message{}
	clear(l.bytes)
	l.bytes = l.bytes[:0]
	if !ch.lends && ch.inbound == channelNone {
		s.setLends(true)
	}
	return l
}

// setLends has small messages arrive in bundles, or no longer.
func (s *Stream) setLends(on bool) {
	s.ch.lends = on
	s.link.Bundle(on)
}

// lend moves messages from the mailbox to l, or is like next.
func (s *Stream) lend(l *lent, waited next) (next, error) {
	ch := s.ch
	ch.endWait(waited)
	s.countInWork()
	if ch.inbound != channelNone {
		return nextEnd, ErrChannelInUse
	}
	if s.in.Len() == 0 {
		return s.noMessage()
	}
	var t taken
	for s.in.Len() > 0 {
		if head := s.in.Head(); pool.IsPacked(head) {
			if l.msgs.Len() > 0 {
				break
			}
			l.packed, _ = s.in.Pop()
			t.add(l.packed.Len(), pool.Cost(l.packed), s.isPaid(l.packed))
			break
		} else if l.msgs.Len() > 0 && l.msgs.Bytes()+head.Len() > lendMost {
			break
		}
		m, _ := s.in.PopBundle()
		t.addSome(pool.Messages(m), m.Len(), pool.Cost(m), s.isPaid(m))
		l.msgs.Push(m)
		if s.requests == oneRequest {
			break
		}
	}
	if s.cfg.CountLate {
		s.makeOutcome().inWork = t
	} else {
		s.account(&t)
	}
	s.messageTaken()
	return nextMessage, nil
}

// unpackLent makes l's bytes of its messages.
func (s *Stream) unpackLent(l *lent) ([][]byte, error) {
	if !l.packed.IsZero() {
		m, err := s.unpack(l.packed)
		if l.packed = m; err != nil {
			return nil, err
		}
		l.bytes = append(l.bytes, m.Bytes())
		return l.bytes, nil
	}
	l.msgs.Each(func(m pool.Message) {
		if pool.IsBundle(m) {
			l.bytes = pool.AppendBundle(l.bytes, m)
			return
		}
		l.bytes = append(l.bytes, m.Bytes())
	})
	return l.bytes, nil
}
