package conn

import (
	"sync"
	"sync/atomic"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// output is everything that waits to be written, and who writes it.
//
// One party at a time flushes: it has set flushing, and owns the fields of the flush
// until it clears flushing. Whoever finds something to write and no flush under way
// starts one: in place if the connection is quiet, so that an answer costs no detour,
// else in a goroutine, so that more can gather.
type output struct {
	mu       sync.Mutex
	control  list // streams with control frames
	data     list // streams with data, in the order of their turns
	room     list // streams that wait for room
	slots    slots
	flushing bool
	corked   bool // the reader is at work, and flushes when it is done
	stalled  bool // data waits for credit of the connection, or for the peer to read
	noOpens  bool // no stream gets a number any more
	due      bool // something in pending is to be written
	pending  pendingControl
	tokens   int8 // flushes that may be done in place

	waiters atomic.Int32 // length of room, readable without the lock
	answers atomic.Int32 // length of pending.answers, likewise

	// Owned by the flush.
	sess          frame.Session // what writes frames; see Conn.writer
	first         *Port         // taken out of data already: see takeFirst
	alone         bool          // there were no others in data: see nextTurn
	full          bool          // data waits for the bound on the bytes in flight, or for credit: see markFlight
	o             frame.Out
	scratch       *pool.Scratch // memory of o.Buf; nil between flushes
	vec           [][]byte      // what is left to write
	pieces        [][]byte      // memory of vec
	wrote         atomic.Uint64 // bytes put into o
	soleSender    *Port         // the stream that had the last turn
	soleFrom      atomic.Uint64 // wrote when the first of its turns in a row began
	goAwayEncoded bool          // the connection's last frame is in o

	// For Info, owned by mu. The totals are one flush, or one input, behind.
	stalledAt    int64 // since the connection's start
	messages     uint64
	recvBytes    uint64
	recvMessages uint64
}

// pendingControl is the connection's own frames to write.
type pendingControl struct {
	credit    bool
	tick      bool   // the session's timer has fired
	readTotal uint64 // bytes read, to report; 0: no report
	pings     []uint64
	answers   []answer
	goAway    *frame.Frame
	dying     bool // goAway is, or was, the connection's last frame
}

// slots is the streams that offer a slot which nobody has taken.
type slots struct {
	n  atomic.Int32 // len(of), readable without the lock
	of map[*Port]struct{}
}

func (o *output) addSlot(p *Port) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.slots.of == nil {
		o.slots.of = map[*Port]struct{}{}
	}
	o.slots.of[p] = struct{}{}
	o.slots.n.Store(int32(len(o.slots.of)))
}

func (o *output) removeSlot(p *Port) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.slots.of, p)
	o.slots.n.Store(int32(len(o.slots.of)))
}

func (o *output) takeSlots() map[*Port]struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	of := o.slots.of
	o.slots.of = nil
	o.slots.n.Store(0)
	return of
}

// hasDue reports whether a flush would find something to write. The lock is held.
func (o *output) hasDue() bool {
	return o.due || o.control.head != nil || o.data.head != nil && !o.stalled
}

func (o *output) isDue() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.hasDue()
}

// takeControl returns the connection's own frames to write. The lock is held.
func (o *output) takeControl() pendingControl {
	if !o.due {
		return pendingControl{}
	}
	p := o.pending
	o.pending, o.due = pendingControl{dying: p.dying}, false
	o.answers.Store(0)
	return p
}

// requestRead has total reported as the bytes read, when the reader uncorks.
func (o *output) requestRead(total uint64) {
	o.mu.Lock()
	o.pending.readTotal, o.due = total, true
	o.mu.Unlock()
}

// cork keeps flushes back while the reader works, so that what its burst causes is
// written together.
func (o *output) cork() {
	o.mu.Lock()
	o.corked = true
	o.mu.Unlock()
}

// pushData gives p a turn for data, unless its stream is over. The lock is held.
func (o *output) pushData(p *Port) {
	if !p.removed {
		o.data.pushData(p)
	}
}

// pushReady gives streams a turn for data in this gather. The flush calls it.
func (o *output) pushReady(ps []*Port) {
	if len(ps) == 0 {
		return
	}
	o.alone = false
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range ps {
		o.pushData(p)
	}
}

// takeFirst takes the first stream with data, if there are no control frames to write:
// those come before data. It is called by the flush, or by who has just set flushing and
// is about to flush in place: then gather needs no lock of its own. The lock is held.
func (o *output) takeFirst() bool {
	if o.due || o.control.head != nil {
		o.alone = false
		return false
	}
	o.first = o.data.popData()
	o.alone = o.data.head == nil
	return true
}

// nextTurn returns the stream whose turn is next, nil if there is none. last, if not nil,
// had the last turn and has more data. After a stream that was alone it does not look:
// if others have come meanwhile, endFlush finds them. The flush calls it.
func (o *output) nextTurn(last *Port) *Port {
	if last == nil && o.alone {
		return nil
	}
	o.alone = false
	o.mu.Lock()
	defer o.mu.Unlock()
	if last != nil {
		o.pushData(last)
	}
	return o.data.popData()
}

// putBack returns p, whose turn it was, to the head of data, unless its stream has ended
// since it was taken out. The lock is held.
func (o *output) putBack(p *Port) {
	if !p.removed {
		o.data.pushFront(p)
	}
}

func (o *output) pushRoom(p *Port) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !p.inRoom && !p.removed {
		p.inRoom = true
		o.room.pushRoom(p)
		o.waiters.Add(1)
	}
}

func (o *output) popRoom() *Port {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.room.popRoom()
	if p != nil {
		p.inRoom = false
		o.waiters.Add(-1)
	}
	return p
}

// remove takes a stream that is over out of the lists: it has nothing to write, and a
// flush may find that out much later. An unnumbered one was aborted before it had a
// number.
func (o *output) remove(p *Port, unnumbered bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if unnumbered {
		o.control.remove(p, controlLink)
	}
	if p.inData {
		o.data.remove(p, dataLink)
	}
	if p.inRoom {
		o.room.remove(p, roomLink)
		o.waiters.Add(-1)
	}
	p.inData, p.inRoom, p.removed = false, false, true
}

// takeUnnumbered returns the streams that have no number yet, and sees to it that none
// gets one any more: the caller tells them. Conn.schedule tells those that come later.
func (o *output) takeUnnumbered() []*Port {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.noOpens = true
	var ps []*Port
	for p := o.control.head; p != nil; p = p.nextControl {
		if p.local && p.id.Load() == 0 {
			ps = append(ps, p)
		}
	}
	return ps
}

// borrowScratch and returnScratch keep a connection at rest without memory for output.
func (o *output) borrowScratch() {
	if o.scratch == nil {
		o.scratch = pool.GetScratch()
		o.o.Buf = o.scratch.B[:0]
	}
}

func (o *output) returnScratch() {
	if o.scratch != nil {
		o.scratch.B, o.o.Buf = o.o.Buf[:0], nil
		pool.PutScratch(o.scratch)
		o.scratch = nil
	}
}

func (o *output) isDying() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pending.dying
}

func (o *output) opensAreOver() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.noOpens
}
