package workload

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// idle opens streams that are not used and measures their memory (W6).
func (r *run) idle() error {
	if err := r.dial(); err != nil {
		return err
	}
	streams := make([]peer.Stream, r.w.Streams)
	err := r.memory(r.w.Streams, func() error { return r.park(streams) })
	if err != nil {
		return err
	}
	return r.checkIdle(streams)
}

// park opens the streams, those of one connection one after the other, and
// waits until the server serves all of them.
func (r *run) park(streams []peer.Stream) error {
	r.lanes = make([]lane, 1)
	from, err := r.edge(true)
	if err != nil {
		return err
	}
	err = r.parallel(len(r.conns), len(r.conns), func(k int) error {
		for i := k; i < len(streams); i += len(r.conns) {
			if err := r.ctx.Err(); err != nil {
				return err
			}
			var err error
			if streams[i], err = r.conns[k].Open(r.ctx, peer.Park); err != nil {
				return fmt.Errorf("opening stream %d: %w", i, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := r.served(int64(len(streams))); err != nil {
		return err
	}
	r.lanes[0].count.Store(int64(len(streams)))
	to, err := r.edge(false)
	if err != nil {
		return err
	}
	return r.between(from, to)
}

// served waits until the server serves n streams.
func (r *run) served(n int64) error {
	for {
		s, err := r.cfg.Probe(false)
		if err != nil || s.Serving >= n {
			return err
		}
		if err := r.sleep(2 * time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d streams reached the server: %w", s.Serving, n, err)
		}
	}
}

// checkIdle checks that streams and connections still work after they were idle: the
// server serves as many streams as before, each connection carries an echo, and some of
// the streams can be closed.
func (r *run) checkIdle(streams []peer.Stream) error {
	if err := r.served(int64(len(streams))); err != nil {
		return err
	}
	for i, c := range r.conns {
		if _, err := r.once(c, uint32(i)); err != nil {
			return fmt.Errorf("echo on connection %d after its rest: %w", i, err)
		}
	}
	for i := 0; i < len(streams); i += max(1, len(streams)/100) {
		if err := errors.Join(streams[i].CloseSend(), streams[i].Close()); err != nil {
			return fmt.Errorf("closing stream %d after its rest: %w", i, err)
		}
	}
	return nil
}

// churn opens streams for one echo each (W7).
func (r *run) churn() error {
	if err := r.dial(); err != nil {
		return err
	}
	r.work(r.w.Streams, func(i int, l *lane) error {
		var total peer.Summary
		for n := uint32(0); !r.stopped.Load(); n++ {
			sum, err := r.once(r.conns[i%len(r.conns)], uint32(i)<<24|n)
			if err != nil {
				return err
			}
			total.Add(sum)
			l.count.Store(int64(n) + 1)
		}
		r.deliver(total)
		return nil
	})
	return r.measure()
}

// once opens a stream for one echo, checks that and closes the stream.
func (r *run) once(c peer.Conn, id uint32) (peer.Summary, error) {
	start := time.Now()
	s, err := c.Open(r.ctx, peer.Echo)
	if err != nil {
		return peer.Summary{}, err
	}
	sum, err := r.exchange(s, id)
	err = errors.Join(err, s.Close())
	r.latency.add(time.Since(start))
	if err == nil {
		err = sum.Err()
	}
	return sum, err
}

// exchange sends one message and the end behind it without waiting for the
// echo, which is the quickest way that every library allows.
func (r *run) exchange(s peer.Stream, id uint32) (peer.Summary, error) {
	check := peer.NewChecker(id)
	b := s.Buf(max(r.w.Size, peer.HeaderSize))
	peer.Stamp(b, id, 0)
	if err := errors.Join(s.Send(b), s.CloseSend()); err != nil {
		return check.Summary(), err
	}
	p, err := s.Recv()
	if err != nil {
		return check.Summary(), unexpected(err)
	}
	check.Check(p)
	return check.Summary(), ended(s)
}

// dialers is how many connections are made at a time: fewer than the 32 that
// quic-go lets wait for a server's Accept.
const dialers = 16

// many opens connections that are used once in a period (W8).
func (r *run) many() error {
	echoers := make([]*echoer, r.w.Streams)
	r.lanes = make([]lane, r.w.Streams) // the first echoes count before the measured part
	err := r.memory(r.w.Conns, func() error {
		return r.parallel(r.w.Conns, dialers, func(i int) error {
			c, err := r.dialOne()
			if err != nil {
				return err
			}
			s, err := c.Open(r.ctx, peer.Echo)
			if err != nil {
				return err
			}
			echoers[i] = newEchoer(r, s, uint32(i), &r.lanes[i])
			return echoers[i].ping()
		})
	})
	if err != nil {
		return err
	}
	r.work(r.w.Streams, func(i int, _ *lane) error {
		e := echoers[i]
		offset := r.w.Period * time.Duration(i) / time.Duration(r.w.Streams)
		return errors.Join(e.paced(offset), e.s.Close())
	})
	return r.measure()
}

// connect makes connections that are not used, and measures their memory (W10).
func (r *run) connect() error {
	r.lanes = make([]lane, 1)
	from, err := r.edge(true)
	if err != nil {
		return err
	}
	err = r.memory(r.w.Conns, func() error {
		return r.parallel(r.w.Conns, dialers, func(int) error {
			_, err := r.dialOne()
			return err
		})
	})
	if err != nil {
		return err
	}
	r.lanes[0].count.Store(int64(r.w.Conns))
	to, err := r.edge(false)
	if err != nil {
		return err
	}
	if err := r.between(from, to); err != nil {
		return err
	}
	for i := 0; i < len(r.conns); i += max(1, len(r.conns)/100) { // they still work
		if _, err := r.once(r.conns[i], uint32(i)); err != nil {
			return fmt.Errorf("echo on connection %d after its rest: %w", i, err)
		}
	}
	return nil
}
