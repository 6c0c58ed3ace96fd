package conn

import (
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
)

// events is what the session causes by itself: frames that the peer did not send, work
// at a later time, and the end of a connection with nothing left to do. The flush owns
// it, except for what is atomic.
type events struct {
	f         frame.Frame
	timer     timers.Timer
	wake      time.Time     // when the timer is due; zero: it is not set. It may fire early
	finished  bool          // the connection ends when all is written
	linger    time.Duration // time for the peer to close; 0: none
	awaitsFIN atomic.Bool   // all is written: the peer's FIN ends the connection in order
}

// sessionEvents handles the session's events, and sets its timer. It is called after
// each Flush of the session.
func (c *Conn) sessionEvents() {
	e := &c.events
	for c.sess.Event(&e.f) {
		if e.f.Kind == frame.Finished {
			e.finished, e.linger = true, e.f.Deadline
			continue
		}
		if err := c.sessionEvent(&e.f); err != nil {
			c.violated(err)
			return
		}
	}
	if at := c.sess.Wake(); !at.IsZero() && (e.wake.IsZero() || at.Before(e.wake)) {
		e.wake = at
		c.cfg.Timers.Set(&e.timer, (*sessionTimer)(c), at)
		if c.ending.finished.Load() { // finish may not have found the timer set
			c.cfg.Timers.Stop(&e.timer)
		}
	}
}

func (c *Conn) sessionEvent(f *frame.Frame) error {
	if f.Kind == frame.Freed {
		c.mu.Lock()
		free := c.onFree
		c.mu.Unlock()
		if free != nil {
			free()
		}
		return nil
	}
	if f.Kind == frame.Credit && f.Stream == 0 { // of what was not written after all
		return c.connCredit(f.Value)
	}
	p := c.find(f.Stream)
	if p == nil {
		return nil
	}
	return p.s.Control(f) // the peer has not ended it, and may still send
}

// sessionTimer is a Conn as the owner of its session's timer.
type sessionTimer Conn

// Expire implements timers.Owner: the flush calls the session's Tick.
func (t *sessionTimer) Expire(*timers.Timer, time.Time) {
	(*Conn)(t).requestControl(func(p *pendingControl) { p.tick = true })
}

// runTick has the session write what is due.
func (c *Conn) runTick() {
	c.events.wake = time.Time{}
	c.sess.Tick(&c.out.o)
}

// outputWritten is called when the transport has all output. It ends a connection whose
// session has finished.
func (c *Conn) outputWritten() {
	e := &c.events
	switch {
	case !e.finished || e.awaitsFIN.Load():
	case e.linger == 0:
		c.close()
	default:
		e.awaitsFIN.Store(true)
		c.linger(e.linger)
	}
}
