package load

import (
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// settle takes the checks of a stream that ended in order.
func (l *lane) settle() {
	if l.check != nil && l.mode == peer.Echo {
		l.r.check(checksOf(l.check.Summary(), l.sent))
	}
}

// abandon takes the checks of a stream that broke: what is missing counts with
// the fault f, if that broke it.
func (l *lane) abandon(f *fault) {
	var c report.Checks
	missing := l.sent
	switch {
	case l.r.cfg.Workload == Churn: // its check is one message's
		missing -= l.got
	case l.mode == peer.Echo:
		c = checksOf(l.check.Summary(), l.sent)
		missing, c.Lost = c.Lost, 0
	}
	switch {
	case f != nil:
		l.blame(f, missing)
	case l.mode == peer.Echo && l.check != nil && !l.r.excused():
		c.Lost = missing
	default:
		c.Unconfirmed = missing
	}
	l.r.check(c)
}

// excused reports whether streams may end with messages missing: a fault was
// injected, or the server is gone. A server that merely kept messages to
// itself is not an excuse.
func (r *run) excused() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed != nil || len(r.faults) > 0 || !r.stop.Load()
}

// recover gets the lane going again after a fault, and reports whether it did.
// Without a fault to blame the run is over, and so it is if streams keep
// breaking: then the server has gone.
func (l *lane) recover(err error) bool {
	r := l.r
	f := l.culprit()
	l.abandon(f)
	if f == nil {
		r.errors.Add(1)
		if !r.stop.Load() {
			r.fail(err)
		}
		return false
	}
	l.leave()
	if l.reopened && l.young() { // the library does not notice by itself
		l.link.drop(l.conn)
		r.sleep(r.ctx, pause)
	}
	for !r.stop.Load() {
		if r.now()-int64(goneAfter) > max(r.faultsEnd(), l.brokeAt) {
			r.errors.Add(1)
			r.fail(err)
			return false
		}
		if err = l.link.reopen(l); err == nil {
			return true
		}
		r.sleep(r.ctx, pause)
	}
	return false
}

// pause is between two tries to get a stream going again.
const pause = 10 * time.Millisecond

// goneAfter is how long a lane tries in vain, once all faults are over.
const goneAfter = 3 * time.Second

// proven is how long a stream that only sends must live to show that it works:
// a library takes messages for a connection that is dead already.
const proven = 100 * time.Millisecond

// leave closes the stream that broke.
func (l *lane) leave() {
	if s := l.current.Swap(nil); s != nil {
		_ = (*s).Close() // it is broken
	}
	if l.cancel != nil {
		l.cancel()
	}
}

// young reports whether the lane's stream has not shown yet that it works.
func (l *lane) young() bool {
	if l.mode == peer.Discard {
		return l.r.now()-l.opened < int64(proven)
	}
	return l.got == 0
}
