package actor

import (
	"sync"

	"github.com/sluicerpc/sluice/pool"
)

// A Batch is messages that arrived, in order.
type Batch struct {
	msgs []pool.Message
}

var batchPool = sync.Pool{New: func() any { return new(Batch) }}

// Len is the number of messages, at least one.
func (b *Batch) Len() int { return len(b.msgs) }

// At returns message i. It belongs to the batch until it is taken out by Keep.
func (b *Batch) At(i int) pool.Message { return b.msgs[i] }

// Keep takes message i out of the batch: it belongs to the caller, and Release
// leaves it alone.
func (b *Batch) Keep(i int) pool.Message {
	m := b.msgs[i]
	b.msgs[i] = pool.Message{}
	return m
}

// Release releases the messages and the batch, which must not be used after it.
func (b *Batch) Release() {
	for _, m := range b.msgs {
		m.Release()
	}
	clear(b.msgs)
	b.msgs = b.msgs[:0]
	batchPool.Put(b)
}

// A face is the way in which a stream is read.
type receiveChannel uint8

const (
	channelNone receiveChannel = iota // Receive, from the mailbox
	channelIn
	channelBatches
)

// What an asker for the second face gets.
var (
	closedIn      = func() chan pool.Message { c := make(chan pool.Message); close(c); return c }()
	closedBatches = func() chan *Batch { c := make(chan *Batch); close(c); return c }()
)

// In returns the messages from the peer.
func (s *Stream) In() <-chan pool.Message {
	s.mu.Lock()
	defer s.unlock()
	ch := s.makeChannels()
	switch ch.inbound {
	case channelBatches:
		s.makeOutcome().channelErr = ErrChannelInUse
		return closedIn
	case channelNone:
		if s.cfg.NoReceive {
			return closedIn
		}
		ch.in.c = make(chan pool.Message, s.cfg.InBuffer)
		s.useChannel(ch, channelIn)
	}
	return ch.in.c
}

// Batches returns the messages from the peer, as many at a time as there are.
func (s *Stream) Batches() <-chan *Batch {
	s.mu.Lock()
	defer s.unlock()
	ch := s.makeChannels()
	switch ch.inbound {
	case channelIn:
		s.makeOutcome().channelErr = ErrChannelInUse
		return closedBatches
	case channelNone:
		if s.cfg.NoReceive {
			return closedBatches
		}
		ch.batches = make(chan *Batch)
		s.useChannel(ch, channelBatches)
	}
	return ch.batches
}

// fixFace turns to a channel face: who waits in Receive reads through it now.
func (s *Stream) useChannel(ch *channels, kind receiveChannel) {
	ch.inbound = kind
	// Made once: a go statement with arguments allocates.
	feed := s.pumpIn
	if kind == channelBatches {
		feed = s.pumpBatches
	}
	ch.pump = &feed
	ch.wakeReceiver()
	s.offer(ch)
	if s.st.recv != recvOpen || ch.feedStopped {
		s.closeInbound(ch)
	}
}

// push fills In's buffer from the mailbox without waiting. Whoever calls it is
// the only sender: the lock is held and no goroutine feeds In.
func (s *Stream) fillBuffer(ch *channels) {
	for s.in.Len() > 0 && ch.in.room(s.in.Head().Len()) {
		m, _ := s.in.Pop()
		var t taken
		t.add(m.Len(), pool.Cost(m), s.isPaid(m)) // once it is handed over it is not ours to ask
		if !ch.in.try(m) {
			s.in.PushFront(m)
			return
		}
		s.account(&t)
	}
}

// startPump has the actor's goroutine feed the channel until the mailbox is
// empty or this side reads no more.
func (s *Stream) startPump(ch *channels) {
	if ch.feedStopped {
		return
	}
	s.pumping = true
	s.feedingChanged()
	if ch.feedStop == nil {
		ch.feedStop = make(chan struct{})
	}
	go (*ch.pump)()
}

// A handed is what was handed over and is not accounted for yet.
type taken struct {
	messages, cost int
	bytes   int  // what cost is for
	paid    bool // with the message whose credit was returned as it came
}

// settle accounts for what was handed over.
func (s *Stream) account(t *taken) {
	s.messagesTaken += uint64(t.messages)
	if t.paid && s.asm != nil {
		if s.win.returned { // which made it unread like any other
			s.win.gathered -= int32(s.asm.owed)
		}
		s.tookPaid(s.asm)
	}
	if t.messages > 0 {
		s.returnCredit(t.cost, t.bytes)
	}
	*t = taken{}
}

// isPaid tells whether m's credit was returned while it was assembled.
func (s *Stream) isPaid(m pool.Message) bool { return s.asm != nil && s.asm.paid == m }

// add counts a message of n bytes.
func (t *taken) add(n, cost int, paid bool) {
	t.messages++
	if paid {
		t.paid = true
		return
	}
	t.cost += cost

	t.bytes += n
}

// pumpIn is the actor's goroutine for In. It ends when the mailbox is empty or
// this side reads no more; only it sends on In meanwhile.
func (s *Stream) pumpIn() {
	ch := s.ch
	var run pool.Queue
	var t taken
	for {
		s.mu.Lock()
		s.account(&t)
		if s.in.Len() == 0 || ch.feedStopped {
			s.pumpEnds(ch)
			return
		}
		paid := s.takeRun(&run)
		s.unlock()
		for m, ok := run.Pop(); ok; m, ok = run.Pop() {
			n, cost := m.Len(), pool.Cost(m) // once it is handed over it is not ours to ask
			if !s.sendIn(ch, m, &t) {
				s.putBack(ch, m, &run)
				return
			}
			if t.add(n, cost, paid); t.messages == accountEvery {
				s.mu.Lock()
				s.account(&t)
				s.unlock()
			}
		}
	}
}

// settleEvery is how many messages are handed over before they are accounted
// for, should their reader keep up: its peer is to hear of the credit.
const accountEvery = 64

// grab takes what may be handed over without looking again: all that is there,
// or one alone whose credit was returned while it was assembled.
func (s *Stream) takeRun(run *pool.Queue) (paid bool) {
	if s.asm == nil || s.asm.paid.IsZero() {
		*run, s.in = s.in, pool.Queue{}
		return false
	}
	m, _ := s.in.Pop()
	run.Push(m)
	return s.isPaid(m)
}

// give sends m on In, waiting for room in its buffer; false if this side reads
// no more. Before it waits it accounts for what was handed over.
func (s *Stream) sendIn(ch *channels, m pool.Message, t *taken) bool {
	b := &ch.in
	n := m.Len()
	if b.room(n) && b.try(m) {
		return true
	}
	s.mu.Lock()
	s.account(t)
	s.unlock()
	for !b.room(n) && !b.next(n) {
		if !b.known.await(ch.feedStop) {
			return false
		}
	}
	b.mark(m)
	select {
	case b.c <- m:
		b.count(n)
		return true
	case <-ch.feedStop:
		return false
	}
}

// putBack returns what was not handed over to the mailbox and ends the pump.
func (s *Stream) putBack(ch *channels, m pool.Message, rest *pool.Queue) {
	s.mu.Lock()
	rest.PushFront(m)
	rest.Append(&s.in)
	s.in = *rest
	s.pumpEnds(ch)
}

// pumpEnds frees the lock, which it is called with.
func (s *Stream) pumpEnds(ch *channels) {
	s.pumping = false
	s.feedingChanged()
	if s.dropUnread {
		s.dropIn()
	}
	switch s.st.recv {
	case recvStopped, recvStopEnd:
		s.dropIn()
		s.closeInbound(ch)
	case recvOpen:
	default:
		s.closeInbound(ch)
	}
	s.unlock()
}

// pumpBatches is the actor's goroutine for Batches.
func (s *Stream) pumpBatches() {
	ch := s.ch
	for {
		s.mu.Lock()
		if s.in.Len() == 0 || ch.feedStopped {
			s.pumpEnds(ch)
			return
		}
		b, t := s.batch()
		s.unlock()
		select {
		case ch.batches <- b:
			s.mu.Lock()
			s.account(&t)
			s.unlock()
		case <-ch.feedStop:
			var rest pool.Queue
			for _, m := range b.msgs[1:] {
				rest.Push(m)
			}
			s.putBack(ch, b.msgs[0], &rest)
			return
		}
	}
}

// batch takes up to MaxBatch messages.
func (s *Stream) batch() (*Batch, taken) {
	b := batchPool.Get().(*Batch)
	var t taken
	for len(b.msgs) < s.cfg.MaxBatch {
		m, ok := s.in.Pop()
		if !ok {
			break
		}
		t.add(m.Len(), pool.Cost(m), s.isPaid(m))
		b.msgs = append(b.msgs, m)
	}
	return b, t
}

// closeFaces closes the receive channel once everything was handed over, or
// nothing more will be. It is called when no more can arrive.
func (s *Stream) closeInbound(ch *channels) {
	if ch.inbound == channelNone || s.pumping || ch.inboundClosed || s.in.Len() > 0 && !ch.feedStopped {
		return
	}
	ch.inboundClosed = true
	if ch.inbound == channelIn {
		close(ch.in.c)
	} else {
		close(ch.batches)
	}
	s.apply(s.st.endSeen())
}
