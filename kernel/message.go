package kernel

import (
	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/pool"
)

// A Message is the handle of one message's bytes. It belongs to whoever holds
// it: Send, a Slot and Out take it over, on success only. Its methods are Bytes,
// Len, Clone, Share, Truncate and Release. Forgetting Release is safe: the
// garbage collector then does it. The zero Message is empty and harmless.
type Message = pool.Message

// A Batch is messages that arrived, in order, as Stream.Batches hands them out:
// Len, At, Keep, Release.
type Batch = actor.Batch

// A Slot is the right to send one message, taken from Stream.Writable. It must
// be used (Send) or cancelled (Cancel), once. Cancel after Send does nothing, so
// that it can be deferred.
type Slot = actor.Slot

// MaxMessage is the length of the longest message that there can be, 1 GiB.
const MaxMessage = pool.MaxLen

// NewMessage returns a message of n bytes from the pool, to be filled through
// Bytes. What the bytes hold at first is undefined. It panics if n is negative
// or more than MaxMessage.
func NewMessage(n int) Message { return pool.New(n) }

// MessageOf makes p a message without copying it. The message takes p over: the
// caller must not write to it any more.
func MessageOf(p []byte) Message { return pool.MessageOf(p) }

// CopyMessage returns a message from the pool that holds a copy of p.
func CopyMessage(p []byte) Message { return pool.Copy(p) }
