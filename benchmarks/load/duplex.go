package load

import (
	"errors"
	"io"
	"sync"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// duplex sends from a goroutine of its own, so that neither direction waits for the
// other.
func (l *lane) duplex() error {
	limit := l.r.cfg.Outstanding
	if l.q != nil {
		limit = l.r.cfg.InFlight
	}
	l.tokens = make(chan struct{}, limit)
	for range limit {
		l.tokens <- struct{}{}
	}
	failed := make(chan struct{}) // receiver -> sender: the stream failed
	var sendErr error
	var sender sync.WaitGroup
	sender.Go(func() {
		if sendErr = l.sendAll(failed); sendErr != nil {
			peer.Break(l.s) // so that the receiver learns of it
		}
	})
	err := l.receiveAll()
	if err != nil {
		close(failed)
		peer.Break(l.s) // so that a sender inside Send learns of it
	}
	sender.Wait()
	return errors.Join(sendErr, err)
}

func (l *lane) receiveAll() error {
	for {
		err := l.pong()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		l.pubGot.Store(l.gotBefore + l.got)
		l.pubBytes.Store(l.bytes)
		select {
		case l.tokens <- struct{}{}:
		default: // a duplicated message: all tokens are there
		}
	}
}

// sendAll sends what the model asks for until the run stops, then ends our
// half.
func (l *lane) sendAll(failed <-chan struct{}) (err error) {
	if l.q == nil {
		err = l.sendClosed(failed)
	} else {
		err = l.sendOpen(failed)
	}
	if err != nil {
		return err
	}
	return errors.Join(l.s.Flush(), l.s.CloseSend())
}

func (l *lane) sendClosed(failed <-chan struct{}) error {
	for !l.r.stop.Load() {
		if ok, err := l.token(failed); !ok || err != nil {
			return err
		}
		if err := l.ping(0); err != nil {
			return err
		}
		l.pubSent.Store(l.sentBefore + l.sent)
	}
	return nil
}

func (l *lane) sendOpen(failed <-chan struct{}) error {
	for batch := l.q.take(); len(batch) > 0; batch = l.q.take() {
		for i, it := range batch {
			if l.r.stop.Load() {
				l.r.drop(l, batch[i:])
				break
			}
			if err := l.pingDue(it, failed); err != nil {
				l.r.drop(l, batch[i+1:])
				return err
			}
		}
		if err := l.flush(); err != nil {
			return err
		}
		l.pubSent.Store(l.sentBefore + l.sent)
	}
	return nil
}

func (l *lane) pingDue(it item, failed <-chan struct{}) error {
	select {
	case <-l.tokens:
	default:
		l.state.Store(-int64(inFlight))
		ok, err := l.token(failed)
		l.state.Store(0)
		if !ok || err != nil {
			l.r.drop(l, []item{it})
			return err
		}
		it = it.withReason(inFlight)
	}
	l.stampTimes(it.due())
	return l.sendDue(l.next(), it, l.r.now())
}

// token waits for the right to send one more; ok is false if the run stops
// first.
func (l *lane) token(failed <-chan struct{}) (ok bool, err error) {
	select {
	case <-l.tokens:
		return true, nil
	default:
	}
	if err := l.s.Flush(); err != nil {
		return false, err
	}
	select {
	case <-l.tokens:
		return true, nil
	case <-l.r.stopped:
		return false, nil
	case <-failed:
		return false, errReceiveFailed
	}
}

var errReceiveFailed = errors.New("the receiving side of the stream failed")
