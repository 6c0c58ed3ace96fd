package actor

import (
	"sync"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// What In holds beside the mailbox: messages up to smallIn bytes, or one larger
// message alone.
const (
	inBytes  = 16 << 10
	touchGap = 5 * time.Millisecond
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
		f.in = make(chan pool.Message, s.cfg.InBuffer)
		s.fixFace(f, faceIn)
	}
	return f.in
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

// smallIn is the longest message that may share In's buffer.
func (s *Stream) smallIn() int { return inBytes / max(s.cfg.InBuffer, 1) }

// push fills In's buffer from the mailbox without waiting. Whoever calls it is
// the only sender: the lock is held and no goroutine feeds In.
func (s *Stream) push(f *faces) {
	small := s.smallIn()
	for s.in.Len() > 0 {
		n := s.in.Head().Len()
		if !f.roomFor(n, small) {
			return
		}
		m, _ := s.in.Pop()
		if !f.try(m, n > small) {
			s.in.PushFront(m)
			return
		}
		s.took(m)
	}
}

// roomFor applies the rule about large messages.
func (f *faces) roomFor(n, small int) bool {
	if len(f.in) == 0 {
		f.bigIn = false
		return true
	}
	return !f.bigIn && n <= small && len(f.in) < cap(f.in)
}

func (f *faces) try(m pool.Message, big bool) bool {
	if big {
		f.markBig(m)
	}
	select {
	case f.in <- m:
		f.bigIn = big
		return true
	default:
		return false
	}
}

func (f *faces) markBig(m pool.Message) {
	if f.touched == nil {
		f.touched = make(pool.Notice, 1)
	}
	m.OnTouch(&f.touched)
}

// startPump has the actor's goroutine feed the channel until the mailbox is
// empty or this side reads no more.
func (s *Stream) startPump(f *faces) {
	if f.givenUp {
		return
	}
	s.pumping = true
	if f.stop == nil {
		f.stop = make(chan struct{})
	}
	go (*f.feed)()
}

// stopPump ends it.
func (s *Stream) stopPump() {
	f := s.f
	if f == nil || f.givenUp {
		return
	}
	f.givenUp = true
	if f.stop != nil {
		close(f.stop)
	}
	if s.st.recv != recvOpen {
		s.closeFaces(f)
	}
}

// A handed is what was handed over and is not accounted for yet.
type handed struct {
	n, cost int
	paid    bool // with the message whose credit was returned as it came
}

// settle accounts for what was handed over.
func (s *Stream) settle(h *handed) {
	s.messages += uint64(h.n)
	if h.paid && s.asm != nil {
		s.tookPaid(s.asm)
	}
	if h.cost > 0 {
		s.credit(h.cost)
	}
	*h = handed{}
}

// isPaid tells whether m's credit was returned while it was assembled.
func (s *Stream) isPaid(m pool.Message) bool { return s.asm != nil && s.asm.paid == m }

// add counts m, which must still be ours.
func (h *handed) add(m pool.Message, paid bool) {
	h.n++
	if paid {
		h.paid = true
		return
	}
	h.cost += frame.Cost(m.Len())
}

// pumpIn is the actor's goroutine for In. It ends when the mailbox is empty or
// this side reads no more; only it sends on In meanwhile.
func (s *Stream) pumpIn() {
	f := s.f
	var run pool.Queue
	var h handed
	small := s.smallIn()
	for {
		s.mu.Lock()
		s.settle(&h)
		if s.in.Len() == 0 || f.givenUp {
			s.pumpEnds(f)
			return
		}
		paid := s.grab(&run, small)
		s.unlock()
		for m, ok := run.Pop(); ok; m, ok = run.Pop() {
			n := handed{}
			n.add(m, paid)
			if !s.give(f, m, small, &h) {
				s.putBack(f, m, &run)
				return
			}
			h.n, h.cost, h.paid = h.n+n.n, h.cost+n.cost, n.paid
		}
	}
}

// grab takes what may be handed over without looking again: some small messages,
// or a large one alone.
func (s *Stream) grab(run *pool.Queue, small int) (paid bool) {
	for range max(s.cfg.InBuffer, 1) {
		m := s.in.Head()
		big := s.isPaid(m) || m.Len() > small
		if m.IsZero() || big && run.Len() > 0 {
			return false
		}
		s.in.Pop()
		run.Push(m)
		if big {
			return s.isPaid(m)
		}
	}
	return false
}

// give sends m on In, waiting for room in its buffer; false if this side reads
// no more. Before it waits it accounts for what was handed over.
func (s *Stream) give(f *faces, m pool.Message, small int, h *handed) bool {
	big := m.Len() > small && cap(f.in) > 0
	if !big && !f.bigIn {
		select {
		case f.in <- m:
			return true
		default:
		}
	}
	if cap(f.in) > 0 && !s.awaitRoom(f, m.Len(), small, h) {
		return false
	}
	if f.try(m, big) {
		return true
	}
	s.mu.Lock()
	s.settle(h)
	s.unlock()
	select {
	case f.in <- m:
		f.bigIn = big
		return true
	case <-f.stop:
		return false
	}
}

// awaitRoom waits until the rule about large messages lets n bytes in.
func (s *Stream) awaitRoom(f *faces, n, small int, h *handed) bool {
	for f.bigIn || n > small {
		if len(f.in) == 0 {
			f.bigIn = false
			return true
		}
		s.mu.Lock()
		s.settle(h)
		s.unlock()
		// Who takes a message and never looks at it does not touch it: look
		// again after a while.
		t := time.NewTimer(touchGap)
		select {
		case <-f.touched:
		case <-t.C:
		case <-f.stop:
			t.Stop()
			return false
		}
		t.Stop()
	}
	return true
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
		h.add(m, s.isPaid(m))
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
		close(f.in)
	} else {
		close(f.batches)
	}
	s.apply(s.st.endHanded())
}
