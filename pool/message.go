package pool

import "sync/atomic"

// MaxLen is the longest message there can be, in bytes. The limit in force on a
// connection is usually far lower.
const MaxLen = 1 << 30

// A Message is the handle of one message's bytes. It belongs to whoever holds
// it: a function that takes a message over says so, and takes it over on
// success only. The zero Message is an empty one; all its methods work.
//
// Release gives the memory back early. Forgetting it is safe: the garbage
// collector then does it. Using a message after its release, or after handing
// it over, is a bug and panics, whoever has the memory by then: a handle is good for
// one life of its memory alone. A second Release does nothing; builds with -race or
// -tags invariants panic on that too.
type Message struct {
	s    *span
	life uint32 // of s, which this is the handle of
}

// A span is one message's place in a block. Its link is used by the one Queue
// that it is in.
type span struct {
	next  *span
	block *block
	place uint32 // offset in the block, and marks: see placeMask
	n     uint32
	life  uint32 // see alive; atomic once the message is handed out
	price uint32 // see SetCost
	touch atomic.Pointer[Notice]
}

// What is in a place: an offset, which is 0 in a block that is not shared, what
// SetCompression and MarkPacked note, and that the span is a bundle. A span of one more word would be longer than a cache
// line has room for.
const (
	placeMask        = 1<<16 - 1
	compressionShift = 16 // of 7 bits
	bundleBit        = 1 << 30
	packedBit        = 1 << 31
)

func (s *span) off() uint32 { return s.place & placeMask }

// A span's life is odd while somebody owns it, and goes up by one when it is released and
// when it is used again, by two when its owner changes. So of all handles that were ever
// made of a span only that of its owner has its life.
func alive(life uint32) bool { return life&1 != 0 }

// handle is s as a Message, for who owns s.
func (s *span) handle() Message {
	if s == nil {
		return Message{}
	}
	return Message{s, atomic.LoadUint32(&s.life)}
}

// end ends the life of s that m is the handle of. It reports false if that is over.
func (m Message) end() bool { return atomic.CompareAndSwapUint32(&m.s.life, m.life, m.life+1) }

// setLife is for the owner of s. Only builds that look for mistakes write atomically, for
// who has an old handle may look at it.
func (s *span) setLife(life uint32) {
	if recycle {
		s.life = life
	} else {
		atomic.StoreUint32(&s.life, life)
	}
}

// MustLive panics if m's holder has released it, or handed it over.
func MustLive(m Message) {
	if !IsLive(m) {
		panic("pool: use of a message after its release, or after it was handed over")
	}
}

// IsLive reports whether m's holder has neither released it nor handed it over.
func IsLive(m Message) bool { return m.s == nil || atomic.LoadUint32(&m.s.life) == m.life }

// TakeOver makes the caller the owner of m: every other copy of the handle is void from now
// on. It reports false if m was not its holder's any more.
//
// It is on the way of every message that is sent, so it writes without a locked instruction,
// which took 6 % of the rate of small messages. Nobody else may use m at this moment.
func TakeOver(m Message) (Message, bool) {
	if !IsLive(m) {
		return m, false
	}
	if m.s != nil {
		m.life += 2
		m.s.setLife(m.life)
	}
	return m, true
}

// A Notice has room for one word, that a message was touched.
type Notice chan struct{}

// OnTouch has n told when m's bytes are first asked for, or given up.
// A Go channel can't tell its sender that an element has left its buffer; the
// holder's first use of the message does.
func OnTouch(m Message, n *Notice) {
	if m.s != nil {
		m.s.touch.Store(n)
	}
}

func (s *span) touched() {
	n := s.touch.Swap(nil)
	if n == nil {
		return
	}
	select {
	case *n <- struct{}{}:
	default:
	}
}

// MessageOf makes p a message without copying. The message takes p over: the
// caller must not write to it any more.
func MessageOf(p []byte) Message {
	checkLen(len(p))
	b := &single{}
	b.block.data = p
	b.block.class = unpooled
	b.block.refs.Store(1)
	return b.block.adopt(&b.span, 0, len(p))
}

// single is a block that holds one message, allocated in one piece with it.
type single struct {
	block block
	span  span
}

// New returns a message of n bytes from the pool, to be filled through Bytes.
// What the bytes hold at first is undefined.
func New(n int) Message {
	a := GetArena()
	m := a.New(n)
	PutArena(a)
	return m
}

// Copy returns a message that holds a copy of p.
func Copy(p []byte) Message {
	a := GetArena()
	m := a.Copy(p)
	PutArena(a)
	return m
}

// Bytes returns the message's bytes, in place. They are valid until the message
// is released or handed over.
func (m Message) Bytes() []byte {
	s := m.s
	if s == nil {
		return nil
	}
	MustLive(m)
	if s.touch.Load() != nil {
		s.touched()
	}
	off := s.off()
	end := off + s.n
	return s.block.data[off:end:end]
}

// Len is the number of bytes in the message.
func (m Message) Len() int {
	if m.s == nil {
		return 0
	}
	return int(m.s.n)
}

// SetCost notes what m takes of its stream's and connection's credit. The cost
// travels with the message: it is what the wire counts, whatever becomes of the bytes. A
// zero Message has none.
func SetCost(m Message, n int) {
	if m.s != nil {
		m.s.price = uint32(n)
	}
}

// Cost is what SetCost noted, 0 if nothing.
func Cost(m Message) int {
	if m.s == nil {
		return 0
	}
	return m.s.cost()
}

func (s *span) cost() int { return int(s.price) }

// Clone returns a copy that shares no memory with m. Use it for a small message
// that is kept for long: the original may keep a whole block alive.
func (m Message) Clone() Message {
	r := MessageOf(append([]byte(nil), m.Bytes()...))
	if m.s != nil {
		r.s.place |= m.s.place &^ placeMask
	}
	return r
}

// Share returns another handle of the same bytes, so that one message can be
// sent on several streams. Each handle is released, or handed over, once. From
// then on nobody may write to the bytes.
func (m Message) Share() Message {
	if m.s == nil {
		return m
	}
	MustLive(m)
	m.s.block.aliased.Store(true)
	m.s.block.refs.Add(1)
	r := m.s.block.adopt(new(span), int(m.s.off()), int(m.s.n))
	r.s.place = m.s.place
	return r
}

// Release gives the message's memory back. A second Release of the same message is a bug: builds
// with -race or -tags invariants panic on it, others do nothing.
func (m Message) Release() {
	s := m.s
	if s == nil {
		return
	}
	if !m.end() {
		doubleRelease()
		return
	}
	if s.touch.Load() != nil {
		s.touched()
	}
	released(s)
	s.block.drop(1)
}

// Forget gives m's handle up and leaves the memory to the garbage collector,
// for when another goroutine may still be reading it.
func Forget(m Message) {
	if m.s != nil && m.end() {
		forgotten()
	}
}

// A Kept is a message as its owner keeps it, in half the room of a Message.
type Kept struct{ s *span }

// Keep returns m as its owner's.
func Keep(m Message) Kept { return Kept{m.s} }

// Message returns the message.
func (k Kept) Message() Message { return k.s.handle() }

// IsZero tells whether k keeps nothing, or the zero Message.
func (k Kept) IsZero() bool { return k.s == nil }

// IsZero tells whether m is the zero Message, which owns no memory.
func (m Message) IsZero() bool { return m.s == nil }

// Truncate shortens the message to its first n bytes. It panics if n is
// negative or more than the message holds.
func (m Message) Truncate(n int) {
	if n < 0 || n > m.Len() {
		panic("pool: Truncate beyond the message")
	}
	if m.s != nil {
		MustLive(m)
		m.s.n = uint32(n)
	}
}

func checkLen(n int) {
	if n < 0 || n > MaxLen {
		panic("pool: message length out of range")
	}
}
