package conn

import (
	"fmt"

	"github.com/sluicerpc/sluice/frame"
)

// What opens, answers and ends bring along beside the messages takes no credit.
// Each has limits of its own, and what a stream keeps of it is counted while the
// stream is open.

// Keep implements actor.Link.
func (p *Port) Charge(n int) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if !p.retired {
		p.charge(n)
	}
}

// keep is Keep with the lock held. What was evicted is not there any more to be let
// go.
func (p *Port) charge(n int) {
	n = max(n, -int(p.openBytes))
	p.openBytes += int32(n)
	p.c.openBytes += n
}

// worthEvicting is how many bytes a stream keeps, at least, for it to be ended for
// them: every stream has its method.
const worthEvicting = 1 << 10

// holds is how many bytes would be free without the stream: unread ones, and what it
// keeps.
func (p *Port) memoryUse() int {
	n, _ := p.s.ReadProgress()
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.openBytes >= worthEvicting {
		n += int(p.openBytes)
	}
	return n
}

// evict ends the stream for want of memory. What it holds counts no more from now
// on, though it may take a while until the peer has been told.
func (p *Port) evict(reason string) {
	p.s.Evict(reason)
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.charge(-int(p.openBytes))
}

// TooMuch tells why we don't take what an open, an answer or an end brings along,
// or returns nil.
func (c *Conn) CheckSize(f *frame.Frame) *Refusal {
	size, inline := f.Metadata.Size()+f.Omitted, 0
	if f.Kind == frame.Open {
		size += len(f.Method)
	}
	if f.Kind != frame.EOS {
		inline = len(f.Payload)
	}
	text := ""
	switch {
	case size > c.lim.MaxMetadata:
		text = fmt.Sprintf("metadata of %d bytes, at most %d are taken", size, c.lim.MaxMetadata)
	case len(f.Metadata) > c.lim.MaxKeys:
		text = fmt.Sprintf("metadata of %d fields, at most %d are taken", len(f.Metadata), c.lim.MaxKeys)
	case inline > c.maxInline():
		text = fmt.Sprintf("a request or reply of %d bytes, at most %d are taken", inline, c.maxInline())
	default:
		return nil
	}
	return &Refusal{frame.CodeTooLarge, text, true}
}

// mostInline is the longest request or reply that comes in the frame that opens or
// accepts.
func (c *Conn) maxInline() int {
	if c.caps.LongInline {
		return c.lim.MaxMessage
	}
	return min(c.caps.MaxInline, c.lim.MaxMessage)
}
