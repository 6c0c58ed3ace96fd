package kernel

import (
	"context"
	"fmt"
	"time"

	"github.com/sluicerpc/sluice/pool"
)

// None means zero in options where zero means the default.
const None = -1

// StreamOptions are one side's options for one stream. A nil pointer and the zero value
// are the defaults.
type StreamOptions struct {
	// Window is the receive window: how many bytes the peer may send that this side
	// has not taken. Each message counts 32 bytes more than its length. Zero starts
	// small and grows as needed up to Limits.StreamWindow. Another value, at least 64,
	// applies once the stream is accepted, as far as the connection's window allows.
	// It has no effect on protocols whose sender chooses the window (brpc). Where every
	// stream begins with the same window (frame.Caps.FixedWindow) a smaller one has none.
	Window int
	// SendLimit is how many sent bytes may be unread at the peer. Zero leaves that to
	// the peer's window. On protocols whose sender chooses the window (brpc's
	// max_buf_size) it is that. Where every stream has the same window it has no effect.
	SendLimit int
	// MaxReceive and MaxSend are the longest message that this side receives, unpacked, and
	// sends, packed, in bytes. A longer one that arrives ends the stream with TOO_LARGE; one
	// to be sent fails with ErrTooLarge, and ends the stream if it came from Out. Zero, and
	// more than that, is Limits.MaxMessage to receive, and what the peer receives to send. A
	// server's MaxReceive bounds requests too; one given to Accept comes too late for them.
	MaxReceive, MaxSend int
	// InBuffer is the length of In's buffer, in messages; they have at most 16 KiB in
	// all. Zero is 16. With None a message counts as taken when it is received from In.
	InBuffer int
	// MaxBatch is the largest number of messages in a Batch. Zero is 128.
	MaxBatch int
	// CountLate has a message that Receive or All returns count as taken when the next one is
	// asked for, when its reader is done with it: then the peer's window bounds what is in
	// work too, as where brpc's on_received_messages has not returned. It is for one reader at
	// a time, and has no effect on In and Batches.
	CountLate bool
	// IdleTimeout is the time after which Stream.Idle reports the stream as idle. Zero
	// is never.
	IdleTimeout time.Duration
	// NoReceive makes the stream write-only on this side: the peer's sends fail with
	// ErrNotReadable.
	NoReceive bool
	// Context bounds the stream's life and is the parent of its Context. The context
	// given to Open then bounds the opening alone. Nil is the context given to Open.
	// Only the opening side can set it: Accept and NewServer fail with ErrLimits. It has
	// no effect on a Call.
	Context context.Context
	// Compression is how this side's messages are compressed. In the options of a client
	// or server it is used towards peers that unpack it; NewClient and NewServer fail with
	// ErrNotSupported if none of the protocols can carry it. For one stream it is required:
	// if the protocol or the peer can't, opening or accepting fails with ErrNotSupported.
	// Zero is the client's or server's where those apply, else NoCompression.
	Compression pool.Compression
}

const (
	defaultInBuffer = 16
	defaultMaxBatch = 128
	maxInBuffer     = 1 << 16
)

// Validate returns ErrLimits if an option is out of range, or nil.
func (o *StreamOptions) Validate() error {
	_, err := o.withDefaults()
	return err
}

func (o *StreamOptions) withDefaults() (StreamOptions, error) {
	var r StreamOptions
	if o != nil {
		r = *o
	}
	switch {
	case r.InBuffer == 0:
		r.InBuffer = defaultInBuffer
	case r.InBuffer == None:
		r.InBuffer = 0
	}
	if r.MaxBatch == 0 {
		r.MaxBatch = defaultMaxBatch
	}
	return r, r.check()
}

// check returns ErrLimits if an option is out of range.
func (o *StreamOptions) check() error {
	switch {
	case o.Window < 0:
		return outOfRange("Window", o.Window)
	case o.SendLimit < 0:
		return outOfRange("SendLimit", o.SendLimit)
	case o.MaxReceive < 0:
		return outOfRange("MaxReceive", o.MaxReceive)
	case o.MaxSend < 0:
		return outOfRange("MaxSend", o.MaxSend)
	case o.InBuffer < 0 || o.InBuffer > maxInBuffer:
		return outOfRange("InBuffer", o.InBuffer)
	case o.MaxBatch < 1:
		return outOfRange("MaxBatch", o.MaxBatch)
	case o.IdleTimeout < 0:
		return outOfRange("IdleTimeout", o.IdleTimeout)
	case o.Compression > pool.Zstd:
		return outOfRange("Compression", o.Compression)
	}
	return nil
}

// maxReceive is the longest message of a stream with these options that c receives.
func (c *Conn) maxReceive(o *StreamOptions) int {
	return atMost(o.MaxReceive, uint64(c.c.Limits().MaxMessage))
}

// maxSend is the longest message of a stream with these options that c sends.
func (c *Conn) maxSend(o *StreamOptions) int {
	return atMost(o.MaxSend, c.c.PeerSettings().MaxMessage)
}

// atMost is n, or most if n is zero or more than that.
func atMost(n int, most uint64) int {
	if n == 0 || uint64(n) > most {
		return int(most)
	}
	return n
}

func outOfRange(name string, v any) error {
	return fmt.Errorf("%w: StreamOptions.%s is %v", ErrLimits, name, v)
}

// over returns o with base's value where o's is zero.
func (o StreamOptions) over(base *StreamOptions) StreamOptions {
	if o == (StreamOptions{}) {
		return *base
	}
	pick(&o.Window, base.Window)
	pick(&o.SendLimit, base.SendLimit)
	pick(&o.MaxReceive, base.MaxReceive)
	pick(&o.MaxSend, base.MaxSend)
	pick(&o.InBuffer, base.InBuffer)
	pick(&o.MaxBatch, base.MaxBatch)
	pick(&o.IdleTimeout, base.IdleTimeout)
	pick(&o.Compression, base.Compression)
	o.CountLate = o.CountLate || base.CountLate
	o.NoReceive = o.NoReceive || base.NoReceive
	if o.Context == nil {
		o.Context = base.Context
	}
	return o
}

func pick[T int | time.Duration | pool.Compression](v *T, base T) {
	if *v == 0 {
		*v = base
	}
}
