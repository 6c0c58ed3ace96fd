package load

import (
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// takeChecks adds the checks of a stream that ended cleanly.
func (l *lane) takeChecks() {
	if l.check != nil && l.mode == peer.Echo {
		l.r.check(checksOf(l.check.Summary(), l.sent-l.failed))
	}
}

// takeBrokenChecks adds the checks of a stream that broke. Missing messages are charged to
// the fault f, if that broke it.
func (l *lane) takeBrokenChecks(f *fault) {
	var c report.Checks
	missing := l.sent - l.failed
	switch {
	case l.r.cfg.Workload == Churn: // its check is one message's
		missing -= l.got
	case l.mode == peer.Echo:
		c = checksOf(l.check.Summary(), missing)
		missing, c.Lost = c.Lost, 0
	}
	switch {
	case f != nil:
		l.charge(f, missing)
	case l.mode == peer.Echo && l.check != nil && !l.r.lossExpected():
		c.Lost = missing
	default:
		c.Unconfirmed = missing
	}
	l.r.check(c)
}

// lossExpected reports whether streams may end with messages missing: a fault was
// injected, or the server was lost. A server that merely does not answer is no reason.
func (r *run) lossExpected() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed != nil || len(r.faults) > 0 || !r.stop.Load()
}

// recover opens the lane's stream again after a fault, and reports whether it did. The run
// ends if no fault explains the break, or if streams keep breaking: then the server is
// lost.
func (l *lane) recover(err error) bool {
	r := l.r
	f := l.causingFault()
	l.takeBrokenChecks(f)
	if f == nil {
		r.errors.Add(1)
		if !r.stop.Load() {
			r.fail(err)
		}
		return false
	}
	l.closeBroken()
	if l.reopened && l.unproven() { // the library has not noticed that the connection failed
		l.link.drop(l.conn)
		r.sleep(r.ctx, retryPause)
	}
	for !r.stop.Load() {
		if r.now()-int64(retryLimit) > max(r.faultsEnd(), l.brokeAt) {
			r.errors.Add(1)
			r.fail(err)
			return false
		}
		if err = l.link.reopen(l); err == nil {
			return true
		}
		r.sleep(r.ctx, retryPause)
	}
	return false
}

// retryPause is the pause between two attempts to open a stream again.
const retryPause = 10 * time.Millisecond

// retryLimit is how long a lane tries to open a stream again, once all faults are over.
const retryLimit = 3 * time.Second

// provenAfter is how long a stream that only sends must last to show that it works: a
// library also takes messages for a connection that has failed already.
const provenAfter = 100 * time.Millisecond

// closeBroken closes the stream that broke.
func (l *lane) closeBroken() {
	if s := l.current.Swap(nil); s != nil {
		_ = (*s).Close() // it is broken
	}
	if l.cancel != nil {
		l.cancel()
	}
}

// unproven reports whether the lane's stream has not shown yet that it works.
func (l *lane) unproven() bool {
	if l.mode == peer.Discard {
		return l.r.now()-l.opened < int64(provenAfter)
	}
	return l.got == 0
}
