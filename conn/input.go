package conn

import (
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Input takes what was read: p is valid during the call. One goroutine at a time calls
// it. It never waits. It returns false when the connection has ended.
func (c *Conn) Input(p []byte) bool {
	if !c.enterSession() {
		return false
	}
	defer c.leaveSession()
	in := &c.in
	in.now = time.Now()
	c.health.heard(c.since(in.now))
	in.bytesRead += uint64(len(p))
	in.messages = 0
	in.arena = pool.GetArena()
	c.out.cork()
	err := c.decode(p)
	if derr := c.deliver(); err == nil {
		err = derr
	}
	pool.PutArena(in.arena)
	in.arena, in.port = nil, nil
	c.creditSeen.Store(in.used)
	if c.pacing == frame.Granted { // returnCredit did not know of what this input used
		if n := c.owed(); n > 0 && n >= c.peerCredit() {
			c.requestCredit()
		}
	}
	if n := int64(c.sess.Buffered()); n != c.buffered.Load() {
		c.buffered.Store(n)
	}
	c.noteGrowth()
	c.noteFrame()
	c.reportRead()
	if err != nil {
		c.violated(err)
	}
	c.uncork(in.messages)
	return err == nil
}

// reportRead tells the peer how much was read. With that the peer bounds its bytes in
// flight: what delays a small message is what was sent before it and not yet read.
func (c *Conn) reportRead() {
	if !c.caps.ReadReports {
		return
	}
	in := &c.in
	switch unreported := in.bytesRead - in.reported; {
	case unreported < reportEvery/2:
		return
	case c.out.isDue(): // the report travels with other frames
	case unreported < reportEvery:
		return
	case unreported < soleFactor*reportEvery && in.bytesRead-in.soleFrom >= 2*soleAfter && c.tr.more():
		return
	}
	in.reported = in.bytesRead
	c.out.requestRead(in.bytesRead)
}

func (c *Conn) decode(p []byte) error {
	f := frame.GetFrame(frame.None) // pooled: it is as large as a fifth of a connection, and used during the call
	defer frame.PutFrame(f)
	for {
		n, err := c.sess.Next(p, f)
		p = p[n:]
		if c.traces.of.Load() != nil && err == nil && f.Kind != frame.None {
			c.traces.frame(f, false)
		}
		switch {
		case err != nil:
			return err
		case f.Kind == frame.None:
			return nil
		case f.Kind == frame.Data:
			if err = c.data(f); err == nil && c.in.run.Len() > 0 {
				n, err = c.extendRun(f.Stream, p)
				p = p[n:]
			}
		default:
			if err = c.deliver(); err == nil {
				err = c.control(f)
			}
		}
		if err != nil {
			return err
		}
	}
}

// data takes a message or a piece of one.
func (c *Conn) data(f *frame.Frame) error {
	in := &c.in
	if in.used += uint64(f.Cost); in.used > in.limit {
		if err := c.overLimit(); err != nil {
			return err
		}
	}
	p := in.port
	if p == nil || p.id.Load() != f.Stream {
		if err := c.deliver(); err != nil {
			return err
		}
		if p = c.find(f.Stream); p == nil {
			return c.dataForGone(f)
		}
		in.port = p
		if p != in.soleSender {
			in.soleSender, in.soleFrom = p, in.bytesRead
		}
	}
	if f.First && f.Last {
		in.messages++
		in.total++
		m := in.arena.Copy(f.Payload)
		pool.SetCost(m, f.Cost)
		if f.Packed {
			pool.MarkPacked(m)
		}
		in.run.Push(m)
		return nil
	}
	if err := c.deliver(); err != nil {
		return err
	}
	in.port = p
	if f.Last {
		in.total++
	}
	return goesOn(p.s.Fragment(f, in.now))
}

// extendRun takes the messages of the current stream that come next in p, as data would
// one by one. It returns how many bytes of p they were.
func (c *Conn) extendRun(id uint64, p []byte) (int, error) {
	in := &c.in
	if c.traces.of.Load() != nil { // each frame is to be seen by itself
		return 0, nil
	}
	had, cost := in.run.Len(), in.run.Cost()
	n := 0
	if in.port.has(takesBundles) {
		n = c.sess.RunBundles(p, id, &in.run)
	}
	n += c.sess.Run(p[n:], id, in.arena, &in.run)
	in.messages += in.run.Len() - had
	in.total += uint64(in.run.Len() - had)
	if in.used += uint64(in.run.Cost() - cost); in.used > in.limit {
		return n, c.overLimit()
	}
	return n, nil
}

// deliver hands the current run of messages to its stream.
func (c *Conn) deliver() error {
	in := &c.in
	if in.run.Len() == 0 {
		return nil
	}
	err := in.port.s.Deliver(&in.run, in.now)
	in.run = pool.Queue{}
	return goesOn(err)
}

// overLimit is called when the peer has used more credit than in.limit. It computes the
// limit anew, and acts if the limit is still exceeded.
func (c *Conn) overLimit() error {
	in := &c.in
	switch c.pacing {
	case frame.Granted:
		if in.limit = c.advertised.Load(); in.used > in.limit {
			return violation(status.FlowControl, "%d bytes beyond the connection's credit", in.used-in.limit)
		}
	case frame.Reported:
		if in.limit = c.returned.Load() + uint64(c.MaxUnread()); in.used > in.limit {
			c.evictUnread()
		}
	case frame.Unpaced:
		in.limit = 1 << 63
	}
	return nil
}
