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
type face uint8

const (
	faceNone face = iota // Receive, from the mailbox
	faceIn
	faceBatches
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
	f := s.face()
	switch f.face {
	case faceBatches:
		s.more().faceErr = ErrFaceInUse
		return closedIn
	case faceNone:
		if s.cfg.NoReceive {
			return closedIn
		}
		f.in.c = make(chan pool.Message, s.cfg.InBuffer)
		s.fixFace(f, faceIn)
	}
	return f.in.c
}

// Batches returns the messages from the peer, as many at a time as there are.
func (s *Stream) Batches() <-chan *Batch {
	s.mu.Lock()
	defer s.unlock()
	f := s.face()
	switch f.face {
	case faceIn:
		s.more().faceErr = ErrFaceInUse
		return closedBatches
	case faceNone:
		if s.cfg.NoReceive {
			return closedBatches
		}
		f.batches = make(chan *Batch)
		s.fixFace(f, faceBatches)
	}
	return f.batches
}

// fixFace turns to a channel face: who waits in Receive reads through it now.
func (s *Stream) fixFace(f *faces, face face) {
	f.face = face
	// Made once: a go statement with arguments allocates.
	feed := s.pumpIn
	if face == faceBatches {
		feed = s.pumpBatches
	}
	f.feed = &feed
	f.wakeReceiver()
	s.offer(f)
	if s.st.recv != recvOpen || f.givenUp {
		s.closeFaces(f)
	}
}

// push fills In's buffer from the mailbox without waiting. Whoever calls it is
// the only sender: the lock is held and no goroutine feeds In.
func (s *Stream) push(f *faces) {
	for s.in.Len() > 0 && f.in.room(s.in.Head().Len()) {
		m, _ := s.in.Pop()
		var h handed
		h.add(m.Len(), pool.Cost(m), s.isPaid(m)) // once it is handed over it is not ours to ask
		if !f.in.try(m) {
			s.in.PushFront(m)
			return
		}
		s.settle(&h)
	}
}

// startPump has the actor's goroutine feed the channel until the mailbox is
// empty or this side reads no more.
func (s *Stream) startPump(f *faces) {
	if f.givenUp {
		return
	}
	s.pumping = true
	s.fed()
	if f.stop == nil {
		f.stop = make(chan struct{})
	}
	go (*f.feed)()
}

// A handed is what was handed over and is not accounted for yet.
type handed struct {
	n, cost int
	bytes   int  // what cost is for
	paid    bool // with the message whose credit was returned as it came
}

// settle accounts for what was handed over.
func (s *Stream) settle(h *handed) {
	s.messages += uint64(h.n)
	if h.paid && s.asm != nil {
		if s.win.settled { // which made it unread like any other
			s.win.gathered -= int32(s.asm.owed)
		}
		s.tookPaid(s.asm)
	}
	if h.n > 0 {
		s.credit(h.cost, h.bytes)
	}
	*h = handed{}
}

// isPaid tells whether m's credit was returned while it was assembled.
func (s *Stream) isPaid(m pool.Message) bool { return s.asm != nil && s.asm.paid == m }

// add counts a message of n bytes.
func (h *handed) add(n, cost int, paid bool) {
	h.n++
	if paid {
		h.paid = true
		return
	}
	h.cost += cost

	h.bytes += n
}

// pumpIn is the actor's goroutine for In. It ends when the mailbox is empty or
// this side reads no more; only it sends on In meanwhile.
func (s *Stream) pumpIn() {
	f := s.f
	var run pool.Queue
	var h handed
	for {
		s.mu.Lock()
		s.settle(&h)
		if s.in.Len() == 0 || f.givenUp {
			s.pumpEnds(f)
			return
		}
		paid := s.grab(&run)
		s.unlock()
		for m, ok := run.Pop(); ok; m, ok = run.Pop() {
			n, cost := m.Len(), pool.Cost(m) // once it is handed over it is not ours to ask
			if !s.give(f, m, &h) {
				s.putBack(f, m, &run)
				return
			}
			if h.add(n, cost, paid); h.n == settleEvery {
				s.mu.Lock()
				s.settle(&h)
				s.unlock()
			}
		}
	}
}

// settleEvery is how many messages are handed over before they are accounted
// for, should their reader keep up: its peer is to hear of the credit.
const settleEvery = 64

// grab takes what may be handed over without looking again: all that is there,
// or one alone whose credit was returned while it was assembled.
func (s *Stream) grab(run *pool.Queue) (paid bool) {
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
func (s *Stream) give(f *faces, m pool.Message, h *handed) bool {
	b := &f.in
	n := m.Len()
	if b.room(n) && b.try(m) {
		return true
	}
	s.mu.Lock()
	s.settle(h)
	s.unlock()
	for !b.room(n) && !b.next(n) {
		if !b.known.await(f.stop) {
			return false
		}
	}
	b.mark(m)
	select {
	case b.c <- m:
		b.count(n)
		return true
	case <-f.stop:
		return false
	}
}

// putBack returns what was not handed over to the mailbox and ends the pump.
func (s *Stream) putBack(f *faces, m pool.Message, rest *pool.Queue) {
	s.mu.Lock()
	rest.PushFront(m)
	rest.Append(&s.in)
	s.in = *rest
	s.pumpEnds(f)
}

// pumpEnds frees the lock, which it is called with.
func (s *Stream) pumpEnds(f *faces) {
	s.pumping = false
	s.fed()
	if s.evicted {
		s.dropIn()
	}
	switch s.st.recv {
	case recvStopped, recvStopEnd:
		s.dropIn()
		s.closeFaces(f)
	case recvOpen:
	default:
		s.closeFaces(f)
	}
	s.unlock()
}

// pumpBatches is the actor's goroutine for Batches.
func (s *Stream) pumpBatches() {
	f := s.f
	for {
		s.mu.Lock()
		if s.in.Len() == 0 || f.givenUp {
			s.pumpEnds(f)
			return
		}
		b, h := s.batch()
		s.unlock()
		select {
		case f.batches <- b:
			s.mu.Lock()
			s.settle(&h)
			s.unlock()
		case <-f.stop:
			var rest pool.Queue
			for _, m := range b.msgs[1:] {
				rest.Push(m)
			}
			s.putBack(f, b.msgs[0], &rest)
			return
		}
	}
}

// batch takes up to MaxBatch messages.
func (s *Stream) batch() (*Batch, handed) {
	b := batchPool.Get().(*Batch)
	var h handed
	for len(b.msgs) < s.cfg.MaxBatch {
		m, ok := s.in.Pop()
		if !ok {
			break
		}
		h.add(m.Len(), pool.Cost(m), s.isPaid(m))
		b.msgs = append(b.msgs, m)
	}
	return b, h
}

// closeFaces closes the receive channel once everything was handed over, or
// nothing more will be. It is called when no more can arrive.
func (s *Stream) closeFaces(f *faces) {
	if f.face == faceNone || s.pumping || f.inClosed || s.in.Len() > 0 && !f.givenUp {
		return
	}
	f.inClosed = true
	if f.face == faceIn {
		close(f.in.c)
	} else {
		close(f.batches)
	}
	s.apply(s.st.endHanded())
}
