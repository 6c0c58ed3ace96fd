package conn

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// schedule gives p its turn: for a control frame if urgent, else for data. It is called
// once for each turn. here allows the flush on the caller's stack.
func (c *Conn) schedule(p *Port, urgent, here bool) {
	o := &c.out
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
		if o.stalled || o.flushing && c.health.waiting.Load() {
			p.dueAt = stamp(c.clock())
		}
	}
	if !here {
		o.tokens = 0
	}
	c.startFlush(!urgent && o.stalled)
}

// requestControl has frames of the connection's own written: set adds them.
func (c *Conn) requestControl(set func(p *pendingControl)) {
	o := &c.out
	o.mu.Lock()
	set(&o.pending)
	o.due = true
	c.startFlush(false)
}

// startFlush begins a flush, unless one is under way, the reader will, or blocked says
// that nothing could be written. The lock of the output is held, and freed.
func (c *Conn) startFlush(blocked bool) {
	o := &c.out
	if o.flushing || o.corked || blocked {
		o.mu.Unlock()
		return
	}
	o.flushing = true
	inPlace := o.tokens > 0 && c.tr.inPlace()
	if inPlace {
		o.tokens--
		o.takeFirst()
	}
	o.mu.Unlock()
	if inPlace {
		c.flushInPlace()
		return
	}
	c.tr.spawn()
}

// uncork ends cork and flushes. A burst of a message or two is a conversation: the
// answer to it may be written in place.
func (c *Conn) uncork(messages int) {
	o := &c.out
	o.mu.Lock()
	o.corked = false
	o.recvBytes, o.recvMessages = c.in.bytesRead, c.in.total
	if o.tokens = 0; messages <= 2 {
		o.tokens = 1
	}
	if o.flushing || !o.hasDue() {
		o.mu.Unlock()
		return
	}
	o.flushing = true
	inPlace := c.tr.inPlace()
	if inPlace {
		o.takeFirst()
	}
	o.mu.Unlock()
	if inPlace {
		c.flushInPlace()
		return
	}
	c.tr.spawn()
}

// unstall lets data go on after the peer has read or granted something.
func (c *Conn) unstall() {
	o := &c.out
	o.mu.Lock()
	was := o.stalled
	o.stalled = false
	c.startFlush(!was)
}

var errAnswers = &frame.Violation{Code: status.EnhanceYourCalm, Detail: "too many answers are unread"}

// pong queues the answer to a ping.
func (c *Conn) pong(value uint64) error {
	o := &c.out
	o.mu.Lock()
	if len(o.pending.pongs) >= maxAnswers {
		o.mu.Unlock()
		return errAnswers
	}
	o.pending.pongs, o.due = append(o.pending.pongs, value), true
	c.startFlush(false)
	return nil
}

// reply queues an answer that no stream can give.
func (c *Conn) reply(f *frame.Frame) error {
	o := &c.out
	o.mu.Lock()
	if len(o.pending.replies) >= maxAnswers {
		o.mu.Unlock()
		return errAnswers
	}
	o.pending.replies, o.due = append(o.pending.replies, *f), true
	c.startFlush(false)
	return nil
}
