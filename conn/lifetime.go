package conn

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/sluicerpc/sluice/status"
)

// Why a server ends a connection that works, beside its own end.
var (
	errIdle = errors.New("no streams for too long")
	errAged = errors.New("the connection has reached its largest age")
	errOld  = errors.New("the connection has reached its largest age, and the grace behind that is over")
)

// A lifetime is how old a server lets a connection become. Times are since its start. The
// timer owns what changes.
type lifetime struct {
	due    int64 // when the connection is drained for its age
	agedAt int64 // when it was; 0: it was not
}

// ageJitter is the part of MaxConnAge by which ages vary: connections that were made at once,
// after a restart, are not made again at once.
const ageJitter = 0.1

func (l *lifetime) init(cfg *Config) {
	most := cfg.Limits.MaxConnAge
	if cfg.Client || cfg.Dependent {
		most = forever
	}
	l.due = int64(most)
	if most < forever {
		l.due += int64((2*rand.Float64() - 1) * ageJitter * float64(most))
	}
}

// defaultIdleConn is for how long a connection may have no streams where neither the
// program nor the protocol says.
const defaultIdleConn = 10 * time.Minute

// idleConn is after how long without streams a server ends the connection.
func (c *Conn) idleConn() time.Duration {
	switch {
	case c.lim.IdleConn > 0:
		return c.lim.IdleConn
	case c.caps.IdleConn > 0:
		return c.caps.IdleConn
	}
	return defaultIdleConn
}

// checkLife drains a server's connection that has had no streams for long at time t, or is as
// old as it may become. It reports whether the connection is to end now: its grace is over.
func (c *Conn) checkLife(t int64) (over bool) {
	l := &c.life
	switch {
	case l.agedAt != 0 && t-l.agedAt >= int64(c.lim.ConnAgeGrace):
		return true
	case l.agedAt == 0 && t >= l.due:
		l.agedAt = max(t, 1)
		c.cfg.Handler.Outlived(c, errAged)
	case t >= c.idleDue():
		c.cfg.Handler.Outlived(c, errIdle)
	}
	if d := c.health.drainPing.Load(); d != nil && t-d.at >= int64(c.lim.KeepaliveTimeout) && c.health.drainPing.CompareAndSwap(d, nil) {
		d.f()
	}
	return false
}

// lifeDue is when checkLife has something to do, if nothing happens until then.
func (c *Conn) lifeDue() int64 {
	l := &c.life
	due := min(l.due, c.idleDue())
	if l.agedAt != 0 {
		due = min(l.agedAt+int64(c.lim.ConnAgeGrace), c.idleDue())
	}
	if d := c.health.drainPing.Load(); d != nil {
		due = min(due, d.at+int64(c.lim.KeepaliveTimeout))
	}
	return due
}

// idleDue is when a connection is drained if it has no streams until then.
func (c *Conn) idleDue() int64 {
	c.mu.Lock()
	used := c.goAway.sent || !c.noStreams()
	c.mu.Unlock()
	if used {
		return int64(forever)
	}
	return c.health.idleSince.Load() + int64(c.idleConn())
}

// EndUnused ends the connection as one that was not used for long, if it has no streams. It
// reports whether it has.
func (c *Conn) EndUnused() bool {
	if !c.hasNoStreams() || c.Err() != nil || c.clock()-c.health.idleSince.Load() < int64(leastUnused) {
		return false
	}
	c.Fail("close", status.OK, errIdle)
	return true
}

// leastUnused is for how long a connection is without streams at least that ends for that.
const leastUnused = time.Second
