package conn

import "github.com/sluicerpc/sluice/frame"

// unopened is why a stream without a number will get none.
func (c *Conn) whyUnnumbered() error {
	if err := c.Err(); err != nil {
		return err
	}
	return c.errGoingAway()
}

func (c *Conn) errGoingAway() *Error {
	return &Error{Addr: c.cfg.Remote, Op: "open", Code: frame.CodeGoingAway, Remote: true, Err: ErrGoingAway}
}

// number gives p, and those opened with it, their numbers on the wire, in the
// order of the first frames. closed is from when p was in line: then it was told.
// One that another's request opens has its turn when that is written.
func (c *Conn) assignNumbers(p *Port, noOpens bool) bool {
	if noOpens {
		return false
	}
	var retired []uint64
	var ready, stale []*Port
	c.mu.Lock()
	if p.follower && p.id.Load() == 0 {
		p.dataDue = true
		c.mu.Unlock()
		return false
	}
	if cause := c.cause; cause != nil && p.local { // its end did not find p
		c.mu.Unlock()
		p.s.Lost(cause, true)
		return false
	}
	ok := !p.retired
	for q := p; ok && q != nil; q = q.sibling {
		q.id.Store(c.nextLocal)
		c.nextLocal += 2
		if q.retired {
			retired = append(retired, q.id.Load())
			continue
		}
		c.table.add(q)
		if c.creditChange(q) != 0 {
			stale = append(stale, q)
		}
		if q.dataDue {
			q.dataDue = false
			ready = append(ready, q)
		}
	}
	initial := c.peerSettings.Load().InitialCredit
	c.mu.Unlock()
	for _, q := range stale {
		_ = q.addCredit(int64(initial) - int64(q.initialCredit))
	}
	c.out.pushReady(ready)
	for _, id := range retired {
		_ = c.out.reply(c, &frame.Frame{Kind: frame.Reset, Stream: id, Code: frame.CodeCancelled})
	}
	return ok
}

// turns puts streams in line for data, by the flush.
func (o *output) pushReady(ps []*Port) {
	if len(ps) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range ps {
		o.pushData(p)
	}
}
