package conn

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
)

// events is what the session causes by itself, and no frame of the peer's: answers that
// its protocol has none for, what time brings, and the end of a connection with nothing
// left to do. The writer owns it, but for what is atomic.
type events struct {
	f        frame.Frame
	timer    timers.Timer
	wake     time.Time     // what the timer is set to; zero: it is not; it may fire early
	finished bool          // the connection is to end when all is written
	linger   time.Duration // in which the peer may end it
	lingers  atomic.Bool   // nothing is left to do but wait for the peer's FIN
}

// sessionEvents hands on the session's events, and sets its timer. It is called after
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
		if c.keeper.over.Load() { // the end did not find it
			c.cfg.Timers.Stop(&e.timer)
		}
	}
}

func (c *Conn) sessionEvent(f *frame.Frame) error {
	p := c.find(f.Stream)
	if p == nil {
		return nil
	}
	if f.Kind == frame.EOS || f.Kind == frame.Reset {
		p.peerEnded.Store(true)
	}
	return p.s.Control(f)
}

// sessionTimer is a Conn as the owner of its session's timer.
type sessionTimer Conn

// Expire implements timers.Owner: the writer calls Tick.
func (t *sessionTimer) Expire(*timers.Timer, time.Time) {
	c := (*Conn)(t)
	c.out.requestControl(c, func(o *output) { o.tick = true })
}

// tick has the session write what is due.
func (c *Conn) runTick() {
	c.events.wake = time.Time{}
	c.sess.Tick(&c.out.o)
}

// written is called when all output is with the transport: the session may have had
// nothing else to do.
func (c *Conn) outputWritten() {
	e := &c.events
	switch {
	case !e.finished || e.lingers.Load():
	case e.linger == 0:
		c.Close()
	default:
		e.lingers.Store(true)
		c.keeper.linger(c, e.linger)
	}
}

// endOf is how a connection ends whose session had nothing left to do: in order,
// whatever the transport says.
func (c *Conn) endAfterLinger(e *Error) *Error {
	if c.events.lingers.Load() {
		return &Error{Addr: e.Addr, Op: "close", Code: frame.CodeOK, Err: net.ErrClosed}
	}
	return e
}
