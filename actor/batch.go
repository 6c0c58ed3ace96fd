package actor

import (
	"sync"

	"github.com/sluicerpc/sluice/pool"
)

// A Batch is one or more messages in the order in which they arrived.
type Batch struct {
	msgs []pool.Message
}

var batchPool = sync.Pool{New: func() any { return new(Batch) }}

// Len is the number of messages, at least one.
func (b *Batch) Len() int { return len(b.msgs) }

// At returns message i. The batch owns it until Keep takes it out.
func (b *Batch) At(i int) pool.Message { return b.msgs[i] }

// Keep takes message i out of the batch. The caller owns it; Release leaves it alone.
func (b *Batch) Keep(i int) pool.Message {
	m := b.msgs[i]
	b.msgs[i] = pool.Message{}
	return m
}

// Release releases the messages and the batch, which must not be used after it.
func (b *Batch) Release() {
	for _, m := range b.msgs {
		m.Release()
	}
	clear(b.msgs)
	b.msgs = b.msgs[:0]
	batchPool.Put(b)
}

// A batchRest is what Receive keeps of the batches that it took from Batches.
type batchRest struct {
	msgs    pool.Queue
	waiting int           // Receives that wait for a batch
	more    chan struct{} // wakes one of them to take from msgs; holds one token
}

// take returns the first message, and wakes a Receive for the one behind it.
func (r *batchRest) take() pool.Message {
	m, _ := r.msgs.Pop()
	if r.msgs.Len() > 0 && r.waiting > 0 {
		select {
		case r.more <- struct{}{}:
		default:
		}
	}
	return m
}
