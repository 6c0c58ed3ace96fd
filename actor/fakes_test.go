package actor

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/pool"
)

// fakeLink is a connection that only remembers what a stream asked of it.
type fakeLink struct {
	mu         sync.Mutex
	id         uint64
	control    bool // a turn was asked for
	data       bool
	queued     int // bytes that could be written
	taken      int // credit returned
	await      bool
	full       bool // no room
	reserve    int  // memory reserved for fragments
	budget     int
	kept       int // bytes that came beside messages
	given      int // window bytes granted beyond the first
	spare      int
	retired    int
	unreported int64
	held       int // by messages, beside their credit
	crowded    bool
	near       bool
	wrong      []string // broken promises
	timers     timers.Queue
	changed    func() // called after each turn asked for
	packs      int    // messages that were to be compressed; their sender's
	packing    func() // called before each
	parent     error  // how the stream's parent context has ended
}

func newFakeLink() *fakeLink { return &fakeLink{id: 1, budget: 64 << 20} }

func (l *fakeLink) wrongf(format string, args ...any) {
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

func (l *fakeLink) ID() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

func (l *fakeLink) Forsake() bool { return l.ID() == 0 }

func (l *fakeLink) FeedingChanged() {}

func (l *fakeLink) ReadySoon() { l.Ready(false) }

func (l *fakeLink) Ready(urgent bool) {
	l.mu.Lock()
	turn := &l.data
	if urgent {
		turn = &l.control
	}
	if *turn {
		l.wrongf("a second turn was asked for (urgent %v)", urgent)
	}
	if l.retired > 0 {
		l.wrongf("a retired stream asked for a turn (urgent %v)", urgent)
	}
	*turn = true
	f := l.changed
	l.mu.Unlock()
	if f != nil {
		f()
	}
}

// Queued is called behind the stream's lock: for a moment a later change can come before an
// earlier one, and the sum be below zero.
func (l *fakeLink) Queued(delta int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queued += delta
}

// counted reports whether no less than nothing is queued.
func (l *fakeLink) counted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queued >= 0
}

func (l *fakeLink) Uncounted() int { return countEvery }

func (l *fakeLink) Beside(delta int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held += delta; l.held < 0 {
		l.wrongf("%d bytes are held", l.held)
	}
	if l.retired > 0 {
		l.wrongf("a retired stream holds %d bytes more", delta)
	}
}

func (l *fakeLink) Bundle(bool) {}
func (l *fakeLink) Room(little bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.full || little
}

func (l *fakeLink) Unreported(delta int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unreported += delta; l.unreported < 0 {
		l.wrongf("%d bytes are unreported", l.unreported)
	}
}

func (l *fakeLink) Crowded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.crowded
}

func (l *fakeLink) AwaitRoom() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.await = true
}

func (l *fakeLink) AwaitFull() {}

func (l *fakeLink) ParentErr() error { return l.parent }

// owed is what was returned to the connection, and what is still reserved.
func (l *fakeLink) owed() (taken, reserve int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken, l.reserve
}

func (l *fakeLink) Taken(cost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken += cost
}

func (l *fakeLink) Assemble(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > 0 && l.reserve+n > l.budget {
		return false
	}
	if l.reserve += n; l.reserve < 0 {
		l.wrongf("more budget returned than taken: %d", l.reserve)
	}
	return true
}

func (l *fakeLink) Charge(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept += n
}

func (l *fakeLink) Resize(window, most int, _ uint64) (int, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	more := min(window, most-window, l.spare-l.given)
	if more <= 0 {
		return window, l.near
	}
	l.given += more
	return window + more, l.near
}

func (l *fakeLink) Shrink(from, to int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from < to {
		l.wrongf("a window shrinks from %d to %d", from, to)
	}
}

func (l *fakeLink) Retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.retired++; l.retired > 1 {
		l.wrongf("retired %d times", l.retired)
	}
}

func (l *fakeLink) Timers() *timers.Queue { return &l.timers }

// take clears and returns a turn.
func (l *fakeLink) take(urgent bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	turn := &l.data
	if urgent {
		turn = &l.control
	}
	was := *turn
	*turn = false
	return was
}

// put keeps a turn, as the connection does when Fill says that there is more.
func (l *fakeLink) put() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data = true
}

// broken returns what the stream did that it must not.
func (l *fakeLink) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) == 0 {
		return nil
	}
	return errors.New(l.wrong[0])
}

// fakeSession keeps frames as they are.
type fakeSession struct {
	frame.Base
	caps   frame.Caps
	wrote  []frame.Frame
	during func() // called once, while data is encoded: the stream is not locked then
}

var errNoInput = errors.New("a fake session does not read")

func (s *fakeSession) Next([]byte, *frame.Frame) (int, error) { return 0, errNoInput }
func (s *fakeSession) Begun() (int64, bool)                   { return 0, false }
func (s *fakeSession) Buffered() int                          { return 0 }
func (s *fakeSession) Caps() frame.Caps                       { return s.caps }

func (s *fakeSession) Messages(o *frame.Out, id uint64, run pool.Queue) {
	for m, ok := run.Pop(); ok; m, ok = run.Pop() {
		s.Message(o, id, m)
	}
}

func (s *fakeSession) Message(o *frame.Out, id uint64, m pool.Message) {
	s.piece(id, m, 0, m.Len())
	m.Release()
}

func (s *fakeSession) Fragment(o *frame.Out, id uint64, m pool.Message, off, n int) {
	off, to := frame.Part(overhead, off, n)
	s.piece(id, m, off, to-off)
	if to == m.Len() {
		m.Release()
	}
}

func (s *fakeSession) piece(id uint64, m pool.Message, off, n int) {
	if f := s.during; f != nil {
		s.during = nil
		f()
	}
	d := frame.Frame{
		Kind: frame.Data, Stream: id, Payload: append([]byte(nil), m.Bytes()[off:off+n]...),
		First: off == 0, Last: off+n == m.Len(), Total: m.Len(),
	}
	d.SetCost(overhead)
	s.wrote = append(s.wrote, d)
}

func (s *fakeSession) Control(o *frame.Out, f *frame.Frame) {
	c := *f
	c.Payload = append([]byte(nil), f.Payload...)
	s.wrote = append(s.wrote, c)
}

// cost is what a data frame takes of the credit.
func cost(f *frame.Frame) int {
	n := len(f.Payload)
	if f.First {
		n += overhead
	}
	return n
}

var nativeCaps = frame.Caps{
	Bundles: 4,
	Name:    "fake", HalfClose: true, Ended: true, Status: true, Stop: true, ServerOpens: true, Early: true, Ping: true,
	Overhead: overhead, LeastPiece: overhead + 1, MaxFragment: 64, MaxStream: 1<<31 - 1,
}

// gone tells whether the stream has left.
func (l *fakeLink) gone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.retired > 0
}

// overhead is that of the fake protocols.
const overhead = 32

// fragment gives s a piece of a message.
func fragment(s *Stream, p []byte, first, last bool, total int, now time.Time) error {
	f := frame.Frame{Kind: frame.Data, Payload: p, First: first, Last: last, Total: total}
	f.SetCost(overhead)
	return s.Fragment(&f, now)
}

// arriving makes m one that came over the wire.
func arriving(m pool.Message) pool.Message {
	if m.IsZero() {
		m = pool.MessageOf(nil)
	}
	pool.SetCost(m, m.Len()+overhead)
	return m
}

func (l *fakeLink) Pack(m pool.Message, _ pool.Compression) pool.Message {
	l.packs++
	if l.packing != nil {
		l.packing()
	}
	p := m.Bytes()
	if len(p) < 4 || len(bytes.Trim(p, string(p[:1]))) > 0 {
		return m
	}
	r := pool.Copy([]byte{p[0], byte(len(p) >> 8), byte(len(p))})
	pool.MarkPacked(r)
	return r
}

func (l *fakeLink) Unpack(m pool.Message, most int) (pool.Message, error) { return unpack(m, most) }

// unpack is the compression of the fake protocols: of equal bytes, which are written once
// and behind their number.
func unpack(m pool.Message, most int) (pool.Message, error) {
	defer m.Release()
	p := m.Bytes()
	if len(p) != 3 {
		return pool.Message{}, errors.New("not packed")
	}
	n := int(p[1])<<8 | int(p[2])
	if n > most {
		return pool.Message{}, frame.ErrUnpacked
	}
	return pool.Copy(bytes.Repeat(p[:1], n)), nil
}

// packed is what unpack makes n bytes of.
func packed(b byte, n int) pool.Message {
	m := arriving(pool.Copy([]byte{b, byte(n >> 8), byte(n)}))
	pool.MarkPacked(m)
	return m
}
