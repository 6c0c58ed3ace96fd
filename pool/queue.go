package pool

// A Queue is a list of messages in order. The links are inside the messages, so
// that a queue needs no memory of its own; a message is in one queue at most.
// The zero Queue is empty.
type Queue struct {
	head, tail *span
	n, bytes   int
}

// Push appends m, which belongs to the queue from now on.
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
	q.n++
	q.bytes += int(s.n)
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
	q.head = s.next
	if q.head == nil {
		q.tail = nil
	}
	s.next = nil
	q.n--
	q.bytes -= int(s.n)
	return Message{s}, true
}

// Head returns the first message and leaves it where it is.
func (q *Queue) Head() Message { return Message{q.head} }

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
	*r = Queue{}
}

// Len is the number of messages in the queue.
func (q *Queue) Len() int { return q.n }

// Bytes is the sum of their lengths.
func (q *Queue) Bytes() int { return q.bytes }

// Release releases and removes every message.
func (q *Queue) Release() {
	for m, ok := q.Pop(); ok; m, ok = q.Pop() {
		m.Release()
	}
}
