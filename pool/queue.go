package pool

// A Queue is a list of messages in order. The links are inside the messages, so
// that a queue needs no memory of its own; a message is in one queue at most.
// The zero Queue is empty.
type Queue struct {
	head, tail *span
	n, bytes   int
	cost       int
}

// Push appends m, which belongs to the queue from now on. What a program has made must be
// taken over before: see TakeOver.
func (q *Queue) Push(m Message) {
	s := m.s
	if s == nil {
		s = MessageOf(nil).s
	}
	s.next = nil
	if q.tail == nil {
		q.head = s
	} else {
		q.tail.next = s
	}
	q.tail = s
	q.n += s.messages()
	q.bytes += int(s.n)
	q.cost += s.cost()
}

// PushFront puts m before everything else.
func (q *Queue) PushFront(m Message) {
	var one Queue
	one.Push(m)
	one.Append(q)
	*q = one
}

// Pop takes the first message; ok is false if there is none.
func (q *Queue) Pop() (m Message, ok bool) {
	s := q.head
	if s == nil {
		return Message{}, false
	}
	if s.isBundle() {
		return q.popFrame(), true
	}
	return q.PopBundle()
}

// PopSingle is Pop of a message that is in no bundle; ok is false if that is not the first. It is
// small enough to be compiled into its callers, who receive message by message.
func (q *Queue) PopSingle() (m Message, ok bool) {
	s := q.head
	if s == nil || s.isBundle() {
		return Message{}, false
	}
	q.head = s.next
	if q.head == nil {
		q.tail = nil
	}
	s.next = nil
	q.n--
	q.bytes -= int(s.n)
	q.cost -= s.cost()
	return s.handle(), true
}

// Head returns the first message, or bundle, and leaves it where it is.
func (q *Queue) Head() Message { return q.head.handle() }

// Append moves all of r to the end of q.
func (q *Queue) Append(r *Queue) {
	if r.head == nil {
		return
	}
	if q.tail == nil {
		q.head = r.head
	} else {
		q.tail.next = r.head
	}
	q.tail = r.tail
	q.n += r.n
	q.bytes += r.bytes
	q.cost += r.cost
	*r = Queue{}
}

// Len is the number of messages in the queue.
func (q *Queue) Len() int { return q.n }

// Bytes is the sum of their lengths.
func (q *Queue) Bytes() int { return q.bytes }

// Cost is the sum of their costs.
func (q *Queue) Cost() int { return q.cost }

// Release releases and removes every message. Messages of one block in a row
// give it up together.
func (q *Queue) Release() {
	var b *block
	n := int32(0)
	for s := q.head; s != nil; {
		next := s.next
		s.next = nil
		if life := s.life; alive(life) {
			s.setLife(life + 1) // nobody else has a handle of this life
			if s.touch.Load() != nil {
				s.touched()
			}
			released(s)
			if s.block != b {
				if b != nil {
					b.drop(n)
				}
				b, n = s.block, 0
			}
			n++
		} else {
			doubleRelease()
		}
		s = next
	}
	if b != nil {
		b.drop(n)
	}
	*q = Queue{}
}

// Compact copies messages out of blocks that they share with messages most of which have been
// released: each may keep 16 KiB for a few bytes. It returns how many it has copied, into memory
// of a. What others have handles of stays where it is.
func (q *Queue) Compact(a *Arena) (copied int) {
	var prev *span
	for s := q.head; s != nil; prev, s = s, s.next {
		if !s.isStray() {
			continue
		}
		t := a.Copy(s.block.data[s.off() : s.off()+s.n]).s
		t.price, t.place, t.next = s.price, t.place|s.place&^placeMask, s.next
		if prev == nil {
			q.head = t
		} else {
			prev.next = t
		}
		if q.tail == s {
			q.tail = t
		}
		s.next = nil
		s.setLife(s.life + 1) // nobody else has a handle of this life
		released(s)
		s.block.drop(1)
		s = t
		copied++
	}
	return copied
}

// isStray reports whether s, which its caller owns, holds a block that is mostly given up.
func (s *span) isStray() bool {
	b := s.block
	if b.class != shared || !alive(s.life) || s.touch.Load() != nil || b.aliased.Load() {
		return false
	}
	refs := b.refs.Load()
	return refs < carving/2 && 2*int(refs) <= b.n // an arena that still carves adds to n
}

// Take moves messages from the front of q to a queue of their own: as many as
// cost at most room together, and none longer than most. Of bundles it takes whole ones, and a
// part of the first.
func (q *Queue) Take(room, most int) (r Queue) {
	if s := q.head; s != nil && s.isBundle() && s.cost() > room {
		q.splitFirst(room)
	}
	for s := q.head; s != nil; s = s.next {
		n := int(s.n)
		if room -= s.cost(); room < 0 || n > most && !s.isBundle() {
			break
		}
		r.tail = s
		r.n += s.messages()
		r.bytes += n
		r.cost += s.cost()
	}
	if r.n == 0 {
		return r
	}
	r.head = q.head
	q.head, r.tail.next = r.tail.next, nil
	if q.head == nil {
		q.tail = nil
	}
	q.n -= r.n
	q.bytes -= r.bytes
	q.cost -= r.cost
	return r
}

// Each calls f with every message, or bundle, in order. They stay in the queue.
func (q *Queue) Each(f func(Message)) {
	for s := q.head; s != nil; s = s.next {
		f(s.handle())
	}
}
