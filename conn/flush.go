package conn

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

const (
	turnBytes   = 64 << 10 // data of one stream's turn
	gatherBytes = 64 << 10 // output beyond which no further turn is given before it is written
)

// flush writes until there is nothing to write, or the transport takes no more. Its
// caller has set flushing.
func (c *Conn) flush() {
	returned := false
	defer c.flushReturned(&returned)
	for c.flushOnce() {
	}
	returned = true
}

// flushReturned ends the connection if a flush has not returned: a function of its session,
// or of its net.Conn, has panicked or ended its goroutine. flushing stays set, so that there
// is no other flush.
func (c *Conn) flushReturned(returned *bool) {
	if *returned {
		return
	}
	c.flushFailed(recover())
}

func (c *Conn) flushFailed(r any) {
	err := error(nil)
	if t, ok := c.tr.(*netConn); ok {
		err = Exited(t.nc)
	}
	if err == nil {
		err = c.fault("frame.Session", r)
	}
	c.Fail("write", status.Internal, fmt.Errorf("%w: %w", errPanic, err))
	c.finish() // nothing can be written any more
}

// flushSoon is the goroutine of a flush. It does not call flush, and keeps no account of
// whether it has returned: its stack would grow.
func (c *Conn) flushSoon() {
	defer c.flushRecovered()
	runtime.Gosched() // others are about to send: let that be gathered
	for c.flushOnce() {
	}
}

// flushRecovered ends the connection if a flush has panicked.
func (c *Conn) flushRecovered() {
	if r := recover(); r != nil {
		c.flushFailed(r)
	}
}

// flushGuarded is flushSoon where the session or the net.Conn is the program's, which can end
// the goroutine too.
func (c *Conn) flushGuarded() {
	runtime.Gosched()
	c.flush()
}

// flushInPlace writes once on the caller's stack, and leaves the rest to a goroutine.
func (c *Conn) flushInPlace() {
	returned := false
	defer c.flushReturned(&returned)
	again := c.flushOnce()
	returned = true
	if again {
		c.tr.spawn()
	}
}

// flushOnce gathers and writes once. It returns false when the flush is over.
func (c *Conn) flushOnce() bool {
	o := &c.out
	if len(o.vec) == 0 && !c.gather() {
		if o.goAwayEncoded {
			// The peer answers by closing; if it does not, the timer closes. Closing
			// now could reset the connection before the peer reads the GOAWAY.
			c.ending.goAwayWritten.Store(true)
			if !c.tr.closeWrite() {
				c.finish()
			}
			return false
		}
		return !c.endFlush()
	}
	err := c.write()
	switch {
	case err == nil:
		c.outputWritten()
		return o.goAwayEncoded || !c.endFlush()
	case errors.Is(err, errAgain):
		c.tr.await() // from now on another flush may be under way
	default:
		c.discardOutput()
		c.writeFailed(err)
	}
	return false
}

// endFlush clears flushing and returns true if there is nothing to write.
func (c *Conn) endFlush() bool {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messages = o.o.Messages
	if o.hasDue() {
		return false
	}
	o.returnScratch()
	o.flushing = false
	return true
}

// discardOutput releases what will not be written. flushing stays set, so that there
// is no other flush.
func (c *Conn) discardOutput() {
	c.out.o.Reset()
	c.out.vec = nil
	c.unwritten.Store(0)
}

// noteUnwritten notes what is encoded and waits for the transport.
func (c *Conn) noteUnwritten(v [][]byte) {
	n := 0
	for _, p := range v {
		n += len(p)
	}
	c.unwritten.Store(int64(n))
}

// write hands the transport what was gathered.
func (c *Conn) write() error {
	o := &c.out
	for len(o.vec) > 0 {
		n, err := c.tr.write(o.vec)
		o.vec = consume(o.vec, n)
		if n > 0 {
			c.health.writeProgressed()
		}
		if err != nil {
			if errors.Is(err, errAgain) {
				c.noteUnwritten(o.vec)
				c.writeBlocked()
			}
			return err
		}
	}
	if c.unwritten.Load() != 0 {
		c.unwritten.Store(0)
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

// gather encodes what may be written now; false if there is nothing.
func (c *Conn) gather() bool {
	o := &c.out
	if o.goAwayEncoded {
		return false
	}
	o.borrowScratch()
	o.sess = c.writer()
	if o.first == nil { // else there were no control frames when it was taken, a moment ago
		c.gatherControl()
	}
	c.gatherData()
	if o.o.Len() == 0 {
		o.o.Reset() // its time too: the session's timer may have found nothing due
		c.sessionEvents()
		c.outputWritten()
		return false
	}
	c.sess.Flush(&o.o)
	c.sessionEvents()
	c.markFlight(o.wrote.Add(uint64(o.o.Len())), o.full)
	o.pieces = o.o.Vec(o.pieces[:0])
	o.vec = o.pieces
	return true
}

// gatherControl encodes the connection's own frames and the streams' control frames.
func (c *Conn) gatherControl() {
	o := &c.out
	p, noOpens, last := c.gatherPending()
	for p != nil {
		next := p.nextControl
		p.nextControl = nil
		if p.id.Load() != 0 || c.assignNumbers(p, noOpens) {
			if c.cfg.Foreign {
				c.fillForeign(p, 0, false)
			} else {
				p.s.Fill(o.sess, &o.o, 0, false)
			}
		}
		p = next
	}
	if last != nil {
		o.sess.Control(&o.o, last)
		o.goAwayEncoded = true
	}
}

// gatherPending encodes the connection's own frames. It returns the streams that have
// control frames to write, and the GOAWAY that ends the connection, if it is time for
// that. It is a function of its own because its stack is free again when the streams
// are filled: the stack is often a handler's.
func (c *Conn) gatherPending() (ports *Port, noOpens bool, last *frame.Frame) {
	o := &c.out
	o.mu.Lock()
	if o.takeFirst() {
		o.mu.Unlock()
		return nil, false, nil
	}
	s := o.takeControl()
	ports, noOpens = o.control.head, o.noOpens
	o.control = list{}
	o.mu.Unlock()
	switch {
	case s.goAway == nil:
	case s.dying:
		last = s.goAway
	default: // before the ping whose answer shows that it was read
		o.sess.Control(&o.o, s.goAway)
	}
	c.encodePending(&s)
	return ports, noOpens, last
}

// encodePending encodes the connection's own frames, except for GOAWAY.
func (c *Conn) encodePending(s *pendingControl) {
	out, sess := &c.out.o, c.out.sess
	put := func(k frame.Kind, v uint64) {
		f := out.Scratch(k, 0)
		f.Value = v
		sess.Control(out, f)
	}
	if s.readTotal > 0 {
		put(frame.Read, s.readTotal)
	}
	if s.credit {
		c.granting.Store(false)
		c.advertised.Store(max(c.advertised.Load(), c.returned.Load()+uint64(c.window.Load()))) // a window may have become smaller
		put(frame.Credit, c.advertised.Load())
	}
	if c.probing.Load() && c.probing.Swap(false) {
		v := uint64(max(c.clock(), 1)) // 0 is no ping
		c.notePing(v)
		put(frame.Ping, v)
	}
	for _, v := range s.pings {
		put(frame.Ping, v)
	}
	for _, a := range s.answers {
		f := out.Scratch(a.kind, a.stream)
		f.Value, f.Code, f.Reason, f.NotProcessed = a.value, a.code, a.reason, a.notProcessed
		sess.Control(out, f)
	}
	if s.tick {
		c.runTick()
	}
}

// gatherData gives streams their turns.
func (c *Conn) gatherData() {
	o := &c.out
	o.full = false
	p := o.first
	if o.first = nil; p == nil {
		p = o.nextTurn(nil)
	}
	for p != nil {
		most := c.allowance()
		if most < c.caps.LeastPiece {
			p = c.stall(p)
			continue
		}
		if o.o.Len() >= gatherBytes && (o.o.Len() >= soleFactor*gatherBytes || !o.hasSoleSender()) {
			o.mu.Lock()
			o.putBack(p)
			o.mu.Unlock()
			return
		}
		if p.id.Load() == 0 && !c.assignNumbers(p, o.opensAreOver()) {
			p = o.nextTurn(nil)
			continue
		}
		if p != o.soleSender {
			o.soleSender = p
			o.soleFrom.Store(o.wrote.Load())
		}
		var used int
		var again bool
		if c.cfg.Foreign {
			used, again = c.fillForeign(p, min(most, turnBytes), true)
		} else {
			used, again = p.s.Fill(o.sess, &o.o, min(most, turnBytes), true)
		}
		c.sentCost.Add(uint64(used))
		if !again {
			p = nil
		}
		p = o.nextTurn(p)
	}
}

// stall puts p back, because the allowance is too small for data, and returns nil. If
// the allowance has grown meanwhile it returns the stream whose turn it is.
//
// Whoever makes the allowance grow changes its figures first, and then takes the lock to
// clear stalled and start a flush. Here stalled is set under the lock before the figures
// are read again. So either they are new here, or stalled is cleared after this.
func (c *Conn) stall(p *Port) *Port {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	o.putBack(p)
	was := o.stalled
	o.stalled = true
	if c.allowance() < c.caps.LeastPiece {
		if !was {
			o.stalledAt = c.clock()
		}
		o.full = true
		return nil
	}
	o.alone, o.stalled = false, false
	return o.data.popData()
}
