package conn

import (
	"net"
	"sync/atomic"

	"github.com/sluicerpc/sluice/frame"
)

// also is what a session may offer beside frame.Session; nil if it does not.
type also struct {
	pauser frame.Pauser
	local  frame.Local
	ender  frame.Ender

	begun   frame.Frame // for local
	lingers atomic.Bool // nothing is left to do but wait for the peer's FIN
}

func (a *also) init(s frame.Session) {
	a.pauser, _ = s.(frame.Pauser)
	a.local, _ = s.(frame.Local)
	a.ender, _ = s.(frame.Ender)
}

// locals passes on what writing has caused: events that no peer will send.
func (c *Conn) locals() {
	l := c.also.local
	if l == nil {
		return
	}
	for f := &c.also.begun; l.Local(f); {
		p := c.find(f.Stream)
		if p == nil {
			continue
		}
		if f.Kind == frame.EOS || f.Kind == frame.Reset {
			p.peerOver.Store(true)
		}
		if err := p.s.Control(f); err != nil {
			c.violated(err)
			return
		}
	}
}

// written is called when all output is with the transport: a session may have had
// nothing else to do.
func (c *Conn) written() {
	e := c.also.ender
	if e == nil || c.also.lingers.Load() {
		return
	}
	linger, over := e.Over()
	switch {
	case !over:
	case linger == 0:
		c.Close()
	default:
		c.also.lingers.Store(true)
		c.keeper.linger(c, linger)
	}
}

// Hold says that one more stream belongs to the connection that is open on another:
// until Unhold the connection is neither idle nor drained.
func (c *Conn) Hold() {
	c.mu.Lock()
	c.held++
	c.mu.Unlock()
}

// Unhold takes a Hold back. It may end a connection that was only waiting for that.
func (c *Conn) Unhold() {
	c.mu.Lock()
	c.held--
	last := c.bare()
	c.mu.Unlock()
	if last {
		c.lastStreamGone()
	}
}

// EndSoon ends the connection a moment from now, if it has not ended by then: what is
// being written may be all that keeps it from its end, for as long as the peer likes.
func (c *Conn) EndSoon() {
	k := &c.keeper
	if c.Err() == nil && !k.dead.Load() {
		k.linger(c, lingerTime)
	}
}

// bare tells whether there is no stream, here or elsewhere. The lock is held.
func (c *Conn) bare() bool { return c.own+c.peer+c.held == 0 }

func (c *Conn) isBare() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bare()
}

// over is how a connection ends whose session had nothing left to do.
func (c *Conn) over(e *Error) *Error {
	if c.also.lingers.Load() {
		return &Error{Addr: e.Addr, Op: "close", Code: frame.CodeOK, Err: net.ErrClosed}
	}
	return e
}
