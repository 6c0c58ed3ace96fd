package conn

import "github.com/sluicerpc/sluice/frame"

// unopened is why a stream without a number will get none.
func (c *Conn) unopened() error {
	if err := c.Err(); err != nil {
		return err
	}
	return c.goingAway()
}

func (c *Conn) goingAway() *Error {
	return &Error{Addr: c.cfg.Remote, Op: "open", Code: frame.CodeGoingAway, Remote: true, Err: ErrGoingAway}
}

// number gives p, and those opened with it, their numbers on the wire, in the
// order of the first frames. closed is from when p was in line: then it was told.
// One that another's request opens has its turn when that is written.
func (c *Conn) number(p *Port, closed bool) bool {
	if closed {
		return false
	}
	var gone []uint64
	var ready, outdated []*Port
	c.mu.Lock()
	if p.led && p.id.Load() == 0 {
		p.waits = true
		c.mu.Unlock()
		return false
	}
	if cause := c.cause; cause != nil && p.own { // its end did not find p
		c.mu.Unlock()
		p.s.Lost(cause, true)
		return false
	}
	ok := !p.gone
	for q := p; ok && q != nil; q = q.mate {
		q.id.Store(c.nextOwn)
		c.nextOwn += 2
		if q.gone {
			gone = append(gone, q.id.Load())
			continue
		}
		c.table.add(q)
		if c.outdated(q) != 0 {
			outdated = append(outdated, q)
		}
		if q.waits {
			q.waits = false
			ready = append(ready, q)
		}
	}
	initial := c.peerSettings.Load().InitialCredit
	c.mu.Unlock()
	for _, q := range outdated {
		_ = q.addCredit(int64(initial) - int64(q.initial))
	}
	c.out.turns(ready)
	for _, id := range gone {
		_ = c.out.reply(c, &frame.Frame{Kind: frame.Reset, Stream: id, Code: frame.CodeCancelled})
	}
	return ok
}

// turns puts streams in line for data, by the flush.
func (o *output) turns(ps []*Port) {
	if len(ps) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range ps {
		o.pushData(p)
	}
}
