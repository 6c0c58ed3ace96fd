package load

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// A checker looks at what comes in on a stream.
type checker interface {
	Check(p []byte) bool
	Summary() peer.Summary
}

// A replyCounter is the checker of a service of the user's: replies can only be counted.
type replyCounter struct{ sum peer.Summary }

// Check implements checker.
func (c *replyCounter) Check(p []byte) bool {
	c.sum.Messages++
	c.sum.Bytes += uint64(len(p))
	return true
}

// Summary implements checker.
func (c *replyCounter) Summary() peer.Summary { return c.sum }

func (r *run) newChecker(id uint32) checker {
	if r.cfg.Payload != nil {
		return new(replyCounter)
	}
	return peer.NewChecker(id)
}

// seqOf returns the number of the message that p is the answer to. A service answers in order.
func (l *lane) seqOf(p []byte) uint64 {
	if l.r.cfg.Payload != nil {
		return l.got - 1
	}
	return binary.LittleEndian.Uint64(p[8:])
}

// nextPayload makes the next message for a service. The counters of a lane are those that leave
// its index as the remainder, so that no two messages have the same.
func (l *lane) nextPayload() []byte {
	if l.rng == nil {
		l.rng = rand.NewChaCha8([32]byte{byte(l.index), byte(l.index >> 8), byte(l.index >> 16)})
	}
	n := l.sentBefore + l.sent
	l.scratch = l.r.cfg.Payload.append(l.scratch[:0], n*uint64(len(l.r.lanes))+uint64(l.index), l.index, l.size.At(l.sent), l.rng)
	l.sent++
	p := l.s.Buf(len(l.scratch))
	copy(p, l.scratch)
	return p
}

// call makes one unary call. due is when it was due.
func (l *lane) call(due int64) error {
	start := l.r.now()
	var reply []byte
	err := l.s.Send(l.next())
	if err == nil {
		reply, err = l.s.Recv()
	}
	if failed, ok := errors.AsType[*peer.CallError](err); ok {
		l.failed++
		l.r.callFailed(failed.Code)
		return nil
	}
	if err != nil {
		return err
	}
	l.got++
	l.bytes += uint64(len(reply))
	l.check.Check(reply)
	end := l.r.now()
	if l.sampled(l.sent) {
		l.r.service(l, end-start)
		if l.q != nil {
			l.r.response(l, end-due)
		}
	}
	return nil
}

// finishReplies receives what is still owed, and then ends the stream. Not every protocol can
// end one half before the other.
func (l *lane) finishReplies() error {
	for l.got < l.sent {
		if err := l.pong(); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) callFailed(code string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.callErrors == nil {
		r.callErrors = make(map[string]uint64)
	}
	r.callErrors[code]++
}

// failedCalls counts them. The run's lock is held.
func (r *run) failedCalls() (n uint64) {
	for _, c := range r.callErrors {
		n += c
	}
	return n
}
