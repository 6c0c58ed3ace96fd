package conn

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// assignNumbers numbers p and its siblings when p's first frame is written: numbers
// follow the order on the wire. A follower gets its number with the request that opens
// it, and must wait until then. It returns false if p writes nothing now. noOpens is
// from when p was taken from its list: if it was set, takeUnnumbered found p.
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
	if cause := c.cause; cause != nil && p.local { // end did not find p
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
	initial := startCredit(c.peerSettings.Load())
	c.mu.Unlock()
	for _, q := range stale {
		_ = q.addCredit(int64(initial) - int64(q.initialCredit))
	}
	c.out.pushReady(ready)
	for _, id := range retired {
		c.requestControl(func(p *pendingControl) {
			p.answers = append(p.answers, answer{kind: frame.Reset, stream: id, code: status.Cancelled})
		})
	}
	return ok
}
