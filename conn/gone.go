package conn

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// Frames for streams that are gone: a peer may send some until it learns of the end.

// localParity is the lowest bit of the numbers of streams that we open.
func (c *Conn) localParity() uint64 {
	if c.cfg.Client {
		return 1
	}
	return 0
}

// dataForGone drops data for a stream that is gone, and returns its credit. The bound is
// what a peer can have in transit when a stream ends, for each stream that ended early.
func (c *Conn) dataForGone(f *frame.Frame) error {
	if err := c.checkGone(f); err != nil {
		return err
	}
	c.abuse.goneBytes += uint64(f.Cost)
	c.mu.Lock()
	bound := c.table.endedEarly * c.maxInTransit()
	c.mu.Unlock()
	if c.abuse.goneBytes > bound {
		return violation(status.StreamState, "too much data for streams that have ended")
	}
	c.returnCredit(f.Cost)
	return nil
}

// checkGone checks a frame for a stream that is not there: the stream must have been
// there, and the peer must not have ended it.
func (c *Conn) checkGone(f *frame.Frame) error {
	id := f.Stream
	c.mu.Lock()
	defer c.mu.Unlock()
	local := id&1 == c.localParity()
	unopened := local && id >= c.nextLocal || !local && id > c.lastPeer
	switch {
	case id == 0:
		return violation(status.Protocol, "stream 0 can't have data")
	case unopened && f.Kind == frame.Reset:
		return violation(status.Protocol, "reset of stream %d, which was never opened", id)
	case unopened:
		return violation(status.StreamState, "frame for stream %d, which was never opened", id)
	case (f.Kind == frame.Data || f.Kind == frame.EOS) && c.table.peerEnded(id):
		return violation(status.StreamState, "frame for stream %d after its end", id)
	}
	return nil
}

// answerForGone drops the answer to an open that was aborted meanwhile.
func (c *Conn) answerForGone(f *frame.Frame) error {
	if f.Stream == 0 || f.Stream&1 != c.localParity() {
		return violation(status.Protocol, "an answer for stream %d", f.Stream)
	}
	if err := c.countUseless(); err != nil {
		return err
	}
	return c.checkGone(f)
}

// countUseless counts a frame that changes nothing. An honest peer sends a few around
// the end of each stream.
func (c *Conn) countUseless() error {
	c.mu.Lock()
	streams := (c.nextLocal + c.lastPeer) / 2
	c.mu.Unlock()
	return c.abuse.useless(streams)
}

// goesOn returns err unless it has ended its stream alone.
func goesOn(err error) error {
	if err == frame.ErrFault { //nolint:errorlint // never wrapped
		return nil
	}
	return err
}
