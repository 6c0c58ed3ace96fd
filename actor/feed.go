package actor

import "github.com/sluicerpc/sluice/pool"

// In returns a channel of the messages from the peer.
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

// Batches returns a channel of the messages from the peer, up to MaxBatch at a time.
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

// What In and Batches return while the other one is in use.
var (
	closedIn      = func() chan pool.Message { c := make(chan pool.Message); close(c); return c }()
	closedBatches = func() chan *Batch { c := make(chan *Batch); close(c); return c }()
)

// useChannel sets the receive channel. A waiting Receive reads from it from now on.
func (s *Stream) useChannel(ch *channels, kind receiveChannel) {
	ch.inbound = kind
	if ch.lends {
		s.setLends(false)
	}
	// Made once, because a go statement with arguments allocates each time.
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

// offer brings the mailbox to its reader.
func (s *Stream) offer(ch *channels) {
	switch {
	case s.pumping || s.in.Len() == 0:
	case ch.inbound == channelIn:
		s.fillBuffer(ch)
		if s.in.Len() > 0 {
			s.startPump(ch)
		}
	case ch.inbound == channelBatches:
		s.startPump(ch)
	default:
		ch.wakeReceiver()
	}
}

// fillBuffer moves messages from the mailbox to In's buffer without waiting. Nobody else
// sends on In: the lock is held, and no goroutine feeds In.
func (s *Stream) fillBuffer(ch *channels) {
	for s.in.Len() > 0 && ch.in.room(s.in.Head().Len()) && !pool.IsPacked(s.in.Head()) {
		m, _ := s.in.Pop()
		var t taken
		t.add(m.Len(), pool.Cost(m), s.isPaid(m)) // the next owner may release m at once
		if !ch.in.try(m) {
			s.in.PushFront(m)
			break
		}
		s.account(&t)
	}
	s.tellIn(ch)
}

// startPump starts a goroutine that feeds the receive channel until the mailbox is empty
// or this side reads no more.
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

// pumpIn is the goroutine that feeds In. While it runs, only it sends on In.
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
			if pool.IsPacked(m) {
				if !s.sendUnpacked(ch, m, &t, &run) {
					return
				}
				continue
			}
			n, cost := m.Len(), pool.Cost(m) // the next owner may release m at once
			if !s.sendIn(ch, m, &t) {
				s.putBack(ch, m, &run, 0)
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

// sendUnpacked is sendIn for a message that came compressed. It accounts for m first. When
// it reports false, the goroutine has ended: this side reads no more, or the stream was
// reset for m. rest is what it has taken of the mailbox.
func (s *Stream) sendUnpacked(ch *channels, m pool.Message, t *taken, rest *pool.Queue) bool {
	s.mu.Lock()
	s.account(t)
	s.accountOne(m)
	s.unlock()
	u, err := s.unpack(m)
	if err != nil {
		s.mu.Lock()
		rest.Append(&s.in)
		s.in = *rest
		s.pumpEnds(ch)
		return false
	}
	if !s.sendIn(ch, u, t) {
		s.putBack(ch, u, rest, 1)
		return false
	}
	return true
}

// accountEvery is after how many messages pumpIn accounts for them, if their reader keeps
// up. The peer gets its credit then.
const accountEvery = 64

// takeRun takes the whole mailbox into run. While there is a paid message, it takes one
// message, and reports whether that is the paid one.
func (s *Stream) takeRun(run *pool.Queue) (paid bool) {
	if s.asm == nil || s.asm.paid.IsZero() {
		*run, s.in = s.in, pool.Queue{}
		return false
	}
	m, _ := s.in.Pop()
	run.Push(m)
	return s.isPaid(m)
}

// sendIn sends m on In, and waits for room in its buffer. Before it waits it accounts for
// what t counts. It reports false if this side reads no more.
func (s *Stream) sendIn(ch *channels, m pool.Message, t *taken) bool {
	b := &ch.in
	n := m.Len()
	if b.room(n) && b.try(m) {
		return true
	}
	s.mu.Lock()
	s.account(t)
	s.tellIn(ch)
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

// putBack puts m and rest back into the mailbox and ends the goroutine. unpacked of them
// are accounted for already, but are taken only now by whoever reads on.
func (s *Stream) putBack(ch *channels, m pool.Message, rest *pool.Queue, unpacked int) {
	s.mu.Lock()
	if unpacked > 0 {
		s.messagesTaken -= uint64(unpacked)
		s.mailbox.add(unpacked, m.Len())
	}
	rest.PushFront(m)
	rest.Append(&s.in)
	s.in = *rest
	s.pumpEnds(ch)
}

// pumpEnds is the end of a goroutine that feeds a channel. It is called with the lock held
// and frees it.
func (s *Stream) pumpEnds(ch *channels) {
	s.pumping = false
	s.feedingChanged()
	if s.dropUnread {
		s.dropIn()
	}
	switch s.st.recv {
	case recvStopped, recvStopEnd:
		s.dropIn()
		s.renewDropped()
		s.closeInbound(ch)
	case recvOpen:
	default:
		s.closeInbound(ch)
	}
	s.unlock()
}

// pumpBatches is the goroutine that feeds Batches.
func (s *Stream) pumpBatches() {
	ch := s.ch
	for {
		s.mu.Lock()
		if s.in.Len() == 0 || ch.feedStopped {
			s.pumpEnds(ch)
			return
		}
		b, t, packed := s.batch()
		s.unlock()
		unpacked := 0
		if packed {
			u, err := s.unpack(b.msgs[0])
			if err != nil { // the stream has been reset
				s.mu.Lock()
				s.pumpEnds(ch)
				return
			}
			b.msgs[0], unpacked = u, 1
		}
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
			s.putBack(ch, b.msgs[0], &rest, unpacked)
			return
		}
	}
}

// batch takes up to MaxBatch messages out of the mailbox. One that came compressed is a
// batch by itself, so that no more than it is unpacked before it is taken; packed
// says that, and that it is accounted for: t counts the others.
func (s *Stream) batch() (b *Batch, t taken, packed bool) {
	b = batchPool.Get().(*Batch)
	for len(b.msgs) < s.cfg.MaxBatch && s.in.Len() > 0 {
		packed = pool.IsPacked(s.in.Head())
		if packed && len(b.msgs) > 0 {
			return b, t, false
		}
		m, _ := s.in.Pop()
		b.msgs = append(b.msgs, m)
		if packed {
			s.accountOne(m)
			break
		}
		t.add(m.Len(), pool.Cost(m), s.isPaid(m))
	}
	return b, t, packed
}

// stopFeeding ends the goroutines that feed In, Batches and channels of BeginFeed: this
// side reads no more on a channel.
func (s *Stream) stopFeeding() {
	ch := s.ch
	if ch == nil || ch.feedStopped {
		return
	}
	ch.feedStopped = true
	if ch.feedStop != nil {
		close(ch.feedStop)
	}
	if s.st.recv != recvOpen {
		s.closeInbound(ch)
	}
}

// StopFeeding ends the goroutines that feed In, Batches and channels of BeginFeed. What
// they have not delivered stays for Receive.
func (s *Stream) StopFeeding() {
	s.mu.Lock()
	defer s.unlock()
	s.stopFeeding()
}

// BeginFeed notes that the caller feeds a channel of its own from the stream, until it
// calls EndFeed. The returned channel is closed when this side reads no more: after
// CloseReceive, Close, Abort or StopFeeding here. It stays open when the peer ends the
// stream, for the messages before that end are still read.
func (s *Stream) BeginFeed() <-chan struct{} {
	s.mu.Lock()
	defer s.unlock()
	ch := s.makeChannels()
	ch.feeders++
	s.feedingChanged()
	if ch.feedStopped {
		return closed
	}
	if ch.feedStop == nil {
		ch.feedStop = make(chan struct{})
	}
	return ch.feedStop
}

// EndFeed ends what BeginFeed began.
func (s *Stream) EndFeed() {
	s.mu.Lock()
	defer s.unlock()
	s.ch.feeders--
	s.feedingChanged()
}

// Feeding reports whether a goroutine feeds In, Batches or a channel of BeginFeed. It may
// wait for a reader also when the stream is over.
func (s *Stream) Feeding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.feeding()
}

func (s *Stream) feeding() bool { return s.pumping || s.ch != nil && s.ch.feeders > 0 }

// feedingChanged tells the connection that such a goroutine has begun or ended.
func (s *Stream) feedingChanged() {
	if s.st.retired {
		s.later().feeding = true
	}
}
