package load

import (
	"errors"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// oneWayClosed sends one way as fast as it can. It checks the stop flag and updates the
// counters once a burst: for a message of 64 bytes they would cost more than the message.
func (l *lane) oneWayClosed() error {
	burst := min(max(64<<10/int(l.size.Mean()), 1), 64)
	for !l.r.stop.Load() {
		for range burst {
			if err := l.sendOneWay(); err != nil {
				return err
			}
		}
		l.publish()
		l.noteRecovery()
	}
	return l.finishOneWay()
}

// sendOneWay sends the next message one way.
func (l *lane) sendOneWay() error {
	measure := !l.bulk && l.sampled(l.sent)
	p := l.next()
	l.bytes += uint64(len(p))
	if !measure {
		return l.s.Send(p)
	}
	start := l.r.now()
	err := l.s.Send(p)
	l.r.service(l, l.r.now()-start)
	return err
}

// oneWayOpen sends one way what is due.
func (l *lane) oneWayOpen() error {
	for batch := l.q.take(); len(batch) > 0; batch = l.q.take() {
		for i, it := range batch {
			if l.r.stop.Load() {
				l.r.drop(l, batch[i:])
				break
			}
			if err := l.sendOneWayDue(it); err != nil {
				l.r.drop(l, batch[i+1:])
				return err
			}
		}
		if err := l.flush(); err != nil {
			return err
		}
		l.publish()
		l.noteRecovery()
	}
	return l.finishOneWay()
}

func (l *lane) sendOneWayDue(it item) error {
	start, measure := l.r.now(), l.sampled(l.sent)
	p := l.next()
	l.bytes += uint64(len(p))
	if err := l.sendDue(p, it, start); err != nil || !measure {
		return err
	}
	end := l.r.now()
	l.r.service(l, end-start)
	l.r.response(l, end-it.due())
	return nil
}

// finishOneWay ends our half and takes the server's summary of what came.
func (l *lane) finishOneWay() error {
	if err := errors.Join(l.s.Flush(), l.s.CloseSend()); err != nil {
		return err
	}
	p, err := l.s.Recv()
	if err != nil {
		return err
	}
	sum, err := peer.ParseSummary(p)
	if err != nil {
		return err
	}
	l.r.check(checksOf(sum, l.sent))
	l.check = nil // the server's summary is counted
	l.recovered(l.opened)
	return nil
}
