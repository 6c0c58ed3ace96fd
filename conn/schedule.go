package conn

import (
	"time"

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

// Answers that wait to be written: of pings, of opens that are refused, and of what a
// session refuses by itself. A burst may cause more of them than the flush has got to yet,
// which is not the peer's fault. One that does not read them is.
const (
	unreadAnswers = 1000        // that wait while the peer has read nothing for
	unreadFor     = time.Second // so long,
	mostAnswers   = 64 << 10    // or that wait at all
)

// An answer is a frame that no stream of ours writes.
type answer struct {
	kind         frame.Kind
	notProcessed bool
	code         status.Code
	stream       uint64
	value        uint64
	reason       string
}

// answerSize is what one is charged with, its reason included.
const answerSize = 64

// answer queues an answer. The reader calls it.
func (c *Conn) answer(a answer) error {
	o := &c.out
	o.mu.Lock()
	n := len(o.pending.answers)
	if n >= unreadAnswers && (n >= mostAnswers || c.blockedFor() >= unreadFor) {
		o.mu.Unlock()
		return violation(status.EnhanceYourCalm, "%d answers are unread", n)
	}
	o.pending.answers, o.due = append(o.pending.answers, a), true
	o.answers.Store(int32(n + 1))
	if n+1 < unreadAnswers || !o.corked || !c.tr.inPlace() {
		c.startFlush(false)
		return nil
	}
	o.corked, o.tokens = false, 1 // the reader writes them itself, in between
	c.startFlush(false)
	o.cork()
	return nil
}
