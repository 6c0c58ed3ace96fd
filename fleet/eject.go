package fleet

import (
	"time"

	"github.com/sluicerpc/sluice/status"
)

// judge notes what a call says of its endpoint. One that fails many calls in a row is ejected:
// it gets none for a while. Then it is on probation, and one call decides.
func (c *Client) judge(m *member, err error) {
	code, _ := status.Of(err)
	switch {
	case c.opts.Failures < 0, code == status.Cancelled, notConnected(err): // nothing is known
	case !atFault(code):
		if m.bad.Load() != 0 || m.ejected.Load() != 0 {
			m.pardon()
		}
	case m.isEjected(): // one of those that were under way
	default:
		n, most := int(m.bad.Add(1)), c.opts.Failures
		if m.ejected.Load() != 0 || n%most == 0 {
			c.eject(m)
		}
	}
}

// atFault reports whether a code says that an endpoint does not do its work: it can't, it takes
// too long, or its program panics.
func atFault(code status.Code) bool {
	switch code {
	case status.Unavailable, status.DeadlineExceeded, status.Internal, status.ResourceExhausted,
		status.Refused, status.ConnectionLost, status.Keepalive, status.WriteStall:
		return true
	}
	return false
}

// eject ejects a member, unless as many are ejected as may be.
func (c *Client) eject(m *member) {
	t := c.table.Load()
	n := 1
	for _, other := range t.members {
		if other != m && other.isEjected() {
			n++
		}
	}
	if float64(n) > c.opts.MostEjected*float64(len(t.members)) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.isEjected() {
		m.ejected.Store(int64(c.now() + c.backoff(m.ejectedInARow)))
		m.ejectedInARow++
		m.ejections.Add(1)
	}
}

// pardon notes that a member does its work.
func (m *member) pardon() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.isEjected() { // else it was a call that began before
		m.bad.Store(0)
		m.ejected.Store(0)
		m.ejectedInARow = 0
	}
}

// isEjected reports whether a member is to have no calls now.
func (m *member) isEjected() bool {
	until := m.ejected.Load()
	return until != 0 && m.fleet.now() < time.Duration(until)
}
