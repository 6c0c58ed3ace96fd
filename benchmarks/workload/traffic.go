package workload

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// publishEvery returns how many messages a worker may do between two updates
// of its lane: an update costs as much as the check of a small message.
func publishEvery(size int) int64 {
	return int64(max(1, 4096/max(size, 1)))
}

// fan runs streams of echoes, each with a number of messages in flight (W1, W2).
func (r *run) fan() error {
	if err := r.dial(); err != nil {
		return err
	}
	r.work(r.w.Streams, func(i int, l *lane) error {
		s, err := r.conns[i%len(r.conns)].Open(r.ctx, peer.Echo)
		if err != nil {
			return err
		}
		e := newEchoer(r, s, uint32(i), l)
		return errors.Join(e.run(), s.Close())
	})
	return r.measure()
}

// An echoer keeps messages in flight on one stream and checks what comes back. It times
// one of them at a time: each in a ping-pong, one of Outstanding otherwise.
type echoer struct {
	r           *run
	s           peer.Stream
	id          uint32
	l           *lane
	check       *peer.Checker
	sent, got   int64
	timed       int64 // number of the message that is timed
	start       time.Time
	every       int64 // see publishEvery
	outstanding int64
}

func newEchoer(r *run, s peer.Stream, id uint32, l *lane) *echoer {
	e := &echoer{r: r, s: s, id: id, l: l, check: peer.NewChecker(id), outstanding: int64(r.w.Outstanding)}
	e.every = max(1, min(publishEvery(r.w.Size), e.outstanding))
	return e
}

func (e *echoer) run() error {
	for e.sent < e.outstanding {
		if err := e.send(); err != nil {
			return err
		}
	}
	for e.got < e.sent {
		if err := e.receive(); err != nil {
			return err
		}
		if e.r.stopped.Load() {
			continue // receive what is in flight
		}
		if err := e.send(); err != nil {
			return err
		}
	}
	e.r.deliver(e.check.Summary())
	return endStream(e.s)
}

func (e *echoer) send() error {
	b := e.s.Buf(e.r.w.Size)
	peer.Stamp(b, e.id, uint64(e.sent))
	if e.sent == e.timed {
		e.start = time.Now()
	}
	e.sent++
	return e.s.Send(b)
}

func (e *echoer) receive() error {
	p, err := e.s.Recv()
	if err != nil {
		return unexpected(err)
	}
	e.check.Check(p)
	if e.got == e.timed {
		e.r.latency.add(time.Since(e.start))
		e.timed = e.sent
	}
	e.got++
	if e.got%e.every == 0 {
		e.l.count.Store(e.got)
	}
	return nil
}

// ping sends one message and receives its echo.
func (e *echoer) ping() error {
	e.timed = e.sent
	if err := e.send(); err != nil {
		return err
	}
	return e.receive()
}

// unexpected keeps an early end from looking like a clean one.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// endStream ends our half and expects the end of the other.
func endStream(s peer.Stream) error {
	if err := s.CloseSend(); err != nil {
		return fmt.Errorf("ending the stream: %w", err)
	}
	return ended(s)
}

// ended expects the end of the other half.
func ended(s peer.Stream) error {
	p, err := s.Recv()
	if err == nil {
		return fmt.Errorf("message of %d bytes after the last", len(p))
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("waiting for the stream's end: %w", err)
	}
	return nil
}

// firehose sends as fast as the peer takes (W3, W4).
func (r *run) firehose() error {
	if err := r.dial(); err != nil {
		return err
	}
	r.work(r.w.Streams, func(i int, l *lane) error {
		every := publishEvery(r.w.Size)
		return r.flood(i, r.w.Size, func(sent int64) {
			if sent%every == 0 {
				l.count.Store(sent)
			}
		})
	})
	return r.measure()
}

// flood sends messages of size until the run stops. It calls count with how many it sent,
// and compares that with what the server received.
func (r *run) flood(i, size int, count func(sent int64)) error {
	s, err := r.conns[i%len(r.conns)].Open(r.ctx, peer.Discard)
	if err != nil {
		return err
	}
	defer s.Close()
	sent := int64(0)
	for !r.stopped.Load() {
		b := s.Buf(size)
		peer.Stamp(b, uint32(i), uint64(sent))
		if err := s.Send(b); err != nil {
			return err
		}
		sent++
		count(sent)
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	return r.summary(s, sent, func() {})
}

// summary receives the server's counts, and calls counted when they are here. Only they show
// messages missing at the end.
func (r *run) summary(s peer.Stream, sent int64, counted func()) error {
	p, err := s.Recv()
	if err != nil {
		return fmt.Errorf("waiting for the server's count: %w", unexpected(err))
	}
	counted()
	sum, err := peer.ParseSummary(p)
	if err != nil {
		return err
	}
	got := int64(sum.Messages + sum.Lost - sum.Duplicated)
	if got < sent {
		sum.Lost += uint64(sent - got)
	}
	r.deliver(sum)
	return ended(s)
}

// headOfLine runs a paced ping-pong beside a flood of large messages on the
// same connection (W5). Round trips are timed from the moment of sending; a
// ping that is due while one is on its way is left out.
func (r *run) headOfLine() error {
	if err := r.dial(); err != nil {
		return err
	}
	r.work(2, func(i int, l *lane) error {
		if i == 1 {
			return r.flood(i, r.w.Bulk, func(sent int64) { l.bytes.Store(sent * int64(r.w.Bulk)) })
		}
		s, err := r.conns[0].Open(r.ctx, peer.Echo)
		if err != nil {
			return err
		}
		e := newEchoer(r, s, uint32(i), l)
		return errors.Join(e.paced(0), s.Close())
	})
	return r.measure()
}

// paced pings once in a period, offset into it, until the run stops.
func (e *echoer) paced(offset time.Duration) error {
	due := time.Now().Add(offset)
	t := time.NewTimer(offset)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-e.r.stop:
			e.r.deliver(e.check.Summary())
			return endStream(e.s)
		}
		if err := e.ping(); err != nil {
			return err
		}
		now := time.Now()
		for !due.After(now) {
			due = due.Add(e.r.w.Period)
		}
		t.Reset(due.Sub(now))
	}
}
