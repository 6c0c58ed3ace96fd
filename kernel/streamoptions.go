package kernel

import (
	"context"
	"fmt"
	"time"
)

// None, where zero is the default, says zero by name.
const None = -1

// StreamOptions are one side's wishes for one stream. A nil pointer, and the
// zero value, are the defaults.
type StreamOptions struct {
	// Window is how many bytes the peer may send that we have not taken, each
	// message counted with 32 bytes more. Zero starts small and grows by need
	// to Limits.StreamWindow; a number is used from acceptance on, as far as the
	// connection has that much left; at least 64. On brpc, where the writer
	// chooses the window, it has no effect.
	Window int
	// SendLimit is how many bytes of ours may be unread at the peer. Zero leaves
	// that to the peer. On brpc it is the window (max_buf_size).
	SendLimit int
	// InBuffer is how many messages In holds beside the mailbox, of 16 KiB in
	// all. Zero is 16; None makes taking exact.
	InBuffer int
	// MaxBatch is how many messages a Batch holds at most. Zero is 128.
	MaxBatch int
	// IdleTimeout is after how long without a message Idle offers. Zero is off.
	IdleTimeout time.Duration
	// NoReceive makes the stream write-only on this side: the peer's sends get
	// ErrNotReadable.
	NoReceive bool
	// Context bounds the life of a stream that is opened, and is the parent of its
	// Context. Nil is the context given to Open; where it is another, that one bounds
	// the opening alone. Only the side that opens can set it: Accept, and a server's
	// options, fail with ErrLimits. It has no effect on a Call.
	Context context.Context
}

const (
	defaultInBuffer = 16
	defaultMaxBatch = 128
	maxInBuffer     = 1 << 16
)

// Validate tells whether an option is out of range: ErrLimits.
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
	if r.Window < 0 || r.SendLimit < 0 || r.InBuffer < 0 || r.InBuffer > maxInBuffer || r.MaxBatch < 1 || r.IdleTimeout < 0 {
		return r, fmt.Errorf("%w: stream options %+v", ErrLimits, r)
	}
	return r, nil
}

// over completes o with what it leaves zero from base.
func (o StreamOptions) over(base *StreamOptions) StreamOptions {
	if o == (StreamOptions{}) {
		return *base
	}
	pick(&o.Window, base.Window)
	pick(&o.SendLimit, base.SendLimit)
	pick(&o.InBuffer, base.InBuffer)
	pick(&o.MaxBatch, base.MaxBatch)
	pick(&o.IdleTimeout, base.IdleTimeout)
	o.NoReceive = o.NoReceive || base.NoReceive
	if o.Context == nil {
		o.Context = base.Context
	}
	return o
}

func pick[T int | time.Duration](v *T, base T) {
	if *v == 0 {
		*v = base
	}
}
