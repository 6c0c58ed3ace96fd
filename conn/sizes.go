package conn

import (
	"fmt"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// What opens, answers and ends carry beside messages takes no credit. It has limits of
// its own, and what a stream keeps of it is charged to the stream: see Port.Charge.

// CheckSize is why f, an Open, Accept, Reject or EOS, is too large for us, or nil.
func (c *Conn) CheckSize(f *frame.Frame) *Refusal {
	size, inline := f.Metadata.Size()+f.Omitted, 0
	if f.Kind == frame.Open {
		size += len(f.Method)
	}
	if f.Kind == frame.Open || f.Kind == frame.Accept {
		inline = len(f.Payload)
	}
	reason := ""
	switch {
	case size > c.lim.MaxMetadata:
		reason = fmt.Sprintf("metadata of %d bytes, the limit is %d", size, c.lim.MaxMetadata)
	case len(f.Metadata) > c.lim.MaxKeys:
		reason = fmt.Sprintf("metadata of %d fields, the limit is %d", len(f.Metadata), c.lim.MaxKeys)
	case inline > c.maxInline():
		reason = fmt.Sprintf("request or reply of %d bytes, the limit is %d", inline, c.maxInline())
	default:
		return nil
	}
	return &Refusal{status.TooLarge, reason, true}
}

// maxInline is the longest request or reply in an Open or Accept.
func (c *Conn) maxInline() int {
	if c.caps.LongInline {
		return c.lim.MaxMessage
	}
	return min(c.caps.MaxInline, c.lim.MaxMessage)
}
