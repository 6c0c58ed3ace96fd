package conn

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

const (
	turnBytes   = 64 << 10 // data of one stream's turn
	gatherBytes = 64 << 10 // written at once, beyond which no further turn is given
)

// A stream that has been the only one to send for loneAfter bytes delays nobody:
// it may have loneFactor times as much in flight.
const (
	soleAfter  = 32 << 20
	soleFactor = 4
)

// output is everything that waits to be written, and who writes it.
//
// One party at a time flushes: it set flushing, and nobody else touches what is
// below it until it is cleared. Whoever finds something to write and no flush
// under way starts one: in place if the connection is quiet, so that an answer
// costs no detour, else in a goroutine, so that more can gather.
type output struct {
	mu       sync.Mutex
	control  list // streams with control frames
	data     list // streams whose turn comes
	room     list // streams that wait for room
	slots    slots
	flushing bool
	corked   bool // the reader is at work and will flush when it is done
	pending  bool // something of the connection's own is to be written
	stalled  bool // data waits for credit of the connection, or for the peer to read
	noOpens  bool // no stream is opened any more
	tokens   int8 // flushes that may be done in place

	credit    bool
	tick      bool   // the session's timer has fired
	readTotal uint64 // bytes read, to be told; 0 if not
	pongs     []uint64
	pings     []uint64
	goAway    *frame.Frame
	replies   []frame.Frame
	dying     bool

	// Owned by the flush.
	o             frame.Out
	scratch       *pool.Scratch // what o.Buf is made of; nil between flushes
	vec           [][]byte      // what is left to write
	pieces        [][]byte      // its memory
	inFlight      atomic.Int64  // bound on the bytes that are written and not read
	wrote         atomic.Uint64 // bytes put into o
	soleSender    *Port         // the stream that had the last turn
	soleFrom      uint64        // wrote when its first turn in a row began
	goAwayEncoded bool          // the goodbye is in o
}

func (o *output) init(inFlight int) {
	o.inFlight.Store(int64(inFlight))
	o.tokens = 1
}

// ready gives p its turn. It is called once for each turn asked for. here says
// that the flush may be done on the caller's stack.
func (o *output) schedule(c *Conn, p *Port, urgent, here bool) {
	o.mu.Lock()
	if o.noOpens && p.local && p.id.Load() == 0 {
		o.mu.Unlock()
		p.s.Lost(c.whyUnnumbered(), true)
		return
	}
	if urgent {
		o.control.pushControl(p)
	} else {
		o.pushData(p)
	}
	if !here {
		o.tokens = 0
	}
	o.start(c, !urgent && o.stalled)
}

// say has something of the connection's own written; set notes what.
func (o *output) requestControl(c *Conn, set func(o *output)) {
	o.mu.Lock()
	set(o)
	o.pending = true
	o.start(c, false)
}

// start begins a flush unless there is one or nothing could be written, and
// frees the lock.
func (o *output) start(c *Conn, idle bool) {
	if o.flushing || o.corked || idle {
		o.mu.Unlock()
		return
	}
	o.flushing = true
	inPlace := o.tokens > 0 && c.tr.inPlace()
	if inPlace {
		o.tokens--
	}
	o.mu.Unlock()
	if inPlace {
		c.flushInPlace()
		return
	}
	c.tr.spawn()
}

// hold keeps flushes back while the reader works: what its burst causes is
// written together.
func (o *output) cork() {
	o.mu.Lock()
	o.corked = true
	o.mu.Unlock()
}

// release ends hold and flushes. A burst of a message or two is a conversation:
// the answer to it may be written in place.
func (o *output) uncork(c *Conn, messages int) {
	o.mu.Lock()
	o.corked = false
	if o.tokens = 0; messages <= 2 {
		o.tokens = 1
	}
	if o.flushing || !o.due() {
		o.mu.Unlock()
		return
	}
	o.flushing = true
	o.mu.Unlock()
	if c.tr.inPlace() {
		c.flushInPlace()
		return
	}
	c.tr.spawn()
}

// due tells whether a flush would find something to write.
func (o *output) due() bool {
	return o.pending || o.control.head != nil || o.data.head != nil && !o.stalled
}

func (o *output) isDue() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.due()
}

// acknowledge notes how much was read; the reader's release writes it.
func (o *output) requestRead(total uint64) {
	o.mu.Lock()
	o.readTotal, o.pending = total, true
	o.mu.Unlock()
}

// unstall lets data go on after the peer read or granted something.
func (o *output) unstall(c *Conn) {
	o.mu.Lock()
	was := o.stalled
	o.stalled = false
	o.start(c, !was)
}

var errAnswers = &frame.Violation{Code: frame.CodeCalm, Detail: "too many answers wait to be read"}

// answer queues a pong.
func (o *output) pong(c *Conn, value uint64) error {
	o.mu.Lock()
	if len(o.pongs) >= maxAnswers {
		o.mu.Unlock()
		return errAnswers
	}
	o.pongs, o.pending = append(o.pongs, value), true
	o.start(c, false)
	return nil
}

// reply queues an answer for a stream that is not there.
func (o *output) reply(c *Conn, f *frame.Frame) error {
	o.mu.Lock()
	if len(o.replies) >= maxAnswers {
		o.mu.Unlock()
		return errAnswers
	}
	o.replies, o.pending = append(o.replies, *f), true
	o.start(c, false)
	return nil
}

// pushData puts p in line for data, unless it is over. The lock is held.
func (o *output) pushData(p *Port) {
	if !p.removed {
		o.data.pushData(p)
	}
}

// awaitRoom puts p in line for room in the queue.
func (o *output) awaitRoom(c *Conn, p *Port) {
	o.mu.Lock()
	if !p.inRoom && !p.removed {
		p.inRoom = true
		o.room.pushRoom(p)
	}
	o.mu.Unlock()
	if c.room() { // it came free meanwhile
		o.wakeRoom(c)
	}
}

// wakeRoom tells streams in line, in turn, as long as there is room.
func (o *output) wakeRoom(c *Conn) {
	for c.room() {
		o.mu.Lock()
		p := o.room.popRoom()
		if p != nil {
			p.inRoom = false
		}
		o.mu.Unlock()
		if p == nil {
			return
		}
		p.s.RoomFree()
	}
}

// takeUnborn returns the streams that have no number yet, and sees to it that they
// get none: whoever calls it has to tell them. What comes later is told by ready.
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

// flush writes until there is nothing to write, or the socket takes no more. It
// runs while flushing is set, by whoever set it.
func (c *Conn) flush() {
	for c.flushOnce() {
	}
}

// flushSoon is flush as a goroutine's whole life.
func (c *Conn) flushSoon() {
	runtime.Gosched() // let what is about to be sent be sent along
	c.flush()
}

// flushInPlace writes once on the caller's time and leaves the rest to others.
func (c *Conn) flushInPlace() {
	if c.flushOnce() {
		c.tr.spawn()
	}
}

// flushOnce gathers and writes once. It returns false when this flush is over.
func (c *Conn) flushOnce() bool {
	o := &c.out
	if len(o.vec) == 0 && !c.gather() {
		if o.goAwayEncoded {
			// The peer answers by closing; should it not, the timer does. To
			// close now could reset the connection before the goodbye is read.
			c.keeper.bidden.Store(true)
			if !c.tr.closeWrite() {
				c.finish()
			}
			return false
		}
		return !o.endFlush()
	}
	err := c.write()
	switch {
	case err == nil:
		c.outputWritten()
		return o.goAwayEncoded || !o.endFlush()
	case errors.Is(err, errAgain):
		c.tr.await() // from now on another flush may be under way
	default:
		c.discardOutput()
		c.keeper.writeFailed(c, err)
	}
	return false
}

// rest ends the flush if there is nothing to do; false if there is.
func (o *output) endFlush() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.due() {
		return false
	}
	o.returnScratch()
	o.flushing = false
	return true
}

// takeScratch borrows memory for the output; giveScratch returns it, so that a
// connection at rest holds none.
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

// abandon lets go what will not be written. The flush stays marked as under way,
// so that there is no other.
func (c *Conn) discardOutput() {
	c.out.o.Reset()
	c.out.vec = nil
}

// write hands the transport what was gathered.
func (c *Conn) write() error {
	o := &c.out
	for len(o.vec) > 0 {
		n, err := c.tr.write(o.vec)
		o.vec = consume(o.vec, n)
		if n > 0 {
			c.keeper.wrote()
		}
		if err != nil {
			if errors.Is(err, errAgain) {
				c.keeper.blocked(c)
			}
			return err
		}
	}
	o.o.Reset()
	return nil
}

// consume drops n bytes from the front of v.
func consume(v [][]byte, n int) [][]byte {
	for len(v) > 0 && n >= len(v[0]) {
		n -= len(v[0])
		v[0] = nil
		v = v[1:]
	}
	if n > 0 {
		v[0] = v[0][n:]
	}
	return v
}

// gather encodes what is due, as much as may be written now; false if there is
// nothing.
func (c *Conn) gather() bool {
	o := &c.out
	if o.goAwayEncoded {
		return false
	}
	o.borrowScratch()
	c.gatherControl()
	c.gatherData()
	if o.o.Len() == 0 {
		c.sessionEvents()
		c.outputWritten()
		return false
	}
	c.sess.Flush(&o.o)
	c.sessionEvents()
	c.keeper.mark(o.wrote.Add(uint64(o.o.Len())))
	o.pieces = o.o.Vec(o.pieces[:0])
	o.vec = o.pieces
	return true
}

// gatherControl encodes the connection's own frames and the streams' control
// frames.
func (c *Conn) gatherControl() {
	o := &c.out
	p, closed, last := c.gatherPending()
	for p != nil {
		next := p.nextControl
		p.nextControl = nil
		if p.id.Load() != 0 || c.assignNumbers(p, closed) {
			p.s.Fill(c.sess, &o.o, 0, false)
		}
		p = next
	}
	if last != nil {
		c.sess.Control(&o.o, last)
		o.goAwayEncoded = true
	}
}

// gatherOwn encodes the connection's own frames, and returns the streams that
// have control frames to write and the goodbye that comes last, if it is time
// for that. What it needs of the stack is free again when the streams are asked:
// it is often a handler's.
func (c *Conn) gatherPending() (ports *Port, closed bool, last *frame.Frame) {
	o := &c.out
	o.mu.Lock()
	s := o.takeControl()
	ports, closed = o.control.head, o.noOpens
	o.control = list{}
	o.mu.Unlock()
	switch {
	case s.goAway == nil:
	case s.dying:
		last = s.goAway
	default: // before the ping whose answer tells that it was read
		c.sess.Control(&o.o, s.goAway)
	}
	c.encodePending(&s)
	return ports, closed, last
}

// said is the connection's own frames to write.
type pendingControl struct {
	credit, dying bool
	tick          bool
	readTotal     uint64
	pongs, pings  []uint64
	goAway        *frame.Frame
	replies       []frame.Frame
}

func (o *output) takeControl() pendingControl {
	if !o.pending {
		return pendingControl{}
	}
	s := pendingControl{o.credit, o.dying, o.tick, o.readTotal, o.pongs, o.pings, o.goAway, o.replies}
	o.credit, o.tick, o.readTotal, o.pongs, o.pings, o.goAway, o.replies, o.pending = false, false, 0, nil, nil, nil, nil, false
	return s
}

// ownFrames encodes the connection's own frames.
func (c *Conn) encodePending(s *pendingControl) {
	out := &c.out.o
	put := func(k frame.Kind, v uint64) {
		f := out.Scratch(k, 0)
		f.Value = v
		c.sess.Control(out, f)
	}
	if s.readTotal > 0 {
		put(frame.Read, s.readTotal)
	}
	if s.credit {
		n := c.returned.Load()
		c.advertised.Store(n)
		put(frame.Credit, n+uint64(c.window))
	}
	for _, v := range s.pongs {
		put(frame.Pong, v)
	}
	for _, v := range s.pings {
		put(frame.Ping, v)
	}
	for i := range s.replies {
		c.sess.Control(out, &s.replies[i])
	}
	if s.tick {
		c.runTick()
	}
}

// gatherData gives streams their turns.
func (c *Conn) gatherData() {
	o := &c.out
	for {
		o.mu.Lock()
		p := o.data.popData()
		if p == nil {
			o.mu.Unlock()
			return
		}
		most := c.allowance()
		if most < c.caps.LeastPiece {
			o.data.pushFront(p)
			// Set under the lock, and looked at again: what frees it takes the
			// lock too, after it changed the figures.
			o.stalled = true
			again := c.allowance() >= c.caps.LeastPiece
			o.stalled = !again
			o.mu.Unlock()
			if again {
				continue
			}
			return
		}
		if o.o.Len() >= gatherBytes && (o.o.Len() >= soleFactor*gatherBytes || !o.hasSoleSender()) {
			o.data.pushFront(p)
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
		if p.id.Load() == 0 && !c.assignNumbers(p, o.opensAreOver()) {
			continue
		}
		if p != o.soleSender {
			o.soleSender, o.soleFrom = p, o.wrote.Load()
		}
		used, again := p.s.Fill(c.sess, &o.o, min(most, turnBytes), true)
		c.sentCost.Add(uint64(used))
		if again {
			o.mu.Lock()
			o.pushData(p)
			o.mu.Unlock()
		}
	}
}

func (o *output) isStalled() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stalled
}

func (o *output) isDying() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dying
}

func (o *output) opensAreOver() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.noOpens
}

// isLone tells whether one stream has been the only one to send for long.
func (o *output) hasSoleSender() bool { return o.wrote.Load()-o.soleFrom >= soleAfter }

// allowance is how many bytes of credit data may use now: what the peer granted
// the connection, and what keeps the bytes in flight few.
func (c *Conn) allowance() int {
	o := &c.out
	credit := int64(c.granted.Load() - c.sentCost.Load())
	switch {
	case c.pacing != frame.Granted:
		return gatherBytes
	case !c.caps.ReadReports: // the system bounds what waits unsent
		return int(credit)
	}
	wrote, bound := o.wrote.Load(), o.inFlight.Load()
	if o.hasSoleSender() && bound < maxInFlight {
		bound *= soleFactor
	}
	unread := int64(wrote) + int64(o.o.Len()) - int64(c.peerRead.Load())
	return int(min(credit, max(bound-unread, 0)))
}
