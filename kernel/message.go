package kernel

import (
	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/pool"
)

// A Message is a handle of a message's bytes. It has one owner. Send, a Slot and Out take
// it over if they succeed. The owner may Release it, so that its memory is used again; if
// not, the garbage collector frees it. The methods are Bytes, Len, IsZero, Clone, Share,
// SetCompression, Truncate and Release. The zero Message is empty.
type Message = pool.Message

// A Batch is some messages in the order in which they arrived: see Stream.Batches. The
// methods are Len, At, Keep and Release.
type Batch = actor.Batch

// A Slot is the right to send one message: see Stream.Writable. It must be used by Send or
// given back by Cancel. Cancel after Send does nothing, so it can be deferred.
type Slot = actor.Slot

// MaxMessage is the length of the longest possible message, 1 GiB.
const MaxMessage = pool.MaxLen

// NewMessage returns a message of n bytes, to be filled through Bytes. The bytes are not
// cleared. NewMessage panics if n is negative or more than MaxMessage.
func NewMessage(n int) Message { return pool.New(n) }

// MessageOf makes p a message without copying it. The caller must not write to p any more.
func MessageOf(p []byte) Message { return pool.MessageOf(p) }

// CopyMessage returns a message with a copy of p.
func CopyMessage(p []byte) Message { return pool.Copy(p) }
